"""An expert of ExtObjNav in Habitat's scenes: walks to the goal, looks for it, stops.

It tries what it might do on the free space, and takes the first action of the plan, turns and then
steps, that leads nearer at the least cost. Near a viewpoint it looks for a place from which pixels
of the goal show, faces it, and stops. Python 3.9; needs NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from viewpoints import aim, seen_pixels

STOP, FORWARD, LEFT, RIGHT, UP, DOWN = range(6)
_ARRIVED = 0.12
"""Distance to the nearest viewpoint, in metres, from which the end is searched for by sight."""
_PLENTY = 1.5
"""Pixels, in multiples of what success needs, that are worth a few more steps."""
_WHOLE = 4.0
"""The same for stopping although a part of the object is out of view."""
_AHEAD = 3
"""Forward moves that are tried along every heading."""
_TURN_COST = 0.1
"""Of a turn, in forward moves."""
_GAIN = 0.01
"""Metres by which a plan must come nearer."""
_NO_GAIN_COST = 1e6
"""Added to plans that do not, so that one is taken only if there is no other."""


def _wrap(angle: float) -> float:
    """Bring an angle into [-pi, pi)."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


class Expert:
    """Acts in one scene. What it has seen from a place is remembered, as turns change nothing."""

    def __init__(
        self,
        backend: Any,
        centers: np.ndarray,
        eye: list[float],
        instances: list[int],
        points: np.ndarray,
    ) -> None:
        """Prepare for an episode.

        Args:
            backend: the simulator.
            centers: of the goal objects.
            eye: (forward, up) of the camera from the agent's base.
            instances: objects that satisfy the goal.
            points: their viewpoints.
        """
        self._backend, self._centers, self._eye = backend, centers, eye
        self._instances = instances
        self._goal = backend.goal(points)  # of its own: what is asked here must leave no trace
        self._seen: dict[tuple[float, ...], int] = {}

    def action(
        self, position: np.ndarray, heading: float, pitch: float, rules: dict[str, Any]
    ) -> int:
        """Return an action.

        Args:
            position: of the agent.
            heading: of the agent.
            pitch: of its camera.
            rules: `forward`, `turn`, the pitches after looking `up` and `down`, `pitch_range`,
                the `distance` at which success is possible and the `pixels` that it needs.
        """
        best, seen = self._best_seen(position, rules)
        settled = seen >= _PLENTY * rules["pixels"]
        if not settled and self._goal(position) <= _ARRIVED:
            for share in (_PLENTY, 1.0):
                if seen >= share * rules["pixels"]:
                    settled = True
                    break
                action = self._search(position, heading, rules, share)
                if action is not None:
                    return action
        if settled:
            return self._face(position, heading, pitch, best, seen, rules)
        return self._walk(position, heading, rules)

    def _best_seen(self, position: np.ndarray, rules: dict[str, Any]) -> tuple[int, int]:
        """Return the goal object that is seen best from a position, facing it, and its pixels."""
        best, most = -1, 0
        for instance in self._instances:
            center = self._centers[instance]
            if math.hypot(center[0] - position[0], center[1] - position[1]) > rules["distance"]:
                continue
            key = (instance, *np.round(position, 4).tolist())
            if key not in self._seen:
                self._seen[key] = seen_pixels(
                    self._backend, position, center, instance, self._eye, rules["pitch_range"]
                )
            if self._seen[key] > most:
                best, most = instance, self._seen[key]
        return best, most

    def _plans(
        self, position: np.ndarray, heading: float, rules: dict[str, Any]
    ) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """Yield plans: turns, steps, first action and end, those with few turns first."""
        half = math.ceil(math.pi / rules["turn"] - 1e-6)
        for number in range(2 * half):
            turned = (number + 1) // 2 * (1 if number % 2 == 0 else -1)
            angle = heading + turned * rules["turn"]
            ahead = rules["forward"] * np.array([math.cos(angle), math.sin(angle), 0.0])
            first = FORWARD if turned == 0 else LEFT if turned > 0 else RIGHT
            here = np.asarray(position, np.float64)
            for steps in range(1, _AHEAD + 1):
                end = np.asarray(self._backend.walk(here, here + ahead), np.float64)
                if np.hypot(*(end - here)[:2]) < 1e-4:
                    break
                here = end
                yield abs(turned), steps, first, here

    def _search(
        self, position: np.ndarray, heading: float, rules: dict[str, Any], share: float
    ) -> int | None:
        """Return the first action towards the cheapest near end that sees enough, or None."""
        found, cheapest = None, math.inf
        for turns, steps, first, end in self._plans(position, heading, rules):
            cost = turns * _TURN_COST + steps
            if cost < cheapest:
                if self._best_seen(end, rules)[1] >= share * rules["pixels"]:
                    found, cheapest = first, cost
        return found

    def _walk(self, position: np.ndarray, heading: float, rules: dict[str, Any]) -> int:
        """Return the first action of the plan that leads nearer at the least cost."""
        here = self._goal(position)
        found, cheapest = LEFT, math.inf
        for turns, steps, first, end in self._plans(position, heading, rules):
            if turns * _TURN_COST + here / rules["forward"] >= cheapest:
                break  # no walk comes nearer by more than its length
            left = self._goal(end)
            total = turns * _TURN_COST + steps + left / rules["forward"]
            if left > here - _GAIN:
                total += _NO_GAIN_COST
            if total < cheapest - 1e-9:
                found, cheapest = first, total
        return found

    def _face(
        self,
        position: np.ndarray,
        heading: float,
        pitch: float,
        instance: int,
        seen: int,
        rules: dict[str, Any],
    ) -> int:
        """Turn and look towards an object; stop once it is well in view."""
        self._backend.look(position, heading, pitch)
        shown = int(self._backend.count()[instance])
        if shown >= 0.999 * min(seen, _WHOLE * rules["pixels"]):
            return STOP
        towards, wanted = aim(position, self._centers[instance], self._eye, rules["pitch_range"])
        aside = _wrap(towards - heading)
        if abs(aside) > 0.5001 * rules["turn"]:
            return LEFT if aside > 0.0 else RIGHT
        here = abs(wanted - pitch)
        up, down = abs(wanted - rules["up"]), abs(wanted - rules["down"])
        if min(up, down) < here - 1e-6:
            return UP if up < down else DOWN
        return STOP
