"""Draws a few small pictures with the CUDA renderer and saves them; see `test_cuda.py`.

Run as `python -m tests.envs.houses.cuda_simulation FILE`, under NUMBA_ENABLE_CUDASIM=1 with
NUMBA_DISABLE_JIT=1: the simulator's arrays exist in Python only.
"""

from __future__ import annotations

import sys

import numpy as np

from envs.houses.navigation.grid import NavGrid
from envs.houses.scene import Scene
from envs.houses.simulator import HouseSimulator
from envs.objectnav.config import ObjectNavConfig
from tests.envs.houses.random_scenes import free_poses, random_atlas, random_scene

SETTINGS = {
    "width": 9,
    "height": 7,
    "hfov": 1.4,
    "sensors": ("rgb", "depth", "semantic", "instance"),
    "antialias": 2,
    "atlas": random_atlas(),
}


def stages() -> list[tuple[Scene, Scene, np.ndarray]]:
    """Return what is drawn: the scenes of rows 0 and 1, and poses of rows 1, 1, 0, 0.

    From one stage to the next a scene is replaced, at last by one that the tables must grow for.
    """
    first, second = random_scene(3, pieces=45), random_scene(4, pieces=40)
    third = random_scene(5, pieces=140, rooms=(3, 1))
    # Seeds of poses that have a goal object in view, even at this resolution.
    chosen = [(first, 38, second, 17), (second, 23, second, 58), (second, 17, third, 16)]
    return [
        (a, b, np.concatenate([free_poses(b, 2, seed_b), free_poses(a, 2, seed_a)]))
        for a, seed_a, b, seed_b in chosen
    ]


def draw(renderer, to_host) -> dict[str, np.ndarray]:
    """Draw all stages and return the images, named by stage and sensor."""
    images = {}
    for k, (a, b, poses) in enumerate(stages()):
        renderer.set_scene(0, a)
        renderer.set_scene(1, b)
        for name, image in renderer.render(*poses.T, rows=[1, 1, 0, 0]).items():
            images[f"{k} {name}"] = to_host(image)
    return images


def observe(renderer: str) -> dict[str, np.ndarray]:
    """Return what two rows of a simulator see, before and after one of them has moved."""
    sensors = ("rgb", "depth", "semantic", "instance")
    simulator = HouseSimulator(
        2, config=ObjectNavConfig(), shape=(7, 9), sensors=sensors, renderer=renderer
    )
    first, _, poses = stages()[0]
    free_YX = np.ones((3, 3), bool)
    grid = NavGrid(
        cell=0.1, free_YX=free_YX, domain_YX=free_YX, slack_YX=np.ones((3, 3), np.float32)
    )
    for row in range(2):
        simulator.set_scene(row, first, grid)
    pictures = {name: np.zeros((2, 7, 9)) for name in sensors}
    if renderer == "cpu":
        pictures = simulator.renderer.render(*poses[2:].T, rows=[0, 1])
    simulator.pose_N4[:] = poses[2:]
    simulator.render(None, pictures)
    seen = {f"before {name}": host(image) for name, image in pictures.items()}
    there = dict(pictures)
    simulator.pose_N4[1] = poses[2]
    simulator.render(np.array([1]), pictures)
    seen |= {f"one row {name}": host(image) for name, image in pictures.items()}
    simulator.pose_N4[0] = poses[3]
    simulator.render(None, pictures)
    seen |= {f"after {name}": host(image) for name, image in pictures.items()}
    assert all(pictures[name] is image for name, image in there.items())
    return seen


def host(image) -> np.ndarray:
    """Return a copy on the host."""
    return image.copy() if isinstance(image, np.ndarray) else image.copy_to_host()


if __name__ == "__main__":
    from envs.houses.rendering.cuda import CudaBatchRenderer

    simulated = CudaBatchRenderer(2, **SETTINGS)
    np.savez(sys.argv[1], **draw(simulated, host), **observe("cuda"))
