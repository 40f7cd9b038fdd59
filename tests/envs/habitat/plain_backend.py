"""Stands in for habitat-sim at a worker's lowest layer: rooms of boxes and balls, NumPy alone.

It runs under Python 3.9, like the worker. Of a scene it reads `plain` in the scene instance, the
room's sides and its boxes (x0, y0, z0, x1, y1, z1); of an object `radius` in its configuration.
Free space is a grid; where the agent goes is decided by the same grid.
"""

from __future__ import annotations

import heapq
import json
import math
import os

import numpy as np

FIRST_ID = 20000
CELL = 0.1
TALL = 2.5
STEPS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


class Backend:
    def __init__(
        self, scene_dataset, sensors, shape, hfov_deg, eye, counted_side, gpu, image_lighting
    ):
        self.root = os.path.dirname(scene_dataset)
        self.sensors, self.shape, self.eye, self.side = sensors, shape, eye, counted_side
        self.tangent = math.tan(math.radians(hfov_deg) / 2)
        self.balls = []

    def start(self):
        pass

    def open_scene(self, scene, navmesh, navmesh_settings, agent_radius, agent_height):
        with open(scene) as file:
            plain = json.load(file)["plain"]
        self.room, self.boxes = plain["room"], np.array(plain["boxes"], float).reshape(-1, 6)
        self.balls = []
        nx, ny = (round(side / CELL) for side in self.room)
        x, y = np.meshgrid(
            (np.arange(nx) + 0.5) * CELL, (np.arange(ny) + 0.5) * CELL, indexing="ij"
        )
        r = agent_radius
        free = (x > r) & (x < self.room[0] - r) & (y > r) & (y < self.room[1] - r)
        for x0, y0, _, x1, y1, _ in self.boxes:
            free &= ~((x > x0 - r) & (x < x1 + r) & (y > y0 - r) & (y < y1 + r))
        self.free, self.x, self.y, self.fields = free, x, y, {}

    def place(self, template, config_paths, matrix):
        with open(os.path.join(self.root, "objects", template)) as file:
            radius = json.load(file)["radius"]
        x, y, z = np.asarray(matrix)[:3, 3]
        self.balls.append((x, -z, y, radius))
        return [x, -z, y]

    def set_joints(self, states):
        pass

    def triangles(self):
        corners = np.array([[0, 0], [CELL, 0], [CELL, CELL], [0, CELL]]) - CELL / 2
        found = []
        for center in np.stack([self.x[self.free], self.y[self.free]], axis=1):
            square = np.append(corners + center, np.zeros((4, 1)), axis=1)
            found += [square[[0, 1, 2]], square[[0, 2, 3]]]
        return np.array(found, np.float32)

    def cell(self, point):
        i, j = (int(c // CELL) for c in point[:2])
        inside = 0 <= i < self.free.shape[0] and 0 <= j < self.free.shape[1]
        return (i, j) if inside and self.free[i, j] else None

    def snap(self, point):
        if self.cell(point) is not None:
            return np.array([point[0], point[1], 0.0])
        away = np.where(self.free, np.hypot(self.x - point[0], self.y - point[1]), np.inf)
        i, j = np.unravel_index(np.argmin(away), away.shape)
        return np.array([self.x[i, j], self.y[i, j], 0.0])

    def walk(self, start, end):
        here = np.array([start[0], start[1], 0.0])
        step = (np.asarray(end, float) - here) / 10
        for _ in range(10):
            for part in (step, step * (1, 0, 0), step * (0, 1, 0)):
                if self.cell(here + part) is not None:
                    here = here + part
                    break
        return here

    def goal(self, points):
        key = np.asarray(points, np.float32).tobytes()
        if key not in self.fields:
            self.fields[key] = self.field(points)
        field = self.fields[key]
        return lambda position: float(field[self.cell(self.snap(position))])

    def field(self, points):
        field = np.full(self.free.shape, np.inf)
        queue = []
        for point in points:
            cell = self.cell(self.snap(point))
            field[cell] = 0.0
            queue.append((0.0, cell))
        heapq.heapify(queue)
        while queue:
            distance, (i, j) = heapq.heappop(queue)
            if distance > field[i, j]:
                continue
            for di, dj in STEPS:
                other = i + di, j + dj
                longer = distance + CELL * math.hypot(di, dj)
                if self.free[other] and longer < field[other]:
                    field[other] = longer
                    heapq.heappush(queue, (longer, other))
        return field

    def look(self, position, heading, pitch):
        self.camera = position, heading, pitch

    def draw(self):
        ids, depth = self.trace(*self.shape)
        images = {"ids": ids, "depth": depth.astype(np.float32)}
        grey = np.clip(depth * 40, 0, 255)
        images["rgb"] = np.stack([grey, ids % 256, ids // 256], axis=-1).astype(np.uint8)
        return {name: images[name] for name in self.sensors}

    def count(self):
        ids, _ = self.trace(self.side, self.side)
        numbers = ids[ids >= FIRST_ID].astype(int) - FIRST_ID
        return np.bincount(numbers, minlength=len(self.balls))

    def close(self):
        pass

    def trace(self, height, width):
        """Return what each pixel's ray meets first, and how far along the optical axis."""
        position, heading, pitch = self.camera
        u = ((np.arange(width) + 0.5) / width * 2 - 1) * self.tangent
        v = (1 - (np.arange(height) + 0.5) / height * 2) * self.tangent * height / width
        v, u = np.meshgrid(v, u, indexing="ij")
        ahead = math.cos(pitch) - v * math.sin(pitch)
        up = math.sin(pitch) + v * math.cos(pitch)
        cos, sin = math.cos(heading), math.sin(heading)
        ray = np.stack([ahead * cos + u * sin, ahead * sin - u * cos, up], axis=-1)
        ray = np.where(np.abs(ray) < 1e-9, 1e-9, ray)
        eye = np.array([self.eye[0] * cos, self.eye[0] * sin, self.eye[1]]) + position
        room = np.array([0, 0, 0, *self.room, TALL])
        near, far = slabs(room, eye, ray)
        depth, ids = far, np.ones(u.shape, np.uint32)
        for number, box in enumerate(self.boxes):
            near, far = slabs(box, eye, ray)
            hit = (near < far) & (near > 0) & (near < depth)
            depth, ids = np.where(hit, near, depth), np.where(hit, 10 + number, ids)
        for number, (x, y, z, radius) in enumerate(self.balls):
            to = np.array([x, y, z]) - eye
            a, b = (ray * ray).sum(-1), (ray * to).sum(-1)
            inside = b * b - a * ((to * to).sum() - radius**2)
            t = (b - np.sqrt(np.maximum(inside, 0))) / a
            hit = (inside > 0) & (t > 0) & (t < depth)
            depth, ids = np.where(hit, t, depth), np.where(hit, FIRST_ID + number, ids)
        return ids.astype(np.uint32), depth


def slabs(box, eye, ray):
    """Return where rays enter a box and where they leave it."""
    a, b = (box[:3] - eye) / ray, (box[3:] - eye) / ray
    return np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
