from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal

import pytest

from relic.schema import (
    POSITIVE,
    ConfigError,
    at_least,
    build,
    check_bounds,
    differences,
    hint_at,
    leaves,
    nearest,
    to_plain,
)


class Colour(Enum):
    RED = "red"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Inner:
    lr: float = 1e-3
    epochs: Annotated[int, at_least(1)] = 4
    scale: Annotated[float | None, POSITIVE] = None

    def __post_init__(self):
        check_bounds(self)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    ppo: Inner = field(default_factory=Inner)
    colour: Colour = Colour.RED
    mode: Literal["a", "b"] = "a"
    window: int | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[float, str] = (0.0, "x")
    options: dict[str, Any] = field(default_factory=dict)


def test_values_take_their_types():
    built = build(
        Outer,
        {
            "name": "x",
            "ppo": {"lr": 1, "epochs": 2e0},
            "colour": None,
            "window": None,
            "sizes": [1, 2],
            "pair": [1, "y"],
            "options": {"split": "val"},
        },
    )
    assert built == Outer(
        name="x",
        ppo=Inner(lr=1.0, epochs=2),
        colour=Colour.NONE,
        sizes=(1, 2),
        pair=(1.0, "y"),
        options={"split": "val"},
    )
    assert isinstance(built.ppo.lr, float)
    assert isinstance(built.ppo.epochs, int)


def test_a_plain_dump_builds_the_same_configuration():
    first = build(Outer, {"name": "x", "colour": "none", "sizes": [3]})
    assert build(Outer, to_plain(first)) == first


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "pp": {}}, r"pp: unknown key\. Did you mean 'ppo'\?"),
        ({"name": "x", "ppo": {"lrr": 1}}, r"ppo\.lrr: unknown key\. Did you mean 'lr'\?"),
        ({}, r"name: must be given"),
        ({"name": 3}, r"name: must be text, got 3"),
        ({"name": "x", "ppo": {"epochs": 1.5}}, r"ppo\.epochs: must be a whole number, got 1\.5"),
        ({"name": "x", "ppo": {"epochs": True}}, r"ppo\.epochs: must be a whole number, got True"),
        (
            {"name": "x", "ppo": {"epochs": 0}},
            r"^ppo\.epochs: must be at least 1, got 0\. Use 1 or more\.",
        ),
        ({"name": "x", "ppo": {"scale": float("nan")}}, r"^ppo\.scale: must be positive, got nan"),
        ({"name": "x", "ppo": {"lr": "fast"}}, r"ppo\.lr: must be a number, got 'fast'"),
        ({"name": "x", "ppo": 3}, r"ppo: must be a mapping, got 3"),
        ({"name": "x", "colour": "rad"}, r"colour: unknown 'rad'.*red, none.*mean 'red'"),
        ({"name": "x", "mode": "c"}, r"mode: unknown 'c'\. Choose one of: a, b\."),
        ({"name": "x", "window": "w"}, r"window: must be a whole number"),
        ({"name": "x", "sizes": 3}, r"sizes: must be a list"),
        ({"name": "x", "sizes": [1, "a"]}, r"sizes\[1\]: must be a whole number"),
        ({"name": "x", "pair": [1]}, r"pair: must have 2 entries"),
        ({"name": "x", "options": 1}, r"options: must be a mapping"),
    ],
)
def test_each_mistake_is_named(data, message):
    with pytest.raises(ConfigError, match=message):
        build(Outer, data)


def test_leaves_have_dotted_names():
    assert leaves({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


@pytest.mark.parametrize(
    ("meant", "found"),
    [
        ("nosink", "sink_none"),
        ("sink_off", "sink_none"),
        ("shuffle_none", "no_shuffle"),
        ("without-shuffle", "no_shuffle"),
        ("NoRefresh", "no_refresh"),
        ("sink_kvv", "sink_kv"),
        ("node", "nodes"),
    ],
)
def test_nearest_knows_the_ways_to_say_no(meant, found):
    valid = ["no_shuffle", "no_refresh", "sink_kv", "sink_kv0", "sink_none", "none", "nodes"]
    assert nearest(meant, valid) == f"Did you mean {found!r}?"


def test_nearest_lists_all_where_nothing_is_near():
    assert nearest("zzz", ["one", "two"]) == "Choose one of: one, two."


def test_differences_name_keys_and_both_values():
    old = {"ppo": {"lr": 1, "clip": 2}, "seed": 0, "gone": 3}
    new = {"ppo": {"lr": 1, "clip": 4}, "seed": 1, "added": {"x": 5}}
    assert differences(old, new, free=("seed",)) == [
        "added.x: None -> 5",
        "gone: 3 -> None",
        "ppo.clip: 2 -> 4",
    ]
    assert differences(old, new, free=("seed", "ppo.clip", "added", "gon")) == ["gone: 3 -> None"]
    assert differences(old, old) == []


@pytest.mark.parametrize("key", ["name", "ppo", "ppo.lr", "options.split", "window"])
def test_known_keys_pass(key):
    hint_at(Outer, key)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("pppo.lr", r"pppo\.lr: unknown key\. Did you mean 'ppo'"),
        ("ppo.lrr", r"Did you mean 'lr'"),
        ("name.x", r"name is a single value"),
        ("epochs", r"epochs: unknown key\. Did you mean 'ppo\.epochs'\?"),
        ("option.lr", r"option\.lr: unknown key\. Did you mean 'options'"),
    ],
)
def test_unknown_keys_are_named_before_anything_is_composed(key, message):
    with pytest.raises(ConfigError, match=message):
        hint_at(Outer, key)
