"""Learning curves of runs, and whether a run is on track against those that ship.

What to expect is a file of curves that ships, one per experiment, made of one or more whole runs.
Runs that differ by their seed alone learn at different paces, and a validation of few trials is
noisy. So a score is on track if it lies in the range of the scores that the shipped runs had
between `1 / PACE` and `PACE` times as many steps, widened by `NOISE` standard deviations of what
the shipped runs differ by there. One run alone is widened by the noise of its points, but never
below its own worst score. A share, such as success, stays within 0 and 1.

Only runs of one task can be compared: the environment and its options must be the same, but for
what the agent sees of it, and so must the validation, where its scores are compared.

Shapes: P points of a curve.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from relic.bounded_yaml import parse_yaml
from relic.files import (
    StateError,
    changed_since_mark,
    measured_lines,
    read_sealed_text,
    write_json,
)
from relic.policy.memory.memories import unread_sections
from relic.policy.origin import CONFIG_FILE
from relic.policy.weights import CheckpointError, read_json
from relic.schema import ConfigError, differences, leaves
from relic.shipped import PRETRAINED, located
from relic.upgrade import upgrade_config

_log = logging.getLogger(__name__)
PACE = 1.5
"""A run may be this many times as slow or as fast as the shipped ones."""
NOISE = 2.0
"""Standard deviations of a score that are allowed for."""
METRICS_FILE = "metrics.jsonl"
SHIPPED_FILE = "learning_curve.json"
SCORES = ("val/success", "val/return", "success_mean", "return_mean")
"""What a run is judged by where its configuration names nothing that it has measured."""
_SHARES = ("success", "spl")
"""Measures that lie between 0 and 1."""
_SEEN = (
    "sensors", "resolution", "antialias", "compass", "prev_reward", "goal_places",
    "goal_recall", "critic_state", "outcome", "sightings", "threads", "field_bytes",
)  # fmt: skip
"""Options of environments that change what an agent sees of a task, or how fast, not the task."""
_VALIDATION = ("options", "episodes", "score_from_episode")
_FORMAT = 1
_FREE = ("seed", "run_dir", "device", "ranks", "threads", "logging", "checkpoint", "cluster")
"""Parts of a configuration that do not change what is learned, or that tell seeds apart."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A score against environment steps."""

    step_P: np.ndarray
    score_P: np.ndarray

    def at(self, step: float) -> float:
        """Return the score at a step, on a straight line between points, flat beyond them."""
        return float(np.interp(step, self.step_P, self.score_P))

    def reached(self, score: float) -> float | None:
        """Return the first step with at least this score."""
        above = np.flatnonzero(self.score_P >= score)
        return float(self.step_P[above[0]]) if len(above) else None

    @property
    def noise(self) -> float:
        """Standard deviation of a point about the line between its neighbours, robustly."""
        if len(self.score_P) < 3:
            return 0.0
        off = self.score_P[1:-1] - (self.score_P[:-2] + self.score_P[2:]) / 2
        # Variances add up to 1 + 1/4 + 1/4; 1.4826 turns the median into a standard deviation.
        return float(1.4826 * np.median(np.abs(off)) / np.sqrt(1.5))


@dataclass(frozen=True, slots=True)
class Run:
    """What a run directory says of how it learned."""

    name: str
    experiment: str
    config: Mapping[str, Any]
    curves: Mapping[str, Curve]
    """By score."""

    @property
    def score(self) -> str:
        """What it is judged by: what chooses its best checkpoint, if that was measured."""
        wanted = str((self.config.get("checkpoint") or {}).get("best_metric"))
        return next(name for name in (wanted, *SCORES) if name in self.curves)


@dataclass(frozen=True, slots=True)
class Shipped:
    """Curves that ship with an experiment."""

    experiment: str
    config: Mapping[str, Any]
    score: str
    """What the runs were judged by."""
    curves: Mapping[str, tuple[Curve, ...]]
    """By score, one of each run."""

    def score_for(self, run: Run) -> str:
        """Return what to compare a run by: the score, else the same measure in training, else any.

        Raises:
            ConfigError: If it has measured nothing that is shipped.
        """
        in_training = f"{self.score.removeprefix('val/')}_mean"
        for name in (self.score, in_training, *self.curves):
            if name in run.curves and name in self.curves:
                return name
        raise ConfigError(
            f"{run.name}: must have measured one of {', '.join(self.curves)} to be compared, got "
            f"{', '.join(run.curves)}. Choose a run of the same task."
        )


class Standing(Enum):
    """How a run compares with the shipped ones."""

    AHEAD = "ahead of"
    ON_TRACK = "on track with"
    BEHIND = "behind"
    EARLY = "too early to compare with"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a run stands."""

    standing: Standing
    name: str
    """Of the score."""
    step: float
    score: float
    low: float
    """The range that is on track."""
    high: float
    usual_step: float | None
    """When the shipped runs had this score, in the mean of those that did."""
    changes: tuple[str, ...]
    """Settings in which the run differs, as `key: shipped -> own`."""
    experiment: str
    """Of the shipped runs."""


def read_run(directory: str | Path) -> Run:
    """Read the curves of a run directory; the run may be going on.

    Raises:
        FileNotFoundError: If it holds no run, or one that has measured nothing yet.
        ConfigError: If its configuration is damaged.
    """
    directory = located(directory, METRICS_FILE)
    metrics, file = directory / METRICS_FILE, directory / CONFIG_FILE
    for needed in (file, metrics):
        if not needed.is_file():
            raise FileNotFoundError(
                f"{directory}: must be the directory of a run with {needed.name}, found none. "
                "Name the run_dir of a training."
            )
    config = _read_config(file)
    if said := changed_since_mark(metrics):
        _log.warning(said)
    lines = list(measured_lines(metrics))
    curves = {}
    for name in SCORES:
        points = _validated(lines, name) if name.startswith("val/") else _by_rollout(lines, name)
        if points:
            curves[name] = Curve(*np.array(points, float).T)
    if not curves:
        raise FileNotFoundError(
            f"{metrics}: must hold a whole rollout with one of {', '.join(SCORES)}, found none. "
            "Let the run go on."
        )
    return Run(directory.absolute().name, str(config["experiment"]), config, curves)


def _validated(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(line["env_steps"], _score(line, name)) for line in lines if name in line]


def _score(line: Mapping[str, Any], name: str) -> float:
    if not isinstance(line[name], int | float):
        raise StateError(
            f"{METRICS_FILE}: {name} after {line['env_steps']} steps must be a number, got "
            f"{line[name]!r:.60}. Delete the line."
        )
    return float(line[name])


def _by_rollout(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """Return one point per rollout: in it, scores rise with the context and then fall back."""
    points, values = [], []
    for line in lines:
        values += [_score(line, name)] if name in line else []
        if line.get("update") == "full" and values:
            points.append((line["env_steps"], float(np.mean(values))))
            values = []
    return points


def as_shipped(runs: Sequence[Run]) -> Shipped:
    """Take runs as what is to be expected.

    Raises:
        ConfigError: If they are not of one experiment with one configuration.
    """
    first = runs[0]
    for run in runs[1:]:
        changes = differences(first.config, run.config, free=_free(run))
        if changes:
            raise ConfigError(
                f"{run.name}: must have the configuration of {first.name}, got {changes[0]}. "
                "Take runs together that differ by their seed alone."
            )
    shared = [name for name in SCORES if all(name in run.curves for run in runs)]
    return Shipped(
        first.experiment,
        {key: value for key, value in first.config.items() if key not in _FREE},
        first.score,
        {name: tuple(run.curves[name] for run in runs) for name in shared},
    )


def write_shipped(shipped: Shipped, file: Path) -> None:
    """Write a file of curves to ship."""
    content = {
        "format": _FORMAT,
        "experiment": shipped.experiment,
        "score": shipped.score,
        "curves": {
            name: [
                {"env_steps": curve.step_P.tolist(), "score": curve.score_P.tolist()}
                for curve in curves
            ]
            for name, curves in shipped.curves.items()
        },
        "config": shipped.config,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)


def read_shipped(path: Path) -> Shipped:
    """Read a file of curves, or the directory of one run.

    Raises:
        FileNotFoundError: If there is none.
        CheckpointError: If a file is damaged or of a newer format.
    """
    if path.is_dir():
        return as_shipped([read_run(path)])
    content = read_json(path, _FORMAT)
    try:
        curves = {
            name: tuple(_curve(c["env_steps"], c["score"]) for c in runs)
            for name, runs in content["curves"].items()
        }
        if not curves or not all(curves.values()):
            raise ValueError("a score without a curve")
        config = upgrade_config(content["config"])
        return Shipped(str(content["experiment"]), config, str(content["score"]), curves)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        said = f"one without {error}" if isinstance(error, KeyError) else f"another ({error})"
        raise CheckpointError(
            f"{path}: must be a file of learning curves, got {said}. Write one by --save, or name "
            "a run directory."
        ) from None


def _curve(steps: Any, scores: Any) -> Curve:
    step_P, score_P = np.array(steps, float), np.array(scores, float)
    if step_P.ndim != 1 or step_P.shape != score_P.shape or not step_P.size:
        raise ValueError(f"{step_P.shape} steps for {score_P.shape} scores")
    if not (np.diff(step_P) > 0).all() or not np.isfinite(score_P).all():
        raise ValueError("steps must grow and scores be finite")
    return Curve(step_P, score_P)


def shipped_file(experiment: str) -> Path:
    """Return where the curves of an experiment are."""
    return PRETRAINED / experiment / SHIPPED_FILE


def judge(run: Run, shipped: Shipped) -> Verdict:
    """Say where a run stands by its newest score.

    Raises:
        ConfigError: If it is of another task, or has measured nothing that is shipped.
    """
    name = shipped.score_for(run)
    _check_same_task(run, shipped, name)
    curve, others = run.curves[name], shipped.curves[name]
    step, score = float(curve.step_P[-1]), float(curve.score_P[-1])
    low, high = expected(others, step, name)
    if step * PACE < max(other.step_P[0] for other in others):
        standing = Standing.EARLY
    elif score < low:
        standing = Standing.BEHIND
    else:
        standing = Standing.AHEAD if score > high else Standing.ON_TRACK
    steps = [s for s in (other.reached(score) for other in others) if s is not None]
    usual = float(np.mean(steps)) if steps else None
    changes = tuple(differences(shipped.config, run.config, free=_free(run)))
    return Verdict(standing, name, step, score, low, high, usual, changes, shipped.experiment)


def _free(run: Run) -> list[str]:
    """Return what may differ between a run and those that it is compared with."""
    return [*_FREE, *unread_sections(run.config)]


def _check_same_task(run: Run, shipped: Shipped, score: str) -> None:
    """Refuse to compare scores that do not measure the same thing."""
    own, others = (_task(config, score) for config in (run.config, shipped.config))
    if changes := differences(others, own):
        raise ConfigError(
            f"{run.name}: must be of the task that the runs of {shipped.experiment} learned, got "
            f"{'; '.join(changes[:3])}. Name a run of the same task by --reference."
        )


def _task(config: Mapping[str, Any], score: str) -> dict[str, Any]:
    """Return what a score depends on, besides the agent."""
    env, validation = config.get("env") or {}, config.get("validation") or {}
    options = task_options(env.get("options") or {}, "env.options")
    task = {"env.id": env.get("id"), **options}
    if score.startswith("val/"):
        task |= {f"validation.{key}": validation.get(key) for key in _VALIDATION}
    return {key: value for key, value in task.items() if value != {}}


def task_options(options: Mapping[str, Any], name: str = "options") -> dict[str, Any]:
    """Return the options of an environment that are of the task, by dotted names.

    Args:
        options: Of the environment.
        name: What the names begin with.
    """
    return leaves({k: v for k, v in options.items() if k not in _SEEN}, name)


def expected(curves: Sequence[Curve], step: float, name: str = "") -> tuple[float, float]:
    """Return the range of scores that is on track at a step, by the curves that ship.

    Args:
        curves: Of the shipped runs.
        step: Environment steps.
        name: Of the score, which may be a share.
    """
    begin, end = step / PACE, step * PACE
    lows, highs = [], []
    # The ends lie between points of the curves, and may be their extremes.
    inside = {s for c in curves for s in c.step_P if begin < s < end}
    for at in (begin, *inside, end):
        scores = [curve.at(at) for curve in curves]
        spread = float(np.std(scores, ddof=1)) if len(curves) > 1 else curves[0].noise
        lows.append(min(scores) - NOISE * spread)
        highs.append(max(scores) + NOISE * spread)
    low, high = min(lows), max(highs)
    if len(curves) == 1:
        low = max(low, float(curves[0].score_P.min()))
    if name.removeprefix("val/").removesuffix("_mean") in _SHARES:
        low, high = max(low, 0.0), min(high, 1.0)
    return low, high


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = upgrade_config(parse_yaml(read_sealed_text(file)))
        config["experiment"]
        return config
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{file}: must be the configuration of a run, got a damaged file ({error}). Restore it."
        ) from None
