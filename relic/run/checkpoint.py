"""Checkpoints of a run: their content, how they are written, and how a run resumes.

A checkpoint is taken at an update boundary, after shuffle and refresh, where the policy's memory
follows from weights and rollout; so the memory is recomputed, by the same code, not saved (but
where it was not refreshed there). The steps of an unfinished rollout never change again, so they
lie in append-only files beside the checkpoints, and a checkpoint names those that it needs.

`checksums.json` in a checkpoint has the checksum of each of its files, and a rank's state those of
its steps' files. What is read is compared with them first, so that a damaged file is refused and
never changes a result.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from relic.files import (
    DamagedError,
    StateError,
    check_file,
    checksum,
    parse_json,
    sync,
    write_sealed,
)
from relic.policy.loading import DESCRIPTION_FILE, WEIGHTS_FILE, load_policy_weights, save_policy
from relic.policy.weights import CheckpointError
from relic.ppo.loop import restore_memory
from relic.run.components import Components
from relic.run.distributed import Ranks
from relic.run.ranks.recut import SavedRows, groups_of, load_rollout, saved_by
from relic.run.run_directory import CheckpointStore, Saved
from relic.run.state import (
    CHECKSUMS_FILE,
    Checksums,
    checksums_of,
    load_state,
    read_checksums,
    save_state,
)

FORMAT = 1
_CHUNKS = "rollout"
"""Directory of the steps of unfinished rollouts, beside the checkpoints."""


@contextmanager
def _fitting(path: Path, checksums: Checksums | None) -> Iterator[None]:
    """Explain the errors of a checkpoint that has no checksums, which any of its files may cause.

    With checksums nothing is explained: all is as it was written, so the fault is ours.
    """
    try:
        yield
    except (StateError, CheckpointError):
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        if checksums is not None:
            raise
        raise DamagedError(
            f"{path}: must hold the state of this run, but it does not fit "
            f"({(str(e).splitlines() or [type(e).__name__])[0]}). It is damaged."
        ) from e


class RunSaver:
    """Saves and restores the parts of a run in this process; all ranks call it together."""

    def __init__(self, store: CheckpointStore, parts: Components, ranks: Ranks):
        """Remember what is saved."""
        self._store, self._parts, self._ranks = store, parts, ranks
        self._chunk_root = store.directory / _CHUNKS
        self._written: list[str] = []
        """States of the steps of the rollout that is under way, by name."""
        self._checksums: dict[str, str] = {}
        """Of their files."""
        self._written_to = 0
        self._written_of = 0
        """Steps of a row before that rollout: which one it is."""

    def save(self, run_state: dict[str, Any], *, score: float | None = None) -> Saved:
        """Write a checkpoint.

        Args:
            run_state: The trainer's own counters.
            score: What picks the best, if it was measured just now.
        """
        env_steps = self._parts.collector.env_steps
        # Before the checkpoint that names them: a file without a name costs space, a name without a
        # file costs the run.
        self._write_chunks()

        def write(path: Path) -> None:
            self._ranks.barrier()  # the directory is there
            self._write(path, run_state)
            self._ranks.barrier()  # all ranks have written
            if self._ranks.is_first:
                files = {file.name: checksum(file) for file in sorted(path.iterdir())}
                write_sealed(path / CHECKSUMS_FILE, {"files": files})

        if self._ranks.is_first:
            self._store.save(env_steps, write, score=score)
            # Only now: until the new checkpoint was there, the ones before it might have needed
            # theirs.
            self.drop_unused_chunks()
        else:
            write(self._store.unfinished(env_steps))
        self._ranks.barrier()
        return Saved(self._store.published(env_steps), env_steps)

    def restore(self, saved: Saved) -> dict[str, Any]:
        """Take up a checkpoint and return the trainer's counters.

        Raises:
            DamagedError: If it is damaged.
            StateError: If it is of a newer format, or saved within a rollout by another
                number of ranks in an environment whose state cannot be cut by rows.
        """
        checksums = read_checksums(saved.path)
        with _fitting(saved.path, checksums):
            return self._restore(saved, checksums)

    def _restore(self, saved: Saved, checksums: Checksums | None) -> dict[str, Any]:
        state = load_state(saved.path, "run", checksums)
        if state["format"] > FORMAT:
            raise StateError(
                f"{saved.path}: format must be at most {FORMAT}, got {state['format']}. "
                "Install the newer version that wrote it."
            )
        parts = self._parts
        if checksums is not None:
            for name in (DESCRIPTION_FILE, WEIGHTS_FILE):
                check_file(saved.path / name, checksums.get(name))
        load_policy_weights(parts.policy, saved.path)
        parts.learner.load_state_dict(state["learner"])
        as_many = state["ranks"] == self._ranks.world_size
        own = load_state(saved.path, self._rank_name if as_many else "rank0", checksums)
        if as_many and len(own["collector"]["groups"]) == len(parts.collector.groups):
            rollout_of, self._written = self._own_rows(own), list(own["chunks"])
        elif own["rollout"] is None:
            # Between two rollouts the parts differ only in rows that are not needed any more.
            own["collector"]["groups"] = None
            rollout_of, self._written = self._own_rows(own), []
        else:
            # Their steps lie in the files of others, so this rank writes its own anew.
            rollout_of, self._written = self._recut(saved, state["ranks"], own, checksums), []
        if own["rollout"] is None:
            parts.rollout.clear()
        else:
            self._load_rollout(rollout_of)
        parts.collector.load_state_dict(own["collector"])
        if own["memory"] is None:
            learner = parts.learner
            restore_memory(parts.collector, learner.updates, precision=learner.ppo.precision)
        else:
            for group, memory in zip(parts.collector.groups, own["memory"], strict=True):
                group.state.load_state_dict(memory)
        known = own.get("chunk_checksums") if self._written else {}
        self._checksums = checksums_of(self._chunk_root, *self._written) if known is None else known
        self._written_to = parts.rollout.size if self._written else 0
        self._written_of = parts.collector.rollout_began
        torch.random.set_rng_state(own["torch_rng"])
        return state["trainer"]

    def _load_rollout(self, rollout_of: list[SavedRows]) -> None:
        """Read the steps of the rollout that was under way."""

        def load(name: str) -> Any:
            # Names differ between ranks, so one mapping serves all. Older versions have none.
            sums = [part.state.get("chunk_checksums") for part in rollout_of]
            known = None if None in sums else {k: v for of in sums if of for k, v in of.items()}
            return load_state(self._chunk_root, name, known)

        load_rollout(self._parts.rollout, rollout_of, self._first_row, load)

    @property
    def _first_row(self) -> int:
        return int(self._parts.rollout.global_row_N[0])

    def _own_rows(self, own: dict[str, Any]) -> list[SavedRows]:
        return [SavedRows(self._first_row, self._parts.rollout.num_envs, own)]

    def _recut(
        self, saved: Saved, ranks: int, own: dict[str, Any], checksums: Checksums | None
    ) -> list[SavedRows]:
        """Put this rank's rows together from what other ranks, or other groups, have saved.

        Args:
            saved: The checkpoint.
            ranks: Those that saved it.
            own: Is given the groups of this rank, and what their policy remembers if that is saved.
            checksums: Of the checkpoint's files.

        Returns:
            What the ranks have saved.

        Raises:
            StateError: If an environment's state cannot be cut by rows.
        """
        rollout, collector = self._parts.rollout, self._parts.collector
        num_envs = rollout.num_envs * self._ranks.world_size
        parts = saved_by(ranks, num_envs, lambda name: load_state(saved.path, name, checksums))
        keeps_memory = own["memory"] is not None
        try:
            groups = list(groups_of(parts, collector.groups, self._first_row))
        except ValueError as error:
            raise StateError(
                f"{saved.path}: was saved within a rollout by {ranks} ranks, and cannot be shared "
                f"out among {self._ranks.world_size}: {error} Start it with ranks={ranks} and as "
                "many rollout.groups, until a rollout has ended."
            ) from None
        own["collector"]["groups"] = [group for group, _ in groups]
        own["memory"] = [memory for _, memory in groups] if keeps_memory else None
        return parts

    @property
    def _rank_name(self) -> str:
        return f"rank{self._ranks.rank}"

    def _write(self, path: Path, run_state: dict[str, Any]) -> None:
        parts = self._parts
        finished = parts.rollout.size == parts.rollout.num_steps
        if self._ranks.is_first:
            # Weights and optimiser are the same on all ranks.
            save_policy(path, parts.policy, env_steps=parts.collector.env_steps)
            common = {
                "format": FORMAT,
                "ranks": self._ranks.world_size,
                "learner": parts.learner.state_dict(),
                "trainer": run_state,
            }
            save_state(path, "run", common)
        updates = parts.learner.updates
        newest = parts.rollout.size // parts.learner.schedule.chunk - 1
        # Without a refresh at this boundary the memory is of older weights, and nothing else could
        # make it again.
        keeps_memory = not finished and not updates.renews_after(newest)
        memory = [g.state.state_dict() for g in parts.collector.groups] if keeps_memory else None
        own = {
            "chunks": self._written,
            "chunk_checksums": self._checksums,
            # After a finished one the next begins in new trials with an empty context.
            "rollout": None if finished else parts.rollout.state_dict(),
            "collector": parts.collector.state_dict(),
            "memory": memory,
            "torch_rng": torch.random.get_rng_state(),
        }
        save_state(path, self._rank_name, own)

    def _write_chunks(self) -> None:
        """Write the steps that were collected since the last checkpoint of this rollout."""
        rollout, began = self._parts.rollout, self._parts.collector.rollout_began
        if self._written_of != began or rollout.size in (0, rollout.num_steps):
            self._written, self._written_to, self._written_of = [], 0, began
            self._checksums = {}
        if rollout.size in (0, rollout.num_steps, self._written_to):
            return
        # With the number of ranks: files of as many as there were before may still be needed.
        rank = f"{self._rank_name}of{self._ranks.world_size}"
        name = f"{rank}_{began:010d}_{self._written_to}_{rollout.size}"
        save_state(self._chunk_root, name, rollout.chunk_state(self._written_to, rollout.size))
        sync(self._chunk_root)
        self._checksums |= checksums_of(self._chunk_root, name)
        self._written = [*self._written, name]
        self._written_to = rollout.size

    def drop_unused_chunks(self) -> None:
        """Remove the steps that no checkpoint names any more; the first rank calls it."""
        if not self._chunk_root.exists():
            return
        used: set[str] = set()
        for saved in self._store.all():
            for part in saved.path.glob("rank*.json"):  # of as many ranks as saved it
                try:
                    used.update(parse_json(part.read_bytes())["chunks"])
                except (ValueError, LookupError, TypeError):
                    return  # who cannot be asked may need any; they cost space only
        for path in self._chunk_root.iterdir():
            if path.name.split(".")[0] not in used:
                path.unlink()
        if not any(self._chunk_root.iterdir()):
            shutil.rmtree(self._chunk_root)
