from dataclasses import fields, replace

import pytest

from envs.make import make_trial_env
from relic.evaluation.protocol import PROTOCOLS, Protocol, Unit, load_protocol
from relic.schema import ConfigError
from tests.evaluation.conftest import small_protocol

OTHER = {
    "name": "other",
    "version": 2,
    "env": "relic/FourBoxes-v0",
    "options": {"split": "val"},
    "first_trial": 1,
    "trials": 4,
    "repeats": 3,
    "episodes": 5,
    "block": 5,
    "deterministic": True,
    "seed": 1,
    "context_limit": "last:5",
}


@pytest.mark.parametrize("name", [f.name for f in fields(Protocol)])
def test_hash_changes_with_every_field(name):
    protocol = small_protocol()
    changes = {"episodes": None, "steps": 30} if name == "steps" else {name: OTHER[name]}
    assert replace(protocol, **changes).hash != protocol.hash


def test_hash_ignores_the_order_of_options():
    forth = small_protocol(options={"split": "test", "size": 4})
    back = small_protocol(options={"size": 4, "split": "test"})
    assert forth.hash == back.hash
    assert len(forth.hash) == 12


def test_hash_is_the_same_in_every_process():
    # Worked out once: a change here means that published hashes no longer name what they did.
    assert (
        Protocol(name="pinned", env="relic/Darkroom-v0", trials=2, episodes=3).hash
        == "11926690ac6b"
    )


def test_blocks_hold_every_unit_once_and_are_padded_with_the_last():
    protocol = small_protocol(first_trial=7)
    blocks = list(protocol.blocks())
    real = [u for b in blocks for u in b.units[: b.num_real]]
    assert real == [Unit(trial, repeat) for repeat in (0, 1) for trial in (7, 8, 9)]
    assert [len(b.units) for b in blocks] == [4, 4]
    assert [b.num_real for b in blocks] == [4, 2]
    assert blocks[1].units[2:] == (Unit(9, 1), Unit(9, 1))
    assert protocol.num_blocks == len(blocks)


def test_blocks_that_fit_exactly_need_no_padding():
    blocks = list(small_protocol(block=3).blocks())
    assert [b.num_real for b in blocks] == [3, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "trials: must be at least 1, got 0"),
        ({"repeats": 0}, "repeats: must be at least 1"),
        ({"block": 0}, "block: must be at least 1"),
        ({"first_trial": -1}, "first_trial: must be at least 0"),
        ({"episodes": 0}, "episodes: must be at least 1"),
        ({"repeats": 10**12}, "repeats: must leave at most 1,048,576 evaluations of a trial"),
        ({"trials": 10**9}, "repeats: must leave at most .* got 1000000000 trials times"),
        ({"steps": 30}, "episodes: must be given where steps is not"),
        ({"episodes": None}, "episodes: must be given where steps is not"),
        ({"epsiodes": 3}, "Did you mean 'episodes'"),
    ],
)
def test_bad_fields_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        small_protocol(**changes)


def test_capacity_holds_the_longest_trial():
    assert small_protocol().capacity(12) == 48
    assert small_protocol(episodes=None, steps=30).capacity(12) == 30


@pytest.mark.parametrize("path", sorted(PROTOCOLS.glob("*.yaml")), ids=lambda p: p.stem)
def test_named_protocols_load_and_never_use_training_trials(path):
    protocol = load_protocol(path.stem)
    assert protocol.name == path.stem
    if protocol.env == "relic/Habitat-v0":  # its scenes are not here
        assert protocol.options["episodes"].endswith("/val.json.gz")
        return
    assert protocol.options["split"] in ("val", "test")
    env = make_trial_env(protocol.env, 1, protocol.options)
    # Every trial has a number of its own, so none is evaluated twice.
    assert protocol.first_trial + protocol.trials <= env.num_trials
    env.close()


def test_changed_protocol_says_so():
    named = load_protocol("darkroom_test")
    changed = load_protocol("darkroom_test", episodes=2)
    assert (changed.name, changed.episodes) == ("darkroom_test-changed", 2)
    assert changed.hash != named.hash
    assert load_protocol("darkroom_test", episodes=named.episodes) == named


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'darkroom_test'"):
        load_protocol("darkrom_test")
    with pytest.raises(ConfigError, match="Did you mean 'episodes'"):
        load_protocol("darkroom_test", epsodes=2)
