"""The sensor `detections` of the houses, against the pictures that it is computed from."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import envs
from envs.houses.env import HousesVectorEnv
from envs.objectnav.rules import gps
from tests.envs.houses.houses_tools import EVERYTHING, SHORT, make, play, random_actions
from tests.envs.objectnav.slow_detections import directions, slow_detections, slow_scan

BOTH = {"sensors": ["depth", "semantic", "instance", "detections"], "resolution": 32}
ALONE = {"sensors": ["detections"]}


@pytest.mark.parametrize("hfov_deg", [90.0, 70.0])
def test_what_is_seen_is_what_the_pictures_show(hfov_deg) -> None:
    env = make(3, **BOTH, task={**SHORT, "hfov_deg": hfov_deg})
    alone = make(3, **ALONE, resolution=32, task={**SHORT, "hfov_deg": hfov_deg})
    told, same = env.reset()[0], alone.reset()[0]
    seen, goals_seen, pitches = 0, 0, set()
    turns = np.zeros((3, 20), int)
    for action_N in random_actions(120, 3, seed=8):
        for name, value in same.items():
            np.testing.assert_array_equal(told[name], value)
        for n in range(3):
            x, y, heading, pitch = env.simulator.pose_N4[n]
            pitches.add(round(math.degrees(pitch)))
            images = (told["depth"][n], told["semantic"][n], told["instance"][n])
            rays = directions((32, 32), math.radians(hfov_deg), heading, pitch)
            slow_C4 = slow_detections(*images, rays, heading)
            np.testing.assert_allclose(told["detections"][n].reshape(20, 4), slow_C4, 1e-4, 1e-4)
            np.testing.assert_allclose(told["depth_scan"][n], slow_scan(images[0]), 1e-6)
            # Places, by the house's coordinates and not by what is ahead.
            facing = np.array([math.cos(heading), math.sin(heading)])
            right = np.array([math.sin(heading), -math.cos(heading)])
            xy_C2 = np.array([x, y]) + slow_C4[:, 2:3] * facing + slow_C4[:, 3:] * right
            place_C2 = gps(*xy_C2.T, env.task_rows.history[n].origin[:3])
            goal, named = told["goal"][n], told["named"][n]
            goal_told = np.zeros(5)
            if slow_C4[goal, 0]:
                goal_told[:] = 1.0, *slow_C4[goal, 2:], *place_C2[goal]
            np.testing.assert_allclose(told["goal_detection"][n], goal_told, 1e-4, 1e-4)
            in_view = np.flatnonzero(slow_C4[:, 0])
            expected = min(in_view, key=lambda c: (turns[n, c], c), default=20)
            assert named == expected
            if named < 20:
                turns[n, named] = turns[n].max() + 1
                np.testing.assert_allclose(told["named_place"][n], place_C2[named], 1e-4, 1e-4)
            seen, goals_seen = seen + len(in_view), goals_seen + int(slow_C4[goal, 0])
        told, same = env.step(action_N)[0], alone.step(action_N)[0]
    assert seen > 300
    assert goals_seen > 10
    assert len(pitches) == 4


def test_the_nearest_instance_is_near_where_the_house_says() -> None:
    env = make(4, **ALONE, resolution=64, goal_places=True)
    told = env.reset()[0]
    errors = []
    for action_N in random_actions(150, 4, seed=2):
        for n in np.flatnonzero(told["goal_detection"][:, 0]):
            place = told["goal_detection"][n, 3:]
            errors.append(np.linalg.norm(told["goal_places"][n] - place, axis=-1).min())
        told = env.step(action_N)[0]
    # Of an object its near side shows, not its middle, and of some only a part.
    assert len(errors) > 20
    assert np.median(errors) < 0.15
    assert max(errors) < 0.4


def test_contract() -> None:
    envs.check_trial_env(make(2, **ALONE), make=functools.partial(make, **ALONE))


def test_rows_are_named_by_what_they_saw_alone() -> None:
    together, apart = make(3, **ALONE), make(1, **ALONE, first_row=2, threads=2)
    seen = [together.reset()[0], apart.reset()[0]]
    for action_N in random_actions(80, 3, seed=3):
        for name, value in seen[1].items():
            np.testing.assert_array_equal(seen[0][name][2:], value)
        seen = [together.step(action_N)[0], apart.step(action_N[2:])[0]]
    apart.close()


def test_state_goes_on_with_who_was_named() -> None:
    actions = random_actions(90, 2, seed=4)
    env, other = make(2, **ALONE), make(2, **ALONE, seed=77)
    env.reset()
    play(env, actions[:60])
    state = env.state_dict()
    assert state["env"]["named_turn"].max() > 5
    assert all(len(state["env"][key]) == 2 for key in ("named_turn", "named"))  # cut by row
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.observe()["named"], env.observe()["named"])
    for one, two in zip(play(env, actions[60:]), play(other, actions[60:]), strict=True):
        for name, value in one[0].items():
            np.testing.assert_array_equal(value, two[0][name])


def test_states_of_other_sensors() -> None:
    plain = make(1)
    plain.reset()
    env = make(1, **ALONE)
    env.reset()
    before = env.state_dict()
    with pytest.raises(ValueError, match="must hold who was named"):
        env.load_state_dict(plain.state_dict())
    np.testing.assert_equal(env.state_dict(), before)


def test_a_new_trial_forgets_who_was_named() -> None:
    env = make(2, **ALONE)
    env.reset(options={"trial": np.array([3, 3])})
    play(env, random_actions(60, 2))
    told = env.reset(options={"new_trial": np.array([True, False]), "trial": np.array([3, 3])})[0]
    fresh = make(2, **ALONE).reset(options={"trial": np.array([3, 3])})[0]
    assert env.detections is not None
    assert not env.detections.turn_NC[0].any()
    assert env.detections.turn_NC[1].any()
    for name, value in fresh.items():
        np.testing.assert_array_equal(told[name][0], value[0])


def test_pictures_are_handed_out_only_if_asked_for() -> None:
    env = HousesVectorEnv(1, **(EVERYTHING | {"sensors": ["detections", "rgb"]}))
    told = env.reset()[0]
    assert "rgb" in told
    assert not {"depth", "semantic", "instance"} & told.keys()
    rgb = HousesVectorEnv(1, **(EVERYTHING | {"sensors": ["rgb"]})).reset()[0]["rgb"]
    np.testing.assert_array_equal(told["rgb"], rgb)


def test_recall_is_where_the_goal_was_last_in_view_in_the_trial() -> None:
    """By a dictionary of places that grows with what each observation says is in view."""
    env = make(4, **ALONE, resolution=32, task=SHORT, compass=True, goal_recall=True)
    told = env.reset()[0]
    known: list[dict[int, np.ndarray]] = [{} for _ in range(4)]
    remembered = 0
    for step, action_N in enumerate(random_actions(160, 4, seed=9)):
        for n in range(4):
            seen_C4 = told["detections"][n].reshape(20, 4)
            turned = told["compass"][n, 0]
            for category in np.flatnonzero(seen_C4[:, 0]):
                ahead, right = seen_C4[category, 2:]
                cos, sin = math.cos(turned), math.sin(turned)
                moved = [ahead * cos + right * sin, right * cos - ahead * sin]
                known[n][category] = told["gps"][n] + moved
            goal = int(told["goal"][n])
            if goal in known[n]:
                np.testing.assert_allclose(told["goal_recall"][n, 1:], known[n][goal], 1e-4, 1e-4)
                remembered += not seen_C4[goal, 0]
            assert told["goal_recall"][n, 0] == (goal in known[n])
        if step == 80:
            told = env.reset(options={"new_trial": np.array([True, False, True, False])})[0]
            known[0], known[2] = {}, {}
            continue
        told = env.step(action_N)[0]
    assert remembered > 50
    state = env.state_dict()
    looked, blind = (
        make(4, **ALONE, resolution=32, task=SHORT, compass=True, goal_recall=True)
        for _ in range(2)
    )
    looked.load_state_dict(state)
    blind.load_state_dict(state)
    np.testing.assert_array_equal(looked.observe()["goal_recall"], told["goal_recall"])
    for action_N in random_actions(60, 4, seed=10):
        expected = env.step(action_N)[0]["goal_recall"]
        np.testing.assert_array_equal(looked.step(action_N)[0]["goal_recall"], expected)
        # Who has seen what stands before may act without looking again.
        np.testing.assert_array_equal(blind.step(action_N)[0]["goal_recall"], expected)


def test_recall_needs_detections() -> None:
    with pytest.raises(ValueError, match="goal_recall: must be False without the sensor"):
        make(1, goal_recall=True, sensors=["rgb"])
