"""The rules of ExtObjNav, free of any simulator.

Episode after episode an agent is asked for one of the categories of small objects that lie about
in a house. What is asked, where the agent starts, what it earns and how it is scored are functions
of (dataset, trial, episode index, what happened earlier in the trial), and of nothing else. A
simulator answers the few questions of `TaskScene`; it moves and draws, and decides nothing here.

Sources: the task and its constants are those of ReLIC (Elawady et al., arXiv 2410.02751), SPL is
that of Anderson et al. 2018 (arXiv 1807.06757), SoftSPL that of Datta et al. 2020 (arXiv
2009.03231); `gps` and `compass` follow Habitat's episodic sensors.

Shapes: N rows, I goal instances, C categories.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.core.draws import keyed_generator
from envs.objectnav.config import GoalInstances, GoalSampling, ObjectNavConfig, StartMode

Array = NDArray[Any]


class Pose(NamedTuple):
    """Where the agent's base is. z is up; the heading grows counter-clockwise from +x."""

    x: float
    y: float
    heading: float
    z: float = 0.0


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked for: any one of these instances of one category."""

    category: int
    instances: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """What an episode is before its first action."""

    goal: Goal
    start: Pose
    distance: float
    """Geodesic distance from the start to the nearest viewpoint of any goal instance."""


class TaskScene(Protocol):
    """What the rules ask of a simulator about one house with one arrangement of objects."""

    @property
    def num_categories(self) -> int:
        """Number of goal categories of the dataset, present here or not."""
        ...

    @property
    def goal_instances(self) -> Mapping[int, tuple[int, ...]]:
        """The instances that can be seen from somewhere, by category, in a fixed order."""
        ...

    def random_position(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Draw (x, y, z) uniformly over the free space of the largest connected part."""
        ...

    def distance(self, position: tuple[float, float, float], goal: Goal) -> float:
        """Geodesic distance to the nearest viewpoint of any instance of `goal`."""
        ...


@dataclass(slots=True)
class TrialHistory:
    """What earlier episodes of a trial leave behind for later ones. `begin` and `end` advance it.

    An episode that a reset cuts short has begun but not ended: it counts as neither a success nor
    a failure.
    """

    num_categories: int
    episodes: int = 0
    """Episodes that have begun, which is the index of the next one."""
    goals: list[int] = field(default_factory=list)
    """Distinct goal categories in the order in which they were first asked for."""
    starts: list[Pose] = field(default_factory=list)
    """Distinct start poses, the first `num_starts` of them (one if there is no limit)."""
    last_end: Pose | None = None
    successes_C: Array = field(init=False)
    failures_C: Array = field(init=False)
    steps_C: Array = field(init=False)

    def __post_init__(self) -> None:
        """Start counting at nothing."""
        for name in ("successes_C", "failures_C", "steps_C"):
            setattr(self, name, np.zeros(self.num_categories, np.int64))

    @property
    def origin(self) -> Pose:
        """Start pose of the trial's first episode: the origin of `gps` and `compass`."""
        return self.starts[0]

    def begin(self, plan: EpisodePlan, config: ObjectNavConfig) -> None:
        """Count an episode that begins. Advances the history."""
        self.episodes += 1
        if plan.goal.category not in self.goals:
            self.goals.append(plan.goal.category)
        if len(self.starts) < (config.num_starts or 1):
            self.starts.append(plan.start)

    def end(self, category: int, *, success: bool, steps: int) -> None:
        """Count the outcome of an episode that ran to its end. Advances the history."""
        outcome = self.successes_C if success else self.failures_C
        outcome[category] += 1
        self.steps_C[category] += steps

    def state_dict(self) -> dict[str, Any]:
        """Everything, as copies of numpy arrays and ints."""
        ends = [] if self.last_end is None else [self.last_end]
        return {
            "episodes": self.episodes,
            "goals": np.array(self.goals, np.int64),
            "starts": np.array(self.starts, np.float64).reshape(-1, 4),
            "last_end": np.array(ends, np.float64).reshape(-1, 4),
            "successes": self.successes_C.copy(),
            "failures": self.failures_C.copy(),
            "steps": self.steps_C.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TrialHistory:
        """Rebuild what `state_dict` described."""
        history = cls(len(state["steps"]))
        history.episodes = int(state["episodes"])
        history.goals = [int(c) for c in state["goals"]]
        history.starts = [Pose(*map(float, p)) for p in state["starts"]]
        history.last_end = next((Pose(*map(float, p)) for p in state["last_end"]), None)
        history.successes_C = np.array(state["successes"], np.int64)
        history.failures_C = np.array(state["failures"], np.int64)
        history.steps_C = np.array(state["steps"], np.int64)
        return history


def plan_episode(
    config: ObjectNavConfig,
    scene: TaskScene,
    history: TrialHistory,
    *,
    dataset: str,
    trial: int,
) -> EpisodePlan:
    """Draw the next episode of a trial: what is asked for, and where the agent starts."""
    # A generator for each episode, so that no state of one has to be saved or replayed.
    rng = keyed_generator(dataset, trial, history.episodes)
    category = sample_category(config, scene, history, rng=rng)
    per_trial = config.goal_instances is GoalInstances.ONE_PER_TRIAL
    # A choice for the trial must not depend on the episode that first asks for the category.
    chooser = keyed_generator(dataset, trial, "instance", category) if per_trial else rng
    goal = choose_instances(config, scene, category, rng=chooser)
    start, distance = sample_start(config, scene, history, goal=goal, rng=rng)
    return EpisodePlan(goal, start, distance)


def category_weights(config: ObjectNavConfig, scene: TaskScene, history: TrialHistory) -> Array:
    """Weight of each category, 0 for those that may not be asked for now. See `GoalSampling`."""
    count_C = np.zeros(scene.num_categories)
    for category, instances in scene.goal_instances.items():
        count_C[category] = len(instances)
    allowed_C = count_C > 0
    if config.max_goals is not None and len(history.goals) >= config.max_goals:
        allowed_C &= np.isin(np.arange(scene.num_categories), history.goals)
    match config.goal_sampling:
        case GoalSampling.UNIFORM:
            weight_C = np.ones_like(count_C)
        case GoalSampling.INSTANCES:
            weight_C = count_C
        case GoalSampling.INVERSE_INSTANCES:
            weight_C = 1.0 / np.maximum(count_C, 1.0)
        case GoalSampling.FAILURES:
            weight_C = 1.0 + history.failures_C
        case GoalSampling.FEWEST_STEPS:
            # 1 more, so that the category with the most steps can still be drawn.
            weight_C = 1.0 + history.steps_C[allowed_C].max(initial=0) - history.steps_C
        case GoalSampling.UCB:
            # 2, so that the logarithm is above 0 before the first success.
            total = np.log(2.0 + history.successes_C.sum())
            weight_C = np.sqrt(total / (1.0 + history.successes_C))
    return np.where(allowed_C, weight_C, 0.0)


def sample_category(
    config: ObjectNavConfig,
    scene: TaskScene,
    history: TrialHistory,
    *,
    rng: np.random.Generator,
) -> int:
    """Draw the category of the next episode."""
    if config.fixed_goal and history.goals:
        return history.goals[0]
    weight_C = category_weights(config, scene, history)
    cumulative_C = np.cumsum(weight_C)
    if not cumulative_C[-1] > 0:
        raise ValueError(
            "sample_category: the scene must hold an object that can be seen from free space, "
            "got none. Use another house."
        )
    # From the right, so that not even a draw of 0 gives a category of weight 0.
    return int(np.searchsorted(cumulative_C, rng.random() * cumulative_C[-1], side="right"))


def choose_instances(
    config: ObjectNavConfig, scene: TaskScene, category: int, *, rng: np.random.Generator
) -> Goal:
    """Say which instances of the category satisfy the goal."""
    instances = scene.goal_instances[category]
    if config.goal_instances is GoalInstances.ALL:
        return Goal(category, tuple(instances))
    return Goal(category, (instances[int(rng.integers(len(instances)))],))


def sample_start(
    config: ObjectNavConfig,
    scene: TaskScene,
    history: TrialHistory,
    *,
    goal: Goal,
    rng: np.random.Generator,
) -> tuple[Pose, float]:
    """Draw the start pose of the next episode; returns its geodesic distance too."""
    if config.start is StartMode.PREVIOUS_END and history.last_end is not None:
        pose = history.last_end
        return pose, scene.distance((pose.x, pose.y, pose.z), goal)
    remembered = config.num_starts is not None and len(history.starts) >= config.num_starts
    candidates = list(rng.permutation(len(history.starts))) if remembered else None
    best: tuple[Pose, float] | None = None
    for attempt in range(config.start_attempts if candidates is None else len(candidates)):
        if candidates is not None:
            pose = history.starts[candidates[attempt]]
        else:
            x, y, z = scene.random_position(rng)
            pose = Pose(x, y, rng.random() * 2.0 * math.pi, z)
        distance = scene.distance((pose.x, pose.y, pose.z), goal)
        if distance >= config.min_start_distance:
            return pose, distance
        if best is None or distance > best[1]:
            best = pose, distance
    if best is None:
        raise ValueError("sample_start: start_attempts must be at least 1, got 0.")
    # No try was far enough, so the farthest has to do.
    return best


def reward(
    config: ObjectNavConfig, before_N: Array, after_N: Array, success_N: Array
) -> NDArray[np.float64]:
    """Reward of a step: metres gained, plus slack, plus what success earns.

    Args:
        config: The task.
        before_N: Geodesic distance to the goal before the step.
        after_N: The same after it.
        success_N: Whether the step was a stop that succeeded.
    """
    progress_N = progress(config, before_N, after_N)
    return progress_N + config.slack_reward + config.success_reward * np.asarray(success_N)


def progress(config: ObjectNavConfig, before_N: Array, after_N: Array) -> NDArray[np.float64]:
    """What is earned by coming nearer; over an episode it sums to that of its start and end."""
    return config.progress_reward * (np.asarray(before_N) - np.asarray(after_N))


def near_instances(
    config: ObjectNavConfig, x: float, y: float, instance_xy_I2: Array
) -> NDArray[np.bool_]:
    """Which instances are within `success_distance` of (x, y), horizontally."""
    return np.hypot(instance_xy_I2[:, 0] - x, instance_xy_I2[:, 1] - y) <= config.success_distance


def succeeded(config: ObjectNavConfig, near_I: Array, pixels_I: Array) -> bool:
    """Whether a stop here succeeds: one and the same instance is near and in view.

    This is the one place that decides. The simulators ask it at each stop (`would_succeed`),
    `TaskRows.act` keeps the answer, and the episode's record tells it as `success`.
    """
    return bool(np.any(np.asarray(near_I) & (np.asarray(pixels_I) >= config.success_pixels)))


def _efficiency(start_N: Array, path_N: Array) -> NDArray[np.float64]:
    longest_N = np.maximum(start_N, path_N)
    return np.divide(start_N, longest_N, out=np.ones_like(longest_N), where=longest_N > 0)


def spl(success_N: Array, start_N: Array, path_N: Array) -> NDArray[np.float64]:
    """Success weighted by path length: success * d0 / max(d0, path).

    d0 is the geodesic distance at the start and the path is the sum of the base's displacements.
    An episode that starts on a viewpoint (d0 = 0) and succeeds without leaving the spot was
    perfect: 1. If it walked first it is 0, which is the formula's limit.
    """
    start_N, path_N = np.asarray(start_N, np.float64), np.asarray(path_N, np.float64)
    return np.asarray(success_N, np.float64) * _efficiency(start_N, path_N)


def soft_spl(end_N: Array, start_N: Array, path_N: Array) -> NDArray[np.float64]:
    """SPL with progress in the place of success: max(0, 1 - dT / d0) * d0 / max(d0, path).

    From d0 = 0 progress is 1 if the episode ended there too (dT = 0), else 0.
    """
    end_N, start_N = np.asarray(end_N, np.float64), np.asarray(start_N, np.float64)
    share_N = np.divide(
        end_N, start_N, out=np.where(end_N > 0, 1.0, 0.0), where=np.asarray(start_N > 0)
    )
    efficiency_N = _efficiency(start_N, np.asarray(path_N, np.float64))
    return np.maximum(0.0, 1.0 - share_N) * efficiency_N


def gps(x_N: Array, y_N: Array, origin_N: tuple[Array, Array, Array]) -> NDArray[np.float32]:
    """Displacement (forward, right), (N, 2), in the frame of the origin's (x, y, heading).

    Axes as Habitat's episodic GPS sensor. The origin is the start of the trial's first episode, so
    the frame lasts for the whole trial.
    """
    dx_N, dy_N = x_N - origin_N[0], y_N - origin_N[1]
    cos_N, sin_N = np.cos(origin_N[2]), np.sin(origin_N[2])
    moved_N2 = np.empty((*np.shape(dx_N), 2), np.float32)
    moved_N2[..., 0] = dx_N * cos_N + dy_N * sin_N
    moved_N2[..., 1] = dx_N * sin_N - dy_N * cos_N
    return moved_N2


def compass(heading_N: Array, origin_heading_N: Array) -> NDArray[np.float32]:
    """Heading relative to the origin's, (N, 1), in [-pi, pi), counter-clockwise positive."""
    turned_N = np.mod(heading_N - origin_heading_N + np.pi, 2.0 * np.pi) - np.pi
    return turned_N[..., None].astype(np.float32)


def into_view(offset_N2: Array, turned_N: Array) -> Array:
    """Offsets (forward, right) in the frame of `gps`, as (ahead, right) of agents, (..., 2).

    Args:
        offset_N2: from the agents.
        turned_N: the agents' headings in that frame, (...).
    """
    # The frame's axes are forward and right, and a heading turns to the left.
    cos_N, sin_N = np.cos(turned_N), np.sin(turned_N)
    forward_N, right_N = offset_N2[..., 0], offset_N2[..., 1]
    return np.stack([forward_N * cos_N - right_N * sin_N, forward_N * sin_N + right_N * cos_N], -1)


def into_frame(seen_N2: Array, turned_N: Array) -> Array:
    """Undo `into_view`."""
    return into_view(seen_N2, -turned_N)
