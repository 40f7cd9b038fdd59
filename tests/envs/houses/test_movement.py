from __future__ import annotations

import math

import numpy as np
import pytest

from envs.houses.navigation.grid import AGENT_RADIUS, build_grid, interpolation_margin
from envs.houses.navigation.movement import slide
from envs.houses.scene import Kind
from tests.envs.houses.footprints import footprint_distances
from tests.envs.houses.hand_made_house import box, furnished_house, house_of, outer_walls

STEP = 0.25


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def free_points(grid, extent, rng, count):
    points = rng.uniform(0, extent, (20 * count, 2))
    return np.array([p for p in points if grid.is_free(*p)][:count])


@pytest.mark.parametrize("distance", [0.25, 0.1, 1.0, 0.003])
def test_free_moves_have_exactly_their_length(distance, rng):
    grid = build_grid(house_of(outer_walls(8.0, 8.0), 8.0, 8.0))
    for heading in rng.uniform(-10, 10, 200):
        x, y = slide(grid.slack_YX, grid.cell, 4.0, 4.0, heading, distance)
        assert x == 4.0 + distance * math.cos(heading)
        assert y == 4.0 + distance * math.sin(heading)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cell", [0.1, 0.05])
def test_moves_never_leave_free_space_nor_come_too_near(seed, cell, rng):
    house = furnished_house(seed, pieces=25)
    grid = build_grid(house, cell=cell)
    ends = []
    for x, y in free_points(grid, house.extent, rng, 40):
        heading = rng.uniform(0, 2 * np.pi)
        for _ in range(60):
            nx, ny = slide(grid.slack_YX, cell, x, y, heading, STEP)
            assert grid.is_free(nx, ny)
            assert math.hypot(nx - x, ny - y) <= STEP + 1e-9
            if math.hypot(nx - x, ny - y) < 0.2:
                heading += rng.choice([-1, 1]) * np.pi / 6
            x, y = nx, ny
            ends.append((x, y))
    assert footprint_distances(house.primitives, np.array(ends)).min() >= AGENT_RADIUS - 1e-5


@pytest.mark.parametrize("yaw", [0.0, 0.3, np.pi / 4, 1.2])
@pytest.mark.parametrize("angle_deg", [15, 30, 45, 60, 75])
def test_what_is_left_of_a_blocked_move_runs_along_the_wall(yaw, angle_deg):
    wall = (Kind.BOX, (4.0, 4.0, 1.0), (3.0, 0.1, 1.0), yaw)
    grid = build_grid(house_of([wall], 8.0, 8.0))
    along = np.array([math.cos(yaw), math.sin(yaw)])
    normal = np.array([-along[1], along[0]])
    gap = 0.1 + AGENT_RADIUS + interpolation_margin(AGENT_RADIUS, grid.cell) + 1e-3
    start = np.array([4.0, 4.0]) + gap * normal
    angle = math.radians(angle_deg)
    heading = math.atan2(*(math.cos(angle) * along - math.sin(angle) * normal)[::-1])
    end = start
    for _ in range(4):
        end = np.array(slide(grid.slack_YX, grid.cell, *end, heading, STEP))
    moved = end - start
    assert moved @ along == pytest.approx(4 * STEP * math.cos(angle), abs=0.012)
    assert abs(moved @ normal) < 2e-3


def test_a_head_on_move_stops_at_the_wall():
    grid = build_grid(house_of([box(4.0, 0.0, 4.2, 8.0)], 8.0, 8.0))
    x, y = slide(grid.slack_YX, grid.cell, 3.6, 3.0, 0.0, STEP)
    assert y == pytest.approx(3.0, abs=1e-3)
    assert 4.0 - AGENT_RADIUS - 0.03 < x <= 4.0 - AGENT_RADIUS


def test_a_corner_holds_the_agent():
    grid = build_grid(house_of(outer_walls(4.0, 4.0), 4.0, 4.0))
    x, y = 0.6, 0.7
    for _ in range(8):
        x, y = slide(grid.slack_YX, grid.cell, x, y, math.radians(230), STEP)
    corner = 0.05 + AGENT_RADIUS
    assert corner <= min(x, y)
    assert max(x, y) < corner + 0.05


def test_the_agent_slides_around_a_round_obstacle():
    pillar = (Kind.CYLINDER, (4.0, 4.0, 1.0), (0.5, 0.5, 1.0), 0.0)
    grid = build_grid(house_of([pillar], 8.0, 8.0))
    x, y = 3.0, 4.2
    for _ in range(12):
        x, y = slide(grid.slack_YX, grid.cell, x, y, 0.0, STEP)
    assert x > 5.0
    assert 4.6 < y < 4.8


@pytest.mark.parametrize("seed", range(3))
def test_some_heading_leads_on_from_everywhere(seed, rng):
    house = furnished_house(seed, pieces=25)
    grid = build_grid(house)
    for x, y in free_points(grid, house.extent, rng, 300):
        ends = [slide(grid.slack_YX, grid.cell, x, y, h, STEP) for h in np.arange(12) * np.pi / 6]
        assert max(math.hypot(ex - x, ey - y) for ex, ey in ends) > 0.02
