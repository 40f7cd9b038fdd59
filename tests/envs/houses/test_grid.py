from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from envs.houses.navigation.grid import (
    AGENT_RADIUS,
    CELL,
    THICKEN_CELLS,
    build_grid,
    ellipse_distance,
    interpolation_margin,
    slack_at,
)
from envs.houses.scene import Kind
from tests.envs.houses.footprints import footprint_distances, outline
from tests.envs.houses.hand_made_house import box, furnished_house, house_of, outer_walls, scene_of

CROSS = ndimage.generate_binary_structure(2, 1)


def node_positions(grid):
    rows, columns = grid.free_YX.shape
    x, y = np.meshgrid((np.arange(columns) + 0.5) * grid.cell, (np.arange(rows) + 0.5) * grid.cell)
    return np.stack([x.ravel(), y.ravel()], 1)


@pytest.mark.parametrize("cell", [0.1, 0.05])
def test_slack_is_the_exact_distance_to_the_nearest_footprint_less_the_radius(cell):
    house = furnished_house(3, width=5.0, depth=4.0, pieces=9)
    grid = build_grid(house, cell=cell)
    margin = interpolation_margin(AGENT_RADIUS, cell)
    expected = footprint_distances(house.primitives, node_positions(grid)) - AGENT_RADIUS - margin
    expected = expected.reshape(grid.free_YX.shape)
    pocket = (expected >= 0) & ~grid.free_YX
    exact = ~pocket & (expected < 3 * cell)
    assert exact.sum() > 500
    np.testing.assert_allclose(grid.slack_YX[exact], expected[exact], atol=3e-3)
    assert (grid.slack_YX[~pocket & (expected >= 3 * cell)] >= 3 * cell - 3e-3).all()


@pytest.mark.parametrize("seed", range(4))
def test_free_nodes_are_the_largest_4_connected_component(seed):
    house = furnished_house(seed, width=6.0, depth=5.0, pieces=14)
    grid = build_grid(house)
    reach = AGENT_RADIUS + interpolation_margin(AGENT_RADIUS, CELL)
    away = footprint_distances(house.primitives, node_positions(grid)).reshape(grid.free_YX.shape)
    unsure = np.abs(away - reach) < 3e-3
    label, count = ndimage.label((away >= reach) & ~unsure | (unsure & grid.free_YX), CROSS)
    sizes = ndimage.sum_labels(np.ones_like(label), label, np.arange(1, count + 1))
    np.testing.assert_array_equal(grid.free_YX, label == 1 + np.argmax(sizes))
    np.testing.assert_array_equal(grid.free_YX, grid.slack_YX >= 0)


def test_interpolated_free_space_keeps_the_radius_from_every_obstacle(rng):
    house = furnished_house(1, width=6.0, depth=5.0, pieces=14)
    grid = build_grid(house)
    points = rng.uniform(0, house.extent, (6000, 2))
    points = points[[grid.is_free(x, y) for x, y in points]]
    away = footprint_distances(house.primitives, points)
    assert len(points) > 500
    assert away.min() >= AGENT_RADIUS - 1e-5
    # The margin costs little: almost nowhere is a position refused that has two centimetres more.
    others = rng.uniform(0, house.extent, (6000, 2))
    others = others[footprint_distances(house.primitives, others) > AGENT_RADIUS + 0.02]
    node = np.minimum((others / grid.cell).astype(int), np.array(grid.free_YX.shape)[::-1] - 1)
    near = ndimage.binary_dilation(grid.free_YX, np.ones((3, 3)))[node[:, 1], node[:, 0]]
    refused = [not grid.is_free(x, y) for x, y in others[near]]
    assert np.mean(refused) < 0.02


def test_only_heights_that_the_agent_meets_count():
    walls = outer_walls(4.0, 4.0)
    free = build_grid(house_of(walls, 4.0, 4.0)).free_YX
    over = box(1.0, 1.0, 3.0, 3.0, 1.4, 2.0)
    rug = box(1.0, 1.0, 3.0, 3.0, 0.0, 0.05)
    np.testing.assert_array_equal(build_grid(house_of([*walls, over, rug], 4, 4)).free_YX, free)
    table = box(1.0, 1.0, 3.0, 3.0, 0.7, 0.75)
    assert not build_grid(house_of([*walls, table], 4.0, 4.0)).is_free(2.0, 2.0)


def test_an_ellipsoid_counts_by_its_widest_section_within_reach():
    # A lamp of half height 0.5 that hangs at 1.7 m reaches down to 1.2 m; the agent meets 0.8 of
    # its half width, as sqrt(1 - (0.3 / 0.5)^2) = 0.8.
    lamp = (Kind.ELLIPSOID, (2.0, 2.0, 1.7), (1.0, 1.0, 0.5), 0.0)
    grid = build_grid(house_of([*outer_walls(4.0, 4.0), lamp], 4.0, 4.0), cell=0.05)
    border = 0.8 + AGENT_RADIUS + interpolation_margin(AGENT_RADIUS, 0.05)
    for angle in np.linspace(0, 2 * np.pi, 23):
        ray = np.array([np.cos(angle), np.sin(angle)])
        assert not grid.is_free(*(2.0 + (border - 0.01) * ray))
        assert grid.is_free(*(2.0 + (border + 0.01) * ray))


@pytest.mark.parametrize("half", [(1.0, 0.2), (0.3, 0.9), (0.5, 0.5), (2.0, 1.999)])
def test_distance_to_an_ellipse(half, rng):
    ring = outline(Kind.ELLIPSOID, *half)
    points = rng.uniform(-3, 3, (300, 2))
    points[:3] = [(2.5, 0.0), (0.0, 2.5), (0.0, 0.0)]
    for x, y in points:
        inside = (x / half[0]) ** 2 + (y / half[1]) ** 2 <= 1
        expected = 0.0 if inside else np.hypot(ring[:, 0] - x, ring[:, 1] - y).min()
        assert ellipse_distance(*half, x, y) == pytest.approx(expected, abs=2e-3)


def test_a_pocket_behind_furniture_is_not_free():
    walls = outer_walls(6.0, 3.0)
    shelf = box(4.0, 0.0, 4.3, 3.0)
    grid = build_grid(house_of([*walls, shelf], 6.0, 3.0))
    assert grid.is_free(2.0, 1.5)
    assert not grid.is_free(5.2, 1.5)
    assert slack_at(grid.slack_YX, grid.cell, 5.2, 1.5) < 0


def test_outside_the_house_nothing_is_free():
    grid = build_grid(house_of([], 3.0, 2.0))
    assert grid.is_free(1.5, 1.0)
    for x, y in [(-1.0, 1.0), (3.5, 1.0), (1.5, -0.1), (1.5, 2.2), (0.2, 1.0), (np.nan, 1.0)]:
        assert not grid.is_free(x, y)


@pytest.mark.parametrize("seed", range(6))
def test_the_domain_of_fields_has_the_topology_of_free_space(seed):
    grid = build_grid(furnished_house(seed, pieces=30))
    extra = grid.domain_YX & ~grid.free_YX
    assert (grid.domain_YX | grid.free_YX == grid.domain_YX).all()
    assert extra.any()
    assert grid.slack_YX[extra].min() >= -THICKEN_CELLS * grid.cell - 1e-6
    # One 4-connected component with as many 8-connected holes: nothing joined, nothing enclosed.
    for kept in (grid.domain_YX, grid.free_YX):
        assert ndimage.label(kept, CROSS)[1] == 1
    holes = [ndimage.label(~k, np.ones((3, 3)))[1] for k in (grid.domain_YX, grid.free_YX)]
    assert holes[0] == holes[1]


def test_small_objects_are_no_obstacles():
    house = furnished_house(0, pieces=5)
    mug = (Kind.CYLINDER, (2.0, 2.0, 0.5), (0.3, 0.3, 0.4), 0.0)
    scene = scene_of(house, [[mug]])
    np.testing.assert_array_equal(build_grid(scene).slack_YX, build_grid(house).slack_YX)


def test_free_nodes_lie_in_free_space():
    grid = build_grid(furnished_house(2))
    nodes = grid.free_nodes()
    assert nodes.shape == (grid.free_YX.sum(), 2)
    assert all(slack_at(grid.slack_YX, grid.cell, x, y) >= -1e-6 for x, y in nodes)


@pytest.mark.parametrize("cell", [0.0, -0.1, 0.2])
def test_cells_must_be_small(cell):
    with pytest.raises(ValueError, match=r"build_grid: cell must be positive and below .* Use 0.1"):
        build_grid(furnished_house(0), cell=cell)


@pytest.fixture
def rng():
    return np.random.default_rng(7)
