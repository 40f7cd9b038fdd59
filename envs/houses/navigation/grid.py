"""Free space for the agent's centre on a grid: obstacles grown by the agent's radius.

The grid is a lattice of nodes at the centres of square cells, node (row, column) at
((column + 0.5) * cell, (row + 0.5) * cell). Each node knows its *slack*: how many metres the
agent's disc clears the nearest obstacle, from the exact distance between the node and the
obstacles' footprints. Between nodes slack is bilinear, and the agent may stand wherever it is not
negative, so that free space follows slanted and round obstacles more finely than the cells.
Motion is in `movement.py`, distances are in `geodesic.py`.

Shapes: P primitives, Y and X grid rows and columns, F free nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from envs.houses.scene import FloatArray, House, Kind, Primitives, Scene

AGENT_RADIUS: Final = 0.25
OBSTACLE_Z: Final = (0.05, 1.4)
"""What lies wholly below or above this band is stepped over or walked under."""
CELL: Final = 0.1
"""Default distance between nodes."""
SLACK_BAND_CELLS: Final = 4.0
"""Slack is exact up to this many cells and flat beyond, which bounds the work per obstacle."""

THICKEN_CELLS: Final = 0.95
"""How far fields run outside free space; with it their errors have no bias."""
FloatGrid = NDArray[np.float32]

_THICKEN_LEVELS: Final = 4
_TOUCH: Final = 1e-4
"""Overlaps in height below this are rounding, not contact."""
_OUTSIDE: Final = -1.0
_BOX: Final = int(Kind.BOX)
_ELLIPSOID: Final = int(Kind.ELLIPSOID)


@dataclass(frozen=True, slots=True)
class NavGrid:
    """Free space of one house for one agent radius. The origin is the house's corner (0, 0)."""

    cell: float
    """Metres between neighbouring nodes."""
    free_YX: NDArray[np.bool_]
    """True at nodes of the largest connected component of free space."""
    domain_YX: NDArray[np.bool_]
    """Nodes that distance fields run over: the free ones and some just outside."""
    slack_YX: NDArray[np.float32]
    """Metres to spare at each node, negative wherever `free_YX` is False."""

    def free_nodes(self) -> NDArray[np.float64]:
        """Return the free nodes' positions (F, 2), row by row."""
        return (np.argwhere(self.free_YX)[:, ::-1].astype(np.float64) + 0.5) * self.cell

    def is_free(self, x: float, y: float) -> bool:
        """Tell whether the agent's centre may be at a position."""
        return bool(slack_at(self.slack_YX, self.cell, x, y) >= 0.0)


@njit(cache=True, nogil=True)
def slack_at(slack_YX: FloatGrid, cell: float, x: float, y: float) -> float:
    """Interpolate slack at a position; outside the lattice it is negative."""
    fx = x / cell - 0.5
    fy = y / cell - 0.5
    # `int` cuts towards 0, so negatives go first. Put as a denial, it refuses NaN too.
    if not (fx >= 0.0 and fy >= 0.0):
        return _OUTSIDE
    ix = int(fx)
    iy = int(fy)
    if ix + 1 >= slack_YX.shape[1] or iy + 1 >= slack_YX.shape[0]:
        return _OUTSIDE
    fx -= ix
    fy -= iy
    low = slack_YX[iy, ix] * (1.0 - fx) + slack_YX[iy, ix + 1] * fx
    high = slack_YX[iy + 1, ix] * (1.0 - fx) + slack_YX[iy + 1, ix + 1] * fx
    return low * (1.0 - fy) + high * fy


@njit(cache=True, nogil=True)
def segment_free(
    slack_YX: FloatGrid,
    cell: float,
    start: tuple[float, float],
    end: tuple[float, float],
    least: float,
) -> bool:
    """Tell whether slack stays at `least` or above straight from one position to another."""
    dx = end[0] - start[0]
    dy = end[1] - start[1]
    pieces = math.ceil(math.hypot(dx, dy) / (0.5 * cell)) + 1
    for i in range(pieces + 1):
        t = i / pieces
        if slack_at(slack_YX, cell, start[0] + t * dx, start[1] + t * dy) < least:
            return False
    return True


@njit(cache=True, nogil=True)
def ellipse_distance(half_x: float, half_y: float, x: float, y: float) -> float:
    """Return the distance from a point to an axis-aligned ellipse about the origin, 0 inside.

    The nearest point is (a^2 x / (t + a^2), b^2 y / (t + b^2)) with t the largest root of a
    function that is convex and falling there, so Newton from the left of it never overshoots.
    """
    x = abs(x)
    y = abs(y)
    if half_x < half_y:
        half_x, half_y = half_y, half_x
        x, y = y, x
    if x * x * half_y * half_y + y * y * half_x * half_x <= half_x * half_x * half_y * half_y:
        return 0.0
    a2 = half_x * half_x
    b2 = half_y * half_y
    # Here one of the two terms is 1 on its own, so the root is not to the left.
    t = max(half_x * x - a2, half_y * y - b2)
    for _ in range(60):
        u = half_x * x / (t + a2)
        v = half_y * y / (t + b2)
        value = u * u + v * v - 1.0
        step = 0.5 * value / (u * u / (t + a2) + v * v / (t + b2))
        t += step
        if step <= 1e-6 * (t + b2):
            break
    return math.sqrt((x - a2 * x / (t + a2)) ** 2 + (y - b2 * y / (t + b2)) ** 2)


@njit(cache=True, nogil=True)
def _footprint_distance(box: bool, half_x: float, half_y: float, x: float, y: float) -> float:
    """Distance from a point, in the footprint's own frame, to a rectangle or an ellipse."""
    if box:
        x = max(abs(x) - half_x, 0.0)
        y = max(abs(y) - half_y, 0.0)
        return math.sqrt(x * x + y * y)
    if half_x == half_y:
        return max(math.sqrt(x * x + y * y) - half_x, 0.0)
    return ellipse_distance(half_x, half_y, x, y)


class _Solids(NamedTuple):
    """Fields of `Primitives` that footprints need."""

    center_P3: FloatArray
    half_P3: FloatArray
    yaw_P: FloatArray
    kind_P: NDArray[np.uint8]


@njit(cache=True, nogil=True)
def _section_scale(kind: int, center_z: float, half_z: float) -> float:
    """Size of a solid's widest horizontal section within `OBSTACLE_Z`, 0 if it has none."""
    z_low, z_high = OBSTACLE_Z
    # An ellipsoid is widest at the height nearest its centre.
    away = max(z_low - center_z, center_z - z_high, 0.0)
    if min(center_z + half_z, z_high) - max(center_z - half_z, z_low) < _TOUCH:
        return 0.0
    if kind == _ELLIPSOID:
        return math.sqrt(max(1.0 - (away / half_z) ** 2, 0.0))
    return 1.0


@njit(cache=True, nogil=True)
def _lower_slack(
    slack_YX: NDArray[np.float64], cell: float, radius: float, reach: float, solids: _Solids
) -> None:
    """Lower slack around every obstacle to the distance from it, where that is below `reach`."""
    center_P3, half_P3, yaw_P, kind_P = solids
    rows, columns = slack_YX.shape
    for p in range(len(yaw_P)):
        scale = _section_scale(kind_P[p], float(center_P3[p, 2]), float(half_P3[p, 2]))
        half_x = half_P3[p, 0] * scale
        half_y = half_P3[p, 1] * scale
        if half_x <= 0.0 or half_y <= 0.0:
            continue
        cos = math.cos(float(yaw_P[p]))
        sin = math.sin(float(yaw_P[p]))
        x = float(center_P3[p, 0])
        y = float(center_P3[p, 1])
        wide = abs(half_x * cos) + abs(half_y * sin) + reach
        deep = abs(half_x * sin) + abs(half_y * cos) + reach
        first_x = max(math.ceil((x - wide) / cell - 0.5), 0)
        last_x = min(math.floor((x + wide) / cell - 0.5), columns - 1)
        first_y = max(math.ceil((y - deep) / cell - 0.5), 0)
        last_y = min(math.floor((y + deep) / cell - 0.5), rows - 1)
        box = kind_P[p] == _BOX
        for iy in range(first_y, last_y + 1):
            dy = (iy + 0.5) * cell - y
            for ix in range(first_x, last_x + 1):
                dx = (ix + 0.5) * cell - x
                away = _footprint_distance(
                    box, half_x, half_y, cos * dx + sin * dy, cos * dy - sin * dx
                )
                slack_YX[iy, ix] = min(slack_YX[iy, ix], away - radius)


def connected_parts(mask_YX: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the 4-connected parts of a mask from 1, in the order of their first cells.

    Returns:
        Each cell's number (Y, X), 0 outside the mask, and how many cells have each number.
    """
    label_YX = cast("Any", ndimage.label)(mask_YX)[0]  # its types allow for an output argument
    return label_YX, np.bincount(label_YX.ravel())


def largest_part(mask_YX: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the largest 4-connected part of a mask."""
    label_YX, sizes = connected_parts(mask_YX)
    return label_YX == 1 + np.argmax(sizes[1:]) if len(sizes) > 1 else mask_YX


@njit(cache=True, nogil=True)
def _is_simple(open_YX: NDArray[np.bool_], y: int, x: int) -> bool:
    """Tell whether opening a closed node joins nothing that was apart and closes no loop.

    True when exactly one 4-connected piece of the node's open neighbourhood touches it.
    """
    east, north = open_YX[y, x + 1], open_YX[y + 1, x]
    west, south = open_YX[y, x - 1], open_YX[y - 1, x]
    pieces = int(east) + int(north) + int(west) + int(south)
    # Two open neighbours are one piece if the corner between them is open.
    pieces -= int(east and north and open_YX[y + 1, x + 1])
    pieces -= int(north and west and open_YX[y + 1, x - 1])
    pieces -= int(west and south and open_YX[y - 1, x - 1])
    pieces -= int(south and east and open_YX[y - 1, x + 1])
    return pieces == 1


@njit(cache=True, nogil=True)
def thicken(
    free_YX: NDArray[np.bool_], slack_YX: NDArray[np.float64], deepest: float
) -> NDArray[np.bool_]:
    """Add the nodes whose slack is at least `-deepest`, nearest to free space first.

    Free space ends up to a cell beyond its last free node, so paths over free nodes alone take
    corners too wide. Only nodes that leave the topology as it is are added, hence no path over
    the result squeezes through a gap that the agent does not fit through.
    """
    open_YX = free_YX.copy()
    rows, columns = free_YX.shape
    # In levels, so that a gap is filled from both sides, not from the one that is scanned first.
    for level in range(1, _THICKEN_LEVELS + 1):
        least = -deepest * level / _THICKEN_LEVELS
        for y in range(1, rows - 1):
            for x in range(1, columns - 1):
                if not open_YX[y, x] and slack_YX[y, x] >= least and _is_simple(open_YX, y, x):
                    open_YX[y, x] = True
    return open_YX


def interpolation_margin(radius: float, cell: float) -> float:
    """Bound how far bilinear slack may exceed the true slack near the edge of free space.

    The distance to a convex obstacle bends by at most 1 / distance, and a bilinear patch of a
    function exceeds it by at most cell^2 / 8 times that bend.
    """
    nearest = radius - math.sqrt(2.0) * cell
    return cell * cell / (8.0 * nearest) if nearest > 0.0 else math.inf


def build_grid(
    place: House | Scene, radius: float = AGENT_RADIUS, *, cell: float = CELL
) -> NavGrid:
    """Inflate a house's obstacles by the agent's radius.

    Small objects stand on furniture and are no obstacles, so a scene counts as its house. Slack
    is lowered by `interpolation_margin`, so that a position with slack >= 0 is truly at least
    `radius` away from every obstacle.

    Args:
        place: A house, or a scene in it.
        radius: Radius of the agent's disc.
        cell: Distance between nodes; must be smaller than radius / sqrt(2).

    Returns:
        The grid. Nodes outside the largest connected component have negative slack.

    Raises:
        ValueError: If the cells are too large for the radius.
    """
    house = place.house if isinstance(place, Scene) else place
    margin = interpolation_margin(radius, cell)
    if not cell > 0.0 or not math.isfinite(margin):
        raise ValueError(
            f"build_grid: cell must be positive and below radius / sqrt(2), got cell={cell}, "
            f"radius={radius}. Use {0.4 * radius:g}."
        )
    return grid_of_primitives(house.primitives, house.extent, radius, cell=cell, margin=margin)


def grid_of_primitives(
    primitives: Primitives,
    extent: tuple[float, float],
    radius: float,
    *,
    cell: float,
    margin: float,
) -> NavGrid:
    """Inflate primitives inside the rectangle [0, extent], whose border is an obstacle too."""
    # The epsilon keeps a side of whole cells, but for rounding, from one cell more.
    columns, rows = (max(math.ceil(side / cell - 1e-6), 2) for side in extent)
    x_X = (np.arange(columns) + 0.5) * cell
    y_Y = (np.arange(rows) + 0.5) * cell
    # The margin is taken off all slack below, so the band is wider by it.
    band = SLACK_BAND_CELLS * cell + margin
    border_X = np.minimum(x_X, extent[0] - x_X) - radius
    border_Y = np.minimum(y_Y, extent[1] - y_Y) - radius
    slack_YX = np.minimum(np.minimum(border_X[None, :], border_Y[:, None]), band)
    p = primitives
    solids = _Solids(p.center_P3, p.half_P3, p.yaw_P, p.kind_P)
    _lower_slack(slack_YX, cell, radius, radius + band, solids)
    slack_YX -= margin
    free_YX = largest_part(slack_YX >= 0.0)
    # A free pocket that cannot be reached must look like an obstacle to interpolation, too.
    pocket_YX = (slack_YX >= 0.0) & ~free_YX
    slack_YX[pocket_YX] = np.minimum(-slack_YX[pocket_YX], -cell)
    domain_YX = thicken(free_YX, slack_YX, THICKEN_CELLS * cell)
    return NavGrid(
        cell=cell, free_YX=free_YX, domain_YX=domain_YX, slack_YX=slack_YX.astype(np.float32)
    )
