"""ExtObjNav in the houses: rewards, scores, odometry, starts, expert, against slow derivations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from envs.houses.env import HousesVectorEnv
from envs.houses.navigation.geodesic import distance_field, sample
from envs.houses.navigation.visibility import viewpoints
from envs.objectnav.config import Action
from envs.objectnav.goals import GOAL_SEMANTIC
from tests.envs.houses.houses_tools import SHORT, make, play, random_actions


def slow_distance(env: HousesVectorEnv, row: int, goal: int) -> float:
    """Measure to each instance on its own, from the scene, and take the nearest."""
    place = env.simulator.task_scene(row)
    x, y = env.simulator.pose_N4[row, :2]
    return min(
        sample(
            distance_field(place.grid, viewpoints(place.scene, place.grid, o)),
            place.grid.cell,
            x,
            y,
        )
        for o in place.scene.objects
        if o.category == goal
    )


def slow_success(env: HousesVectorEnv, row: int, goal: int, instance_HW: np.ndarray) -> bool:
    """Count pixels in the picture that the agent saw when it stopped."""
    x, y = env.simulator.pose_N4[row, :2]
    return any(
        math.hypot(o.x - x, o.y - y) <= 2.0 and int((instance_HW == o.instance).sum()) >= 10
        for o in env.simulator.task_scene(row).scene.objects
        if o.category == goal
    )


def test_rewards_and_records_by_a_slow_derivation() -> None:
    env = make(2, resolution=256, sensors=["instance"], task={"max_episode_steps": 40})
    observation, _ = env.reset()
    rng = np.random.default_rng(0)
    goal = observation["goal"].copy()
    start = np.array([slow_distance(env, n, int(goal[n])) for n in range(2)])
    before, path, total = start.copy(), np.zeros(2), np.zeros(2)
    outcomes: list[bool] = []
    for _ in range(150):
        pose = env.simulator.pose_N4.copy()
        action = env.expert_actions()
        stray = rng.random(2) < 0.25
        action[stray] = rng.integers(0, len(Action), 2)[stray]
        would = [slow_success(env, n, int(goal[n]), observation["instance"][n]) for n in range(2)]
        # Where the agent is and how far it then is cannot be read after an autoreset.
        _, reward_N, terminated, truncated = env.transition(action)
        after = np.array([slow_distance(env, n, int(goal[n])) for n in range(2)])
        success = np.array(would) & (action == Action.STOP)
        path += np.hypot(*(env.simulator.pose_N4 - pose)[:, :2].T)
        # Where two instances are equally near, one field of both is interpolated otherwise.
        np.testing.assert_allclose(reward_N, before - after - 0.001 + 2.0 * success, atol=5e-3)
        np.testing.assert_array_equal(terminated, action == Action.STOP)
        total, before = total + before - after - 0.001 + 2.0 * success, after
        records = env.episode_records(np.arange(2))
        ended = np.flatnonzero(terminated | truncated).tolist()
        for n in ended:
            longest = max(start[n], path[n])
            outcomes.append(bool(success[n]))
            expected = {
                "success": success[n],
                "spl": success[n] * start[n] / longest,
                "soft_spl": max(0.0, 1.0 - after[n] / start[n]) * start[n] / longest,
                "distance_start": start[n],
                "distance_end": after[n],
                "return": total[n],
                "goal": goal[n],
                "house": env.trial[n] % 1000,
                "area": np.prod(env.dataset.house(int(env.trial[n] % 1000)).extent),
            }
            for name, value in expected.items():
                np.testing.assert_allclose(records[name][n], value, atol=5e-3, err_msg=name)
        if len(ended):
            mask = np.isin(np.arange(2), ended)
            observation, _ = env.reset(options={"reset_mask": mask})
            goal[mask] = observation["goal"][mask]
            for n in ended:
                start[n] = before[n] = slow_distance(env, n, int(goal[n]))
                path[n] = total[n] = 0.0
        else:
            observation = env.observe()
    assert any(outcomes)
    assert not all(outcomes)


def test_actions_move_as_they_say() -> None:
    env = make(1, task={"max_episode_steps": 500})
    env.reset()
    sim = env.simulator

    def after(action: Action) -> np.ndarray:
        before = sim.pose_N4[0].copy()
        env.step(np.array([action]))
        return sim.pose_N4[0] - before

    np.testing.assert_allclose(after(Action.TURN_LEFT)[2] % (2 * math.pi), math.pi / 6)
    np.testing.assert_allclose(-after(Action.TURN_RIGHT)[2] % (2 * math.pi), math.pi / 6)
    pitches = [math.degrees(after(Action.LOOK_UP)[3]) for _ in range(2)]
    pitches += [math.degrees(after(Action.LOOK_DOWN)[3]) for _ in range(4)]
    np.testing.assert_allclose(pitches, [30, 0, -30, -30, -30, 0], atol=1e-9)
    for _ in range(40):
        heading = sim.pose_N4[0, 2]
        x, y, *_ = after(Action.FORWARD)
        if math.hypot(x, y) > 0.2499999:
            np.testing.assert_allclose([x, y], 0.25 * np.array([np.cos(heading), np.sin(heading)]))
            break
        env.step(np.array([Action.TURN_LEFT]))
    else:
        pytest.fail("no free step ahead in any direction")


def test_gps_and_compass_keep_the_trials_frame() -> None:
    env = make(2, resolution=8, sensors=["depth"])
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation["gps"], 0)
    np.testing.assert_array_equal(observation["compass"], 0)
    origin = env.simulator.pose_N4.copy()
    play(env, random_actions(20, 2))
    observation, _ = env.reset()  # a new episode somewhere else in the same trial
    pose = env.simulator.pose_N4
    for n in range(2):
        dx, dy = pose[n, :2] - origin[n, :2]
        angle = origin[n, 2]
        to_start_frame = np.array(
            [[math.cos(angle), math.sin(angle)], [math.sin(angle), -math.cos(angle)]]
        )
        np.testing.assert_allclose(observation["gps"][n], to_start_frame @ [dx, dy], atol=1e-5)
        turned = complex(math.cos(pose[n, 2]), math.sin(pose[n, 2])) / complex(
            math.cos(angle), math.sin(angle)
        )
        expected = math.atan2(turned.imag, turned.real)
        np.testing.assert_allclose(observation["compass"][n, 0], expected, atol=1e-5)
    assert (np.linalg.norm(observation["gps"], axis=1) > 0.1).all()


def test_a_reset_keeps_the_house_and_a_trial_number_names_it() -> None:
    env = make(2)
    env.reset()
    trial = env.trial
    scenes = [env.simulator.task_scene(n).scene for n in range(2)]
    env.reset()
    assert [env.simulator.task_scene(n).scene for n in range(2)] == scenes
    other = make(2, seed=77)
    swapped, _ = other.reset(options={"trial": trial[::-1].copy()})
    straight, _ = make(2).reset(options={"trial": trial})
    for name in straight:
        np.testing.assert_array_equal(swapped[name][::-1], straight[name])


def test_pitch_starts_level_and_previous_end_starts_where_it_ended() -> None:
    env = make(2, task={**SHORT, "start": "previous_end"})
    env.reset()
    env.step(np.array([Action.LOOK_DOWN, Action.FORWARD]))
    end = env.simulator.pose_N4.copy()
    env.step(np.array([Action.STOP, Action.STOP]))
    np.testing.assert_array_equal(env.simulator.pose_N4[:, :3], end[:, :3])
    np.testing.assert_array_equal(env.simulator.pose_N4[:, 3], 0.0)


def test_previous_reward_is_seen_and_forgotten() -> None:
    env = make(3)
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation["prev_reward"], 0.0)
    for action_N in random_actions(40, 3):
        observation, reward, terminated, truncated, _ = env.step(action_N)
        ended = terminated | truncated
        np.testing.assert_array_equal(observation["prev_reward"][:, 0], np.where(ended, 0, reward))


def test_semantics_name_the_goal_that_the_expert_looks_at() -> None:
    env = make(4, resolution=64, sensors=["semantic"], task=None)
    env.reset()
    found = 0
    for _ in range(200):
        stopping = env.expert_actions() == Action.STOP
        *_, infos = env.step(env.expert_actions())
        if infos:
            for n in np.flatnonzero(stopping):
                last = infos["final_obs"][n]
                found += int((last["semantic"] == GOAL_SEMANTIC + last["goal"]).any())
        if found >= 4:
            return
    pytest.fail(f"the expert found only {found} goals in 200 steps")


def success_of_expert(size: str, trials: int, episodes: int) -> float:
    env = HousesVectorEnv(trials, split="val", size=size, sensors=[])
    env.reset(options={"trial": np.arange(trials)})
    done = np.zeros(trials, int)
    successes: list[bool] = []
    while done.min() < episodes:
        *_, infos = env.step(env.expert_actions())
        if infos:
            for n in np.flatnonzero(infos["_episode_record"]):
                if done[n] < episodes:
                    done[n] += 1
                    successes.append(bool(infos["episode_record"]["success"][n]))
    return float(np.mean(successes))


def test_expert_finds_what_is_asked_for() -> None:
    assert success_of_expert("small", trials=8, episodes=3) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_expert_finds_what_is_asked_for_in_many_houses(size: str) -> None:
    assert success_of_expert(size, trials=100, episodes=5) >= 0.95


def test_goal_places_are_where_the_instances_are() -> None:
    """Seen from the agent: as far as in the house, and in the same direction."""
    env = make(3, sensors=[])
    observation, _ = env.reset()
    rng = np.random.default_rng(3)
    for _ in range(90):
        for n in range(3):
            x, y, heading, _ = env.simulator.pose_N4[n]
            goal = int(observation["goal"][n])
            objects = [o for o in env.simulator.task_scene(n).scene.objects if o.category == goal]
            want = {(math.hypot(o.x - x, o.y - y), math.atan2(o.y - y, o.x - x)) for o in objects}
            delta_K2 = observation["goal_places"][n] - observation["gps"][n]
            # Forward and right in the frame of the first start, to which the compass is relative.
            bearing_K = np.arctan2(-delta_K2[:, 1], delta_K2[:, 0]) - observation["compass"][n, 0]
            got = list(zip(np.hypot(*delta_K2.T), bearing_K + heading, strict=True))
            for distance, angle in got:
                assert any(
                    abs(distance - d) < 1e-3 and abs(math.remainder(angle - a, 2 * math.pi)) < 1e-3
                    for d, a in want
                )
            for d, _ in want:
                assert any(abs(distance - d) < 1e-3 for distance, _ in got)
        action = rng.integers(0 if rng.random() < 0.1 else 1, len(Action), 3)
        observation, *_ = env.step(action)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_the_expert_of_all_rows_is_that_of_each(size) -> None:
    env = make(8, size=size, sensors=[])
    env.reset()
    rng, looked = np.random.default_rng(3), 0
    for _ in range(150):
        actions = env.expert_actions()
        each = [env.simulator.expert_action(n) for n in range(8)]
        np.testing.assert_array_equal(actions, each)
        looked += int((actions == Action.STOP).sum())
        env.step(np.where(rng.random(8) < 0.1, Action.TURN_LEFT, actions))
    assert looked > 5
    env.close()
