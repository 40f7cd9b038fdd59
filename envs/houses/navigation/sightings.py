"""When goals were last in view in a trial, which is what a memory could know of them.

Shapes: N rows, K some of the rows, I instance ids of a scene.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from envs.core.vector import Rows, State
from envs.houses.simulator import HouseSimulator

NEVER: Final = -1
"""The goal was not in view in an earlier episode of the trial."""


class Sightings:
    """The sightings of N rows of a simulator. Methods that name rows change only those."""

    def __init__(self, simulator: HouseSimulator) -> None:
        """Have seen nothing. A square view as wide as the agent's tells what is in it."""
        self._simulator = simulator
        num_rows = len(simulator.pose_N4)
        self._steps_N = np.zeros(num_rows, np.int64)
        self._last_NI: list[dict[int, int]] = [{} for _ in range(num_rows)]
        """By row and instance the step of the trial at which it was last in view."""
        self.ago_N = np.full(num_rows, NEVER, np.int64)
        """Steps from the goal's last sighting in an earlier episode to the episode's first step."""

    def begin_trial(self, row: int) -> None:
        """Forget a trial."""
        self._steps_N[row] = 0
        self._last_NI[row] = {}

    def begin_episode(self, row: int, instances: tuple[int, ...]) -> None:
        """Note how long ago one of the goal's instances was last in view."""
        seen = [self._last_NI[row][i] for i in instances if i in self._last_NI[row]]
        self.ago_N[row] = self._steps_N[row] - max(seen) if seen else NEVER

    def look(self) -> None:
        """Note what is in view as all rows act: last views of episodes, never acted on, are not."""
        pixels_NI = self._simulator.pixels_in_view()
        for row, instance in np.argwhere(pixels_NI[:, 1:] > 0).tolist():  # 0 is all else
            self._last_NI[row][instance + 1] = int(self._steps_N[row])
        self._steps_N += 1

    def record(self, rows: Rows) -> dict[str, NDArray[np.int64]]:
        """Return `seen_ago` of the episodes of some rows."""
        return {"seen_ago": self.ago_N[rows]}

    def state(self) -> State:
        """Return copies of everything."""
        return {
            "steps": self._steps_N.copy(),
            "ago": self.ago_N.copy(),
            "last": {
                str(row): np.array(sorted(last.items()), np.int64).reshape(-1, 2)
                for row, last in enumerate(self._last_NI)
            },
        }

    @staticmethod
    def check_state(state: State | None) -> None:
        """Raise ValueError unless there is a state that `load_state` can take over."""
        if state is None:
            raise ValueError(
                "load_state_dict: the state must hold what was in view, got one without "
                "'sightings'. Add sightings=True to the environment that it is saved from."
            )

    def load_state(self, state: State) -> None:
        """Take over what `state` returned."""
        self._steps_N[:] = state["steps"]
        self.ago_N[:] = state["ago"]
        for row in range(len(self._last_NI)):
            self._last_NI[row] = dict(np.asarray(state["last"][str(row)]).tolist())
