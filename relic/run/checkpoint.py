"""Checkpoints of a run: written whole or not at all, the newest, the best and the milestones kept.

A run directory's `checkpoints/` holds one directory per checkpoint and two small text files,
`latest` and `best`, that name one each. What a checkpoint contains is its writer's business.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from relic.files import sync, write_text

_PREFIX = "step_"
_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class Saved:
    """One checkpoint on disk."""

    path: Path
    env_steps: int


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, directory: Path, *, keep: int = 2, milestone_steps: int | None = None):
        """Open (and create) the store.

        Args:
            directory: Usually `<run_dir>/checkpoints`.
            keep: How many of the newest checkpoints stay; at least 1.
            milestone_steps: Every checkpoint that first passes a multiple of this many
                environment steps stays for good. None keeps no milestones.
        """
        self.directory = directory
        self._keep = keep
        self._milestone_steps = milestone_steps
        directory.mkdir(parents=True, exist_ok=True)

    def clear_leftovers(self) -> None:
        """Clear away what an interrupted save left; for the run that saves here, before it does."""
        for leftover in self.directory.glob(f"*{_UNFINISHED}"):
            shutil.rmtree(leftover, ignore_errors=True)

    def save(self, env_steps: int, write: Callable[[Path], None]) -> Saved:
        """Let `write` fill a directory, then publish it as the latest checkpoint.

        Until the rename at the end nothing refers to the new directory, so that a full disk or
        a killed process leaves the previous checkpoint as `latest`.

        Raises:
            OSError: If the disk refuses; the unfinished directory is removed.
        """
        unfinished = self.unfinished(env_steps)
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir()
            write(unfinished)
            return self._publish(env_steps)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def published(self, env_steps: int) -> Path:
        """Return where the checkpoint of a step lies once it is published."""
        return self.directory / f"{_PREFIX}{env_steps:012d}"

    def unfinished(self, env_steps: int) -> Path:
        """Return where the checkpoint of a step is being written."""
        published = self.published(env_steps)
        return published.with_name(published.name + _UNFINISHED)

    def latest(self) -> Saved | None:
        """Return the newest checkpoint, or None where there is none."""
        return self._read("latest") or next(reversed(self.all()), None)

    def best(self) -> Saved | None:
        """Return the checkpoint with the best score, or None where none was scored."""
        return self._read("best")

    def best_score(self) -> float | None:
        """Return the score of the best checkpoint."""
        pointer = self._pointer("best")
        return None if pointer is None else float(pointer["score"])

    def offer_best(self, saved: Saved, score: float) -> bool:
        """Make `saved` the best checkpoint if its score is higher than the best so far."""
        best = self.best_score()
        if best is not None and score <= best:
            return False
        self._point("best", {"name": saved.path.name, "score": score})
        self._prune()
        return True

    def all(self) -> list[Saved]:
        """Return all checkpoints, oldest first."""
        paths = sorted(p for p in self.directory.glob(f"{_PREFIX}*") if _is_checkpoint(p))
        return [Saved(p, int(p.name.removeprefix(_PREFIX))) for p in paths]

    def drop_after(self, env_steps: int) -> None:
        """Remove checkpoints beyond a step, left by a run that went on from an older one."""
        for saved in self.all():
            if saved.env_steps > env_steps:
                shutil.rmtree(saved.path)

    def _publish(self, env_steps: int) -> Saved:
        """Make a written directory the latest checkpoint, by one rename."""
        final = self.published(env_steps)
        if final.exists():
            # Only a replayed step can meet its own older checkpoint.
            shutil.rmtree(final)
        self.unfinished(env_steps).rename(final)
        sync(self.directory)
        self._point("latest", {"name": final.name})
        self._prune()
        return Saved(final, env_steps)

    def _prune(self) -> None:
        saved = self.all()
        pinned = {s.path for s in saved[-self._keep :]}
        pinned |= {s.path for s in (self.latest(), self.best()) if s is not None}
        pinned |= self._milestones(saved)
        for checkpoint in saved:
            if checkpoint.path not in pinned:
                shutil.rmtree(checkpoint.path)

    def _milestones(self, saved: list[Saved]) -> set[Path]:
        if self._milestone_steps is None:
            return set()
        first: dict[int, Path] = {}
        for checkpoint in saved:
            first.setdefault(checkpoint.env_steps // self._milestone_steps, checkpoint.path)
        first.pop(0, None)
        return set(first.values())

    def _read(self, pointer: str) -> Saved | None:
        content = self._pointer(pointer)
        if content is None:
            return None
        path = self.directory / content["name"]
        if not path.is_dir():
            return None
        return Saved(path, int(path.name.removeprefix(_PREFIX)))

    def _pointer(self, name: str) -> dict | None:
        path = self.directory / f"{name}.json"
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # a broken disk may leave half of it
            return None

    def _point(self, name: str, content: dict) -> None:
        write_text(self.directory / f"{name}.json", json.dumps(content))


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and path.name.removeprefix(_PREFIX).isdigit()
