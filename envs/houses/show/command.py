"""Look at a house: `python -m envs.houses.show --split val --house 3 --size medium --out DIR`.

Writes `map.png`, the house from above with its goal objects and the way an expert walked to one of
them, and `frames.png`, what its rooms and that walk look like from the agent's eye. `--video` adds
`walk.mp4`; `--walk` lets a person walk in the terminal instead, and `--record FILE` keeps what they
do as demonstrations (`envs.core.demonstrations`).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.core.demonstrations import (
    DemonstrationError,
    Demonstrations,
    read_demonstrations,
    write_demonstrations,
)
from envs.houses.dataset import HouseDataset
from envs.houses.env import HousesEnv
from envs.houses.furniture.goal_objects import SCALES
from envs.houses.generation.floorplan import SIZES
from envs.houses.generation.generator import SPLITS
from envs.houses.rendering.renderer import BatchRenderer
from envs.houses.scene import Room, Scene
from envs.houses.show import topdown
from envs.houses.show.terminal import OnEpisode, walk_in_terminal
from envs.houses.show.topdown import INK, MARGIN, PAPER, Frame, write_film
from envs.objectnav.goals import GOAL_CATEGORIES

_CAPTION = 18
_PITCH = -0.2


@dataclass(frozen=True, slots=True)
class Walk:
    """One episode of the expert."""

    frames: list[Frame]
    """What it saw before each action; the last is where it stopped."""
    poses_K4: NDArray[np.float64]
    """x, y, heading, pitch at each frame."""
    goal: int
    record: dict[str, Any]

    @property
    def caption(self) -> str:
        """A line that says what was asked for and how it went."""
        name = GOAL_CATEGORIES[self.goal].replace("_", " ")
        found = "found" if self.record["success"] else "not found"
        return f"{name}: {found} after {len(self.frames)} steps, SPL {self.record['spl']:.2f}"


def walk_expert(env: HousesEnv, trial: int, episodes: int = 6) -> Walk:
    """Let the expert run some episodes of a trial and return the one that began farthest away."""
    observation, _ = env.reset(options={"trial": trial})
    walks = [_one_walk(env, observation)]
    for _ in range(episodes - 1):
        observation, _ = env.reset()
        walks.append(_one_walk(env, observation))
    return max(walks, key=lambda walk: walk.record["distance_start"])


def _one_walk(env: HousesEnv, observation: dict[str, Any]) -> Walk:
    vector: Any = env.vector
    goal = int(observation["goal"])
    frames: list[Frame] = []
    poses: list[NDArray[np.float64]] = []
    while True:
        frames.append(observation["rgb"])
        poses.append(vector.simulator.pose_N4[0].copy())
        observation, _, terminated, truncated, info = env.step(vector.expert_actions()[0])
        if terminated or truncated:
            return Walk(frames, np.array(poses), goal, info["episode_record"])


def draw_scene_map(scene: Scene, walk: Walk, pixels_per_metre: float) -> Frame:
    """Draw a scene from above with a walked path and where it looks at the end."""
    plan = topdown.draw_map(scene, pixels_per_metre)
    plan = topdown.label_rooms(plan, scene.house)
    plan = topdown.draw_path(plan, walk.poses_K4[:, :2])
    x, y, heading, _ = (float(v) for v in walk.poses_K4[-1])
    plan = topdown.draw_view(plan, x, y, heading)
    return topdown.draw_scale(topdown.mark_objects(plan, scene, goal=walk.goal)).image


def room_views(scene: Scene, dataset: HouseDataset, house: int, side: int) -> dict[str, Frame]:
    """Render every room from its free place that is farthest from its middle."""
    grid = dataset.grid(house)
    rows, columns = np.nonzero(grid.free_YX)
    points_K2 = (np.stack([columns, rows], axis=1).astype(np.float64) + 0.5) * grid.cell
    poses: list[tuple[float, float, float]] = []
    names: list[str] = []
    for number, room in enumerate(scene.house.rooms):
        pose = _view_of(room, points_K2)
        if pose is not None:
            poses.append(pose)
            names.append(f"{number + 1}  {room.kind.replace('_', ' ')}")
    renderer = BatchRenderer(len(poses), width=side, height=side, sensors=("rgb",), antialias=2)
    for row in range(len(poses)):
        renderer.set_scene(row, scene)
    x_N, y_N, heading_N = np.array(poses).T
    images = renderer.render(x_N, y_N, heading_N, np.full(len(poses), _PITCH))["rgb"]
    renderer.close()
    return dict(zip(names, images, strict=True))


def _view_of(room: Room, points_K2: NDArray[np.float64]) -> tuple[float, float, float] | None:
    x_K, y_K = points_K2.T
    inside = (x_K > room.x0) & (x_K < room.x1) & (y_K > room.y0) & (y_K < room.y1)
    if not inside.any():
        return None
    centre = np.array([(room.x0 + room.x1) / 2, (room.y0 + room.y1) / 2])
    away_K = np.linalg.norm(points_K2[inside] - centre, axis=1)
    x, y = points_K2[inside][np.argmax(away_K)]
    return float(x), float(y), math.atan2(centre[1] - y, centre[0] - x)


def sheet(frames: dict[str, Frame], columns: int) -> Image.Image:
    """Lay captioned frames of one size out in rows."""
    side = next(iter(frames.values())).shape[0]
    rows = -(-len(frames) // columns)
    width = columns * (side + MARGIN) + MARGIN
    image = Image.new("RGB", (width, rows * (side + _CAPTION + MARGIN) + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(12)
    for place, (caption, frame) in enumerate(frames.items()):
        x = MARGIN + place % columns * (side + MARGIN)
        y = MARGIN + place // columns * (side + _CAPTION + MARGIN)
        draw.text((x + 2, y), caption, INK, font)
        image.paste(Image.fromarray(frame), (x, y + _CAPTION))
    return image


def sheet_of_house(
    scene: Scene, dataset: HouseDataset, house: int, walk: Walk, columns: int = 6
) -> Image.Image:
    """Put the rooms' views above frames of the walk."""
    side = walk.frames[0].shape[0]
    frames = room_views(scene, dataset, house, side)
    # As many frames of the walk as fill the last row of rooms and one more.
    count = -len(frames) % columns + columns
    last = len(walk.frames) - 1
    for index in dict.fromkeys(np.linspace(0, last, count).round().astype(int).tolist()):
        what = "stop" if index == last else f"step {index}"
        frames[f"{GOAL_CATEGORIES[walk.goal].replace('_', ' ')}: {what}"] = walk.frames[index]
    return sheet(frames, columns)


def write_video(path: Path, scene: Scene, walk: Walk) -> None:
    """Save a walk: what the agent sees, beside the map of where it has been."""
    side = walk.frames[0].shape[0]
    base = topdown.draw_map(scene, side / max(scene.house.extent))
    base = topdown.draw_scale(topdown.mark_objects(base, scene, names=False, goal=walk.goal))
    write_film(path, base, walk.poses_K4, walk.frames)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m envs.houses.show", description="Look at a house, or walk in it."
    )
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--house", type=int, default=0, help="number of the house in its split")
    parser.add_argument("--arrangement", type=int, default=0, help="of the goal objects")
    parser.add_argument("--size", choices=tuple(SIZES), default="medium")
    parser.add_argument("--scale", choices=SCALES, help="of the goal objects; default by size")
    parser.add_argument("--out", type=Path, default=Path("house"), help="folder for the pictures")
    parser.add_argument("--resolution", type=int, default=256, help="side of the frames in pixels")
    parser.add_argument("--video", action="store_true", help="also save walk.mp4 of the expert")
    parser.add_argument("--walk", action="store_true", help="walk in the terminal instead")
    parser.add_argument("--record", type=Path, help="file that episodes walked are added to")
    return parser.parse_args(arguments)


def keep_in(path: Path, dataset: HouseDataset, trial: int) -> OnEpisode:
    """Return what adds finished episodes of a trial to a file, in the place of older ones.

    Raises:
        DemonstrationError: If the file holds demonstrations of another dataset, or something else.
    """
    old = read_demonstrations(path) if path.exists() else Demonstrations(dataset.name, {}, "")
    if old.dataset != dataset.name:
        raise DemonstrationError(
            f"{path}: must hold demonstrations of {dataset.name}, got {old.dataset}. "
            "Name another file."
        )
    actions = {where: taken for where, taken in old.actions.items() if where[0] != trial}
    others = len(actions)

    def keep(taken: list[int]) -> None:
        actions[trial, len(actions) - others] = np.array(taken)
        write_demonstrations(Demonstrations(dataset.name, actions, str(path)), path)

    return keep


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parse(arguments)
    dataset = HouseDataset(options.split, options.size, scale=options.scale)
    try:
        seed = dataset.house_seed(options.house)
        scene = dataset.scene(options.house, options.arrangement)
        settings: dict[str, Any] = {
            "split": options.split,
            "size": options.size,
            "scale": dataset.scale,
        }
        if options.walk:
            trial = options.house + options.arrangement * dataset.num_houses
            kept = [keep_in(options.record, dataset, trial)] if options.record else []
            walk_in_terminal(settings, trial, *kept)
            return 0
        env = HousesEnv(**settings, houses=[seed], resolution=options.resolution, antialias=2)
        options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    walk = walk_expert(env, options.arrangement)
    env.close()
    written = ["map.png", "frames.png"]
    Image.fromarray(draw_scene_map(scene, walk, 72.0)).save(options.out / "map.png")
    sheet_of_house(scene, dataset, options.house, walk).save(options.out / "frames.png")
    if options.video:
        write_video(options.out / "walk.mp4", scene, walk)
        written.append("walk.mp4")
    sys.stdout.write(
        f"{dataset.name}, house {options.house} (seed {seed}), arrangement {options.arrangement}: "
        f"{len(scene.house.rooms)} rooms, {len(scene.house.furniture)} pieces of furniture, "
        f"{len(scene.primitives)} primitives, {len(scene.objects)} goal objects.\n"
        f"The expert's {walk.caption}.\n"
        f"Wrote {', '.join(written)} to {options.out}.\n"
    )
    return 0
