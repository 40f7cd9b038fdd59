"""What is asked of habitat-sim, and nothing else: one scene, its free space, its pictures.

The frame is that of the trainer: z is up, a heading of 0 looks along +x and grows
counter-clockwise. Habitat's is y up, so our (x, y, z) is its (x, z, -y), and its agent, which
looks along -z, is turned by our heading less a quarter turn. Python 3.9; imports NumPy and
habitat_sim only. A file with such a `Backend` may stand in for this one.

Shape suffixes: P points, T triangles, V viewpoints, I goal instances, H and W image sides.
"""

from __future__ import annotations

import os
import tempfile
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

FIRST_ID = 20000
"""Semantic id of the first goal object: one each, above those of any scene."""
COUNTED = "counted"
"""Name of the sensor whose pixels are counted."""
_NO_LIGHTING = '{"enable_ibl": false, "ibl_blut_filename": "none", "ibl_envmap_filename": "none"}'
_PROBES = 32
"""Triangles of an island that are looked up from, to tell whether it is indoors."""


def to_habitat(point):
    """Return a point, or points (P, 3), in Habitat's frame."""
    point = np.asarray(point, np.float32)
    return np.stack([point[..., 0], point[..., 2], -point[..., 1]], axis=-1)


def from_habitat(point):
    """Return a point, or points (P, 3), of Habitat's frame in ours."""
    point = np.asarray(point, np.float32)
    return np.stack([point[..., 0], -point[..., 2], point[..., 1]], axis=-1)


def _turn(axis: int, angle: float) -> Any:
    """Return a rotation about one of Habitat's axes."""
    coefficients = [0.0, 0.0, 0.0, np.cos(angle / 2.0)]
    coefficients[axis] = np.sin(angle / 2.0)
    return quat_to_magnum(quat_from_coeffs(np.array(coefficients)))


def _quaternion(matrix: np.ndarray) -> np.ndarray:
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


class Backend:
    """One simulator with one scene in it."""

    def __init__(
        self, scene_dataset, sensors, shape, hfov_deg, eye, counted_side, gpu, image_lighting
    ):
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

    def start(self):
        """Start the simulator without a scene, to see that it does."""
        if self._sim is None:
            self._configure("NONE")

    def open_scene(self, scene, navmesh, navmesh_settings, agent_radius, agent_height):
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
            part = f"{navmesh}.{os.getpid()}"
            finder.save_nav_mesh(part)
            os.replace(part, navmesh)
        if not finder.load_nav_mesh(navmesh):
            raise RuntimeError("this navmesh cannot be read: " + navmesh)
        self._island = self._indoor_island()
        self._lift = self._height_above_floor()
        self._scene = key

    def place(self, template, config_paths, matrix):
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
        thing.rotation = quat_to_magnum(quat_from_coeffs(_quaternion(matrix[:3, :3])))
        thing.semantic_id = FIRST_ID + len(self._objects)
        self._objects.append(thing)
        center = thing.root_scene_node.cumulative_bb.center()
        return from_habitat(thing.transformation.transform_point(center)).tolist()

    def set_joints(self, states):
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

    def triangles(self):
        """Return the free space, (T, 3, 3): triangles, their corners, x y z."""
        return from_habitat(self._island_triangles(self._island)) - self._lift

    def snap(self, point):
        """Return the free place nearest to a point; not a number if there is none near."""
        point = to_habitat(np.asarray(point) + self._lift)
        found = self._sim.pathfinder.snap_point(point, island_index=self._island)
        return from_habitat(found) - self._lift

    def walk(self, start, end):
        """Return where an agent ends that goes straight on, and slides along obstacles."""
        start, end = (to_habitat(np.asarray(p) + self._lift) for p in (start, end))
        return from_habitat(self._sim.pathfinder.try_step(start, end)) - self._lift

    def goal(self, points):
        """Return a function from a place to the walking distance to the nearest of points."""
        path = habitat_sim.MultiGoalShortestPath()
        path.requested_ends = list(to_habitat(np.asarray(points) + self._lift))

        def distance(position):
            path.requested_start = to_habitat(np.asarray(position) + self._lift)
            self._sim.pathfinder.find_path(path)
            return float(path.geodesic_distance)

        return distance

    def look(self, position, heading, pitch):
        """Move the agent's camera."""
        node = self._sim.get_agent(0).scene_node
        node.translation = to_habitat(position)
        node.rotation = _turn(1, heading - np.pi / 2.0)
        tilt = _turn(0, pitch)
        for sensor in self._sim._sensors.values():
            sensor._sensor_object.node.rotation = tilt

    def draw(self):
        """Return what the camera sees: rgb (H, W, 3), depth (H, W) in metres, ids (H, W)."""
        seen = self._render(self._sensors)
        if "rgb" in seen:
            seen["rgb"] = seen["rgb"][..., :3]
        return seen

    def count(self):
        """Return how many pixels of each goal object the square image shows, (I,)."""
        ids = self._render([COUNTED])[COUNTED]
        numbers = ids[ids >= FIRST_ID].astype(np.int64) - FIRST_ID
        return np.bincount(numbers, minlength=len(self._objects))

    def cast(self, point, direction):
        """Return the distance to the first thing along a unit vector, its number and its normal."""
        ray = habitat_sim.geo.Ray(to_habitat(point), to_habitat(direction))
        result = self._sim.cast_ray(ray)
        if not result.has_hits():
            return None
        hit = result.hits[0]
        return hit.ray_distance, int(hit.object_id), from_habitat(hit.normal).tolist()

    def extent(self, template, config_paths):
        """Return the lowest and the highest corner of an object, in its own frame, ours."""
        self.place(template, config_paths, np.eye(4))
        box = self._objects[-1].root_scene_node.cumulative_bb
        corners = np.stack([from_habitat(box.min), from_habitat(box.max)])
        self._drop_last()
        return corners.min(axis=0), corners.max(axis=0)

    def close(self):
        """End the simulator."""
        if self._sim is not None:
            self._sim.close()
            self._sim = None

    def _configure(self, scene):
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
        self._scene = None
        if self._sim is None:
            self._sim = habitat_sim.Simulator(whole)
        else:
            self._sim.reconfigure(whole)

    def _template(self, name, config_paths):
        """Return the handle of an object's template, reading directories until it is known."""
        manager = self._sim.metadata_mediator.object_template_manager
        for path in [None, *config_paths]:
            if path is not None:
                manager.load_configs(path)
            for handle in manager.get_template_handles(name):
                if os.path.basename(handle) == os.path.basename(name):
                    return handle
        raise RuntimeError("no object is called " + name)

    def _remove_objects(self):
        while self._objects:
            self._drop_last()

    def _drop_last(self):
        thing = self._objects.pop()
        self._sim.get_rigid_object_manager().remove_object_by_id(thing.object_id)

    def _render(self, names):
        sensors = {name: self._sim._sensors[name] for name in names}
        for sensor in sensors.values():
            sensor.draw_observation()
        return {name: sensor.get_observation() for name, sensor in sensors.items()}

    def _island_triangles(self, island):
        finder = self._sim.pathfinder
        corners = np.asarray(finder.build_navmesh_vertices(island), np.float32).reshape(-1, 3)
        indices = np.asarray(finder.build_navmesh_vertex_indices(island), np.int64)
        return corners[indices.reshape(-1, 3)]

    def _indoor_island(self):
        """Return the largest connected part of the free space that has something above it.

        Roofs and furniture tops are parts, too, and yards may be larger than houses. Where nothing
        is above any part, as in a house without a roof, the largest counts.
        """
        finder = self._sim.pathfinder
        islands = sorted(range(finder.num_islands), key=finder.island_area, reverse=True)
        if not islands:
            raise RuntimeError("the navmesh is empty")
        least = 0.1 * finder.island_area(islands[0])
        for island in islands:
            if finder.island_area(island) >= least and self._is_covered(island):
                return island
        return islands[0]

    def _is_covered(self, island):
        above = self._cast_from(island, 0.5, 1.0)
        return not above or 2 * sum(hit is not None for hit in above) > len(above)

    def _height_above_floor(self):
        """Return by how much the navmesh lies above the floor: it is cut from voxels. (3,)."""
        below = [
            hit[0] - 0.5 for hit in self._cast_from(self._island, 0.5, -1.0) if hit is not None
        ]
        lift = float(np.median(below)) if below else 0.0
        return np.array([0.0, 0.0, lift if 0.0 < lift < 0.3 else 0.0])

    def _cast_from(self, island, height, up):
        """Cast rays up or down from above some places of an island; none without Bullet."""
        if not habitat_sim.built_with_bullet:
            return []
        centers = from_habitat(self._island_triangles(island)).mean(axis=1)
        chosen = centers[:: max(1, len(centers) // _PROBES)]
        return [self.cast(c + np.array([0.0, 0.0, height]), (0.0, 0.0, up)) for c in chosen]


def _spec(name, shape, hfov_deg, eye):
    """Describe a camera."""
    kinds = {"rgb": habitat_sim.SensorType.COLOR, "depth": habitat_sim.SensorType.DEPTH}
    spec = habitat_sim.CameraSensorSpec()
    spec.uuid = name
    spec.sensor_type = kinds.get(name, habitat_sim.SensorType.SEMANTIC)
    spec.resolution = [int(side) for side in shape]
    spec.hfov = hfov_deg
    spec.position = np.array([0.0, eye[1], -eye[0]], np.float32)
    return spec


def _directory_without_lighting():
    """Move into a directory whose files tell habitat-sim to prepare no image-based lighting.

    It prepares that for every simulator, whatever the scene; on a CPU this takes 9 to 17 seconds.
    """
    home = tempfile.TemporaryDirectory()
    os.mkdir(os.path.join(home.name, "data"))
    with open(os.path.join(home.name, "data", "default.pbr_config.json"), "w") as file:
        file.write(_NO_LIGHTING)
    os.chdir(home.name)
    return home
