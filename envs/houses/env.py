"""ExtObjNav in the embedded houses, as a vector environment and as a single one.

A trial is a house with one arrangement of small objects; each episode asks for one category of
them. The rules are in `envs.objectnav.rules`, movement and pictures in `envs.houses.simulator`;
this file joins them under the trial contract of `envs.core.vector`.

Shapes: N rows, K some of the rows, H and W picture height and width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.core.kernels import compile_ahead
from envs.core.options import refuse_fixed
from envs.core.single import SingleTrialEnv
from envs.core.validation import check_choice, check_count, check_flag
from envs.core.vector import Observation, Rows, State, Transition, TrialVectorEnv
from envs.houses.dataset import HouseDataset
from envs.houses.navigation.memory_expert import MemoryExpert
from envs.houses.navigation.sightings import Sightings
from envs.houses.rendering.renderer import SENSORS as IMAGE_KINDS
from envs.houses.simulator import FIELD_BYTES, HouseSimulator
from envs.objectnav import rules
from envs.objectnav.config import (
    DETECTIONS,
    MAX_DEPTH,
    MAX_PLACES,
    OBSERVATION_KINDS,
    PRIVILEGED,
    Action,
    ObjectNavConfig,
    drawn_images,
    observation_space,
    observed_images,
    parse_resolution,
    parse_sensors,
    parse_task,
)
from envs.objectnav.detections import Detections
from envs.objectnav.goals import GOAL_CATEGORIES
from envs.objectnav.rows import TaskRows, check_same_task, task_text
from envs.objectnav.rules import Goal

RENDERERS = ("cpu", "cuda")
"""What can draw."""


class HousesVectorEnv(TrialVectorEnv):
    """N rows, each in a furnished house of its own.

    Observation (a Dict): the images of `sensors` (`rgb` uint8 (H, W, 3), `depth` float32 metres
    along the optical axis (H, W), `semantic` and `instance` int16 (H, W)); `gps`, the displacement
    (forward, right) from the start of the trial's first episode in the frame of that start;
    `goal`, the index of the category that is asked for; and, if wanted, what the sensor
    `detections` finds (docs/HOUSES.md has the list), `compass`, the heading relative to that same
    start, counter-clockwise, `prev_reward`, 0 at an episode's start, `outcome`, an
    `envs.objectnav.config.Outcome` (`NONE` but at an episode's start), and
    `goal_places`, (K, 2), where in the frame of `gps` the instances of the goal lie, over and over
    until there are K, `goal_recall`, (3,), whether an instance of the goal was in view in this
    trial, and where in that frame it was last, and `critic_state`, (4,), the walking distance to
    the goal, its nearest instance in metres ahead and to the right, and the share of the steps that
    are left: all three to learn from, not to act on.

    Actions: see `envs.objectnav.config.Action`. `stop` ends the episode, found or not. Records add
    `success`, `spl`, `soft_spl`, `goal`, `distance_start`, `distance_end` (walking distance to the
    nearest place from which an instance can be seen), `house` (its number in the split), `area` (of
    the house, in square metres) and, with `sightings`, `seen_ago`: the steps from the last one of
    an earlier episode of the trial that had the goal in view to the episode's first; -1: none.
    """

    goal_categories = GOAL_CATEGORIES
    privileged = PRIVILEGED
    kinds = OBSERVATION_KINDS
    kernel_parts: ClassVar = {
        "drawing": "envs.houses.kernels:draw",
        "walking": "envs.houses.kernels:walk",
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        split: str = "train",
        size: str = "small",
        scale: str | None = None,
        houses: Sequence[int] | None = None,
        resolution: int | Sequence[int] = 64,
        sensors: Sequence[str] = ("rgb",),
        compass: bool = False,
        prev_reward: bool = False,
        goal_places: bool = False,
        outcome: bool = False,
        goal_recall: bool = False,
        critic_state: bool = False,
        sightings: bool = False,
        task: ObjectNavConfig | Mapping[str, Any] | None = None,
        antialias: int = 1,
        threads: int = 1,
        field_bytes: int = FIELD_BYTES,
        renderer: str = "cpu",
        **kwargs: Any,
    ) -> None:
        """Set up N rows that wait for the first `reset`.

        Args:
            num_envs: Number of rows, N.
            split: `train`, `val` or `test`.
            size: Size of the houses: `small`, `medium` or `large`.
            scale: Size of the small objects: `readable` or `real`; None takes the size's default.
            houses: Seeds of houses that replace the split's own.
            resolution: Of the images: the side of a square, or (height, width).
            sensors: Images to draw, of `rgb`, `depth`, `semantic` and `instance`; and
                `detections`, which says where goal objects are, so that perception is given.
            compass: Whether to observe the heading.
            prev_reward: Whether to observe the last reward.
            goal_places: Whether to observe where the goal is.
            outcome: Whether to observe, at an episode's start, how the one before ended.
            goal_recall: Whether to observe where the goal was last detected in this trial.
            critic_state: Whether to observe how far the goal is, for a critic.
            sightings: Whether records say when the goal was last in view before the episode.
            task: The rules, or those of their constants that differ from the paper's.
            antialias: Samples along a pixel's side.
            threads: Threads that draw; results do not depend on their number.
            field_bytes: Most bytes that distance fields may take.
            renderer: `cpu`, or `cuda`: pictures are drawn on the current CUDA device and stay
                there, as arrays that `torch.as_tensor(array, device="cuda")` takes without a copy.
            kwargs: `seed`, `first_row`, `copy` of `TrialVectorEnv`.
        """
        refuse_fixed(HousesVectorEnv, TrialVectorEnv, kwargs)
        self.task = parse_task(task, where="Houses")
        self.fixed_goal = self.task.fixed_goal
        self.dataset = HouseDataset(split, size, scale=scale, houses=houses)
        shape = parse_resolution(resolution, where="Houses")
        self._sensors = parse_sensors(sensors, where="Houses")
        check_count("Houses", "field_bytes", field_bytes, least=0)
        check_choice("Houses", "renderer", renderer, RENDERERS)
        if renderer == "cuda" and DETECTIONS in self._sensors:
            raise ValueError(
                "Houses: renderer must be cpu with the sensor detections, which reads the pictures "
                "there, got 'cuda'. Use renderer=cpu."
            )
        super().__init__(
            num_envs,
            observation_space(
                self._sensors,
                shape,
                compass=compass,
                prev_reward=prev_reward,
                goal_places=goal_places,
                outcome=outcome,
                goal_recall=goal_recall,
                critic_state=critic_state,
                where="Houses",
            ),
            single_action_space=spaces.Discrete(len(Action)),
            dataset_name=self.dataset.name,
            num_trials=self.dataset.num_trials,
            max_episode_steps=self.task.max_episode_steps,
            time_limit_default="terminal",
            **kwargs,
        )
        self.simulator = HouseSimulator(
            self.num_envs,
            config=self.task,
            shape=shape,
            sensors=drawn_images(self._sensors),
            threads=threads,
            antialias=antialias,
            field_bytes=field_bytes,
            renderer=renderer,
        )
        self.task_rows = TaskRows(self.task, self.num_envs, len(GOAL_CATEGORIES))
        self.detections = self._new_detections()
        check_flag("Houses.sightings", sightings)
        self._sightings = Sightings(self.simulator) if sightings else None
        self._unobserved = self._new_pictures(shape)
        self.memory_experts = {kind: MemoryExpert(self.simulator) for kind in ("memory", "episode")}
        """By kind; each knows of the rows what they saw since it was first asked."""
        self._notes_goal_places = goal_places or critic_state
        self._goal_places_NK2 = np.zeros((self.num_envs, MAX_PLACES, 2), np.float32)
        self._house_N = np.zeros(self.num_envs, np.int64)
        self._area_N = np.zeros(self.num_envs)

    def _new_detections(self) -> Detections | None:
        """Return who was named when, if goal objects are to be detected."""
        if DETECTIONS not in self._sensors:
            return None
        hfov = math.radians(self.task.hfov_deg)
        return Detections(self.num_envs, len(GOAL_CATEGORIES), hfov=hfov)

    def _new_pictures(self, shape: tuple[int, int]) -> dict[str, NDArray[Any]]:
        """Return room for the pictures that are drawn, but not observed."""
        hidden = set(drawn_images(self._sensors)) - set(observed_images(self._sensors))
        return {
            name: np.zeros((self.num_envs, *shape, *trailing), dtype)
            for name, (dtype, trailing) in IMAGE_KINDS.items()
            if name in hidden
        }

    def shared_trials(self, other: TrialVectorEnv, trials: Sequence[int]) -> list[int]:
        """Return the trials whose house another dataset has, too, however it is furnished."""
        if not isinstance(other, HousesVectorEnv) or other.dataset.size != self.dataset.size:
            return []
        houses = ((trial, self.dataset.locate(trial)[0]) for trial in trials)
        return [t for t, house in houses if other.dataset.has_house(self.dataset.house_seed(house))]

    def place_of(self, trial: int) -> int:
        """Return the number of a trial's house."""
        return self.dataset.locate(trial)[0]

    def begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Build the houses."""
        compile_ahead(self.kernel_parts)  # not earlier: who is refused has not waited for it
        for expert in self.memory_experts.values():
            expert.forget(rows)
        for row, trial in zip(rows.tolist(), trials.tolist(), strict=True):
            house, arrangement = self.dataset.locate(trial)
            self._house_N[row] = house
            self.task_rows.begin_trial(row)
            if self.detections is not None:
                self.detections.begin_trial(row)
            if self._sightings is not None:
                self._sightings.begin_trial(row)
            scene, grid = self.dataset.scene(house, arrangement), self.dataset.grid(house)
            self._area_N[row] = math.prod(scene.house.extent)
            self.simulator.set_scene(row, scene, grid)

    def begin_episodes(self, rows: Rows) -> None:
        """Close the episodes before, draw the next and place the agents."""
        self.memory_experts["episode"].forget(rows)
        for row in rows.tolist():
            self.task_rows.close_episode(row, self.simulator.base_pose(row))
            plan = rules.plan_episode(
                self.task,
                self.simulator.task_scene(row),
                self.task_rows.history[row],
                dataset=self.dataset_name,
                trial=int(self.trial[row]),
            )
            self.task_rows.begin_episode(row, plan)
            self.simulator.begin(row, plan)
            if self._sightings is not None:
                self._sightings.begin_episode(row, plan.goal.instances)
            self._note_goal_places(row)

    def advance(self, actions: NDArray[Any]) -> Transition:
        """Move in the houses; the rules say what that earns."""
        if self.detections is not None:
            self.detections.act(np.arange(self.num_envs))
        if self._sightings is not None:
            self._sightings.look()
        before_N = self.simulator.distance_N.copy()
        self.simulator.advance(actions)
        stopped_N = actions == Action.STOP
        success_N = np.zeros(self.num_envs, bool)
        stopped = np.flatnonzero(stopped_N)
        success_N[stopped] = self.simulator.would_succeed(stopped)
        reward_N = self.task_rows.act(
            np.arange(self.num_envs),
            stopped_K=stopped_N,
            success_K=success_N,
            before_K=before_N,
            after_K=self.simulator.distance_N,
        )
        return reward_N, stopped_N, np.zeros(self.num_envs, bool)

    def observe_rows(self, rows: Rows | None, out: Observation) -> None:
        """Draw the pictures; the rules add the rest."""
        pictures = self._unobserved | {n: out[n] for n in observed_images(self._sensors)}
        if pictures:
            self.simulator.render(rows, pictures)
            out |= {name: pictures[name] for name in observed_images(self._sensors)}
        pose_N4 = self.simulator.pose_N4
        self.task_rows.observe(rows, pose_N4, out)
        if self.detections is not None:
            turned_K = self.task_rows.turned(rows, pose_N4)
            self.detections.observe(
                rows, pictures, pitch_N=pose_N4[:, 3], turned_K=turned_K, out=out
            )
        if "goal_places" in out:
            chosen = slice(None) if rows is None else rows
            out["goal_places"][chosen] = self._goal_places_NK2[chosen]
        if "critic_state" in out:
            self._observe_critic_state(np.arange(self.num_envs) if rows is None else rows, out)

    def _observe_critic_state(self, rows: Rows, out: Observation) -> None:
        """Write the way to the goal, as seen from where the agents stand, and the time left."""
        turned_K = self.task_rows.turned(rows, self.simulator.pose_N4)
        away_KP2 = self._goal_places_NK2[rows] - out["gps"][rows][:, None]
        nearest_K = np.hypot(away_KP2[..., 0], away_KP2[..., 1]).argmin(axis=1)
        seen_K2 = rules.into_view(away_KP2[np.arange(len(rows)), nearest_K], turned_K)
        left_K = 1.0 - self.elapsed_steps[rows] / self.max_episode_steps
        distance_K = np.minimum(self.simulator.distance_N[rows], MAX_DEPTH)
        out["critic_state"][rows] = np.column_stack([distance_K, seen_K2, left_K])

    def _note_goal_places(self, row: int) -> None:
        """Note where a row's goal is in the frame of its `gps`, if that is observed."""
        if not self._notes_goal_places:
            return
        xy_I2 = self.simulator.task_scene(row).instance_xy(self.simulator.goal(row))
        origin = self.task_rows.history[row].origin
        x, y, heading = (np.full(len(xy_I2), value) for value in origin[:3])
        places_I2 = rules.gps(xy_I2[:, 0], xy_I2[:, 1], (x, y, heading))
        self._goal_places_NK2[row] = np.resize(places_I2, (MAX_PLACES, 2))

    def record_rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Add the entries of the task, the house and its area."""
        return {
            **self.task_rows.record(rows, self.simulator.distance_N, self.simulator.path_N),
            "house": self._house_N[rows],
            "area": self._area_N[rows],
            **({} if self._sightings is None else self._sightings.record(rows)),
        }

    def ask_expert(self) -> NDArray[np.int64]:
        """Follow the shortest paths."""
        return self.simulator.expert_actions()

    def ask_memory_expert(self, kind: str) -> NDArray[np.int64]:
        """Go to what was in view in the trial or the episode, or explore."""
        return self.memory_experts[kind].actions(np.arange(self.num_envs))

    def save_rows(self) -> State:
        """Return where the agents are, their goals, and the state of the rules."""
        goals = [self.simulator.goal(n).instances for n in range(self.num_envs)]
        width = max(map(len, goals))
        return {
            "task": task_text(self.task),
            "pose": self.simulator.pose_N4.copy(),
            "path": self.simulator.path_N.copy(),
            "distance": self.simulator.distance_N.copy(),
            "instances": np.array([g + (-1,) * (width - len(g)) for g in goals], np.int64),
            **({} if self.detections is None else self.detections.state()),
            **({} if self._sightings is None else {"sightings": self._sightings.state()}),
            "memory_experts": {k: expert.state() for k, expert in self.memory_experts.items()},
            **self.task_rows.state(),
        }

    def check_rows(self, state: State) -> None:
        """Refuse other rules, and a state without what this environment is asked to tell."""
        super().check_rows(state)
        check_same_task("HousesVectorEnv", self.task, state)
        if self.detections is not None:
            self.detections.check_state(state)
        if self._sightings is not None:
            self._sightings.check_state(state.get("sightings"))

    def load_rows(self, state: State) -> None:
        """Take it over; distance fields are computed again."""
        # Older states have none, or those alone that had been asked.
        known: Mapping[str, Any] = state.get("memory_experts", {})
        self.task_rows.load_state(state)
        if self.detections is not None:
            self.detections.load_state(state)
        if self._sightings is not None:
            self._sightings.load_state(state["sightings"])
        self.simulator.pose_N4[:] = state["pose"]
        self.simulator.path_N[:] = state["path"]
        for row in range(self.num_envs):
            instances = tuple(int(i) for i in state["instances"][row] if i >= 0)
            self.simulator.set_goal(row, Goal(int(self.task_rows.category_N[row]), instances))
            self._note_goal_places(row)
        self.simulator.distance_N[:] = state["distance"]
        for kind, expert in self.memory_experts.items():
            expert.load_state(known.get(kind, {}))

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads that draw."""
        if "simulator" in vars(self):  # which it is not if __init__ refused its arguments
            self.simulator.close()


class HousesEnv(SingleTrialEnv):
    """One row as a plain Gymnasium environment: scalars, no autoreset."""

    def __init__(self, **kwargs: Any) -> None:
        """Set up a row; the arguments are those of `HousesVectorEnv` but `num_envs`."""
        super().__init__(HousesVectorEnv(1, **kwargs))
