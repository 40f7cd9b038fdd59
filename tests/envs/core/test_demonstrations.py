import json

import numpy as np
import pytest

from envs.core.demonstrations import (
    DemonstrationError,
    Demonstrations,
    read_demonstrations,
    record_expert,
    rehearse,
    write_demonstrations,
)
from envs.make import make_trial_env

DARKROOM = {"split": "test", "size": 5, "horizon": 10}
HOUSES = {"split": "val", "resolution": 16, "task": {"max_episode_steps": 60}}


def darkroom(num_envs=2):
    return make_trial_env("relic/Darkroom-v0", num_envs, DARKROOM)


def test_expert_walks_straight_to_the_goal_and_stays():
    env = darkroom()
    demonstrations, records = record_expert(env, [0, 1, 2], 2)
    assert sorted(demonstrations.actions) == [(t, e) for t in range(3) for e in range(2)]
    for record in records:
        actions = demonstrations.actions[record["trial"], record["episode"]]
        x, y = divmod(record["goal"], 5)
        np.testing.assert_array_equal(actions, [1] * x + [3] * y + [0] * (10 - x - y))
        assert record["return"] == 10 - max(x + y - 1, 0)


@pytest.mark.parametrize(
    ("name", "options"), [("relic/Darkroom-v0", DARKROOM), ("relic/Houses-v0", HOUSES)]
)
def test_rehearsing_from_a_file_earns_what_was_recorded(tmp_path, name, options):
    # Episodes of houses end at their own times, so that rows are in different episodes.
    recorded, records = record_expert(make_trial_env(name, 2, options), [4, 1, 2], 2)
    path = tmp_path / "shown.jsonl"
    write_demonstrations(recorded, path)
    read = read_demonstrations(path)
    again = rehearse(read, make_trial_env(name, 3, options), [4, 1, 2], 2)
    assert read.dataset == recorded.dataset
    assert read.source == str(path)
    assert sorted(map(str, again)) == sorted(map(str, records))
    assert all(r["success"] for r in records)


def test_only_shown_episodes_are_replaced():
    env = darkroom()
    demonstrations, _ = record_expert(env, [0, 1], 1)
    env.reset(options={"trial": np.array([0, 1])})
    for step in range(12):
        shown_N = demonstrations.act(env, 1, np.array([2, 2]))
        expected = [demonstrations.actions[t, 0][step] for t in (0, 1)] if step < 10 else [2, 2]
        np.testing.assert_array_equal(shown_N, expected)
        env.step(shown_N)


def shortened(demonstrations, by):
    actions = dict(demonstrations.actions)
    actions[1, 1] = actions[1, 1][:-by] if by > 0 else np.append(actions[1, 1], [0] * -by)
    return Demonstrations(demonstrations.dataset, actions, "shown")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: shortened(d, 3), "episode 1 of trial 1 goes on after its 7 actions"),
        (lambda d: shortened(d, -2), "episode 1 of trial 1 ended after 10 of its 12 actions"),
        (lambda d: Demonstrations("other", d.actions, "x"), "must be of relic-darkroom.*got other"),
        (
            lambda d: Demonstrations(d.dataset, {(0, 0): d.actions[0, 0]}, "x"),
            "must hold the first 2 episodes of trial 0, got no episode 1",
        ),
    ],
)
def test_demonstrations_that_do_not_fit_are_refused(change, message):
    env = darkroom()
    demonstrations, _ = record_expert(env, [0, 1], 2)
    with pytest.raises(DemonstrationError, match=message):
        rehearse(change(demonstrations), env, [0, 1], 2)


HEADER = json.dumps({"format": 1, "dataset": "d"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1"),
        ('{"format": 2, "dataset": "d"}', "line 1.*format 2 instead of 1"),
        (f'{HEADER}\n{{"trial": 0, "actions": [1]}}', "line 2.*'episode'"),
        (f'{HEADER}\n{{"trial": 0, "episode": 0, "actions": []}}', "line 2.*not a list of numbers"),
        (f'{HEADER}\n{{"trial": 0, "episode": 0, "actions": ["up"]}}', "line 2.*not a list"),
        (f"{HEADER}\n[1]", "line 2.*TypeError"),
        ("\x00\xff", "line 1.*JSONDecodeError"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    path = tmp_path / "shown.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DemonstrationError, match=message):
        read_demonstrations(path)


def test_vector_actions_survive_the_file(tmp_path):
    actions = {(7, 0): np.array([[0.25, -1.0], [0.5, 0.1]])}
    write_demonstrations(Demonstrations("d", actions, "x"), tmp_path / "shown.jsonl")
    read = read_demonstrations(tmp_path / "shown.jsonl")
    np.testing.assert_array_equal(read.actions[7, 0], actions[7, 0])
