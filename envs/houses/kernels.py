"""The kernels of houses, each called once, in two parts that compile in about the same time.

Neither part calls what the other compiles, as they run side by side; see `envs.core.kernels`.
"""

from __future__ import annotations

import math

import numpy as np

from envs.houses.env import HousesVectorEnv
from envs.houses.generation.generator import generate_house
from envs.houses.rendering.renderer import SENSORS, BatchRenderer
from envs.houses.scene import Scene
from envs.objectnav.config import Action
from envs.objectnav.detections import Detections
from envs.objectnav.goals import GOAL_CATEGORIES


def draw() -> None:
    """Draw a house, count its objects' pixels and say which are seen."""
    house = generate_house(0, "small")
    scene = Scene(house, 0, (), house.primitives, house.materials)
    hfov, pose_4N = math.pi / 2, np.zeros((4, 1))
    with BatchRenderer(1, width=64, height=64, hfov=hfov, sensors=SENSORS) as renderer:
        renderer.set_scene(0, scene)
        pictures = renderer.render(*pose_4N)
        renderer.count_pixels([0], *pose_4N, size=64)
    Detections(1, len(GOAL_CATEGORIES), hfov=hfov).find(np.arange(1), pictures, pose_4N[3])


def walk() -> None:
    """Follow the expert to the goal, and try every action but to stop, which draws."""
    env = HousesVectorEnv(1, split="val", sensors=[], goal_places=True)
    env.reset()
    for action in Action:
        if action is not Action.STOP:
            env.step(np.array([action]))
    while (action_N := env.expert_actions())[0] != Action.STOP:
        env.step(action_N)
    env.close()
