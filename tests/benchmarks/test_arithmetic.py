"""What benchmarks compute from what they measure."""

import json
from itertools import chain
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from relic.figures import MOST_LINES
from relic.files import PROJECT
from relic.policy.memory.config import TransformerConfig
from relic.run.compose import compose


def test_operations_of_a_forward_pass():
    from bench_policy_step import forward_flops

    config = TransformerConfig(num_layers=2, num_heads=2, width=8, mlp_width=16)
    # Per step: q, k, v and out are 8 x 8, the gated block 8 x 16 three times; then scores and sums
    # of values over the steps so far, two operations for each of 8 numbers.
    counted = sum(
        2 * (2 * (4 * 64 + 3 * 128) + 2 * (2 * 8) * seen) for seen in range(6, 11)
    )  # steps 5 to 9
    assert forward_flops(config, 5, 10) == pytest.approx(counted)


def test_all_updates_of_a_rollout_follow_from_a_few():
    from bench_update import CHUNK, over_rollout

    def cost(context):
        return 3.0 + 2e-3 * context + 1e-6 * context**2

    rows = [{"prefix": "full", "context": n, "ms": cost(n)} for n in (1024, 4096, 16_384)]
    expected = sum(cost(n) for n in range(CHUNK, 16_384, CHUNK)) / 1e3
    assert over_rollout(rows, "full") == pytest.approx(expected)
    assert over_rollout(rows[:2], "full") is None


def test_the_library_sees_our_rows():
    pytest.importorskip("sb3_contrib")
    from bench_library import LibraryRows

    from envs.darkroom import DarkroomVectorEnv

    rows = LibraryRows(DarkroomVectorEnv(3, horizon=4), trial_steps=6)
    ours = DarkroomVectorEnv(3, horizon=4)
    first = rows.reset()
    expected, _ = ours.reset(seed=0)
    np.testing.assert_array_equal(first["position"], expected["position"])
    action = np.array([1, 2, 3])
    for step in range(1, 7):
        observation, reward, done, said = rows.step(action)
        expected, reward_N, terminated, truncated, infos = ours.step(action)
        np.testing.assert_array_equal(reward, reward_N)
        if step == 6:  # the trial is over for all, in the middle of an episode
            assert done.all()
            for row in range(3):
                np.testing.assert_array_equal(
                    said[row]["terminal_observation"]["position"], expected["position"][row]
                )
            expected, _ = ours.reset(options={"new_trial": np.ones(3, bool)})
        else:
            np.testing.assert_array_equal(done, terminated | truncated)
        if step == 4:
            assert all(s["TimeLimit.truncated"] for s in said)
            last = said[0]["terminal_observation"]["position"]
            np.testing.assert_array_equal(last, infos["final_obs"][0]["position"])
        np.testing.assert_array_equal(observation["position"], expected["position"])


@pytest.mark.parametrize(
    ("update_s", "first", "stops_after"),
    [
        (1.0, 0, 239),  # the full update would not have half of the 500 seconds
        (10.0, 0, 47),
        (400.0, 0, 0),  # no refresh is in reach: the cache is saved
        (1.0, 240, 255),
        (20.0, 240, 254),
    ],
)
def test_a_call_ends_just_before_a_refresh(monkeypatch, update_s, first, stops_after):
    import gpu_report

    config = compose({"experiment": "houses_64k"})
    left = [500.0]
    monkeypatch.setattr(gpu_report, "seconds_left", lambda limit_s: left[0])
    rollout = SimpleNamespace(size=0)
    trainer = SimpleNamespace(config=config, parts=SimpleNamespace(rollout=rollout))
    deadline = gpu_report.Deadline(cast(Any, trainer), 500.0)
    index = first
    while True:
        left[0] -= update_s
        rollout.size = (index + 1) * gpu_report.CHUNK
        if deadline() or index == 255:
            break
        index += 1
    assert index == stops_after
    assert left[0] > 0


def test_partial_updates_are_drawn_by_lines_that_can_be_told_apart(tmp_path):
    from partial_updates import CHOICES, FIGURES, SETTINGS, Curve, plot

    assert {"off", *chain(*FIGURES.values())} == set(CHOICES)
    assert all(len(choices) <= MOST_LINES for choices in FIGURES.values())
    kept = json.loads((PROJECT / "docs" / "baselines" / "partial_updates.json").read_text())
    for experiment, curves in kept["curves"].items():
        drawn = plot([Curve(**one) for one in curves], SETTINGS[experiment], tmp_path / experiment)
        # No figure of the cheaper ones, of which only what they are held against is there.
        assert [path.name for path in drawn] == ["partial_updates.png"]


def test_habitats_benchmark_says_which_interpreter_it_lacks(capsys):
    from bench_habitat import main

    with pytest.raises(SystemExit, match="1"):
        main(["--quick", "--python", "/no/python"])
    told = capsys.readouterr().err
    assert "'/no/python'" in told
    assert "HABITAT.md" in told
