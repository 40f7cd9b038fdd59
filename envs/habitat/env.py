"""ExtObjNav in Habitat's scenes, as a vector environment and as a single one.

A trial is a scene with one arrangement of small objects, as a file of rearrangement episodes gives
it. The rules are those of `envs.objectnav.rules` and run here; each row's agent moves and sees in a
process of its own (`envs.habitat.worker`), under any interpreter that has habitat-sim.

Shapes: N rows, K some of the rows, H and W picture height and width.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.core.process_env import ProcessVectorEnv
from envs.core.process_pool import WorkerError
from envs.core.single import SingleTrialEnv
from envs.core.vector import Observation, Rows, State, Transition, TrialVectorEnv
from envs.habitat.agents import HabitatAgents
from envs.habitat.data import HabitatData, NavmeshMode
from envs.habitat.places import Place, Places, RowScene
from envs.habitat.setting import WHERE, Setting, parse_choice, parse_path
from envs.habitat.start import SERVER_FILE, environment, explain, start_simulators
from envs.objectnav import rules
from envs.objectnav.config import (
    DETECTIONS,
    OBSERVATION_KINDS,
    PRIVILEGED,
    Action,
    ObjectNavConfig,
    drawn_images,
    observation_space,
)
from envs.objectnav.detections import Detections
from envs.objectnav.goals import GOAL_CATEGORIES
from envs.objectnav.rows import TaskRows, check_same_task, task_text
from envs.objectnav.rules import EpisodePlan

MAX_SEMANTIC = np.iinfo(np.int16).max


class HabitatVectorEnv(ProcessVectorEnv):
    """N rows, each in a Habitat scene of its own process.

    Observations, actions and records are those of the embedded houses (`envs.houses.env`), where
    `semantic` shows 100 + category for goal objects and the scene's own ids for all else. Records
    have `scene` (its number in the dataset), `area` (of the free space).
    """

    goal_categories = GOAL_CATEGORIES
    privileged = PRIVILEGED
    kinds = OBSERVATION_KINDS

    def __init__(
        self,
        num_envs: int = 1,
        *,
        scene_dataset: str | Path | None = None,
        episodes: str | Path | None = None,
        python: str | None = None,
        objects: Sequence[str | Path] = (),
        geometry: str = "paper",
        task: ObjectNavConfig | Mapping[str, Any] | None = None,
        resolution: int | Sequence[int] = 256,
        sensors: Sequence[str] = ("rgb",),
        compass: bool = False,
        prev_reward: bool = False,
        outcome: bool = False,
        navmesh: str = "file",
        viewpoint_spacing: float = 0.1,
        gpus: Sequence[int] = (-1,),
        image_lighting: bool = True,
        cache: str | Path | None = None,
        backend: str | Path | None = None,
        timeout: float = 300.0,
        **kwargs: Any,
    ) -> None:
        """Find all files, start the workers, and wait for the first `reset`.

        Args:
            num_envs: N.
            scene_dataset: configuration of a Habitat scene dataset.
            episodes: file of rearrangement episodes, which are the trials.
            python: interpreter that has habitat-sim; by default this one.
            objects: further directories with configurations of the episodes' objects.
            geometry: `paper`, or `released` for the turns and camera of the paper's code.
            task: the rules, or those of their constants that differ from the preset's.
            resolution: of the images: the side of a square, or (height, width).
            sensors: images to draw, of `rgb`, `depth`, `semantic` and `instance`; and
                `detections`, which says where goal objects are, so that perception is given.
            compass: whether to observe the heading.
            prev_reward: whether to observe the last reward.
            outcome: whether to observe, at an episode's start, how the one before ended.
            navmesh: `file` reads the one that comes with a scene, `compute` makes one.
            viewpoint_spacing: of the grid that viewpoints are looked for on, in metres.
            gpus: CUDA devices that rows draw on, in turn; -1 is the first device of EGL.
            image_lighting: light scenes by images, as habitat-sim does by default. Without it,
                simulators start at once on a CPU.
            cache: directory for viewpoints and navmeshes; by default one in the user's cache.
            backend: file with a `Backend` that stands in for habitat-sim.
            timeout: seconds that a call may take; opening a scene is one.
            kwargs: `start_timeout`, `max_crashes` of `ProcessVectorEnv`; `seed`, `first_row`,
                `copy` of `TrialVectorEnv`.

        Raises:
            ValueError: An option is wrong, a file is missing or damaged, or habitat-sim does not
                start.
        """
        self.setting = setting = Setting(
            geometry=geometry,
            task=task,
            resolution=resolution,
            sensors=sensors,
            viewpoint_spacing=viewpoint_spacing,
            gpus=gpus,
            image_lighting=image_lighting,
            cache=cache,
        )
        self.rules = setting.rules
        self.fixed_goal = self.rules.fixed_goal
        self._space = observation_space(
            setting.sensors,
            setting.shape,
            compass=compass,
            prev_reward=prev_reward,
            outcome=outcome,
            where=WHERE,
            max_semantic=MAX_SEMANTIC,
        )
        self.data = HabitatData(
            parse_path("scene_dataset", scene_dataset, "Name its *.scene_dataset_config.json."),
            parse_path("episodes", episodes, "Name a file, or make one: docs/HABITAT.md."),
            objects=objects,
            navmesh=parse_choice("navmesh", navmesh, NavmeshMode),
            cache=setting.cache / "navmeshes",
            agent_radius=self.rules.agent_radius,
        )
        options = setting.worker_options(str(self.data.dataset.config))
        if backend is not None:
            options["backend"] = str(Path(backend).absolute())
        self._start(num_envs, python or sys.executable, options, timeout=timeout, **kwargs)
        self.task_rows = TaskRows(self.rules, self.num_envs, len(GOAL_CATEGORIES))
        self._before = [history.state_dict() for history in self.task_rows.history]
        self._turn_before_NC = np.zeros((self.num_envs, len(GOAL_CATEGORIES)), np.int64)
        self._pictures = self._new_pictures()
        self.detections = self._new_detections()
        self.agents = HabitatAgents(self.num_envs, setting, self.call_rows, self.watch.note)
        self.places = Places(self.data, setting, self.call_rows)

    def _start(self, num_envs: int, python: str, options: Mapping[str, Any], **kwargs: Any) -> None:
        """Start the workers and their simulators, or say why they do not start."""
        gpus = self.setting.gpus
        try:
            super().__init__(
                SERVER_FILE,
                num_envs,
                dataset_name=self.data.name,
                num_trials=len(self.data.arrangements),
                max_episode_steps=self.rules.max_episode_steps,
                python=python,
                options=options,
                environment=environment(gpus[0]),
                time_limit_default="terminal",
                **kwargs,
            )
        except WorkerError as error:
            raise explain(str(error), python=python, gpu=gpus[0]) or error from None
        try:
            start_simulators(self.pool, gpus)
        except BaseException:
            self.pool.close()
            raise

    def _new_pictures(self) -> dict[str, NDArray[Any]]:
        """Return where workers' pictures are kept: where they are observed, or beside it."""
        kinds = {"rgb": np.uint8, "depth": np.float32, "semantic": np.int16, "instance": np.int16}
        shape = (self.num_envs, *self.setting.shape)
        return {
            name: self.shown[name] if name in self.shown else np.zeros(shape, kinds[name])
            for name in drawn_images(self.setting.sensors)
        }

    def _new_detections(self) -> Detections | None:
        """Return who was named when, if goal objects are to be detected."""
        if DETECTIONS not in self.setting.sensors:
            return None
        return Detections(
            self.num_envs,
            len(GOAL_CATEGORIES),
            hfov=math.radians(self.rules.hfov_deg),
            eye_ahead=self.setting.geometry.eye[0],
        )

    def shared_trials(self, other: TrialVectorEnv, trials: Sequence[int]) -> list[int]:
        """Return the trials whose scene another dataset has, too, however it is furnished."""
        if not isinstance(other, HabitatVectorEnv):
            return []
        if self.data.dataset.name != other.data.dataset.name:
            return []
        theirs = {a.scene for a in other.data.arrangements}
        mine = self.data.arrangements
        return [t for t in trials if mine[t % len(mine)].scene in theirs]

    def place_of(self, trial: int) -> int:
        """Return the number of a trial's scene."""
        return self.data.scene_number(trial % len(self.data.arrangements))

    def row_space(self, drawn: spaces.Dict) -> spaces.Dict:
        """Return the space of the task, which adds to the pictures what the rules know."""
        return self._space

    def begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Forget what happened in the trials before."""
        for row in rows.tolist():
            self.task_rows.begin_trial(row)
            if self.detections is not None:
                self.detections.begin_trial(row)

    def begin_episodes(self, rows: Rows) -> None:
        """Close the episodes before, and begin the next."""
        for row in rows.tolist():
            self.task_rows.close_episode(row, self.agents.base_pose(row))
            # As it was before the episode, since loading a state plays the episode again.
            self._before[row] = self.task_rows.history[row].state_dict()
        if self.detections is not None:
            self._turn_before_NC[rows] = self.detections.turn_NC[rows]
        self.begin_rows(rows)

    def begin_rows(self, rows: Rows) -> None:
        """Open the scenes, draw the episodes and begin them, until no worker is lost on the way."""
        waiting = rows
        while len(waiting):
            for row in self.restart_lost(waiting).tolist():
                self.places.forget(row)
            places = self.places.open({row: self.task(row) for row in waiting.tolist()})
            drawn = {row: self._plan(row, place) for row, place in places.items()}
            plans = {row: plan for row, plan in drawn.items() if plan is not None}
            begun = self.agents.begin(plans, places)
            for row in begun.tolist():
                self.task_rows.begin_episode(row, plans[row])
            self._note(begun)
            waiting = np.setdiff1d(waiting, begun)

    def _plan(self, row: int, place: Place) -> EpisodePlan | None:
        """Draw a row's next episode; None if its worker is lost on the way."""
        plan = rules.plan_episode(
            self.rules,
            RowScene(place, partial(self.agents.distance, row, place)),
            self.task_rows.history[row],
            dataset=self.dataset_name,
            trial=int(self.trial[row]),
        )
        return None if self.lost_N[row] else plan

    def _note(self, rows: Rows) -> None:
        """Keep what rows see beside pictures."""
        self.task_rows.observe(rows, self.agents.pose_N4, self.shown)
        if self.detections is not None:
            turned_K = self.task_rows.turned(rows, self.agents.pose_N4)
            self.detections.observe(
                rows,
                self._pictures,
                pitch_N=self.agents.pitch_N,
                turned_K=turned_K,
                out=self.shown,
            )

    def show(self, row: int, observation: Observation) -> None:
        """Keep the pictures of a row; the rest of its observation comes from the rules."""
        for name, picture_N in self._pictures.items():
            picture_N[row] = observation[name]

    def step_rows(self, rows: Rows, actions: NDArray[Any]) -> Transition:
        """Move in the scenes; the rules say what that earns."""
        if self.detections is not None:
            self.detections.act(rows)
        before_K = self.agents.distance_N[rows]
        stopped_K = actions == Action.STOP
        success_K = np.zeros(len(rows), bool)
        success_K[stopped_K] = self.agents.would_succeed(rows[stopped_K])
        self.agents.move(rows[~stopped_K], actions[~stopped_K])
        lost_K = self.lost_N[rows]
        # A worker that was lost while it counted pixels leaves the stop undecided: truncated.
        stopped_K &= ~lost_K
        reward_K = self.task_rows.act(
            rows,
            stopped_K=stopped_K,
            success_K=success_K,
            before_K=before_K,
            after_K=self.agents.distance_N[rows],
        )
        self._note(rows)
        return reward_K, stopped_K, lost_K

    def record_rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Add the entries of the task, the scene and its area."""
        return {
            **super().record_rows(rows),
            **self.task_rows.record(rows, self.agents.distance_N, self.agents.path_N),
            "scene": np.array([self.data.scene_number(self.task(row)) for row in rows.tolist()]),
            "area": np.array([self.agents.area(row) for row in rows.tolist()]),
        }

    def ask_expert(self) -> NDArray[np.int64]:
        """Follow the shortest paths."""
        return self.agents.expert_actions()

    def save_rows(self) -> State:
        """Add the task, and what was known of each trial before its running episode."""
        histories = {str(n): before for n, before in enumerate(self._before)}
        state = {**super().save_rows(), "task": task_text(self.rules), "before": histories}
        state["outcome"] = self.task_rows.state()["outcome"]
        if self.detections is not None:
            state |= self.detections.state() | {"named_turn": self._turn_before_NC.copy()}
        return state

    def check_rows(self, state: State) -> None:
        """Refuse other rules, and a state without what this environment is asked to tell."""
        super().check_rows(state)
        check_same_task("HabitatVectorEnv", self.rules, state)
        if self.detections is not None:
            self.detections.check_state(state)

    def load_rows(self, state: State) -> None:
        """Take over the histories, then replay."""
        for row in range(self.num_envs):
            self._before[row] = state["before"][str(row)]
            # The replay draws the running episode again, out of the history before it.
            self.task_rows.history[row] = rules.TrialHistory.from_state(self._before[row])
        # Of the episode before, which the replay does not play; older states have none.
        self.task_rows.load_outcomes(state.get("outcome", 0))
        if self.detections is not None:
            self.detections.load_state(state)
            self._turn_before_NC[:] = self.detections.turn_NC
        super().load_rows(state)


class HabitatEnv(SingleTrialEnv):
    """One row as a plain Gymnasium environment: scalars, no autoreset."""

    def __init__(self, **kwargs: Any) -> None:
        """Set up a row; the arguments are those of `HabitatVectorEnv` but `num_envs`."""
        super().__init__(HabitatVectorEnv(1, **kwargs))
