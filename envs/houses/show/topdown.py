"""Maps of houses seen from above, and films of walks on them, for pictures and reports.

`draw_map` paints floors, furniture and objects into an image; `Map.pixel` takes metres to its
pixels, so that callers can draw paths and poses on it, with the helpers here or with their own.
`plot_map` puts the same picture on Matplotlib axes whose units are metres. `write_film` shows the
map with the way so far, and beside it what the agent sees.

Shapes: H and W image rows and columns, K points or steps.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import imageio.v2 as iio
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.houses.scene import (
    Face,
    House,
    Kind,
    Materials,
    Primitives,
    Room,
    Scene,
    Semantic,
)
from envs.houses.textures.atlas import TILE_SIZE, atlas
from envs.objectnav.goals import GOAL_CATEGORIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # dear to import, and only `plot_map` is given any

Rgb = tuple[int, int, int]
Array = NDArray[np.float32]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture."""
Frame = NDArray[np.uint8]
"""A picture (H, W, 3)."""

MARGIN: Final = 6
INK: Final = (30, 32, 38)
PAPER: Final = (250, 250, 248)
_CAPTION: Final = 20

CUT_HEIGHT: Final = 2.2
"""What begins above this height is not drawn, so that the map looks into the rooms."""
WALL_COLOUR: Final = (0.16, 0.17, 0.2)
_EDGE_SHADE: Final = 0.55
_SUPERSAMPLE: Final = 2


@dataclass(frozen=True, slots=True)
class Map:
    """A picture of a house from above; the first row is its far side, of greatest y."""

    image: Frame
    pixels_per_metre: float

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return the column and row of a position in metres."""
        scale = self.pixels_per_metre
        return x * scale, self.image.shape[0] - y * scale


def draw_map(place: House | Scene, pixels_per_metre: float = 48.0) -> Map:
    """Paint a house, with its objects if `place` is a scene.

    Args:
        place: what to paint.
        pixels_per_metre: scale of the picture.

    Raises:
        ValueError: The scale is not positive.
    """
    if not pixels_per_metre > 0.0:
        raise ValueError(
            f"draw_map: pixels_per_metre must be positive, got {pixels_per_metre}. Use 48."
        )
    house = place.house if isinstance(place, Scene) else place
    fine = _SUPERSAMPLE * pixels_per_metre
    height, width = (round(side * pixels_per_metre) * _SUPERSAMPLE for side in house.extent[::-1])
    canvas = np.zeros((height, width, 3), np.float32)
    for room in house.rooms:
        _paint_floor(canvas, room, house.materials, fine)
    primitives = place.primitives
    bottom_P = primitives.center_P3[:, 2] - primitives.half_P3[:, 2]
    top_P = primitives.center_P3[:, 2] + primitives.half_P3[:, 2]
    # Walls come last, as if the house were cut open at their tops.
    order = np.lexsort((top_P, primitives.semantic_P == Semantic.WALL))
    for index in order:
        if bottom_P[index] < CUT_HEIGHT - 0.5 or primitives.instance_P[index]:
            _paint_primitive(canvas, primitives, int(index), place.materials, fine)
    coarse = canvas.reshape(
        height // _SUPERSAMPLE, _SUPERSAMPLE, width // _SUPERSAMPLE, _SUPERSAMPLE, 3
    ).mean((1, 3))
    return Map((np.clip(coarse, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8), pixels_per_metre)


def _sample(tile: int, u: Array, v: Array) -> Array:
    """Look tile coordinates up in the atlas; the first row of a tile is v = 1."""
    column = np.minimum((u % 1.0 * TILE_SIZE).astype(np.int64), TILE_SIZE - 1)
    row = np.minimum(((1.0 - v) % 1.0 * TILE_SIZE).astype(np.int64), TILE_SIZE - 1)
    return atlas()[tile][row, column]


def _paint_floor(canvas: Array, room: Room, materials: Materials, scale: float) -> None:
    height, width = canvas.shape[:2]
    left, right = max(0, round(room.x0 * scale)), min(width, round(room.x1 * scale))
    high, low = (
        max(0, height - round(room.y1 * scale)),
        min(height, height - round(room.y0 * scale)),
    )
    material = room.floor_material
    x = (np.arange(left, right, dtype=np.float32) + 0.5) / scale
    y = (height - np.arange(high, low, dtype=np.float32) - 0.5) / scale
    repeat = float(materials.repeat_M[material])
    u, v = np.broadcast_arrays(x[None, :] / repeat, y[:, None] / repeat)
    tile = _sample(int(materials.tile_M[material]), u, v)
    canvas[high:low, left:right] = materials.rgb_M3[material] * tile


def _paint_primitive(
    canvas: Array, primitives: Primitives, index: int, materials: Materials, scale: float
) -> None:
    """Paint the footprint of one primitive with its upper face, in place."""
    height, width = canvas.shape[:2]
    x, y, _ = (float(v) for v in primitives.center_P3[index])
    half_x, half_y, _ = (float(v) for v in primitives.half_P3[index])
    yaw, kind = float(primitives.yaw_P[index]), int(primitives.kind_P[index])
    cos, sin = np.cos(yaw), np.sin(yaw)
    reach_x = abs(cos) * half_x + abs(sin) * half_y
    reach_y = abs(sin) * half_x + abs(cos) * half_y
    left, right = max(0, int((x - reach_x) * scale)), min(width, int((x + reach_x) * scale) + 1)
    high = max(0, int(height - (y + reach_y) * scale))
    low = min(height, int(height - (y - reach_y) * scale) + 1)
    if left >= right or high >= low:
        return
    dx = (np.arange(left, right, dtype=np.float32)[None, :] + 0.5) / scale - x
    dy = (height - np.arange(high, low, dtype=np.float32)[:, None] - 0.5) / scale - y
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    window = canvas[high:low, left:right]
    if kind == Kind.BOX:
        rim = np.minimum(half_x - np.abs(along), half_y - np.abs(across))
    else:
        radius = np.sqrt((along / half_x) ** 2 + (across / half_y) ** 2)
        rim = (1.0 - radius) * min(half_x, half_y)
    inside = rim >= 0.0
    if primitives.semantic_P[index] == Semantic.WALL:
        window[inside] = WALL_COLOUR
        return
    face = Face.POS_X if kind == Kind.ELLIPSOID else Face.POS_Z
    material = int(primitives.material_PF[index, face])
    repeat = float(materials.repeat_M[material])
    size_x, size_y = (repeat, repeat) if repeat else (2.0 * half_x, 2.0 * half_y)
    tile = _sample(
        int(materials.tile_M[material]), (along + half_x) / size_x, (across + half_y) / size_y
    )
    colour = materials.rgb_M3[material] * tile
    if kind == Kind.ELLIPSOID:
        colour = colour * np.clip(0.55 + 0.6 * (rim / min(half_x, half_y)), 0.0, 1.0)[..., None]
    edge = inside & (rim < 1.5 / scale)
    window[inside] = colour[inside]
    window[edge] *= _EDGE_SHADE


def category_colour(category: int) -> Rgb:
    """Return a colour that tells a goal category from its neighbours in the list."""
    hue = (category * 0.381966) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def label_rooms(plan: Map, house: House) -> Map:
    """Write what each room is into its middle."""
    image = Image.fromarray(plan.image)
    draw = ImageDraw.Draw(image)
    size = max(9.0, min(0.28 * plan.pixels_per_metre, 20.0))
    font = ImageFont.load_default(size)
    for room in house.rooms:
        name = room.kind.replace("_", " ")
        centre = plan.pixel((room.x0 + room.x1) / 2, (room.y0 + room.y1) / 2)
        draw.text(
            centre, name, (255, 255, 255), font, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0)
        )
    return Map(np.asarray(image), plan.pixels_per_metre)


def mark_objects(plan: Map, scene: Scene, *, names: bool = True, goal: int | None = None) -> Map:
    """Ring the goal objects in the colours of their categories.

    Without names and with a goal, only the objects of the goal are ringed.

    Args:
        plan: a map of the scene.
        scene: whose objects to mark.
        names: whether to name them, as far as there is room.
        goal: a category whose objects get a double ring.
    """
    image = Image.fromarray(plan.image)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(9.0, 0.19 * plan.pixels_per_metre))
    marked: list[tuple[Box, str]] = []
    for item in sorted(scene.objects, key=lambda item: item.category != goal):
        if not names and goal not in (None, item.category):
            continue
        column, row = plan.pixel(item.x, item.y)
        reach = max(4.0, (item.radius + 0.04) * plan.pixels_per_metre)
        rings = [(reach + 1.5, (255, 255, 255)), (reach, category_colour(item.category))]
        if item.category == goal:
            rings = [(reach + 6.0, (255, 255, 255)), (reach + 5.0, (235, 40, 60)), *rings]
        for size, colour in rings:
            box = (column - size, row - size, column + size, row + size)
            draw.ellipse(box, outline=colour, width=2)
        size = rings[0][0] + 2.0  # as text may stand a pixel beside where it is asked to
        box = (column - size, row - size, column + size, row + size)
        marked.append((box, GOAL_CATEGORIES[item.category].replace("_", " ")))
    taken = [box for box, _ in marked]
    for box, name in marked if names else ():
        _write_beside(draw, box, name, font, taken)
    return Map(np.asarray(image), plan.pixels_per_metre)


def _write_beside(
    draw: ImageDraw.ImageDraw,
    ring: Box,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    taken: list[Box],
) -> None:
    """Write around a ring where nothing is yet; else write nothing."""
    left, top, right, bottom = ring
    column, row = (left + right) / 2, (top + bottom) / 2
    for x, y, anchor in (
        (column, top - 1, "ms"),
        (column, bottom + 1, "ma"),
        (right + 2, row, "lm"),
        (left - 2, row, "rm"),
        (right, top, "ls"),
        (left, top, "rs"),
        (right, bottom, "la"),
        (left, bottom, "ra"),
    ):
        box = draw.textbbox((x, y), text, font, anchor=anchor, stroke_width=2)
        width, height = draw.im.size
        inside = box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
        if inside and not any(
            box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken
        ):
            draw.text(
                (x, y), text, (255, 255, 255), font, anchor=anchor, stroke_width=2,
                stroke_fill=(20, 20, 20),
            )  # fmt: skip
            taken.append(box)
            return


def draw_scale(plan: Map) -> Map:
    """Draw a bar one metre long into the lower left corner."""
    image = Image.fromarray(plan.image)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(9.0, 0.19 * plan.pixels_per_metre))
    left, low = 8.0, image.height - 8.0
    right = left + plan.pixels_per_metre
    draw.rectangle((left - 2, low - 6, right + 2, low + 2), fill=(255, 255, 255))
    draw.rectangle((left, low - 4, right, low), fill=INK)
    draw.text((right + 6, low - 2), "1 m", (255, 255, 255), font, anchor="lm", stroke_width=2,
              stroke_fill=(20, 20, 20))  # fmt: skip
    return Map(np.asarray(image), plan.pixels_per_metre)


def draw_path(
    plan: Map,
    points_K2: NDArray[np.floating] | Sequence[tuple[float, float]],
    *,
    colour: Rgb = (235, 40, 60),
    width: float = 0.06,
) -> Map:
    """Draw a walked path in metres, with a white start and an end in its colour."""
    points = [plan.pixel(float(p[0]), float(p[1])) for p in points_K2]
    image = Image.fromarray(plan.image)
    draw = ImageDraw.Draw(image)
    thick = max(2, round(width * plan.pixels_per_metre))
    if len(points) > 1:
        draw.line(points, (255, 255, 255), thick + 2, joint="curve")
        draw.line(points, colour, thick, joint="curve")
    for (column, row), fill in zip((points[0], points[-1]), ((255, 255, 255), colour), strict=True):
        size = 1.6 * thick
        box = (column - size, row - size, column + size, row + size)
        draw.ellipse(box, fill=fill, outline=colour, width=2)
    return Map(np.asarray(image), plan.pixels_per_metre)


def draw_view(
    plan: Map, x: float, y: float, heading: float, *, hfov: float = math.pi / 2, reach: float = 1.2
) -> Map:
    """Draw an agent as a dot with a fan of what it looks at."""
    image = Image.fromarray(plan.image).convert("RGBA")
    fan = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(fan)
    column, row = plan.pixel(x, y)
    size = reach * plan.pixels_per_metre
    # Image rows grow downwards, so angles turn the other way round.
    start, stop = math.degrees(-heading - hfov / 2), math.degrees(-heading + hfov / 2)
    draw.pieslice(
        (column - size, row - size, column + size, row + size), start, stop, (255, 235, 90, 110)
    )
    dot = 0.18 * plan.pixels_per_metre
    draw.ellipse(
        (column - dot, row - dot, column + dot, row + dot), (235, 40, 60, 255), (255, 255, 255, 255)
    )
    return Map(np.asarray(Image.alpha_composite(image, fan).convert("RGB")), plan.pixels_per_metre)


def plot_map(axes: Axes, place: House | Scene, pixels_per_metre: float = 48.0) -> Map:
    """Show a map on Matplotlib axes in metres; lines plotted on them need no conversion."""
    plan = draw_map(place, pixels_per_metre)
    house = place.house if isinstance(place, Scene) else place
    axes.imshow(plan.image, extent=(0.0, house.extent[0], 0.0, house.extent[1]))
    axes.set_aspect("equal")
    return plan


def write_film(
    path: Path,
    plan: Map,
    poses_K4: NDArray[np.float64],
    views: Iterable[Frame] | None = None,
    *,
    caption: str = "",
    last_caption: str | None = None,
    fps: int = 6,
) -> None:
    """Save a walk as an MP4 file, a frame a step.

    Args:
        path: The file.
        plan: What is walked on.
        poses_K4: x, y, heading, pitch of each step in the units of the map; agents whose heading
            is NaN are drawn without a view.
        views: What is seen at each step. None: the map alone.
        caption: A line above the pictures.
        last_caption: What stands there at the last step: how it ended. None: the same.
        fps: Frames a second.
    """
    captions = [caption] * (len(poses_K4) - 1) + [caption if last_caption is None else last_caption]
    font = ImageFont.load_default(12)
    width = max(math.ceil(font.getlength(text)) for text in captions) + 8  # alike in all frames
    film: Any = iio.get_writer(str(path), "FFMPEG", fps=fps, macro_block_size=2)
    with film:
        for step, view in zip(range(len(poses_K4)), views or repeat(None), strict=False):
            drawn = draw_path(plan, poses_K4[: step + 1, :2])
            x, y, heading, _ = (float(value) for value in poses_K4[step])
            if not math.isnan(heading):
                drawn = draw_view(drawn, x, y, heading)
            film.append_data(_frame(drawn.image, view, captions[step], width))


def _frame(plan: Frame, view: Frame | None, caption: str, least: int) -> Frame:
    """Put a map beside a view, under a caption, on sides of even length and of a least width."""
    top = _CAPTION if caption else 0
    left = 0 if view is None else view.shape[1] + MARGIN
    height = top + max(plan.shape[0], 0 if view is None else view.shape[0])
    width = max(left + plan.shape[1], least)
    # Video codecs want even sides.
    canvas = np.full((height + height % 2, width + width % 2, 3), PAPER, np.uint8)
    if view is not None:
        canvas[top : top + view.shape[0], : view.shape[1]] = view
    canvas[top : top + plan.shape[0], left : left + plan.shape[1]] = plan
    if not caption:
        return canvas
    image = Image.fromarray(canvas)
    ImageDraw.Draw(image).text((4, 3), caption, INK, ImageFont.load_default(12))
    return np.asarray(image)
