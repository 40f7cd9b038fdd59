"""A slow renderer that says what pictures of houses are: one loop over solids, float64, no culling.

Written from `scene.py` and `camera.py` in the plainest way (points, distances along rays, angles);
it shares no code with the kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from envs.houses.scene import Kind, Scene, Semantic

EYE_HEIGHT = 1.2
NEAR = 0.05
AMBIENT, LIGHT = 0.75, np.array([0.12, 0.07, 0.18])
FADE_START, FADE_END = 1.0 / 16.0, 1.0 / 3.0


@dataclass
class Picture:
    """Images, and how far (in texels) each pixel's sample is from the border of its texel."""

    rgb: np.ndarray
    depth: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray
    margin: np.ndarray


@dataclass
class Surface:
    """What a solid's hits need for their colour."""

    kind: Kind
    low: np.ndarray
    high: np.ndarray
    center: np.ndarray
    yaw: float
    materials: np.ndarray
    by_corner: bool


def rays(pose: tuple[float, float, float, float], width: int, height: int, hfov: float):
    """Return the eye and directions (height * width, 3) whose part along the optical axis is 1."""
    x, y, heading, pitch = pose
    step = 2.0 * math.tan(hfov / 2.0) / width
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    to_left = (width / 2.0 - columns) * step
    to_top = (height / 2.0 - rows) * step
    camera = np.stack([np.ones_like(to_left), to_left, to_top], -1).reshape(-1, 3)
    c, s = math.cos(pitch), math.sin(pitch)
    tilt = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    return np.array([x, y, EYE_HEIGHT]), camera @ tilt.T @ turn(heading).T


def turn(angle: float) -> np.ndarray:
    """Return the rotation about z by an angle."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def slab(eye: float, along: np.ndarray, low: float, high: float):
    """Return the depths at which rays enter and leave low <= coordinate <= high."""
    safe = np.where(np.abs(along) < 1e-300, 1e-300, along)
    first, second = (low - eye) / safe, (high - eye) / safe
    return np.minimum(first, second), np.maximum(first, second)


def hit_box(eye: np.ndarray, rays_local: np.ndarray, low: np.ndarray, high: np.ndarray):
    """Return depth (inf for a miss) and face of boxes."""
    enter, leave = zip(
        *(slab(eye[a], rays_local[:, a], low[a], high[a]) for a in range(3)), strict=True
    )
    enter, leave = np.array(enter), np.array(leave)
    axis = enter.argmax(0)
    first, last = enter.max(0), leave.min(0)
    backwards = np.take_along_axis(rays_local, axis[:, None], 1)[:, 0] > 0.0
    return np.where((first <= last) & (first >= NEAR), first, np.inf), 2 * axis + backwards


def quadratic(a: np.ndarray, b: np.ndarray, c: float):
    """Return the roots of a t^2 + 2 b t + c, nan where there are none."""
    inside = b * b - a * c
    spread = np.sqrt(np.where(inside < 0.0, np.nan, inside))
    return (-b - spread) / a, (-b + spread) / a


def hit_ellipsoid(eye: np.ndarray, rays_local: np.ndarray, half: np.ndarray):
    """Return depth and face of ellipsoids."""
    o, d = eye / half, rays_local / half
    near, _ = quadratic((d * d).sum(1), d @ o, o @ o - 1.0)
    return np.where(near >= NEAR, near, np.inf), np.zeros(len(d), int)


def hit_cylinder(eye: np.ndarray, rays_local: np.ndarray, half: np.ndarray):
    """Return depth and face of upright cylinders."""
    o, d = eye[:2] / half[:2], rays_local[:, :2] / half[:2]
    side_in, side_out = quadratic((d * d).sum(1), d @ o, o @ o - 1.0)
    cap_in, cap_out = slab(eye[2], rays_local[:, 2], -half[2], half[2])
    first, last = np.maximum(side_in, cap_in), np.minimum(side_out, cap_out)
    face = np.where(cap_in > side_in, np.where(rays_local[:, 2] > 0.0, 5, 4), 0)
    hit = (first <= last) & (first >= NEAR)
    return np.where(hit, first, np.inf), face


def surfaces(scene: Scene):
    """Yield each surface with its semantic and instance id."""
    solids = scene.primitives
    for p in range(len(solids)):
        half = solids.half_P3[p].astype(np.float64)
        center = solids.center_P3[p].astype(np.float64)
        wall = solids.semantic_P[p] == Semantic.WALL and solids.yaw_P[p] == 0.0
        yield (
            Surface(
                Kind(solids.kind_P[p]),
                -half,
                half,
                center,
                float(solids.yaw_P[p]),
                solids.material_PF[p],
                by_corner=not (wall and solids.kind_P[p] == Kind.BOX),
            ),
            int(solids.semantic_P[p]),
            int(solids.instance_P[p]),
        )
    for room in scene.house.rooms:
        for z, material, semantic in (
            (0.0, room.floor_material, Semantic.FLOOR),
            (scene.house.wall_height, room.ceiling_material, Semantic.CEILING),
        ):
            low, high = np.array([room.x0, room.y0, z]), np.array([room.x1, room.y1, z])
            flat = Surface(
                Kind.BOX, low, high, np.zeros(3), 0.0, np.full(6, material), by_corner=False
            )
            yield flat, int(semantic), 0


def render(
    scene: Scene,
    pose: tuple[float, float, float, float],
    *,
    width: int,
    height: int,
    hfov: float,
    atlas: np.ndarray,
) -> Picture:
    """Draw one picture."""
    eye, directions = rays(pose, width, height, hfov)
    num = len(directions)
    depth = np.full(num, np.inf)
    owner, face = np.full(num, -1), np.zeros(num, int)
    semantic, instance = np.zeros(num, np.int16), np.zeros(num, np.int16)
    everything = list(surfaces(scene))
    for k, (surface, semantic_id, instance_id) in enumerate(everything):
        back = turn(-surface.yaw)
        eye_local, rays_local = back @ (eye - surface.center), directions @ back.T
        if surface.kind == Kind.BOX:
            t, side = hit_box(eye_local, rays_local, surface.low, surface.high)
        elif surface.kind == Kind.ELLIPSOID:
            t, side = hit_ellipsoid(eye_local, rays_local, surface.high)
        else:
            t, side = hit_cylinder(eye_local, rays_local, surface.high)
        nearer = t < depth
        depth[nearer], owner[nearer], face[nearer] = t[nearer], k, side[nearer]
        semantic[nearer], instance[nearer] = semantic_id, instance_id
    rgb, margin = np.zeros((num, 3)), np.ones(num)
    step = 2.0 * math.tan(hfov / 2.0) / width
    for k in np.unique(owner[owner >= 0]):
        for side in np.unique(face[owner == k]):
            here = (owner == k) & (face == side)
            points = eye + depth[here, None] * directions[here]
            rgb[here], margin[here] = shade(
                scene, atlas, everything[k][0], int(side), (points, eye, depth[here], step)
            )
    shape = (height, width)
    return Picture(
        np.floor(np.minimum(rgb, 255.0) + 0.5).astype(np.uint8).reshape(*shape, 3),
        np.where(np.isinf(depth), 0.0, depth).reshape(shape),
        semantic.reshape(shape),
        instance.reshape(shape),
        margin.reshape(shape),
    )


def shade(scene: Scene, atlas: np.ndarray, surface: Surface, side: int, hits: tuple):
    """Return colours in [0, 255] and texel margins of one face's hits: points, eye, depths, step.

    A pixel is `step` wide at depth 1.
    """
    points, eye, depth, step = hits
    material = int(surface.materials[side])
    repeat, tile = float(scene.materials.repeat_M[material]), int(scene.materials.tile_M[material])
    local = (points - surface.center) @ turn(-surface.yaw).T
    eye_local = turn(-surface.yaw) @ (eye - surface.center)
    if surface.kind == Kind.BOX or (surface.kind == Kind.CYLINDER and side >= 4):
        u, v, span = flat_coordinates(surface, side, local, repeat)
        normal = np.zeros(3)
        normal[side // 2] = 1.0 if side % 2 == 0 else -1.0
        light = np.full(len(points), AMBIENT + LIGHT @ turn(surface.yaw) @ normal)
        plane = (surface.high if side % 2 == 0 else surface.low)[side // 2]
        slant = depth / abs(plane - eye_local[side // 2])
        width = depth * step * (1.0 + slant) / 2.0
    else:
        quarter = math.pi / 4.0 * (surface.high[0] + surface.high[1])
        height = surface.high[2] - surface.low[2]
        span = np.array([4.0 * quarter, height]) if repeat == 0.0 else np.full(2, repeat)
        u = quarter_turns(local[:, 0], local[:, 1]) * quarter / span[0]
        v = (local[:, 2] - surface.low[2]) / span[1]
        gradient = local / surface.high**2
        if surface.kind == Kind.CYLINDER:
            gradient[:, 2] = 0.0
        normals = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
        light = AMBIENT + normals @ turn(surface.yaw).T @ LIGHT
        width = depth * step
    strength = np.clip((FADE_END - width / span.min()) / (FADE_END - FADE_START), 0.0, 1.0)
    texel, mean, margin = look_up(atlas, tile, u, v)
    margin[strength == 0.0] = 1.0
    rgb = scene.materials.rgb_M3[material].astype(np.float64)
    pattern = mean + strength[:, None] * (texel - mean)
    return 255.0 * light[:, None] * rgb * pattern, margin


def flat_coordinates(surface: Surface, side: int, local: np.ndarray, repeat: float):
    """Return tile coordinates on a box's face, and the metres that a tile spans by u and v."""
    across, along = ((1, 2), (1, 2), (0, 2), (0, 2), (0, 1), (0, 1))[side]
    mirrored = side in (1, 2)  # seen from outside, -x and +y faces have their axis to the left
    a, b = local[:, across], local[:, along]
    extent = surface.high - surface.low
    span = extent[[across, along]] if repeat == 0.0 else np.full(2, repeat)
    if surface.by_corner or repeat == 0.0:
        u = surface.high[across] - a if mirrored else a - surface.low[across]
        v = b - surface.low[along]
    else:
        u = -(a + surface.center[across]) if mirrored else a + surface.center[across]
        v = b + surface.center[along]
    return u / span[0], v / span[1], span


def quarter_turns(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how many sides of the square |x| + |y| = 1 lie between (1, 0) and the direction."""
    quadrant = np.floor(np.mod(np.arctan2(y, x), 2.0 * math.pi) / (math.pi / 2.0)).astype(int) % 4
    total = np.abs(x) + np.abs(y)
    beyond = np.choose(quadrant, [np.abs(y), np.abs(x), np.abs(y), np.abs(x)]) / total
    return quadrant + beyond


def look_up(atlas: np.ndarray, tile: int, u: np.ndarray, v: np.ndarray):
    """Return texels, the tile's mean, and the distance to where another texel begins."""
    size = atlas.shape[1]
    byte = np.round(atlas[tile].astype(np.float64) * 255.0) / 255.0
    at = np.stack([u, v], 1) * size
    column, row = (np.floor(at).astype(int) % size).T
    fraction = at - np.floor(at)
    margin = np.minimum(fraction, 1.0 - fraction).min(1)
    if np.ptp(byte.reshape(-1, 3), axis=0).max() == 0.0:
        margin = np.ones_like(margin)
    return byte[size - 1 - row, column], byte.mean((0, 1)), margin
