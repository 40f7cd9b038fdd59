from __future__ import annotations

import functools

import numpy as np
import pytest

from envs.houses.navigation.geodesic import distance_field, sample
from envs.houses.navigation.grid import AGENT_RADIUS, build_grid
from tests.envs.houses.any_angle import AnyAngle
from tests.envs.houses.hand_made_house import box, furnished_house, house_of, outer_walls

SEEDS = range(6)


@functools.cache
def case(seed):
    """A furnished house, its grid, goals, points, and the points' exact distances."""
    house = furnished_house(seed, pieces=11)
    grid = build_grid(house)
    points = np.random.default_rng(seed).uniform(0, house.extent, (500, 2))
    points = np.array([p for p in points if grid.is_free(*p)])
    goals, points = points[:2], points[2:120]
    exact = AnyAngle(house.primitives, AGENT_RADIUS).distances(goals, points)
    return house, grid, goals, points, exact


def sample_all(field, grid, points):
    return np.array([sample(field, grid.cell, x, y) for x, y in points])


def test_distances_err_little_from_an_exact_visibility_graph():
    errors = []
    for seed in SEEDS:
        _, grid, goals, points, exact = case(seed)
        found = sample_all(distance_field(grid, goals), grid, points)
        far = exact > 1.0
        errors.append((found[far] - exact[far]) / exact[far])
    error = np.concatenate(errors)
    assert len(error) > 400
    assert np.abs(error).mean() < 0.01
    assert np.quantile(np.abs(error), 0.95) < 0.03


def test_distances_without_obstacles_are_straight():
    grid = build_grid(house_of(outer_walls(8.0, 8.0), 8.0, 8.0))
    nodes = grid.free_nodes()
    for goal in [(4.05, 4.05), (2.0, 5.52)]:
        straight = np.hypot(*(nodes - goal).T)
        found = distance_field(grid, [goal])[grid.free_YX]
        assert np.abs(found - straight).max() < 0.025
        np.testing.assert_allclose(found[straight < 0.29], straight[straight < 0.29], atol=1e-6)


def test_a_field_of_many_goals_is_the_least_of_their_fields():
    house = furnished_house(2)
    grid = build_grid(house)
    nodes = grid.free_nodes()
    goals = nodes[[10, 400, 900]]
    together = distance_field(grid, goals)[grid.free_YX]
    apart = np.min([distance_field(grid, g[None])[grid.free_YX] for g in goals], axis=0)
    # The scheme smooths the crease where two fronts meet; it differs there by part of a cell.
    np.testing.assert_allclose(together, apart, atol=0.5 * grid.cell)
    assert np.abs(together - apart).mean() < 0.01 * grid.cell


def test_a_region_of_goals_is_at_distance_zero():
    grid = build_grid(house_of(outer_walls(8.0, 8.0), 8.0, 8.0))
    nodes = grid.free_nodes()
    away = np.hypot(*(nodes - (3.0, 3.0)).T)
    field = distance_field(grid, nodes[away < 1.5].astype(np.float32))
    found = field[grid.free_YX]
    assert (found[away < 1.5] == 0.0).all()
    assert sample(field, grid.cell, 3.1, 3.3) == 0.0
    outside = away > 1.6
    np.testing.assert_allclose(found[outside], away[outside] - 1.5, atol=0.08)


def test_fields_have_no_dead_ends():
    for seed in SEEDS:
        _, grid, goals, *_ = case(seed)
        field = distance_field(grid, goals)
        rows, columns = np.nonzero(grid.domain_YX)
        padded = np.pad(field, 1, constant_values=np.inf)
        around = [padded[rows + 1 + i, columns + 1 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
        lowest = np.min(around, axis=0)
        here = field[rows, columns]
        assert np.isfinite(here).all()
        assert ((lowest < here) | (here <= 1.5 * grid.cell)).all()
        assert np.isinf(field[~grid.domain_YX]).all()


def test_samples_agree_with_nodes_and_change_as_slowly_as_distances_do():
    _, grid, goals, points, _ = case(3)
    field = distance_field(grid, goals)
    nodes = grid.free_nodes()
    np.testing.assert_allclose(sample_all(field, grid, nodes), field[grid.free_YX], atol=1e-5)
    rng = np.random.default_rng(0)
    for x, y in points:
        heading = rng.uniform(0, 2 * np.pi)
        step = 0.3 * grid.cell
        nx, ny = x + step * np.cos(heading), y + step * np.sin(heading)
        if grid.is_free(nx, ny):
            change = sample(field, grid.cell, nx, ny) - sample(field, grid.cell, x, y)
            assert abs(change) <= 1.45 * step + 0.02 * grid.cell


def test_samples_inside_obstacles_are_infinite():
    grid = build_grid(house_of([*outer_walls(8.0, 8.0), box(2.0, 2.0, 6.0, 6.0)], 8.0, 8.0))
    field = distance_field(grid, [(1.0, 1.0)])
    for x, y in [(4.0, 4.0), (4.05, 4.05), (3.95, 4.0)]:
        assert sample(field, grid.cell, x, y) == np.inf


def test_fields_are_reproducible():
    _, grid, goals, *_ = case(0)
    first = distance_field(grid, goals)
    np.testing.assert_array_equal(distance_field(grid, goals[::-1]), first)


def test_no_path_squeezes_through_a_gap_that_is_too_narrow():
    # 0.48 m are less than the agent's 0.5 m: the way leads around, through the wide opening.
    walls = [box(3.95, 0.0, 4.05, 1.0), box(3.95, 1.48, 4.05, 6.0)]
    house = house_of([*outer_walls(8.0, 8.0), *walls], 8.0, 8.0)
    grid = build_grid(house)
    assert sample(distance_field(grid, [(6.0, 1.24)]), grid.cell, 2.0, 1.24) > 9.0
    walls[1] = box(3.95, 1.75, 4.05, 6.0)
    grid = build_grid(house_of([*outer_walls(8.0, 8.0), *walls], 8.0, 8.0))
    found = sample(distance_field(grid, [(6.0, 1.24)]), grid.cell, 2.0, 1.24)
    assert found == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("bad", [(0.1, 0.1), (-3.0, 2.0), (4.0, 80.0), (np.nan, 1.0)])
def test_goals_must_be_free(bad):
    grid = build_grid(furnished_house(0))
    with pytest.raises(ValueError, match="distance_field: goals must lie in free space, got"):
        distance_field(grid, [tuple(grid.free_nodes()[0]), bad])


def test_there_must_be_a_goal():
    grid = build_grid(furnished_house(0))
    with pytest.raises(ValueError, match="distance_field: goals_K2 must hold a goal, got none"):
        distance_field(grid, np.zeros((0, 2)))
