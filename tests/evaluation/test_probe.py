import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from envs.core.demonstrations import Demonstrations, record_expert, write_demonstrations
from envs.make import make_trial_env
from relic.evaluation import probe
from relic.evaluation.curves import curve, tabulate
from relic.evaluation.evaluator import evaluate, make_env, run_block
from relic.evaluation.few_shot import playback
from relic.evaluation.report.plots import plot_probe
from relic.policy.loading import load, save_policy
from relic.policy.policy import Policy
from relic.schema import ConfigError
from tests.evaluation.conftest import OPTIONS, small_policy, small_protocol

COUNTS = (0, 1, 2)


def small_probe(run, **changes):
    return probe(run, **{"counts": COUNTS, "protocol": small_protocol(), **changes})


def test_twice_gives_the_same_numbers(run):
    assert small_probe(run) == small_probe(run)


def test_own_episodes_are_those_of_an_evaluation(run):
    result = small_probe(run, following=2)
    table = tabulate(evaluate(load(run), small_protocol()), "return")
    expected = curve(table)
    own = result.measures["return"].own
    assert (list(own.mean), list(own.low), list(own.high)) == (
        expected["mean"], expected["low"], expected["high"],
    )  # fmt: skip
    # Without demonstrations nothing differs.
    first = result.measures["return"].difference[0]
    assert first.mean == first.low == first.high == (0.0, 0.0)


def test_demonstrations_are_read_as_if_the_policy_had_acted(policy):
    # Its own episodes, shown to it by another run of it, leave it exactly where it was.
    protocol = small_protocol(repeats=1, trials=3, episodes=4, block=3)
    (block,) = protocol.blocks()
    env = make_env(protocol)
    taken: dict = {}

    def keep(env, observation, starts_N, action_N):
        for row in range(3):
            taken.setdefault((int(env.trial[row]), int(env.episode[row])), []).append(action_N[row])
        return action_N

    own = list(run_block(policy, env, protocol, block, on_act=keep))
    actions = {where: np.array(steps) for where, steps in taken.items()}
    shown = Demonstrations(env.dataset_name, actions, "own")
    again = list(run_block(policy, env, protocol, block, on_act=playback(shown, 2)))
    assert again == own
    # Under other noise only what is shown stays.
    other = replace(protocol, seed=1)
    forced = list(run_block(policy, env, other, block, on_act=playback(shown, 2)))
    assert forced[:6] == own[:6]
    assert forced[6:] != own[6:]


def test_demonstrations_change_what_follows_and_are_compared_in_pairs(run):
    result = small_probe(run, following=2)
    env = make_env(small_protocol())
    shown, records = record_expert(env, range(3), 2)
    protocol = small_protocol(episodes=4)
    after = []
    for block in protocol.blocks():
        after += run_block(load(run), env, protocol, block, on_act=playback(shown, 2))
    effect = result.measures["return"]
    without = evaluate(load(run), protocol)
    for index in (2, 3):
        by_hand, own = (
            {(r["trial"], r["repeat"]): r["return"] for r in records if r["episode"] == index}
            for records in (after, without)
        )
        mean = np.mean(list(by_hand.values()))
        assert effect.demonstrated[2].mean[index - 2] == pytest.approx(mean)
        pairs = [by_hand[unit] - own[unit] for unit in own]
        assert effect.difference[2].mean[index - 2] == pytest.approx(np.mean(pairs))
    assert any(effect.difference[2].mean)
    returns = [np.mean([r["return"] for r in records if r["episode"] == e]) for e in (0, 1)]
    assert effect.demonstrator.mean == pytest.approx(returns)
    assert result.at_first("return", "demonstrated").mean == tuple(
        c.mean[0] for c in effect.demonstrated
    )


def test_a_file_gives_what_its_demonstrations_give(run, tmp_path):
    shown, _ = record_expert(make_env(small_protocol()), range(3), 2)
    write_demonstrations(shown, tmp_path / "walks.jsonl")
    from_file = small_probe(run, demonstrations=tmp_path / "walks.jsonl")
    assert from_file.demonstrations == str(tmp_path / "walks.jsonl")
    assert replace(from_file, demonstrations="expert") == small_probe(run)


def test_the_result_is_written_whole(run, tmp_path):
    result = small_probe(run)
    result.write(tmp_path / "probe.json")
    written = json.loads((tmp_path / "probe.json").read_text())
    assert written["counts"] == [0, 1, 2]
    assert written["measures"]["return"]["own"]["mean"] == list(result.measures["return"].own.mean)
    assert written["goals"] == "fixed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": ()}, "counts: must hold numbers of demonstrations"),
        ({"counts": (0, -1)}, "counts: must hold numbers of demonstrations"),
        ({"following": 0}, "following: must be at least 1, got 0"),
        ({"goals": "free"}, "goals: must be left out in relic/Darkroom-v0, whose goals are fixed"),
        ({"protocol": small_protocol(options=OPTIONS)}, "must not use trials that the run was"),
        ({"protocol": "darkrom_test"}, "unknown 'darkrom_test'. Did you mean 'darkroom_test'"),
    ],
)
def test_wrong_arguments_are_refused(run, changes, message):
    with pytest.raises(ConfigError, match=message):
        small_probe(run, **changes)


HOUSES = {"split": "train", "resolution": 16, "task": {"max_episode_steps": 60}}


@pytest.fixture
def houses_run(tmp_path):
    env = make_trial_env("relic/Houses-v0", 1, HOUSES)
    policy = Policy(
        small_policy().config,
        env.single_observation_space,  # type: ignore[arg-type]
        env.single_action_space,
        max_episode_steps=env.max_episode_steps,
    )
    save_policy(tmp_path, policy, env_steps=0)
    config = {"env": {"id": "relic/Houses-v0", "options": HOUSES}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_goals_of_houses_are_fixed_or_free(houses_run):
    protocol = small_protocol(
        env="relic/Houses-v0", options={"split": "val"}, trials=2, repeats=1, block=2
    )
    results = {
        goals: probe(houses_run, counts=(0, 2), protocol=protocol, goals=goals)
        for goals in ("fixed", "free", None)
    }
    assert results[None] == results["free"] != results["fixed"]
    assert [r.goals for r in results.values()] == ["fixed", "free", "free"]
    for result in results.values():
        # The expert finds what is asked for, and its walks differ with what that is.
        assert result.measures["success"].demonstrator.mean == (1.0, 1.0)
    lengths = [results[g].measures["length"].demonstrator.mean for g in ("fixed", "free")]
    assert lengths[0][0] == lengths[1][0]
    assert lengths[0][1] != lengths[1][1]


def test_the_picture_shows_both_curves_and_their_difference(run):
    result = small_probe(run)
    figure = plot_probe(result, "return")
    upper, lower = figure.axes
    effect = result.measures["return"]
    lines = {line.get_label(): line for line in upper.lines}
    own, shown = lines["after its own episodes"], lines["after the expert's episodes"]
    np.testing.assert_array_equal(own.get_ydata(), effect.own.mean)
    np.testing.assert_array_equal(shown.get_xdata(), COUNTS)
    np.testing.assert_array_equal(shown.get_ydata(), [c.mean[0] for c in effect.demonstrated])
    points = [line.get_ydata()[0] for line in lower.lines if len(line.get_xdata()) == 1]  # type: ignore[index]
    assert points == list(result.at_first("return", "difference").mean)
