"""The only calls to habitat-sim: one scene, its free space and its pictures.

Places and headings are in the trainer's frame, which is z up. Habitat's is y up: our (x, y, z) is
its (x, z, -y). A heading of 0 looks along +x and grows counter-clockwise; Habitat's agent looks
along -z, so it is turned by our heading less a quarter turn.

Python 3.9; imports NumPy and habitat_sim only. A file with such a `Backend` may stand in for this
one.

Shapes: P points, T triangles, V viewpoints, I goal instances, H and W image sides.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

try:
    import habitat_sim  # pyright: ignore[reportMissingImports]
    from habitat_sim.utils.common import (  # pyright: ignore[reportMissingImports]
        quat_from_coeffs,
        quat_to_magnum,
    )
except ImportError as error:
    raise ImportError("habitat_sim cannot be imported here: " + str(error)) from None

Hit = tuple[float, int, list[float]]
"""Distance, number of the thing, its normal."""

FIRST_ID = 20000
"""Semantic id of the first goal object: one each, above those of any scene."""
COUNTED = "counted"
"""Name of the sensor whose pixels are counted."""
_PROBES = 32
"""Triangles of a connected part of the free space that rays are cast from."""
_ABOVE = 0.5
"""Height of their origins above the navmesh, in metres."""
_SMALLEST = 0.1
"""Least area of a floor, as a share of the largest island's."""
_MAX_LIFT = 0.3
_NO_LIGHTING = '{"enable_ibl": false, "ibl_blut_filename": "none", "ibl_envmap_filename": "none"}'


def to_habitat(point: Any) -> np.ndarray:
    """Return a point, or points (P, 3), in Habitat's frame."""
    point = np.asarray(point, np.float32)
    return np.stack([point[..., 0], point[..., 2], -point[..., 1]], axis=-1)


def from_habitat(point: Any) -> np.ndarray:
    """Return a point, or points (P, 3), of Habitat's frame in ours."""
    point = np.asarray(point, np.float32)
    return np.stack([point[..., 0], -point[..., 2], point[..., 1]], axis=-1)


def quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return a rotation matrix (3, 3) as x, y, z, w, from its largest diagonal sum."""
    diagonal = np.append(np.diag(matrix), np.trace(matrix))
    i = int(np.argmax(diagonal))
    q = np.empty(4)
    if i == 3:
        q[:3] = (
            matrix[2, 1] - matrix[1, 2],
            matrix[0, 2] - matrix[2, 0],
            matrix[1, 0] - matrix[0, 1],
        )
        q[3] = 1.0 + diagonal[3]
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q[i] = 1.0 - diagonal[3] + 2.0 * matrix[i, i]
        q[j] = matrix[j, i] + matrix[i, j]
        q[k] = matrix[k, i] + matrix[i, k]
        q[3] = matrix[k, j] - matrix[j, k]
    return q / np.linalg.norm(q)


def _turn(axis: int, angle: float) -> Any:
    """Return a rotation about one of Habitat's axes."""
    coefficients = [0.0, 0.0, 0.0, np.cos(angle / 2.0)]
    coefficients[axis] = np.sin(angle / 2.0)
    return quat_to_magnum(quat_from_coeffs(np.array(coefficients)))


class Backend:
    """One simulator with one scene in it."""

    def __init__(
        self,
        scene_dataset: str,
        sensors: list[str],
        shape: list[int],
        hfov_deg: float,
        eye: list[float],
        counted_side: int,
        gpu: int,
        image_lighting: bool,
    ) -> None:
        """Describe a simulator; it starts with the first scene.

        Heights of places are those of the floor, wherever the navmesh lies.

        Args:
            scene_dataset: path of a scene dataset's configuration.
            sensors: what `draw` shows, of rgb, depth and ids.
            shape: height and width of what it shows.
            hfov_deg: horizontal field of view.
            eye: (forward, up) of the camera from the agent's base.
            counted_side: side of the square image whose pixels are counted.
            gpu: CUDA device that draws; -1 for the first device of EGL, which may be the CPU.
            image_lighting: whether to prepare image-based lighting, as habitat-sim does by default.
        """
        self._scene_dataset = scene_dataset
        self._specs = [_spec(name, shape, hfov_deg, eye) for name in sensors]
        self._specs.append(_spec(COUNTED, (counted_side, counted_side), hfov_deg, eye))
        self._sensors = list(sensors)
        self._gpu = gpu
        self._sim: Any = None
        self._scene: Any = None
        self._objects: list = []
        self._island = 0
        self._lift = np.zeros(3)
        self._home = None if image_lighting else _directory_without_lighting()

    def start(self) -> None:
        """Start the simulator without a scene, to see that it does."""
        if self._sim is None:
            self._configure("NONE")

    def open_scene(
        self,
        scene: str,
        navmesh: str,
        navmesh_settings: str | None,
        agent_radius: float,
        agent_height: float,
    ) -> None:
        """Load a scene and its free space, without goal objects.

        Args:
            scene: path of a scene instance.
            navmesh: path of a navmesh file; one that does not exist is computed and written.
            navmesh_settings: path of settings for computing it, or None for Habitat's own.
            agent_radius: radius of the agent for computing it.
            agent_height: height of the agent for computing it.
        """
        key = (scene, navmesh)
        self._remove_objects()
        if self._scene == key:
            return
        self._configure(scene)
        finder = self._sim.pathfinder
        if not os.path.exists(navmesh):
            settings = habitat_sim.NavMeshSettings()
            settings.set_defaults()
            settings.include_static_objects = True
            if navmesh_settings is not None:
                settings.read_from_json(navmesh_settings)
            settings.agent_radius, settings.agent_height = agent_radius, agent_height
            if not self._sim.recompute_navmesh(finder, settings):
                raise RuntimeError("no navmesh could be computed for " + scene)
            # Several workers may compute the same navmesh: a reader sees all of one or none.
            part = f"{navmesh}.{os.getpid()}"
            finder.save_nav_mesh(part)
            os.replace(part, navmesh)
        if not finder.load_nav_mesh(navmesh):
            raise RuntimeError("this navmesh cannot be read: " + navmesh)
        cast = self.cast if habitat_sim.built_with_bullet else None
        self._island = indoor_island(finder, cast)
        lift = height_above_floor(finder, self._island, cast)
        self._lift = np.array([0.0, 0.0, lift])
        self._scene = key

    def place(self, template: str, config_paths: list[str], matrix: Any) -> list[float]:
        """Put one more goal object into the scene; return its centre.

        Args:
            template: name of its configuration file.
            config_paths: directories with further configuration files.
            matrix: its pose in Habitat's frame, (4, 4).
        """
        handle = self._template(template, config_paths)
        thing = self._sim.get_rigid_object_manager().add_object_by_template_handle(handle)
        if thing is None:
            raise RuntimeError("this object cannot be made: " + handle)
        matrix = np.asarray(matrix, np.float64)
        thing.motion_type = habitat_sim.physics.MotionType.KINEMATIC
        thing.translation = matrix[:3, 3]
        thing.rotation = quat_to_magnum(quat_from_coeffs(quaternion(matrix[:3, :3])))
        thing.semantic_id = FIRST_ID + len(self._objects)
        self._objects.append(thing)
        center = thing.root_scene_node.cumulative_bb.center()
        return from_habitat(thing.transformation.transform_point(center)).tolist()

    def set_joints(self, states: dict[str, dict[str, float]]) -> None:
        """Set joint positions of articulated objects: name -> {index: position}."""
        manager = self._sim.get_articulated_object_manager()
        for name, joints in states.items():
            thing = manager.get_object_by_handle(name)
            if thing is None:
                raise RuntimeError("the scene has no articulated object " + name)
            positions = list(thing.joint_positions)
            for index, value in joints.items():
                positions[int(index)] = float(value)
            thing.joint_positions = positions

    def triangles(self) -> np.ndarray:
        """Return the free space, (T, 3, 3): triangles, their corners, x y z."""
        return island_triangles(self._sim.pathfinder, self._island) - self._lift

    def snap(self, point: Any) -> np.ndarray:
        """Return the free place nearest to a point; not a number if there is none near."""
        point = to_habitat(np.asarray(point) + self._lift)
        found = self._sim.pathfinder.snap_point(point, island_index=self._island)
        return from_habitat(found) - self._lift

    def walk(self, start: Any, end: Any) -> np.ndarray:
        """Return where an agent ends that goes straight on, and slides along obstacles."""
        start, end = (to_habitat(np.asarray(p) + self._lift) for p in (start, end))
        return from_habitat(self._sim.pathfinder.try_step(start, end)) - self._lift

    def goal(self, points: Any) -> Callable[[Any], float]:
        """Return a function from a place to the walking distance to the nearest of points."""
        path = habitat_sim.MultiGoalShortestPath()
        path.requested_ends = list(to_habitat(np.asarray(points) + self._lift))

        def distance(position: Any) -> float:
            path.requested_start = to_habitat(np.asarray(position) + self._lift)
            self._sim.pathfinder.find_path(path)
            return float(path.geodesic_distance)

        return distance

    def look(self, position: Any, heading: float, pitch: float) -> None:
        """Move the agent's camera."""
        node = self._sim.get_agent(0).scene_node
        node.translation = to_habitat(position)
        node.rotation = _turn(1, heading - np.pi / 2.0)
        tilt = _turn(0, pitch)
        for sensor in self._sim._sensors.values():
            sensor._sensor_object.node.rotation = tilt

    def draw(self) -> dict[str, np.ndarray]:
        """Return what the camera sees: rgb (H, W, 3), depth (H, W) in metres, ids (H, W)."""
        seen = self._render(self._sensors)
        if "rgb" in seen:
            seen["rgb"] = seen["rgb"][..., :3]
        return seen

    def count(self) -> np.ndarray:
        """Return how many pixels of each goal object the square image shows, (I,)."""
        ids = self._render([COUNTED])[COUNTED]
        numbers = ids[ids >= FIRST_ID].astype(np.int64) - FIRST_ID
        return np.bincount(numbers, minlength=len(self._objects))

    def cast(self, point: Any, direction: Any) -> Hit | None:
        """Return the distance to the first thing along a unit vector, its number and its normal."""
        ray = habitat_sim.geo.Ray(to_habitat(point), to_habitat(direction))
        result = self._sim.cast_ray(ray)
        if not result.has_hits():
            return None
        hit = result.hits[0]
        return hit.ray_distance, int(hit.object_id), from_habitat(hit.normal).tolist()

    def extent(self, template: str, config_paths: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest corner of an object, in its own frame, ours."""
        self.place(template, config_paths, np.eye(4))
        box = self._objects[-1].root_scene_node.cumulative_bb
        # One axis changes its sign between the frames, so corners are sorted again below.
        corners = np.stack([from_habitat(box.min), from_habitat(box.max)])
        self._drop_last()
        return corners.min(axis=0), corners.max(axis=0)

    def close(self) -> None:
        """End the simulator."""
        if self._sim is not None:
            self._sim.close()
            self._sim = None

    def _configure(self, scene: str) -> None:
        """Start the simulator, or move it to another scene."""
        config = habitat_sim.SimulatorConfiguration()
        config.scene_dataset_config_file = self._scene_dataset
        config.scene_id = scene
        config.gpu_device_id = self._gpu
        config.enable_physics = habitat_sim.built_with_bullet
        config.random_seed = 0
        agent = habitat_sim.AgentConfiguration()
        agent.sensor_specifications = self._specs
        whole = habitat_sim.Configuration(config, [agent])
        # If what follows fails, no scene counts as open.
        self._scene = None
        if self._sim is None:
            self._sim = habitat_sim.Simulator(whole)
        else:
            self._sim.reconfigure(whole)

    def _template(self, name: str, config_paths: list[str]) -> str:
        """Return the handle of an object's template, reading directories until it is known."""
        manager = self._sim.metadata_mediator.object_template_manager
        for path in [None, *config_paths]:
            if path is not None:
                manager.load_configs(path)
            for handle in manager.get_template_handles(name):
                if os.path.basename(handle) == os.path.basename(name):
                    return handle
        raise RuntimeError("no object is called " + name)

    def _remove_objects(self) -> None:
        while self._objects:
            self._drop_last()

    def _drop_last(self) -> None:
        thing = self._objects.pop()
        self._sim.get_rigid_object_manager().remove_object_by_id(thing.object_id)

    def _render(self, names: list[str]) -> dict[str, np.ndarray]:
        sensors = {name: self._sim._sensors[name] for name in names}
        for sensor in sensors.values():
            sensor.draw_observation()
        return {name: sensor.get_observation() for name, sensor in sensors.items()}


def _spec(name: str, shape: Any, hfov_deg: float, eye: list[float]) -> Any:
    """Describe a camera."""
    kinds = {"rgb": habitat_sim.SensorType.COLOR, "depth": habitat_sim.SensorType.DEPTH}
    spec = habitat_sim.CameraSensorSpec()
    spec.uuid = name
    spec.sensor_type = kinds.get(name, habitat_sim.SensorType.SEMANTIC)
    spec.resolution = [int(side) for side in shape]
    spec.hfov = hfov_deg
    spec.position = np.array([0.0, eye[1], -eye[0]], np.float32)
    return spec


def _directory_without_lighting() -> tempfile.TemporaryDirectory[str]:
    """Move into a directory whose files tell habitat-sim to prepare no image-based lighting.

    It prepares that for every simulator, whatever the scene; on a CPU this takes 9 to 17 seconds.
    """
    home = tempfile.TemporaryDirectory()
    os.mkdir(os.path.join(home.name, "data"))
    with open(os.path.join(home.name, "data", "default.pbr_config.json"), "w") as file:
        file.write(_NO_LIGHTING)
    os.chdir(home.name)
    return home


def island_triangles(finder: Any, island: int) -> np.ndarray:
    """Return the triangles of an island, (T, 3, 3), in our frame."""
    corners = np.asarray(finder.build_navmesh_vertices(island), np.float32).reshape(-1, 3)
    indices = np.asarray(finder.build_navmesh_vertex_indices(island), np.int64)
    return from_habitat(corners[indices.reshape(-1, 3)])


def indoor_island(finder: Any, cast: Any) -> int:
    """Return the largest connected part of the free space that has something above it.

    Roofs and furniture tops are parts, too, and yards may be larger than houses. Where nothing is
    above any part, as in a house without a roof, or where no rays can be cast, the largest counts.

    Args:
        finder: Habitat's pathfinder.
        cast: casts rays, if that is possible.
    """
    islands = sorted(range(finder.num_islands), key=finder.island_area, reverse=True)
    if not islands:
        raise RuntimeError("the navmesh is empty")
    least = _SMALLEST * finder.island_area(islands[0])
    for island in islands if cast is not None else []:
        above = _cast_from(finder, island, cast, 1.0)
        covered = 2 * sum(hit is not None for hit in above) > len(above)
        if covered and finder.island_area(island) >= least:
            return island
    return islands[0]


def height_above_floor(finder: Any, island: int, cast: Any) -> float:
    """Return by how much an island lies above the floor: a navmesh is cut from voxels."""
    if cast is None:
        return 0.0
    hits = _cast_from(finder, island, cast, -1.0)
    below = [hit[0] - _ABOVE for hit in hits if hit is not None]
    lift = float(np.median(below)) if below else 0.0
    return lift if 0.0 < lift < _MAX_LIFT else 0.0


def _cast_from(finder: Any, island: int, cast: Any, up: float) -> list[Hit | None]:
    """Cast rays up or down from above some places of an island."""
    centers = island_triangles(finder, island).mean(axis=1)
    chosen = centers[:: max(1, len(centers) // _PROBES)]
    return [cast(c + np.array([0.0, 0.0, _ABOVE]), (0.0, 0.0, up)) for c in chosen]
