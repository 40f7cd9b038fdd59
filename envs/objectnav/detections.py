"""Detections: a list of the goal objects in an agent's view, in place of pictures.

Perception is given: who learns from this learns to explore and to remember, not to see. From depth
and the ids of categories and instances, which any simulator draws, a compiled function finds each
visible instance and where it is. A row is told all categories in view, where the goal is if it sees
it, and one *named* object: of the categories in view the one that was named longest ago, and its
place in the trial's frame. One object a step is what a memory can keep and find again by its name.

Shapes: N rows, K some of the rows, C categories, I instance ids, S columns of the scan, H and W
picture height and width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from envs.core.vector import Observation, Rows, State
from envs.objectnav.config import NUM_FIELDS, SCAN_COLUMNS, SCAN_RANGE
from envs.objectnav.goals import GOAL_SEMANTIC
from envs.objectnav.rules import into_frame

IN_VIEW: Final = 0
PIXELS: Final = 1
"""Of all instances of the category."""
AHEAD: Final = 2
"""Metres in the direction that the agent faces, to the middle of what shows of the category's
nearest instance; then those to the right."""
RIGHT: Final = 3

_CATEGORY: Final = 0
"""Of the sums over an instance's pixels, where `IN_VIEW` is of a category."""

Images = NDArray[Any]


@njit(cache=True, nogil=True)
def _sum_pixels(
    depth_HW: Images,
    semantic_HW: Images,
    instance_HW: Images,
    optics: tuple[float, float, float],
    sum_I4: NDArray[np.float64],
    num_categories: int,
) -> None:
    """Sum up each instance's pixels, metres ahead and metres to the right; note its category.

    `optics` are the cosine and sine of the camera's pitch and the width of a pixel at depth 1.
    """
    height, width = depth_HW.shape
    cosine, sine, step = optics
    sum_I4[:] = 0.0
    for j in range(height):
        # Along the heading, level, for each metre of depth in this row of pixels.
        forward = cosine - sine * step * (0.5 * (height - 1) - j)
        for i in range(width):
            instance = instance_HW[j, i]
            if instance <= 0:
                continue
            category = int(semantic_HW[j, i]) - GOAL_SEMANTIC
            if category < 0 or category >= num_categories:  # movable, but never asked for
                continue
            depth = float(depth_HW[j, i])
            sum_I4[instance, _CATEGORY] = category
            sum_I4[instance, PIXELS] += 1.0
            sum_I4[instance, AHEAD] += depth * forward
            sum_I4[instance, RIGHT] += depth * step * (i - 0.5 * (width - 1))


@njit(cache=True, nogil=True)
def _choose_nearest(sum_I4: NDArray[np.float64], eye: float, seen_C4: NDArray[Any]) -> None:
    """Write for each category its pixels, and where its nearest instance is."""
    nearest_C = np.full(len(seen_C4), np.inf)
    seen_C4[:] = 0.0
    for instance in range(len(sum_I4)):
        pixels = sum_I4[instance, PIXELS]
        if pixels == 0.0:
            continue
        category = int(sum_I4[instance, _CATEGORY])
        ahead, right = sum_I4[instance, AHEAD] / pixels + eye, sum_I4[instance, RIGHT] / pixels
        seen_C4[category, IN_VIEW] = 1.0
        seen_C4[category, PIXELS] += pixels
        if math.hypot(ahead, right) < nearest_C[category]:
            nearest_C[category] = math.hypot(ahead, right)
            seen_C4[category, AHEAD], seen_C4[category, RIGHT] = ahead, right


@njit(cache=True, nogil=True)
def _scan(depth_HW: Images, scan_S: NDArray[Any]) -> None:
    """Write the least depth in each of S bands of columns, over the picture's middle rows."""
    height, width = depth_HW.shape
    top = (height - max(height // 4, 1)) // 2
    for s in range(len(scan_S)):
        left = s * width // len(scan_S)
        right = max((s + 1) * width // len(scan_S), left + 1)
        nearest = SCAN_RANGE
        for j in range(top, top + max(height // 4, 1)):
            for i in range(left, right):
                # 0 where nothing is.
                if 0.0 < depth_HW[j, i] < nearest:
                    nearest = float(depth_HW[j, i])
        scan_S[s] = nearest


@njit(cache=True, nogil=True)
def detect(
    rows: Rows,
    images: tuple[Images, Images, Images],
    pitch_K: NDArray[np.float64],
    lens: tuple[float, float],
    seen_KC4: NDArray[np.float32],
    scan_KS: NDArray[np.float32],
) -> None:
    """Find the goal objects in the pictures of some rows.

    Args:
        rows: (K,).
        images: depth in metres, semantic and instance ids of all rows, (N, H, W) each.
        pitch_K: of the cameras, in radians; up is positive.
        lens: tangent of half the horizontal field of view, and metres from the agent's middle
            forward to the camera.
        seen_KC4: is overwritten by whether each category is in view, its pixels, and where its
            nearest instance is, in metres ahead and to the right.
        scan_KS: is overwritten by the least depth in bands of columns.
    """
    depth_NHW, semantic_NHW, instance_NHW = images
    step = 2.0 * lens[0] / depth_NHW.shape[2]
    most = 0
    for k in range(len(rows)):
        most = max(most, int(instance_NHW[rows[k]].max()))
    sum_I4 = np.zeros((most + 1, NUM_FIELDS))
    for k in range(len(rows)):
        n = rows[k]
        optics = (math.cos(pitch_K[k]), math.sin(pitch_K[k]), step)
        _sum_pixels(
            depth_NHW[n], semantic_NHW[n], instance_NHW[n], optics, sum_I4, seen_KC4.shape[1]
        )
        _choose_nearest(sum_I4, lens[1], seen_KC4[k])
        _scan(depth_NHW[n], scan_KS[k])


class InView:
    """What N rows are told of goal objects, and who was named when.

    Any task may tell it what is in view; methods that name rows change only those.
    """

    def __init__(self, num_rows: int, num_categories: int) -> None:
        """Allocate rows that wait for trials.

        Args:
            num_rows: N.
            num_categories: C.
        """
        self.turn_NC = np.zeros((num_rows, num_categories), np.int64)
        """When each category was last named in the trial, counted by names from 1; 0: not yet."""
        self.named_N = np.full(num_rows, num_categories, np.int64)
        """What the row's last observation names; C: nothing."""
        self._last_NC3 = np.zeros((num_rows, num_categories, 3), np.float32)
        """Of each category whether it was in view before the last observation, and where last."""
        self._now_NC3 = np.zeros_like(self._last_NC3)
        """The same with the last observation."""

    def begin_trial(self, row: int) -> None:
        """Forget who was named and what was seen."""
        self.turn_NC[row] = 0
        self._last_NC3[row] = self._now_NC3[row] = 0.0
        self.named_N[row] = self.turn_NC.shape[1]

    def act(self, rows: Rows) -> None:
        """Count what rows were told before they act now.

        Not in `tell`, so that to look again tells the same, and what a last observation names,
        which nobody acts on, may be named again.
        """
        acted = rows[self.named_N[rows] < self.turn_NC.shape[1]]
        self.turn_NC[acted, self.named_N[acted]] = self.turn_NC[acted].max(axis=1, initial=0) + 1
        self._last_NC3[rows] = self._now_NC3[rows]

    def tell(
        self,
        rows: Rows,
        seen_KC4: NDArray[np.float32],
        turned_K: NDArray[np.float32],
        out: Observation,
    ) -> None:
        """Write what rows are told into `out[name][rows]`.

        Args:
            rows: which, K of them.
            seen_KC4: of each category whether it is in view, its pixels, and where its nearest
                instance is, ahead and to the right.
            turned_K: headings of the rows in the trial's frame.
            out: holds `gps` and `goal` of the rows already.
        """
        num_categories = self.turn_NC.shape[1]
        in_view_KC = seen_KC4[..., IN_VIEW] > 0.0
        # The largest number is later than any turn.
        turn_KC = np.where(in_view_KC, self.turn_NC[rows], np.iinfo(np.int64).max)
        named_K = np.where(in_view_KC.any(axis=1), turn_KC.argmin(axis=1), num_categories)
        self.named_N[rows] = named_K
        gps_K2, goal_K = out["gps"][rows], out["goal"][rows]
        out["detections"][rows] = seen_KC4.reshape(len(rows), -1)
        out["named"][rows] = named_K
        out["named_place"][rows] = _places(_pick(seen_KC4, named_K), gps_K2, turned_K)
        goal_K4 = _pick(seen_KC4, goal_K)
        out["goal_detection"][rows, :3] = goal_K4[:, [IN_VIEW, AHEAD, RIGHT]]
        out["goal_detection"][rows, 3:] = _places(goal_K4, gps_K2, turned_K)
        if "goal_recall" in out:
            places_KC2 = _places(seen_KC4, gps_K2[:, None], turned_K[:, None])
            told_KC3 = np.concatenate([np.ones_like(places_KC2[..., :1]), places_KC2], axis=-1)
            now_KC3 = np.where(in_view_KC[..., None], told_KC3, self._last_NC3[rows])
            self._now_NC3[rows] = now_KC3
            out["goal_recall"][rows] = now_KC3[np.arange(len(rows)), goal_K]

    def state(self) -> State:
        """Return copies of everything."""
        return {
            "named_turn": self.turn_NC.copy(),
            "named": self.named_N.copy(),
            "last_seen": self._last_NC3.copy(),
            "now_seen": self._now_NC3.copy(),
        }

    @staticmethod
    def check_state(state: State) -> None:
        """Raise ValueError unless `load_state` can take a state over."""
        if "named_turn" not in state:
            raise ValueError(
                "load_state_dict: the state must hold who was named, got one without 'named_turn'. "
                "Add 'detections' to the sensors of the environment that it is saved from."
            )

    def load_state(self, state: State) -> None:
        """Take over what `state` returned."""
        self.turn_NC[:] = state["named_turn"]
        self.named_N[:] = state["named"]
        self._last_NC3[:] = state.get("last_seen", 0.0)
        # Rows may act next without looking again.
        self._now_NC3[:] = state.get("now_seen", self._last_NC3)


class Detections(InView):
    """What N rows are told of the goal objects in their pictures."""

    def __init__(
        self, num_rows: int, num_categories: int, *, hfov: float, eye_ahead: float = 0.0
    ) -> None:
        """Allocate rows that wait for trials.

        Args:
            num_rows: N.
            num_categories: C.
            hfov: horizontal field of view in radians.
            eye_ahead: metres from the agent's middle forward to the camera.
        """
        super().__init__(num_rows, num_categories)
        self._lens = (math.tan(0.5 * hfov), eye_ahead)

    def observe(
        self,
        rows: Rows | None,
        pictures: Mapping[str, Images],
        *,
        pitch_N: NDArray[np.float64],
        turned_K: NDArray[np.float32],
        out: Observation,
    ) -> None:
        """Write what rows (None: all) see of goal objects into `out[name][rows]`.

        Args:
            rows: which.
            pictures: `depth`, `semantic` and `instance` of all rows, those of `rows` up to date.
            pitch_N: of the cameras, in radians.
            turned_K: headings of the rows in the trial's frame.
            out: holds `gps` and `goal` of the rows already.
        """
        chosen = np.arange(len(self.turn_NC)) if rows is None else rows
        seen_KC4, out["depth_scan"][chosen] = self.find(chosen, pictures, pitch_N)
        self.tell(chosen, seen_KC4, turned_K, out)

    def find(
        self, rows: Rows, pictures: Mapping[str, Images], pitch_N: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what `detect` finds in the pictures of rows: (K, C, 4), and the scan (K, S)."""
        seen_KC4 = np.empty((len(rows), self.turn_NC.shape[1], NUM_FIELDS), np.float32)
        scan_KS = np.empty((len(rows), SCAN_COLUMNS), np.float32)
        images = (pictures["depth"], pictures["semantic"], pictures["instance"])
        detect(rows, images, pitch_N[rows], self._lens, seen_KC4, scan_KS)
        return seen_KC4, scan_KS


def _pick(seen_KC4: NDArray[np.float32], category_K: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what is seen of one category a row, zeros for a category that there is not."""
    known_K = category_K < seen_KC4.shape[1]
    picked_K4 = seen_KC4[np.arange(len(seen_KC4)), np.where(known_K, category_K, 0)]
    return np.where(known_K[:, None], picked_K4, np.float32(0.0))


def _places(
    seen_K4: NDArray[np.float32], gps_K2: NDArray[np.float32], turned_K: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return where things are in the frame of `gps`, zeros for what is not in view, (..., 2)."""
    moved_K2 = into_frame(seen_K4[..., AHEAD:], turned_K)
    return np.where(seen_K4[..., IN_VIEW, None] > 0.0, gps_K2 + moved_K2, np.float32(0.0))
