"""The task's rules on a scene small enough to reckon by hand: an empty square of 10 m."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from envs.objectnav.config import GoalSampling, ObjectNavConfig, StartMode
from envs.objectnav.rules import (
    EpisodePlan,
    Goal,
    Pose,
    TrialHistory,
    category_weights,
    compass,
    gps,
    near_instances,
    plan_episode,
    reward,
    sample_start,
    soft_spl,
    spl,
    succeeded,
)

PLACES = {1: (2.0, 2.0), 2: (8.0, 2.0), 3: (8.0, 8.0), 4: (2.0, 8.0), 5: (5.0, 5.0), 6: (5.0, 9.0)}


@dataclass(frozen=True)
class Square:
    """No walls: the geodesic is a straight line to the nearest instance."""

    num_categories: int = 5
    goal_instances = {1: (1, 2, 3), 2: (4,), 4: (5, 6)}  # noqa: RUF012

    def random_position(self, rng: np.random.Generator) -> tuple[float, float, float]:
        return rng.random() * 10.0, rng.random() * 10.0, 0.0

    def distance(self, position: tuple[float, float, float], goal: Goal) -> float:
        return min(math.dist(position[:2], PLACES[i]) for i in goal.instances)


def play(config: ObjectNavConfig, episodes: int, trial: int = 3) -> list[EpisodePlan]:
    """Plan episodes that all fail after ten steps where they started."""
    history, plans = TrialHistory(5), []
    for _ in range(episodes):
        plan = plan_episode(config, Square(), history, dataset="square", trial=trial)
        history.begin(plan, config)
        history.end(plan.goal.category, success=False, steps=10)
        history.last_end = plan.start._replace(x=plan.start.x + 0.5)
        plans.append(plan)
    return plans


def frequencies(plans: list[EpisodePlan]) -> list[float]:
    drawn = [p.goal.category for p in plans]
    return [drawn.count(c) / len(drawn) for c in range(5)]


def test_paper_constants() -> None:
    config = ObjectNavConfig()
    assert math.isclose(config.turn, math.pi / 6)
    assert (config.forward_step, config.max_episode_steps) == (0.25, 500)
    assert (config.success_distance, config.success_pixels) == (2.0, 10)
    assert (config.success_reward, config.slack_reward) == (2.0, -0.001)
    assert (config.pitch_min_deg, config.pitch_start_deg, config.pitch_max_deg) == (-60, 0, 30)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ("uniform", [0, 1 / 3, 1 / 3, 0, 1 / 3]),
        ("instances", [0, 3 / 6, 1 / 6, 0, 2 / 6]),
        ("inverse_instances", [0, 2 / 11, 6 / 11, 0, 3 / 11]),
    ],
)
def test_categories_come_as_often_as_the_strategy_says(
    sampling: GoalSampling, expected: list[float]
) -> None:
    plans = play(ObjectNavConfig(goal_sampling=sampling), 4000)
    # Standard error below 0.008: a chance failure needs five of them.
    np.testing.assert_allclose(frequencies(plans), expected, atol=0.04)


def test_weights_that_look_at_the_history() -> None:
    history = TrialHistory(5)
    history.end(1, success=True, steps=100)
    history.end(1, success=True, steps=60)
    history.end(2, success=False, steps=500)
    history.end(2, success=True, steps=10)
    history.end(4, success=False, steps=400)

    def weights(name: str) -> list[float]:
        config = ObjectNavConfig.create(goal_sampling=name)
        return category_weights(config, Square(), history).tolist()

    assert weights("failures") == [0, 1, 2, 0, 2]
    assert weights("fewest_steps") == [0, 351, 1, 0, 111]
    log = math.log(2 + 3)
    np.testing.assert_allclose(
        weights("ucb"), [0, math.sqrt(log / 3), math.sqrt(log / 2), 0, math.sqrt(log)]
    )


def test_a_category_weighed_zero_is_never_drawn() -> None:
    history = TrialHistory(5)
    history.goals = [4]
    config = ObjectNavConfig(max_goals=1)
    assert category_weights(config, Square(), history).tolist() == [0, 0, 0, 0, 1]


def test_fixed_goal_keeps_the_first() -> None:
    plans = play(ObjectNavConfig(fixed_goal=True), 20)
    assert len({p.goal.category for p in plans}) == 1
    firsts = {play(ObjectNavConfig(fixed_goal=True), 1, t)[0].goal.category for t in range(30)}
    assert firsts == {1, 2, 4}


def test_max_goals_bounds_the_distinct_categories() -> None:
    plans = play(ObjectNavConfig(max_goals=2), 60)
    drawn = [p.goal.category for p in plans]
    assert len(set(drawn)) == 2
    assert all(drawn.count(c) > 10 for c in set(drawn))


@pytest.mark.parametrize("kind", ["all", "one", "one_per_trial"])
def test_instances_all_one_or_one_per_trial(kind: str) -> None:
    config = ObjectNavConfig.create(goal_instances=kind)
    chosen: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    for trial in range(20):
        for plan in play(config, 30, trial):
            chosen.setdefault((trial, plan.goal.category), set()).add(plan.goal.instances)
    of_category_1 = [c for (_, category), c in chosen.items() if category == 1]
    each = {(1,), (2,), (3,)}
    if kind == "all":
        assert all(c == {(1, 2, 3)} for c in of_category_1)
    elif kind == "one":
        assert set.union(*of_category_1) == each
        assert max(map(len, of_category_1)) > 1
    else:
        assert set.union(*of_category_1) == each
        assert all(len(c) == 1 for c in chosen.values())


def test_random_starts_are_far_and_uniform() -> None:
    plans = play(ObjectNavConfig(), 3000)
    assert min(p.distance for p in plans) >= 1.0
    start = np.array([p.start for p in plans])
    assert abs(start[:, 0].mean() - 5.0) < 0.3
    quarters = np.histogram(start[:, 2], bins=4, range=(0, 2 * math.pi))[0]
    np.testing.assert_allclose(quarters / 3000, 0.25, atol=0.04)


def test_a_start_that_cannot_be_far_is_the_farthest_of_the_draws() -> None:
    config = ObjectNavConfig(min_start_distance=50.0, start_attempts=7)
    goal = Goal(2, (4,))
    rng = np.random.Generator(np.random.Philox(1))
    _, distance = sample_start(config, Square(), TrialHistory(5), goal=goal, rng=rng)
    again = np.random.Generator(np.random.Philox(1))
    draws = []
    for _ in range(7):
        x, y, _ = Square().random_position(again)
        again.random()  # the heading
        draws.append(math.dist((x, y), PLACES[4]))
    assert distance == max(draws)


def test_previous_end_starts_where_the_last_episode_ended() -> None:
    plans = play(ObjectNavConfig(start=StartMode.PREVIOUS_END), 5)
    for before, after in itertools.pairwise(plans):
        assert after.start == before.start._replace(x=before.start.x + 0.5)
    nearest = min(math.dist(plans[1].start[:2], PLACES[i]) for i in plans[1].goal.instances)
    assert plans[1].distance == nearest


def test_num_starts_bounds_the_distinct_starts() -> None:
    plans = play(ObjectNavConfig(num_starts=3, min_start_distance=0.0), 60)
    starts = [p.start for p in plans]
    assert len(set(starts)) == 3
    assert len(set(starts[:3])) == 3
    assert all(starts.count(s) > 8 for s in set(starts))


def test_a_remembered_start_is_far_if_one_is() -> None:
    config = ObjectNavConfig(num_starts=2)
    history = TrialHistory(5)
    history.starts = [Pose(2.1, 8.0, 0.0), Pose(9.0, 1.0, 1.0)]
    rng = np.random.Generator(np.random.Philox(0))
    for _ in range(10):
        pose, _ = sample_start(config, Square(), history, goal=Goal(2, (4,)), rng=rng)
        assert pose == history.starts[1]


def test_a_plan_is_a_function_of_dataset_trial_episode_and_history() -> None:
    config = ObjectNavConfig()
    whole = play(config, 6)
    history = TrialHistory(5)
    for plan in whole[:4]:
        history.begin(plan, config)
        history.end(plan.goal.category, success=False, steps=10)
    restored = TrialHistory.from_state(history.state_dict())
    fifth = plan_episode(config, Square(), restored, dataset="square", trial=3)
    assert fifth == whole[4]
    assert play(config, 6, trial=4) != whole
    other = plan_episode(config, Square(), restored, dataset="other", trial=3)
    assert other != fifth


def test_history_state_round_trip() -> None:
    history = TrialHistory(5)
    config = ObjectNavConfig(num_starts=2)
    for e in range(3):
        plan = plan_episode(config, Square(), history, dataset="square", trial=1)
        history.begin(plan, config)
        history.end(plan.goal.category, success=e == 1, steps=7 * e)
        history.last_end = Pose(1.0, 2.0, 0.3 + e)
    state = history.state_dict()
    again = TrialHistory.from_state(state).state_dict()
    assert state.keys() == again.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(value, again[key])


def test_reward_by_hand() -> None:
    config = ObjectNavConfig()
    before, after = np.array([3.0, 3.0, 1.0, 2.0]), np.array([2.75, 3.2, 1.0, 2.0])
    success = np.array([False, False, True, False])
    np.testing.assert_allclose(
        reward(config, before, after, success), [0.249, -0.201, 1.999, -0.001]
    )


def test_success_asks_one_instance_for_both() -> None:
    config = ObjectNavConfig()
    near = np.array([True, False])
    assert succeeded(config, near, np.array([10, 0]))
    assert not succeeded(config, near, np.array([9, 0]))
    assert not succeeded(config, near, np.array([9, 500]))
    assert not succeeded(config, np.array([], bool), np.array([], int))
    xy = np.array([[2.0, 0.0], [2.001, 0.0], [-1.2, -1.6]])
    assert near_instances(config, 0.0, 0.0, xy).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("success", "start", "path", "expected"),
    [
        (1, 5.0, 5.0, 1.0),
        (1, 5.0, 10.0, 0.5),
        (1, 5.0, 4.0, 1.0),  # found from farther away than the nearest viewpoint
        (0, 5.0, 5.0, 0.0),
        (1, 0.0, 0.0, 1.0),
        (1, 0.0, 0.5, 0.0),
        (0, 0.0, 0.0, 0.0),
    ],
)
def test_spl_by_hand(success: int, start: float, path: float, expected: float) -> None:
    assert spl(np.array([success]), np.array([start]), np.array([path])).tolist() == [expected]


@pytest.mark.parametrize(
    ("end", "start", "path", "expected"),
    [
        (0.0, 5.0, 5.0, 1.0),
        (1.0, 4.0, 3.0, 0.75),
        (1.0, 4.0, 8.0, 0.375),
        (6.0, 4.0, 8.0, 0.0),
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 0.0, 1.0, 0.0),
        (2.0, 0.0, 2.0, 0.0),
    ],
)
def test_soft_spl_by_hand(end: float, start: float, path: float, expected: float) -> None:
    assert soft_spl(np.array([end]), np.array([start]), np.array([path])).tolist() == [expected]


def test_gps_is_forward_and_right_of_the_first_start() -> None:
    origin = (np.array([1.0, 1.0]), np.array([1.0, 1.0]), np.array([0.0, math.pi / 2]))
    moved = gps(np.array([3.0, 3.0]), np.array([2.0, 2.0]), origin)
    # Facing +x, +y is to the left; facing +y, +x is to the right.
    np.testing.assert_allclose(moved, [[2.0, -1.0], [1.0, 2.0]], atol=1e-6)
    assert moved.dtype == np.float32


def test_compass_is_counter_clockwise_and_wrapped() -> None:
    heading = np.array([0.5, 6.2, 0.1, math.pi])
    origin = np.array([0.25, 0.1, 6.2, 0.0])
    turned = compass(heading, origin)[:, 0]
    expected = [0.25, 6.1 - 2 * math.pi, 0.1 - 6.2 + 2 * math.pi, -math.pi]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"turn_degrees": 30}, ValueError, "turn_degrees.*Did you mean 'turn_deg'"),
        ({"goal_sampling": "unifrom"}, ValueError, "goal_sampling.*unifrom.*'uniform'"),
        ({"max_episode_steps": 0}, ValueError, "max_episode_steps.*at least 1, got 0"),
        ({"max_episode_steps": 2.5}, TypeError, "max_episode_steps.*int, got 2.5"),
        ({"success_pixels": True}, TypeError, "success_pixels.*int, got True"),
        ({"forward_step": -0.1}, ValueError, "forward_step.*got -0.1"),
        ({"slack_reward": math.nan}, ValueError, "slack_reward.*got nan"),
        ({"turn_deg": "30"}, TypeError, "turn_deg.*number, got '30'"),
        ({"fixed_goal": 1}, TypeError, "fixed_goal.*True or False, got 1"),
        ({"pitch_start_deg": 45}, ValueError, r"pitch_start_deg.*\[-60.0, 30.0\], got 45"),
        ({"start": "previous_end", "num_starts": 3}, ValueError, "num_starts.*got 3"),
    ],
)
def test_bad_values_are_named(overrides: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ObjectNavConfig.create(**overrides)


def test_create_changes_a_base() -> None:
    base = ObjectNavConfig(turn_deg=14.3)
    changed = ObjectNavConfig.create(base, goal_sampling="ucb", max_goals=np.int64(3))
    assert changed == replace(base, goal_sampling=GoalSampling.UCB, max_goals=3)


def test_a_scene_without_objects_says_so() -> None:
    class Empty(Square):
        goal_instances = {}  # noqa: RUF012

    with pytest.raises(ValueError, match="must hold an object"):
        plan_episode(ObjectNavConfig(), Empty(), TrialHistory(5), dataset="square", trial=0)
