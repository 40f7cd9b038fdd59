"""Scenes and tiles as the kernels read them: flat tables, one slot per distinct scene.

Rows in the same scene share its slot. All slots have the same capacity, which grows when a larger
scene comes. Kernels check nothing, so `check_scene` looks at every index that they will follow.

Shapes: S slots, P primitives with two more per room (floor and ceiling), M materials,
R rooms, D doors, G the numbers of one solid, L its labels, K tiles, F faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.houses.scene import Face, FloatArray, IntArray, Kind, Primitives, Scene, Semantic

MAX_ROOMS: Final = 63
"""A primitive's rooms are the bits of one int64, and the sign bit stays free."""

ALL_ROOMS: Final = (1 << MAX_ROOMS) - 1

CENTER: Final = 0
COSINE: Final = 3
SINE: Final = 4
LOW: Final = 5
HIGH: Final = 8
CORNERED: Final = 11
SOLID_SIZE: Final = 12
"""Offsets into a solid: its frame (centre, yaw), its bounds in that frame, and 1 where tiles begin
at a face's corner or 0 where they lie on the house's coordinates."""

KIND: Final = 0
SEMANTIC: Final = 1
INSTANCE: Final = 2
MATERIAL: Final = 3
LABEL_SIZE: Final = MATERIAL + len(Face)
"""Offsets into a solid's labels; six materials follow by face."""

TILE: Final = 3
REPEAT: Final = 4
MATERIAL_SIZE: Final = 5
"""Offsets into a material, after its colour."""

DOOR_ROOMS: Final = 0
DOOR_CENTER: Final = 2
DOOR_HALF_WIDTH: Final = 4
DOOR_HEIGHT: Final = 5
DOOR_ALONG_X: Final = 6
DOOR_SIZE: Final = 7
"""Offsets into a door."""

NUM_PRIMITIVES: Final = 0
NUM_ROOMS: Final = 1
NUM_DOORS: Final = 2

_GROWTH: Final = 64
"""Capacities are multiples of this many primitives or materials."""


class Atlas(NamedTuple):
    """Square tiles as the kernels read them, lowest row first."""

    mean: FloatArray
    """Mean colour in [0, 1], three per tile."""
    texel: NDArray[np.int32]
    """Colours in bytes: red, green << 8, blue << 16."""
    shift: np.int32
    """Binary logarithm of the texels along a tile's edge."""


def pack_atlas(tile_KYX3: NDArray[np.floating[Any]]) -> Atlas:
    """Return tiles of factors in [0, 1] as the kernels read them, rounded to bytes.

    Raises:
        ValueError: Tiles must be squares whose edge is a power of two.
    """
    shape = tile_KYX3.shape
    size = shape[1] if len(shape) == 4 else 0
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or size & (size - 1):
        raise ValueError(
            "BatchRenderer.atlas: tiles must have the shape (tiles, 2^k, 2^k, 3), "
            f"got {shape}. Use envs.houses.textures.atlas.atlas()."
        )
    # Kernels count rows upwards like v, so the image's last row comes first.
    byte_KYX3 = np.round(np.clip(tile_KYX3, 0.0, 1.0) * 255.0).astype(np.int32)[:, ::-1]
    mean_K3 = byte_KYX3.mean(axis=(1, 2)) / 255.0
    packed = byte_KYX3[..., 0] | byte_KYX3[..., 1] << 8 | byte_KYX3[..., 2] << 16
    return Atlas(
        mean=mean_K3.astype(np.float32).reshape(-1),
        texel=np.ascontiguousarray(packed, np.int32).reshape(-1),
        shift=np.int32(size.bit_length() - 1),
    )


class Tables(NamedTuple):
    """What the kernels read. All arrays are C-contiguous and share their first axis."""

    count_S3: NDArray[np.int32]
    """Numbers of primitives, rooms and doors."""
    bound_SP4: NDArray[np.float32]
    """Bounding spheres: centre and radius."""
    rooms_SP: NDArray[np.int64]
    """Bit r is set where a primitive touches room r."""
    solid_SPG: NDArray[np.float32]
    label_SPL: NDArray[np.int16]
    material_SM5: NDArray[np.float32]
    room_SR4: NDArray[np.float32]
    """Rectangles x0, y0, x1, y1."""
    door_SD7: NDArray[np.float32]


@dataclass(slots=True)
class _Slot:
    """Who uses a slot of the tables."""

    scene: Scene | None = None
    """None while the slot is free."""
    users: int = 0
    num_instances: int = 1


class SceneTables:
    """The slots. Several renderers may read the same ones."""

    def __init__(self, num_tiles: int) -> None:
        self._num_tiles = num_tiles
        self._slots: list[_Slot] = []
        self._slot_of: dict[int, int] = {}
        self.tables = _allocate(0, (0, 0, 0, 0))

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(array.nbytes for array in self.tables)

    @property
    def bytes_per_scene(self) -> int:
        """Bytes of one slot at the present capacity."""
        return self.nbytes // max(1, len(self._slots))

    def num_instances(self, slot: int) -> int:
        """Return one more than the largest instance id of a slot."""
        return self._slots[slot].num_instances

    def acquire(self, scene: Scene, *, instead_of: int | None = None) -> int:
        """Return the scene's slot, packed now if it is new. Counts one more user.

        Args:
            scene: Compared by identity, not by content.
            instead_of: A slot to release, once it is certain that the scene can be packed.
        """
        slot = self._slot_of.get(id(scene))
        # The row is in this scene already, and counts as its user.
        if slot is not None and slot == instead_of:
            return slot
        packed = pack(scene, num_tiles=self._num_tiles) if slot is None else None
        if instead_of is not None:
            self.release(instead_of)
        if packed is not None:
            slot = self._free_slot(packed)
            for table, array in zip(self.tables, packed, strict=True):
                # A larger scene may have been here, whose rest must go.
                table[slot] = 0
                table[(slot, *(slice(n) for n in array.shape[1:]))] = array[0]
            num_instances = 1 + int(scene.primitives.instance_P.max(initial=0))
            self._slots[slot] = _Slot(scene, num_instances=num_instances)
            self._slot_of[id(scene)] = slot
        assert slot is not None
        self._slots[slot].users += 1
        return slot

    def release(self, slot: int) -> None:
        """Count one user less; the last one frees the slot."""
        used = self._slots[slot]
        used.users -= 1
        if used.users == 0 and used.scene is not None:
            # The slot holds the scene until now, so no other object can have had its id.
            del self._slot_of[id(used.scene)]
            used.scene = None

    def _free_slot(self, packed: Tables) -> int:
        """Return an unused slot that is large enough for `packed`. May grow the tables."""
        slot = next((k for k, used in enumerate(self._slots) if used.scene is None), None)
        have = tuple(getattr(self.tables, name).shape[1] for name in _SIZED)
        need = tuple(getattr(packed, name).shape[1] for name in _SIZED)
        num_slots = len(self._slots)
        if slot is None:
            # Doubled, so that tables are seldom copied.
            slot, num_slots = num_slots, max(1, 2 * num_slots)
        if num_slots > len(self._slots) or any(n > h for n, h in zip(need, have, strict=True)):
            larger = _allocate(num_slots, tuple(max(n, h) for n, h in zip(need, have, strict=True)))
            for new, old in zip(larger, self.tables, strict=True):
                new[tuple(slice(n) for n in old.shape)] = old
            self.tables = larger
            self._slots += [_Slot() for _ in range(num_slots - len(self._slots))]
        return slot


_SIZED: Final = ("rooms_SP", "material_SM5", "room_SR4", "door_SD7")
"""A table for each of the capacities P, M, R, D."""


def _allocate(num_slots: int, capacity: tuple[int, ...]) -> Tables:
    """Return empty tables; primitives and materials are rounded up to `_GROWTH`."""
    primitives, materials = (-(-n // _GROWTH) * _GROWTH for n in capacity[:2])
    rooms, doors = capacity[2:]
    return Tables(
        count_S3=np.zeros((num_slots, 3), np.int32),
        bound_SP4=np.zeros((num_slots, primitives, 4), np.float32),
        rooms_SP=np.zeros((num_slots, primitives), np.int64),
        solid_SPG=np.zeros((num_slots, primitives, SOLID_SIZE), np.float32),
        label_SPL=np.zeros((num_slots, primitives, LABEL_SIZE), np.int16),
        material_SM5=np.zeros((num_slots, materials, MATERIAL_SIZE), np.float32),
        room_SR4=np.zeros((num_slots, rooms, 4), np.float32),
        door_SD7=np.zeros((num_slots, doors, DOOR_SIZE), np.float32),
    )


def check_scene(scene: Scene, *, num_tiles: int) -> None:
    """Refuse a scene unless every index and number of it may be followed blindly.

    Args:
        scene: what is to be drawn.
        num_tiles: tiles that materials can name.

    Raises:
        ValueError: The message says which number is wrong.
    """
    house, solids, materials = scene.house, scene.primitives, scene.materials
    name = f"Scene of house {house.seed}"
    numbers = (solids.center_P3, solids.half_P3, solids.yaw_P, materials.rgb_M3, materials.repeat_M)
    if not all(np.isfinite(array).all() for array in numbers):
        raise ValueError(f"{name}: geometry and materials must be finite. Fix the generator.")
    if not 1 <= len(house.rooms) <= MAX_ROOMS:
        raise ValueError(
            f"{name}: rooms must be 1 to {MAX_ROOMS}, got {len(house.rooms)}. Change the plan."
        )
    used = [solids.material_PF.ravel()]
    used += [np.array([r.floor_material, r.ceiling_material]) for r in house.rooms]
    _check_range(f"{name}: material indices", np.concatenate(used), len(materials.tile_M))
    _check_range(f"{name}: tile indices", materials.tile_M, num_tiles)
    _check_range(f"{name}: primitive kinds", solids.kind_P, len(Kind))
    ends = np.array([end for d in house.doors for end in (d.room_a, d.room_b)], np.int64)
    _check_range(f"{name}: door rooms", ends, len(house.rooms))
    # Labels are int16.
    _check_range(f"{name}: instance ids", solids.instance_P, 1 << 15)
    if (solids.half_P3 <= 0.0).any():
        raise ValueError(
            f"{name}: half extents must be positive, got {solids.half_P3.min()}. Drop such solids."
        )


def _check_range(what: str, index: NDArray[np.integer], size: int) -> None:
    """Raise ValueError unless all indices are in [0, size)."""
    if index.size and (index.min() < 0 or index.max() >= size):
        raise ValueError(
            f"{what} must be in [0, {size}), got {index.min()} to {index.max()}. Fix the generator."
        )


def pack(scene: Scene, *, num_tiles: int) -> Tables:
    """Return the tables of one scene, with one slot.

    Raises:
        ValueError: The scene holds a number that the kernels could not follow.
    """
    house = scene.house
    check_scene(scene, num_tiles=num_tiles)
    solid_PG, label_PL = _solids(scene.primitives)
    flat_PG, flat_label_PL = _floors_and_ceilings(scene)
    solid_PG = np.concatenate([solid_PG, flat_PG])
    label_PL = np.concatenate([label_PL, flat_label_PL])
    room_R4 = np.array([(r.x0, r.y0, r.x1, r.y1) for r in house.rooms], np.float32).reshape(-1, 4)
    door_D7 = np.array(
        [(d.room_a, d.room_b, d.x, d.y, 0.5 * d.width, d.height, d.along_x) for d in house.doors],
        np.float32,
    ).reshape(-1, DOOR_SIZE)
    bound_P4, rooms_P = _bounds(solid_PG, room_R4)
    materials = scene.materials
    material_M5 = np.column_stack([materials.rgb_M3, materials.tile_M, materials.repeat_M])
    return Tables(
        count_S3=np.array([[len(solid_PG), len(room_R4), len(door_D7)]], np.int32),
        bound_SP4=bound_P4[None],
        rooms_SP=rooms_P[None],
        solid_SPG=solid_PG[None],
        label_SPL=label_PL[None],
        material_SM5=material_M5.astype(np.float32)[None],
        room_SR4=room_R4[None],
        door_SD7=door_D7[None],
    )


def _solids(primitives: Primitives) -> tuple[NDArray[np.float32], IntArray]:
    """Pack frames, bounds and labels of the primitives.

    Upright walls have the house's own frame, so that their patterns run on from one stretch of
    wall to the next and over doors.
    """
    solid_PG = np.zeros((len(primitives), SOLID_SIZE), np.float32)
    half_P3 = primitives.half_P3.astype(np.float64)
    wall_P = (primitives.semantic_P == Semantic.WALL) & (primitives.yaw_P == 0.0)
    wall_P &= primitives.kind_P == Kind.BOX
    offset_P3 = np.where(wall_P[:, None], primitives.center_P3, 0.0)
    solid_PG[:, CENTER : CENTER + 3] = np.where(wall_P[:, None], 0.0, primitives.center_P3)
    solid_PG[:, COSINE] = np.cos(primitives.yaw_P.astype(np.float64))
    solid_PG[:, SINE] = np.sin(primitives.yaw_P.astype(np.float64))
    solid_PG[:, LOW : LOW + 3] = offset_P3 - half_P3
    solid_PG[:, HIGH : HIGH + 3] = offset_P3 + half_P3
    solid_PG[:, CORNERED] = ~wall_P
    label_PL = np.column_stack(
        [primitives.kind_P, primitives.semantic_P, primitives.instance_P, primitives.material_PF]
    )
    return solid_PG, label_PL.astype(np.int16)


def _floors_and_ceilings(scene: Scene) -> tuple[NDArray[np.float32], IntArray]:
    """Pack each room's floor and ceiling: boxes without height in the house's own frame."""
    rooms = scene.house.rooms
    solid_PG = np.zeros((2 * len(rooms), SOLID_SIZE), np.float32)
    label_PL = np.zeros((2 * len(rooms), LABEL_SIZE), np.int16)
    # CORNERED stays 0, so patterns of floors lie on the house's coordinates.
    solid_PG[:, COSINE] = 1.0
    label_PL[:, KIND] = Kind.BOX
    for r, room in enumerate(rooms):
        floor = (0.0, Semantic.FLOOR, room.floor_material)
        ceiling = (scene.house.wall_height, Semantic.CEILING, room.ceiling_material)
        for p, (z, semantic, material) in zip((2 * r, 2 * r + 1), (floor, ceiling), strict=True):
            solid_PG[p, LOW : LOW + 3] = room.x0, room.y0, z
            solid_PG[p, HIGH : HIGH + 3] = room.x1, room.y1, z
            label_PL[p, SEMANTIC] = semantic
            label_PL[p, MATERIAL:] = material
    return solid_PG, label_PL


def _bounds(
    solid_PG: NDArray[np.float32], room_R4: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return bounding spheres, and which rooms each solid's bounding box touches."""
    low_P3 = solid_PG[:, LOW : LOW + 3].astype(np.float64)
    high_P3 = solid_PG[:, HIGH : HIGH + 3].astype(np.float64)
    cos_P, sin_P = solid_PG[:, COSINE], solid_PG[:, SINE]
    middle_P3, half_P3 = 0.5 * (low_P3 + high_P3), 0.5 * (high_P3 - low_P3)
    x_P = solid_PG[:, CENTER] + cos_P * middle_P3[:, 0] - sin_P * middle_P3[:, 1]
    y_P = solid_PG[:, CENTER + 1] + sin_P * middle_P3[:, 0] + cos_P * middle_P3[:, 1]
    z_P = solid_PG[:, CENTER + 2] + middle_P3[:, 2]
    # A little more than exact, so that rounding to float32 leaves out nothing that can be seen.
    radius_P = np.linalg.norm(half_P3, axis=1) + 1e-4
    reach_x_P = np.abs(cos_P) * half_P3[:, 0] + np.abs(sin_P) * half_P3[:, 1] + 1e-3
    reach_y_P = np.abs(sin_P) * half_P3[:, 0] + np.abs(cos_P) * half_P3[:, 1] + 1e-3
    touch_PR = (x_P - reach_x_P)[:, None] <= room_R4[:, 2]
    touch_PR &= (x_P + reach_x_P)[:, None] >= room_R4[:, 0]
    touch_PR &= (y_P - reach_y_P)[:, None] <= room_R4[:, 3]
    touch_PR &= (y_P + reach_y_P)[:, None] >= room_R4[:, 1]
    rooms_P = touch_PR.astype(np.int64) @ (np.int64(1) << np.arange(len(room_R4), dtype=np.int64))
    rooms_P[rooms_P == 0] = ALL_ROOMS  # no room owns it, so it may be seen from any
    return np.column_stack([x_P, y_P, z_P, radius_P]).astype(np.float32), rooms_P
