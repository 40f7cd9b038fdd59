"""N agents, each in a Habitat scene in its own process: their poses and observations.

Goals, rewards and episodes are decided elsewhere; turns, tilts and steps are measured out here and
carried out by the workers. A row whose worker is lost on the way stays where it was, and so does
one whose worker says that it is nowhere.

Shapes: N rows, K some of the rows, I goal instances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.core.process_pool import Lost
from envs.core.vector import Rows
from envs.habitat.places import Call, Place
from envs.habitat.setting import Setting
from envs.objectnav.config import Action
from envs.objectnav.rules import EpisodePlan, Goal, Pose, near_instances, succeeded


class HabitatAgents:
    """Moves N agents. Methods that name rows change only those."""

    def __init__(
        self, num_rows: int, setting: Setting, call: Call, note: Callable[[int, str], None]
    ) -> None:
        """Allocate rows that wait for episodes.

        Args:
            num_rows: N.
            setting: how agents move and look.
            call: reaches the workers.
            note: is told of a row whose worker says what cannot be meant.
        """
        self._setting, self._call, self._note = setting, call, note
        self._rules, self._geometry = setting.rules, setting.geometry
        self.goal: list[Goal | None] = [None] * num_rows
        self.place: list[Place | None] = [None] * num_rows
        self.tilt_N = np.full(num_rows, setting.geometry.start)
        self.pose_N4 = np.zeros((num_rows, 4))
        """Each row's x, y, heading and height of the floor."""
        self.path_N = np.zeros(num_rows)
        """Metres walked in the episode."""
        self.distance_N = np.zeros(num_rows)
        """Walking distance to the nearest viewpoint of the goal."""

    @property
    def pitch_N(self) -> NDArray[np.float64]:
        """Each row's pitch of the camera in radians."""
        return np.array([self._geometry.pitch(tilt) for tilt in self.tilt_N.tolist()])

    def base_pose(self, row: int) -> Pose:
        """Return where a row's agent is."""
        x, y, heading, z = self.pose_N4[row].tolist()
        return Pose(x, y, heading, z)

    def area(self, row: int) -> float:
        """Return the square metres of free space that a row's agent has."""
        place = self.place[row]
        return 0.0 if place is None else place.area

    def distance(
        self, row: int, place: Place, position: tuple[float, float, float], goal: Goal
    ) -> float:
        """Ask a row's worker for a walking distance; infinite if it is lost."""
        arguments = [(list(position), place.goal_points(goal))]
        answer = self._call(np.array([row]), "distance", arguments, show=False)[0]
        return math.inf if isinstance(answer, Lost) else float(answer)

    def begin(self, plans: Mapping[int, EpisodePlan], places: Mapping[int, Place]) -> Rows:
        """Begin planned episodes.

        Args:
            plans: by row.
            places: that the rows' workers have open, by row.

        Returns:
            The rows in which that went well.
        """
        rows = np.array(sorted(plans), np.int64)
        pitch = self._geometry.pitch(self._geometry.start)
        arguments = []
        for row in rows.tolist():
            start, goal = plans[row].start, plans[row].goal
            position, points = [start.x, start.y, start.z], places[row].goal_points(goal)
            arguments.append((position, start.heading, pitch, points, list(goal.instances)))
        begun: list[int] = []
        answers = self._call(rows, "begin", arguments, show=True)
        for row, answer in zip(rows.tolist(), answers, strict=True):
            if not isinstance(answer, Lost):
                begun.append(row)
                self.place[row], self.goal[row] = places[row], plans[row].goal
                self.tilt_N[row] = self._geometry.start
                self.pose_N4[row, 2] = plans[row].start.heading
                self._arrive(row, answer)
                # After `_arrive`, which adds the way from where the row was before.
                self.path_N[row] = 0.0
        return np.array(begun, np.int64)

    def move(self, rows: Rows, actions: NDArray[Any]) -> None:
        """Turn, look or walk in some rows."""
        arguments = []
        for row, action in zip(rows.tolist(), actions.tolist(), strict=True):
            turned = (action == Action.TURN_LEFT) - (action == Action.TURN_RIGHT)
            heading = self.pose_N4[row, 2] + turned * self._rules.turn
            self.pose_N4[row, 2] = heading % (2.0 * math.pi)
            if action in (Action.LOOK_UP, Action.LOOK_DOWN):
                tilt, up = float(self.tilt_N[row]), action == Action.LOOK_UP
                self.tilt_N[row] = self._geometry.look(tilt, up=up)
            forward = self._rules.forward_step if action == Action.FORWARD else 0.0
            pitch = self._geometry.pitch(float(self.tilt_N[row]))
            arguments.append((forward, float(self.pose_N4[row, 2]), pitch))
        answers = self._call(rows, "step", arguments, show=True)
        for row, answer in zip(rows.tolist(), answers, strict=True):
            if not isinstance(answer, Lost):
                self._arrive(row, answer)

    def would_succeed(self, rows: Rows) -> NDArray[np.bool_]:
        """Tell in which of some rows a stop here and now finds the goal, (K,).

        Pixels are drawn and counted only where an instance is near enough.
        """
        near = {row: self.near_goals(row) for row in rows.tolist()}
        close = [row for row, near_I in near.items() if near_I.any()]
        arguments = [()] * len(close)
        counted = self._call(np.array(close, np.int64), "pixels", arguments, show=False)
        success = dict.fromkeys(near, False)
        for row, pixels_I in zip(close, counted, strict=True):
            if not isinstance(pixels_I, Lost):
                seen_I = np.asarray(pixels_I)[list(self._goal_of(row).instances)]
                success[row] = succeeded(self._rules, near[row], seen_I)
        return np.array([success[row] for row in rows.tolist()], bool)

    def expert_actions(self) -> NDArray[np.int64]:
        """Return what the expert would do in each row; a stop where the worker is lost."""
        rows = np.arange(len(self.goal))
        arguments = [(self._setting.expert_rules(tilt),) for tilt in self.tilt_N.tolist()]
        answers = self._call(rows, "expert_action", arguments, show=False)
        stop = int(Action.STOP)
        return np.array([stop if isinstance(a, Lost) else int(a) for a in answers], np.int64)

    def _arrive(self, row: int, answer: Sequence[Any]) -> None:
        """Take over where a row's agent is, and how far it is from its goal."""
        (x, y, z), distance = answer
        if math.isnan(distance) or not all(map(math.isfinite, (x, y, z))):
            self._note(
                row,
                "the simulator's position and distance must be finite, got "
                f"{x:g}, {y:g}, {z:g} and {distance:g}",
            )
            return
        self.distance_N[row] = distance
        old = self.pose_N4[row, [0, 1, 3]].tolist()
        self.path_N[row] += math.dist((x, y, z), old)
        # Not the heading, which is kept here and only carried out by the worker.
        self.pose_N4[row, [0, 1, 3]] = x, y, z

    def near_goals(self, row: int) -> NDArray[np.bool_]:
        """Tell which of the goal's instances are near."""
        place = self.place[row]
        assert place is not None
        x, y = self.pose_N4[row, :2].tolist()
        centers_I2 = place.centers_I3[list(self._goal_of(row).instances), :2]
        return near_instances(self._rules, x, y, centers_I2)

    def _goal_of(self, row: int) -> Goal:
        goal = self.goal[row]
        assert goal is not None
        return goal
