"""The memory oracle against what a slow replay says was in view."""

from __future__ import annotations

import math

import numpy as np
import pytest

from envs.core.hooks import state_of_rows
from envs.houses.env import HousesVectorEnv
from envs.houses.navigation.grid import segment_free
from envs.objectnav.config import Action
from envs.objectnav.rules import Goal

SHORT = {"max_episode_steps": 60}


def make(num_envs: int = 3, *, sensors: tuple[str, ...] = (), size: str = "small", **options):
    return HousesVectorEnv(
        num_envs, split="val", size=size, sensors=sensors, task=SHORT, seed=5, **options
    )


def knowledge(env: HousesVectorEnv, row: int):
    return env.memory_experts["memory"].known(row)


def wander(env: HousesVectorEnv, rng: np.random.Generator) -> np.ndarray:
    moves = [Action.FORWARD, Action.TURN_LEFT, Action.LOOK_DOWN, Action.LOOK_UP, Action.STOP]
    return rng.choice(moves, env.num_envs, p=[0.6, 0.25, 0.06, 0.06, 0.03])


def test_it_knows_the_instances_that_were_in_the_pictures_of_the_trial() -> None:
    env, rng = make(sensors=("instance",)), np.random.default_rng(0)
    observation, _ = env.reset(seed=5)
    seen: list[set[int]] = [set() for _ in range(3)]
    for step in range(120):
        if step == 60:
            observation, _ = env.reset(options={"new_trial": np.array([True, False, False])})
            seen[0] = set()
        for row in range(3):
            seen[row] |= set(np.unique(observation["instance"][row]).tolist()) - {0}
        env.expert_actions("memory")
        assert [knowledge(env, row).instances for row in range(3)] == seen
        observation = env.step(wander(env, rng))[0]
    assert all(seen)
    env.close()


def test_floor_counts_as_seen_where_a_line_of_sight_reaches_it() -> None:
    env, rng = make(1), np.random.default_rng(1)
    env.reset(seed=5)
    grid = env.simulator.task_scene(0).grid
    expected = np.zeros(grid.free_YX.shape, bool)
    for _ in range(25):
        env.expert_actions("memory")
        x, y, heading, _ = env.simulator.pose_N4[0]
        for iy, ix in np.argwhere(grid.slack_YX >= 0):
            node = ((ix + 0.5) * grid.cell, (iy + 0.5) * grid.cell)
            away = math.dist(node, (x, y))
            aside = math.remainder(math.atan2(node[1] - y, node[0] - x) - heading, math.tau)
            near = away <= 3.0 and (away <= 0.5 or abs(aside) <= math.pi / 4)
            if near and segment_free(grid.slack_YX, grid.cell, (x, y), node, -0.24):
                expected[iy, ix] = True
        np.testing.assert_array_equal(knowledge(env, 0).seen_YX, expected)
        env.step(wander(env, rng))
    assert 0.05 < expected[grid.free_YX].mean() < 1.0
    env.close()


def test_what_was_not_in_view_does_not_move_it() -> None:
    """It goes the same way whatever is asked for, until an instance of that was in view."""
    env = make(8)
    env.reset(seed=5)
    compared = 0
    for _ in range(30):
        actions = env.expert_actions("memory")
        for row in range(8):
            scene, own = env.simulator.task_scene(row), env.simulator.goal(row)
            known = knowledge(env, row).instances
            if known & set(own.instances):
                continue
            for category, instances in scene.goal_instances.items():
                if not known & set(instances):
                    env.simulator.set_goal(row, Goal(category, instances))
                    assert env.expert_actions("memory")[row] == actions[row]
                    compared += 1
            env.simulator.set_goal(row, own)
        env.step(actions)
    assert compared > 100
    env.close()


def test_of_a_category_it_goes_to_the_instance_that_it_knows() -> None:
    env = make(16)
    env.reset(seed=5)
    compared = 0
    for _ in range(40):
        actions = env.expert_actions("memory")
        for row in range(16):
            goal = env.simulator.goal(row)
            known = tuple(i for i in goal.instances if i in knowledge(env, row).instances)
            if 0 < len(known) < len(goal.instances):
                pose = tuple(env.simulator.pose_N4[row].tolist())
                only = env.simulator.task_scene(row).expert_action(Goal(goal.category, known), pose)
                assert actions[row] == only
                compared += 1
        env.step(actions)
    assert compared > 20
    env.close()


def test_it_finds_nearly_everything_and_faster_when_it_remembers() -> None:
    def walk(kind: str) -> tuple[float, float]:
        env = make(8)
        env.reset(seed=5)
        found = []
        for _ in range(300):
            _, _, terminated, truncated, infos = env.step(env.expert_actions(kind))
            records = infos.get("episode_record", {})
            for row in np.flatnonzero(terminated | truncated):
                if records["episode"][row] >= 2:
                    found.append((records["success"][row], records["spl"][row]))
        env.close()
        success, spl = np.mean(found, axis=0)
        return float(success), float(spl)

    success, spl = walk("memory")
    assert success > 0.9
    assert spl > walk("episode")[1] + 0.05


def test_the_one_that_forgets_is_one_that_begins_anew() -> None:
    env, rng = make(), np.random.default_rng(4)
    env.reset(seed=5)
    ended = 0
    for _ in range(150):
        actions = env.expert_actions("episode")
        began = np.flatnonzero(env.elapsed_steps == 0)
        for row in began:
            fresh = make()
            fresh.load_state_dict({**env.state_dict()})
            fresh.memory_experts["memory"].load_state({})
            assert fresh.expert_actions("memory")[row] == actions[row]
            fresh.close()
        ended += len(began)
        env.step(wander(env, rng))
    assert ended > 6
    env.close()


def test_asking_again_changes_nothing_and_a_state_goes_on() -> None:
    env = make()
    env.reset(seed=5)
    for _ in range(20):
        actions = env.expert_actions("memory")
        np.testing.assert_array_equal(env.expert_actions("memory"), actions)
        env.step(actions)
    other = make()
    other.load_state_dict(env.state_dict())
    for _ in range(60):
        actions = env.expert_actions("memory")
        np.testing.assert_array_equal(other.expert_actions("memory"), actions)
        env.step(actions)
        other.step(actions)
    for row in range(3):
        assert knowledge(env, row).instances == knowledge(other, row).instances
    env.close()
    other.close()


def test_states_are_shared_out_by_row_though_one_part_was_never_asked() -> None:
    parts = [make(2), make(1, first_row=2)]
    for env in parts:
        env.reset(seed=5)
    parts[0].expert_actions("memory")
    whole = make(3)
    whole.load_state_dict(state_of_rows([env.state_dict() for env in parts], range(3)))
    for row in range(2):
        assert knowledge(whole, row).instances == knowledge(parts[0], row).instances
    with pytest.raises(KeyError):
        knowledge(whole, 2)
    actions = [env.expert_actions("memory") for env in parts]
    np.testing.assert_array_equal(whole.expert_actions("memory"), np.concatenate(actions))
    for env in (*parts, whole):
        env.close()


def test_unknown_kinds_are_refused() -> None:
    env = make(1)
    env.reset()
    with pytest.raises(ValueError, match="'memory'"):
        env.expert_actions("memry")
    env.close()
