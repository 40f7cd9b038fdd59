"""One training run: rollouts until the steps are done, with metrics, validation and checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import torch

from relic.evaluation.trained_agent import protocol_of
from relic.files import DamagedError, StateError
from relic.policy.encoders.told import input_lines, narrow_inputs
from relic.policy.origin import remember_programs
from relic.ppo.loop import UpdateReport, run_rollout
from relic.run.checkpoint import RunSaver
from relic.run.components import (
    Components,
    build_components,
    changes_at_start,
    with_saved_inputs,
)
from relic.run.config import RunConfig
from relic.run.distributed import Ranks
from relic.run.encoder import lacks_encoder, with_encoder
from relic.run.heap import keep_freed_memory
from relic.run.live import LivePage
from relic.run.metrics import (
    MetricsLog,
    Mirror,
    TensorBoardMirror,
    WandbMirror,
    cut_metrics,
    new_wandb_id,
    read_metrics,
    summarise_episodes,
)
from relic.run.progress import Progress, StopRequest, plan_line, tell, verdict
from relic.run.run_directory import CheckpointStore, RunDirectory, Saved
from relic.run.validation import Validator, check_parts, check_validation, validation_env
from relic.schema import to_plain
from relic.stops import refusals


class Outcome(Enum):
    """How `Trainer.run` ended."""

    FINISHED = "finished"
    ALREADY_FINISHED = "already finished"
    STOPPED = "stopped"


@dataclass(slots=True)
class Counters:
    """What the trainer itself must remember; saved with each checkpoint."""

    wall_s: float = 0.0
    """Seconds spent in the run, over all its starts."""
    rollouts: int = 0
    episodes: int = 0
    crashes: int = 0
    wandb_id: str = ""


class Trainer:
    """Runs a configuration in its run directory; continues what lies there."""

    def __init__(
        self,
        config: RunConfig,
        ranks: Ranks,
        build: Callable[[RunConfig, Ranks], Components] = build_components,
    ):
        """Open the run directory and build everything.

        Args:
            config: The run.
            ranks: This process among those of the run.
            build: Builds the parts; by default all of them in this process.

        Raises:
            ConfigError: If the configuration is refused, or differs from that of the directory.
        """
        self.config = config
        self.ranks = ranks
        self.directory = RunDirectory(config.directory)
        with self.directory.opened(config) if ranks.is_first else nullcontext():
            ranks.barrier()
            if ranks.is_first:
                remember_programs(config.env.options)
                with refusals():
                    protocol_of(config.env.id)  # not after hours of training
            prepare_process(config)
            if ranks.is_first and lacks_encoder(config, self.directory):
                check_parts(config)
            config = with_encoder(config, self.directory, ranks)
            self.store = CheckpointStore(
                self.directory.checkpoints,
                keep=config.checkpoint.keep,
                milestone_steps=config.checkpoint.milestone_steps,
                metric=config.checkpoint.best_metric,
            )
            # Before the parts, whose kernels may take a minute to compile.
            env = validation_env(config) if ranks.is_first else None
            with nullcontext() if env is None else closing(env):
                self.parts = build(with_saved_inputs(config, self.store.latest()), ranks)
                if env is not None:
                    check_validation(config, self.parts.policy, env)
        self.saver = RunSaver(self.store, self.parts, ranks)
        self.counters = Counters(wandb_id=new_wandb_id())
        self._log: MetricsLog | None = None
        self._validator: Validator | None = None
        self._times: dict[str, float] = defaultdict(float)
        self._stopped = False
        self._saved_at = -1
        self._saved_s = time.monotonic()

    @property
    def env_steps(self) -> int:
        """Environment steps done, over all rows and ranks."""
        return self.parts.collector.env_steps

    def run(self) -> Outcome:
        """Train until the steps are done or a signal asks to stop, and show the progress.

        Raises:
            NonFiniteLossError: If the loss breaks; the last good checkpoint is intact.
        """
        self.resume()
        live = self._live_page()
        if self.is_finished:
            if live is not None:
                live.close()  # an earlier start may have been killed before its last page
            return Outcome.ALREADY_FINISHED
        progress = Progress(
            total=self.config.planned_steps,
            done=self.env_steps,
            enabled=self.config.logging.progress and self.ranks.is_first,
        )
        try:
            encoder = self.parts.policy.encoder
            begun = changes_at_start(self.config) if self.env_steps == 0 else []
            for line in (*begun, *input_lines(encoder), *self.parts.plan.lines()):
                progress.say(line)
            progress.say(plan_line(self.config, self.env_steps))
            with StopRequest(supervised=self.ranks.supervised) as stop:
                for metrics in self.updates(lambda: stop.requested):
                    progress.update(metrics)
                    if live is not None:
                        live.add(metrics)
            progress.say(self.closing_line())
        finally:
            progress.close()
            if live is not None:
                live.close()
        return Outcome.FINISHED if self.is_finished else Outcome.STOPPED

    @property
    def is_finished(self) -> bool:
        """Whether the steps are done, rounded up to whole rollouts."""
        rollout = self.parts.rollout
        under_way = 0 < rollout.size < rollout.num_steps
        return self.env_steps >= self.config.total_steps and not under_way

    def resume(self) -> None:
        """Take up the newest checkpoint of the run directory, if there is one.

        Raises:
            StateError: If it is damaged; it says what to do.
        """
        if saved := self.store.latest():
            self.counters = Counters(**self._restore(saved))
            self._saved_at = self.env_steps
        self.ranks.barrier()  # all have read what may now go
        if self.ranks.is_first:
            self.store.tidy(self.env_steps)
            self.saver.drop_unused_chunks()
            cut_metrics(self.directory.metrics, self.env_steps)

    def _restore(self, saved: Saved) -> dict[str, Any]:
        try:
            return self.saver.restore(saved)
        except DamagedError as error:
            older = [other for other in self.store.all() if other.env_steps < saved.env_steps]
            then = f"go on from {older[-1].path.name}" if older else "begin anew"
            raise StateError(
                f"{error} Restore it from a copy, or remove {saved.path} to {then}; what follows "
                "is done again, and comes out the same."
            ) from None

    def save(self, score: float | None = None) -> Saved:
        """Save a checkpoint at this update boundary, if there is none; all ranks together.

        Args:
            score: What picks the best, if it was measured just now.
        """
        if self.env_steps == self._saved_at:
            return Saved(self.store.published(self.env_steps), self.env_steps)
        if self._log is not None:
            self._log.secure()
        saved = self.saver.save(to_plain(self.counters), score=score)
        self._saved_at, self._saved_s = self.env_steps, time.monotonic()
        return saved

    def closing_line(self) -> str:
        """Say how training ended, and where the time went."""
        if self.is_finished:
            return f"time: {verdict(self._times, self.config)}"
        return f"stopped at {self.env_steps:,} steps; start again to go on"

    def updates(self, stopping: Callable[[], bool]) -> Generator[dict[str, Any]]:
        """Train, until the steps are done or somebody asks to stop.

        Args:
            stopping: Is asked after each update; where any rank says yes, all save and leave.

        Yields:
            The metrics of each update, once they are written and a checkpoint that is due is saved.
        """
        self._log = self._open_log()
        try:
            while not self.is_finished:
                for metrics in self._rollout(stopping):
                    yield metrics
                    if self._stopped:
                        return
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None

    def close(self) -> None:
        """Release environments and threads."""
        if self._validator is not None:
            self._validator.close()
        self.parts.close()
        self.directory.release()

    def _rollout(self, stopping: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Train for one rollout, or until it is asked to stop."""
        began = time.perf_counter()
        learner = self.parts.learner
        for report in run_rollout(self.parts.collector, learner, learner.schedule):
            metrics = self._measure(report, time.perf_counter() - began)
            if report.planned.last:
                self.counters.rollouts += 1
                self._warn_of_inputs()
                metrics |= self._validate()
            # A signal may reach one rank alone, or ranks in different updates. All must leave after
            # the same one, or some would wait for ever.
            self._stopped = self.ranks.any(stopping())
            # The line comes first: a checkpoint never knows of steps that have none.
            if self._log is not None:
                self._log.write(metrics)
            self._checkpoint(metrics, self._stopped)
            yield metrics
            began = time.perf_counter()

    def _measure(self, report: UpdateReport, elapsed_s: float) -> dict[str, Any]:
        """Turn a report into one line of metrics."""
        self.counters.wall_s += elapsed_s
        times = {**report.times, "other": elapsed_s - sum(report.times.values())}
        for name, seconds in times.items():
            self._times[name] += seconds
        planned = report.planned
        steps = planned.at_step - planned.chunk_from
        ended, scores = summarise_episodes(report.episodes, self.ranks)
        if ended:
            self.counters.episodes += ended
            scores["episodes"] = self.counters.episodes
        self.counters.crashes += self.ranks.total(report.crashes)
        if self.counters.crashes:
            scores["crashes"] = self.counters.crashes
        metrics: dict[str, Any] = {
            "env_steps": report.env_steps,
            "update": planned.kind.value,
            "wall_s": self.counters.wall_s,
            "sps": steps * self.config.rollout.num_envs / max(elapsed_s, 1e-9),
            **report.metrics,
            **scores,
            **{f"time/{name}": seconds for name, seconds in times.items()},
        }
        if self.parts.policy.device.type == "cuda":
            metrics["time/peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return metrics

    def _validate(self) -> dict[str, Any]:
        """Measure the policy on validation trials where that is due; ranks share them."""
        every = self.config.validation.every_rollouts
        if every is None:
            return {}
        if self.counters.rollouts % every and not self.is_finished:
            return {}
        began = time.perf_counter()
        if self._validator is None:
            self._validator = Validator(self.config, self.ranks)
        metrics = self._validator.run(self.parts.policy)
        metrics["time/evaluate"] = time.perf_counter() - began
        self.counters.wall_s += metrics["time/evaluate"]
        return metrics

    def _warn_of_inputs(self) -> None:
        """Say after the first rollout of which observations scaling leaves little."""
        if self.counters.rollouts > 1 or not (self.ranks.is_first and self.config.logging.progress):
            return
        for line in narrow_inputs(self.parts.policy.encoder, self.parts.rollout.observation):
            tell(f"warning: {line}")

    def _checkpoint(self, metrics: dict[str, Any], stopping: bool) -> None:
        """Save where it is due, and note the best."""
        best = self.config.checkpoint.best_metric
        score = metrics.get(best) if best is not None else None
        if score is not None and not math.isfinite(score):
            score = None
        # Clocks differ: what one finds due, all do.
        scored = self.ranks.any(score is not None)
        due = time.monotonic() - self._saved_s >= self.config.checkpoint.interval_s
        if self.ranks.any(stopping or scored or due or self.is_finished):
            # With its score, so that no kill can part them.
            self.save(score)

    def _live_page(self) -> LivePage | None:
        if not self.ranks.is_first:
            return None
        earlier = read_metrics(self.directory.metrics)
        return LivePage(self.directory.path / "live.html", self.config.planned_steps, earlier)

    def _open_log(self) -> MetricsLog | None:
        """Open the metrics on the first rank."""
        if not self.ranks.is_first:
            return None
        logging = self.config.logging
        mirrors: dict[str, Callable[[], Mirror]] = {}
        if logging.tensorboard:
            mirrors["tensorboard"] = partial(
                TensorBoardMirror,
                self.directory.path / "tensorboard",
                purge_step=self.env_steps + 1,
            )
        if logging.wandb != "disabled":
            mirrors["wandb"] = partial(
                WandbMirror,
                run_id=self.counters.wandb_id,
                project=logging.wandb_project,
                mode=logging.wandb,
                directory=self.directory.path,
                config=to_plain(self.config),
            )
        return MetricsLog(self.directory.metrics, mirrors)


def prepare_process(config: RunConfig) -> None:
    """Set what concerns a whole process that takes part in a run."""
    keep_freed_memory()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    torch.use_deterministic_algorithms(config.deterministic)
