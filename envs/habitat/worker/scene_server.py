"""A Habitat worker: one agent in one scene, moved and rendered on its parent's commands.

It knows no rules: what is asked for, what is earned and when an episode ends is decided by the
trainer. Started by `envs/core/process_worker.py` from its path; Python 3.9, needs NumPy and
whatever the backend needs.

Shapes: V viewpoints, I goal instances, T triangles, H and W image sides.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

import numpy as np
from expert import Expert
from viewpoints import find_viewpoints

Shown = tuple[dict[str, np.ndarray], list[float], float]
"""Observation, position, distance to the goal."""

GOAL_SEMANTIC = 100
"""Semantic id of goal category 0 in images, as in `envs.objectnav.goals`, which is out of reach."""
MAX_SEMANTIC = 32767
_IDS = "ids"
_BACKEND = os.path.join(os.path.dirname(os.path.abspath(__file__)), "habitat_backend.py")


def load_backend(path: str) -> Any:
    """Load the file that holds the simulator's lowest layer."""
    spec = importlib.util.spec_from_file_location("backend", path)
    if spec is None or spec.loader is None:
        raise ImportError("the backend must be a Python file, got " + path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["backend"] = module
    spec.loader.exec_module(module)
    return module


class SceneServer:
    """One scene with goal objects, and one agent in it."""

    def __init__(
        self,
        scene_dataset: str,
        sensors: list[str],
        shape: list[int],
        hfov_deg: float,
        eye: list[float],
        counted_side: int,
        image_lighting: bool,
        backend: str = _BACKEND,
    ) -> None:
        """Describe what is drawn. The simulator starts with `start` or the first scene.

        Args:
            scene_dataset: path of a scene dataset's configuration.
            sensors: images to draw, of rgb, depth, semantic and instance.
            shape: their height and width.
            hfov_deg: horizontal field of view.
            eye: (forward, up) of the camera from the agent's base.
            counted_side: side of the square image in which pixels are counted.
            image_lighting: whether to prepare image-based lighting.
            backend: path of a file with a `Backend`.
        """
        self.action_space = {"n": 6}
        self.observation_space = {name: _space(name, list(shape)) for name in sensors}
        self._sensors = list(sensors)
        module = load_backend(backend)
        self._first_id = module.FIRST_ID
        drawn = [name for name in ("rgb", "depth") if name in sensors]
        if "semantic" in sensors or "instance" in sensors:
            drawn.append(_IDS)
        self._eye = list(eye)
        self._open_backend = lambda gpu: module.Backend(
            scene_dataset, drawn, shape, hfov_deg, eye, counted_side, gpu, image_lighting
        )
        self._backend: Any = None
        self._categories = np.zeros(0, np.int64)
        self._centers = np.zeros((0, 3))
        self._position = np.zeros(3)
        self._heading = self._pitch = 0.0
        self._goal: Any = None
        self._expert: Any = None

    def start(self, gpu: int) -> None:
        """Start the simulator, to see that it does."""
        if self._backend is None:
            self._backend = self._open_backend(gpu)
            self._backend.start()

    def open(
        self,
        gpu: int,
        scene: dict[str, Any],
        objects: list[tuple[str, Any, int]],
        config_paths: list[str],
        joints: dict[str, dict[str, float]],
    ) -> dict[str, np.ndarray]:
        """Load a scene with its goal objects.

        Args:
            gpu: CUDA device that draws, or -1.
            scene: what `Backend.open_scene` wants, by name.
            objects: (template, pose (4, 4) in Habitat's frame, goal category) of each.
            config_paths: directories with configurations of objects.
            joints: positions of articulated objects' joints.

        Returns:
            `triangles` of the free space (T, 3, 3), `centers` of the objects (I, 3).
        """
        self.start(gpu)
        # Both know the scene before only.
        self._goal = self._expert = None
        self._backend.open_scene(**scene)
        self._backend.set_joints(joints)
        centers = [self._backend.place(name, config_paths, pose) for name, pose, _ in objects]
        self._centers = np.array(centers, np.float64).reshape(-1, 3)
        self._categories = np.array([category for _, _, category in objects], np.int64)
        return {"triangles": self._backend.triangles(), "centers": self._centers}

    def viewpoints(self, instance: int, rules: dict[str, Any]) -> np.ndarray:
        """Return where the agent can stand to see a goal object, (V, 3)."""
        return find_viewpoints(self._backend, self._centers, instance, rules, self._eye)

    def distance(self, position: list[float], points: np.ndarray) -> float:
        """Return the walking distance from a position to the nearest of points."""
        return self._backend.goal(points)(self._backend.snap(position))

    def begin(
        self,
        position: list[float],
        heading: float,
        pitch: float,
        points: np.ndarray,
        instances: list[int],
    ) -> Shown:
        """Place the agent, and say what it looks for.

        Args:
            position: its base.
            heading: radians, counter-clockwise from +x.
            pitch: of the camera, up is positive.
            points: viewpoints of the goal, (V, 3).
            instances: numbers of the objects that satisfy it.

        Returns:
            Observation, position and distance to the goal.
        """
        self._position = np.asarray(self._backend.snap(position), np.float64)
        self._heading, self._pitch = heading, pitch
        self._goal = self._backend.goal(points)
        self._expert = Expert(self._backend, self._centers, self._eye, list(instances), points)
        return self._show()

    def step(self, forward: float, heading: float, pitch: float) -> Shown:
        """Turn to a heading, tilt the camera, walk. Returns as `begin` does."""
        self._heading, self._pitch = heading, pitch
        if forward:
            ahead = np.array([np.cos(heading), np.sin(heading), 0.0])
            end = self._backend.walk(self._position, self._position + forward * ahead)
            self._position = np.asarray(end, np.float64)
        return self._show()

    def pixels(self) -> np.ndarray:
        """Return how many pixels of each goal object the agent sees in the square image, (I,)."""
        self._backend.look(self._position, self._heading, self._pitch)
        return self._backend.count()

    def expert_action(self, rules: dict[str, Any]) -> int:
        """Return what an expert would do."""
        return self._expert.action(self._position, self._heading, self._pitch, rules)

    def arrange(self, seed: list[int], rules: dict[str, Any]) -> list[Any]:
        """Draw an arrangement of goal objects in the open scene; see `arranging.arrange`."""
        from arranging import arrange  # needed by one command only

        return arrange(self._backend, seed, rules)

    def close(self) -> None:
        """End the simulator."""
        if self._backend is not None:
            self._backend.close()

    def _show(self) -> Shown:
        observation = {}
        if self._sensors:
            self._backend.look(self._position, self._heading, self._pitch)
            observation = self._images(self._backend.draw())
        return observation, self._position.tolist(), self._goal(self._position)

    def _images(self, drawn: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Turn ids into the images that are asked for."""
        ids = drawn.pop(_IDS, None)
        if ids is not None:
            goal = ids >= self._first_id
            # 0 elsewhere, which must be an index below even in a scene without objects.
            number = np.where(goal, ids.astype(np.int64) - self._first_id, 0)
            if "instance" in self._sensors:
                drawn["instance"] = np.where(goal, number + 1, 0)
            if "semantic" in self._sensors:
                named = np.where(self._categories < 0, 0, GOAL_SEMANTIC + self._categories)
                scene = np.minimum(ids, MAX_SEMANTIC).astype(np.int64)
                drawn["semantic"] = np.where(goal, np.append(named, 0)[number], scene)
        return drawn


def _space(name: str, shape: list[int]) -> dict[str, Any]:
    """Describe an image."""
    if name == "rgb":
        return {"shape": [*shape, 3], "dtype": "uint8", "low": 0, "high": 255}
    if name == "depth":
        return {"shape": shape, "dtype": "float32", "low": 0, "high": 100}
    return {"shape": shape, "dtype": "int16", "low": 0, "high": MAX_SEMANTIC}


def make(**options: Any) -> SceneServer:
    """Make a worker's simulator; see `SceneServer`."""
    return SceneServer(**options)
