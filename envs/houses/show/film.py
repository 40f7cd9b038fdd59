"""Films of a walk: the map with the way so far, and beside it what the agent sees.

Shape suffixes: K steps, H and W picture height and width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import imageio.v2 as iio
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.houses.show import topdown
from envs.houses.show.topdown import Map

MARGIN: Final = 6
INK: Final = (30, 32, 38)
PAPER: Final = (250, 250, 248)
_CAPTION: Final = 20

Frame = NDArray[np.uint8]


def write_film(
    path: Path,
    plan: Map,
    poses_K4: NDArray[np.float64],
    views: Iterable[Frame] | None = None,
    *,
    caption: str = "",
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
        fps: Frames a second.
    """
    film: Any = iio.get_writer(str(path), "FFMPEG", fps=fps, macro_block_size=2)
    with film:
        for step, view in zip(range(len(poses_K4)), views or repeat(None), strict=False):
            drawn = topdown.draw_path(plan, poses_K4[: step + 1, :2])
            x, y, heading, _ = (float(value) for value in poses_K4[step])
            if not math.isnan(heading):
                drawn = topdown.draw_view(drawn, x, y, heading)
            film.append_data(_frame(drawn.image, view, caption))


def _frame(plan: Frame, view: Frame | None, caption: str) -> Frame:
    """Put a map beside a view, under a caption, on sides of even length."""
    top = _CAPTION if caption else 0
    left = 0 if view is None else view.shape[1] + MARGIN
    height = top + max(plan.shape[0], 0 if view is None else view.shape[0])
    font = ImageFont.load_default(12)
    width = max(left + plan.shape[1], math.ceil(font.getlength(caption)) + 8)
    # Video codecs want even sides.
    canvas = np.full((height + height % 2, width + width % 2, 3), PAPER, np.uint8)
    if view is not None:
        canvas[top : top + view.shape[0], : view.shape[1]] = view
    canvas[top : top + plan.shape[0], left : left + plan.shape[1]] = plan
    if not caption:
        return canvas
    image = Image.fromarray(canvas)
    ImageDraw.Draw(image).text((4, 3), caption, INK, font)
    return np.asarray(image)
