"""Evaluates blocks in this process or in several, and shows how far they are.

What comes out is the same. Each worker process holds the policy and an environment and is sent one
block after another. A worker that dies costs its block only: the block is tried once more in a
fresh process, and the others go on.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil
import torch
from tqdm import tqdm

from relic.cores import cores
from relic.evaluation.controls import ContextControl
from relic.evaluation.evaluator import make_env, run_block
from relic.evaluation.maps import Tracker
from relic.evaluation.protocol import Protocol
from relic.evaluation.records import Job, Record, RecordStore, identity
from relic.evaluation.trained_agent import Expert, TrainedAgent
from relic.policy.loading import load
from relic.policy.origin import check_fit
from relic.policy.policy import Policy
from relic.stops import Stop, stop_of, without_interrupts

ATTEMPTS = 2
"""Times that a block is tried before it is given up."""
_LINE_EVERY_S = 30.0
"""Between lines of progress where there is no terminal."""

OnEpisode = Callable[[Record], None]


class WorkerError(RuntimeError):
    """Blocks could not be evaluated; what was evaluated is on disk."""

    foreseen = True


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a worker needs to know."""

    agent: TrainedAgent | Expert
    protocol: Protocol
    directory: Path
    threads: int = 1
    """Threads of each worker: last bits depend on them, so they are part of the identity."""
    device: str = "cpu"
    tracked: tuple[int, ...] = ()
    """Trials whose tracks are kept."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the records."""
        return identity(self.agent.digest, self.protocol, self.threads, device=self.device)


def suitable_workers(assignment: Assignment, jobs: Sequence[Job]) -> int:
    """Return how many processes an evaluation gets where nobody says it.

    One a core where each has two blocks to do, as it takes seconds to start, and where what all of
    them remember fits into memory.
    """
    device = torch.device(assignment.device)
    most = min(cores() // assignment.threads, len(jobs) // 2)
    if device.type != "cpu" or most < 2:
        return 1
    protocol = assignment.protocol
    if isinstance(assignment.agent, TrainedAgent):
        policy = load(assignment.agent.checkpoint)
        steps = protocol.capacity(policy.max_episode_steps)
        each = protocol.block * policy.memory.bytes_per_row(steps)
        most = min(most, psutil.virtual_memory().available // each)
    return max(most, 1)


def run_jobs(
    assignment: Assignment,
    jobs: Sequence[Job],
    *,
    workers: int | None = 1,
    on_episode: OnEpisode = lambda _: None,
) -> None:
    """Evaluate blocks into the assignment's directory.

    Args:
        assignment: What is evaluated.
        jobs: Blocks that are not done yet.
        workers: Processes; with one, the work is done in this process. None: as many as suit.
        on_episode: Called with its record as each episode ends.

    Raises:
        WorkerError: If a worker failed.
    """
    # Their number changes nothing that comes out: blocks are fixed, noise is keyed by trial, and
    # each process computes with as many threads.
    workers = min(workers or suitable_workers(assignment, jobs), len(jobs))
    if workers <= 1:
        # As many as a worker process has: the last bits depend on them.
        with torch_threads(assignment.threads):
            for record in _work(assignment, iter(jobs)):
                on_episode(record)
        return
    pool = _Pool(assignment, jobs, on_episode)
    try:
        pool.run(workers)
    finally:
        pool.close()


def _work(assignment: Assignment, jobs: Iterator[Job]) -> Iterator[Record]:
    """Evaluate jobs one after another, with one policy and one environment."""
    protocol = assignment.protocol
    actor = assignment.agent.actor(protocol, assignment.device)
    store = RecordStore(assignment.directory, assignment.identity)
    blocks = list(protocol.blocks())
    env = make_env(protocol)
    try:
        if isinstance(actor, Policy):
            check_fit(actor, env)
        for job in jobs:
            block = blocks[job.block]
            is_kept = job.control is ContextControl.KEPT
            tracker = Tracker(block, assignment.tracked if is_kept else ())
            records = run_block(
                actor,
                env,
                protocol,
                block,
                control=job.control,
                on_act=tracker if tracker.trials else None,
            )
            yield from store.write(job, records)
            tracker.write(assignment.directory)
    finally:
        env.close()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use this many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _serve(assignment: Assignment, connection: Connection) -> None:
    """Do the jobs that come, in a process of its own; None says that there are no more.

    Messages back: "next" asks for a job, a record tells of an episode, a `Stop` or any other text
    of a failure.
    """

    def asked_for() -> Iterator[Job]:
        while True:
            connection.send("next")
            job = connection.recv()
            if job is None:
                return
            yield job

    torch.set_num_threads(assignment.threads)
    try:
        for record in _work(assignment, asked_for()):
            connection.send(record)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the process that asked is gone, or both were interrupted
    except Exception as error:
        connection.send(stop_of(error) or traceback.format_exc())


class _Pool:
    """Worker processes and the jobs that they share."""

    def __init__(self, assignment: Assignment, jobs: Sequence[Job], on_episode: OnEpisode) -> None:
        self._assignment, self._on_episode = assignment, on_episode
        # Taken from the end, so the first comes first, and a block that is tried again comes at
        # once.
        self._waiting = list(reversed(jobs))
        self._attempts = dict.fromkeys(jobs, 0)
        self._given_up: list[Job] = []
        self._processes: dict[Connection, Any] = {}
        self._doing: dict[Connection, Job | None] = {}

    def run(self, workers: int) -> None:
        for _ in range(workers):
            self._start()
        while self._processes:
            for connection in wait(list(self._processes)):
                assert isinstance(connection, Connection)
                self._hear(connection)
        if self._given_up:
            names = ", ".join(f"{j.control.value} {j.block}" for j in self._given_up)
            raise WorkerError(
                f"workers: each block must be evaluated, but the process died {ATTEMPTS} times on: "
                f"{names}. The others are on disk; run the same command to try these again."
            )

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()
        self._processes.clear()

    def _start(self) -> None:
        # Spawned, as a fork would copy the threads' locks of torch and numba in unknown states.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._assignment, theirs), daemon=True)
        with without_interrupts():
            process.start()
        # While this process held the worker's end, too, no death of a worker would end the stream.
        theirs.close()
        self._processes[ours], self._doing[ours] = process, None

    def _hear(self, connection: Connection) -> None:
        try:
            message = connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury(connection)
            return
        if isinstance(message, dict):
            self._on_episode(message)
        elif message == "next":
            self._hand_out(connection)
        elif isinstance(message, Stop):
            raise WorkerError(message.text)
        else:
            raise WorkerError(f"workers: a worker must do its block, but it failed.\n{message}")

    def _hand_out(self, connection: Connection) -> None:
        job = self._waiting.pop() if self._waiting else None
        self._doing[connection] = job
        if job is not None:
            self._attempts[job] += 1
        try:
            connection.send(job)
        except (BrokenPipeError, ConnectionResetError):
            return  # it died; the next thing heard of it says so

    def _bury(self, connection: Connection) -> None:
        """Take leave of a worker that ended, and have its block done by another."""
        process, job = self._processes.pop(connection), self._doing.pop(connection)
        process.join()
        connection.close()
        if job is not None and self._attempts[job] < ATTEMPTS:
            self._waiting.append(job)
        elif job is not None:
            self._given_up.append(job)
        elif process.exitcode != 0:
            raise WorkerError(
                "workers: a worker must start, but its process ended with status "
                f"{process.exitcode} before its first block. Try workers=1."
            )
        # Not where those that live will take what is left.
        if self._waiting and len(self._processes) < len(self._waiting) + self._busy:
            self._start()

    @property
    def _busy(self) -> int:
        return sum(job is not None for job in self._doing.values())


@contextmanager
def progress(
    protocol: Protocol, left: Sequence[Job], num_jobs: int, *, enabled: bool
) -> Iterator[OnEpisode]:
    """Show a bar with the time left on a terminal, and a line now and then elsewhere.

    Episodes are counted, or steps where the protocol limits those.

    Args:
        protocol: That is evaluated.
        left: Blocks to do.
        num_jobs: Blocks altogether.
        enabled: Off: show nothing.
    """
    terminal = sys.stderr.isatty()
    blocks = list(protocol.blocks())
    each, unit = protocol.episodes or protocol.steps or 0, "steps" if protocol.steps else "episodes"
    total = sum(blocks[job.block].num_real * each for job in left)
    if enabled and len(left) < num_jobs:
        print(f"{num_jobs - len(left)} of {num_jobs} blocks are done already", file=sys.stderr)
    bar = tqdm(total=total, unit=f" {unit}", disable=not (enabled and terminal))
    began = last = time.monotonic()
    done = 0

    def on_episode(record: Record) -> None:
        nonlocal last, done
        amount = record["length"] if protocol.steps else 1
        done += amount
        bar.update(amount)
        now = time.monotonic()
        if enabled and not terminal and now - last >= _LINE_EVERY_S:
            last = now
            seconds = (now - began) / done * (total - done)
            print(f"{done:,} of {total:,} {unit}, {_clock(seconds)} left", file=sys.stderr)

    with bar:
        yield on_episode


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
