"""The directory of a run: its configuration and its checkpoints.

`checkpoints/` holds one directory per checkpoint and two small text files, `latest` and `best`,
that name one each. Checkpoints are written, and removed, whole or not at all; the newest, the best
and the milestones stay. A checkpoint holds its own score, so that the best can be found again
whenever a save was interrupted. What else one contains is `relic.run.checkpoint`'s business.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from relic.bounded_yaml import parse_yaml
from relic.files import (
    hold,
    is_intact,
    make_directory,
    parse_json,
    read_sealed_text,
    sync,
    write_sealed,
    write_sealed_text,
)
from relic.policy.memory.memories import unread_sections
from relic.run.config import RunConfig
from relic.schema import ConfigError, differences, to_plain
from relic.upgrade import upgrade_config

FREE_KEYS = ("total_steps", "run_dir", "device", "ranks", "logging", "checkpoint", "cluster")
"""What may differ when a run is started again."""
_PREFIX = "step_"
_UNFINISHED = ".unfinished"
_REMOVED = ".removed"
_SCORE = "score.json"


class RunDirectory:
    """Paths inside a run directory, and its configuration file."""

    def __init__(self, path: Path):
        """Name the directory; nothing is made before `open`."""
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.encoder = path / "encoder"
        self.final_scores = path / "final_scores.json"
        self._lock: IO[str] | None = None

    @contextmanager
    def opened(self, config: RunConfig) -> Iterator[None]:
        """Open for what is built inside; where that is refused, no new configuration stays.

        A start with what was wrong put right is then no other run. Until `release`, no other
        process on this machine can open it, but for jobs on Ray.

        Raises:
            ConfigError: As `open`, or if another process trains in it.
        """
        was_there = self.config.exists()
        make_directory(self.path, key="run_dir")
        if config.cluster.backend != "ray":  # whose actors end a while after their job
            self._lock = hold(self.path, "run_dir")
        try:
            self.open(config)
            yield
        except BaseException:
            # An encoder that was pretrained belongs to the configuration beside it.
            if not was_there and not self.encoder.exists():
                self.config.unlink(missing_ok=True)
            self.release()
            raise

    def release(self) -> None:
        """Let other processes open it again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def open(self, config: RunConfig) -> None:
        """Make the directory, or check that the run in it has the same configuration.

        Raises:
            ConfigError: If it differs in more than `FREE_KEYS`, which lists what differs; or if
                the directory cannot be made, or the configuration in it not be read.
        """
        plain = to_plain(config)
        make_directory(self.path, key="run_dir")
        if self.config.exists():
            changes = differences(self._read(), plain, free=[*FREE_KEYS, *unread_sections(plain)])
            if changes:
                listed = "; ".join(changes[:5]) + ("; ..." if len(changes) > 5 else "")
                raise ConfigError(
                    f"run_dir: {self.path} holds a run with another configuration: {listed}. "
                    "Choose another run_dir, or start it as it was."
                )
        # Written again, as `FREE_KEYS` may have other values now.
        write_sealed_text(self.config, yaml.safe_dump(plain, sort_keys=False))

    def _read(self) -> dict[str, Any]:
        """Return the run's configuration, with fields that it was made without at their default."""
        try:
            content = dict(parse_yaml(read_sealed_text(self.config)))
        except (yaml.YAMLError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.config}: must be the configuration of a run, got a damaged file "
                f"({str(error).splitlines()[0]}). Restore it, or choose another run_dir."
            ) from None
        return RunConfig.completed(upgrade_config(content))


@dataclass(frozen=True, slots=True)
class Saved:
    """One checkpoint on disk."""

    path: Path
    env_steps: int


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = 2,
        milestone_steps: int | None = None,
        metric: str | None = None,
    ):
        """Open (and create) the store.

        Args:
            directory: Usually `<run_dir>/checkpoints`.
            keep: How many of the newest checkpoints stay; at least 1.
            milestone_steps: Every checkpoint that first passes a multiple of this many
                environment steps stays for good. None keeps no milestones.
            metric: What picks the best; None: which one is the best does not change.
        """
        self.directory = directory
        self._keep = keep
        self._milestone_steps = milestone_steps
        self._metric = metric
        directory.mkdir(parents=True, exist_ok=True)

    def tidy(self, env_steps: int) -> None:
        """Finish what an interrupted save has left half done; for the run that saves here.

        Args:
            env_steps: Where the run goes on from. Checkpoints beyond it go.
        """
        leftovers = (*self.directory.glob(f"*{_UNFINISHED}"), *self.directory.glob(f"*{_REMOVED}"))
        for leftover in leftovers:
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.directory.glob("*.tmp"):
            leftover.unlink(missing_ok=True)
        self.drop_after(env_steps)
        self._prune()

    def save(
        self, env_steps: int, write: Callable[[Path], None], *, score: float | None = None
    ) -> Saved:
        """Let `write` fill a directory, then publish it as the latest checkpoint.

        Until the rename at the end nothing refers to the new directory, so that a full disk or
        a killed process leaves the previous checkpoint as `latest`.

        Args:
            env_steps: Of the run so far.
            write: Fills the directory.
            score: Its value of the store's metric; the highest is the best, of equals the first.

        Raises:
            OSError: If the disk refuses; the unfinished directory is removed.
        """
        unfinished = self.unfinished(env_steps)
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir()
            if score is not None:
                write_sealed(unfinished / _SCORE, {"metric": self._metric, "score": score})
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
        # Directories get their names when they are whole, so the newest will do where the pointer
        # is lost.
        return self._read("latest") or next(reversed(self.all()), None)

    def best(self) -> Saved | None:
        """Return the checkpoint with the best score, or None where none was scored."""
        return self._read("best")

    def best_score(self) -> float | None:
        """Return the score of the best checkpoint."""
        pointer = self._pointer("best")
        return None if pointer is None else float(pointer["score"])

    def all(self) -> list[Saved]:
        """Return all checkpoints, oldest first."""
        paths = sorted(p for p in self.directory.glob(f"{_PREFIX}*") if _is_checkpoint(p))
        return [Saved(p, int(p.name.removeprefix(_PREFIX))) for p in paths]

    def drop_after(self, env_steps: int) -> None:
        """Remove checkpoints beyond a step, left by a run that went on from an older one."""
        beyond = [saved for saved in self.all() if saved.env_steps > env_steps]
        # What remains is named first: a kill in between leaves checkpoints that nothing names.
        kept = [saved for saved in self.all() if saved not in beyond]
        self._point_best(kept)
        if beyond and kept:
            self._point("latest", {"name": kept[-1].path.name})
        for saved in beyond:
            self._remove(saved.path)

    def _publish(self, env_steps: int) -> Saved:
        """Make a written directory the latest checkpoint, by one rename."""
        unfinished, final = self.unfinished(env_steps), self.published(env_steps)
        sync(unfinished)
        if final.exists():
            # Only a replayed step can meet its own older checkpoint.
            self._remove(final)
        unfinished.rename(final)
        # The disk has the new name before the pointers say it.
        sync(self.directory)
        self._point_best(self.all())
        self._point("latest", {"name": final.name})
        self._prune()
        return Saved(final, env_steps)

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint: it is whole under its name, or has another one."""
        removed = path.with_name(path.name + _REMOVED)
        shutil.rmtree(removed, ignore_errors=True)
        path.rename(removed)
        shutil.rmtree(removed)

    def _prune(self) -> None:
        saved = self.all()
        pinned = {s.path for s in saved[-self._keep :]}
        pinned |= {s.path for s in (self.latest(), self.best()) if s is not None}
        pinned |= self._milestones(saved)
        for checkpoint in saved:
            if checkpoint.path not in pinned:
                self._remove(checkpoint.path)

    def _point_best(self, among: list[Saved]) -> None:
        """Name the best of some checkpoints, by the scores that they hold themselves."""
        pointer = self._pointer("best")
        named = None if pointer is None else pointer["name"]
        scores = {s.path.name: self._score(s, pointer) for s in among}
        known = {name: score for name, score in scores.items() if score is not None}
        if not known:
            (self.directory / "best.json").unlink(missing_ok=True)
            return
        # Of equals the first, as `among` begins with the oldest.
        best = max(known, key=lambda name: known[name])
        if best != named:
            self._point("best", {"name": best, "score": known[best]})

    def _score(self, saved: Saved, pointer: dict[str, Any] | None) -> float | None:
        """Return a checkpoint's score in the metric that picks the best, if it has one."""
        content = _read_object(saved.path / _SCORE)
        if pointer is not None and pointer["name"] == saved.path.name:
            if content is None or self._metric is None:
                # Older versions kept the score of the best only, and only here.
                return float(pointer["score"])
        if content is None or self._metric is None or content.get("metric") != self._metric:
            return None
        return float(content["score"])

    def _milestones(self, saved: list[Saved]) -> set[Path]:
        if self._milestone_steps is None:
            return set()
        first: dict[int, Path] = {}
        for checkpoint in saved:
            first.setdefault(checkpoint.env_steps // self._milestone_steps, checkpoint.path)
        # Before the first multiple none has been passed.
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

    def _pointer(self, name: str) -> dict[str, Any] | None:
        content = _read_object(self.directory / f"{name}.json") or {}
        kinds = {"name": str} if name == "latest" else {"name": str, "score": float | int}
        whole = all(isinstance(content.get(key), kind) for key, kind in kinds.items())
        # It may name nothing outside of this directory.
        return content if whole and _is_name(content["name"]) else None

    def _point(self, name: str, content: dict[str, Any]) -> None:
        write_sealed(self.directory / f"{name}.json", content)


def _read_object(path: Path) -> dict[str, Any] | None:
    """Return what a small file says; None where it is missing or damaged."""
    try:
        content = parse_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and is_intact(path, content) else None


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and _is_name(path.name)


def _is_name(name: str) -> bool:
    return name.startswith(_PREFIX) and name.removeprefix(_PREFIX).isdecimal()
