"""What observations are taken for, and that nothing of them is lost on the way."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.core.validation import KINDS as ENV_KINDS
from relic.policy.encoders.config import KINDS, EncoderConfig, VisualKind
from relic.policy.encoders.encoders import ObservationEncoder
from relic.policy.encoders.told import input_lines, narrow_inputs

GRID = spaces.Box(0, 9, (5, 5), np.int64)
NOTHING_BEFORE = torch.ones(1, dtype=torch.bool)


def _encoder(space, *, targets=(), actions=None, **fields):
    torch.manual_seed(0)
    fields.setdefault("prev_action", False)
    actions = actions or spaces.Discrete(2)
    return ObservationEncoder(EncoderConfig(**fields), space, actions, width=64, targets=targets)


def _encoded(encoder, **observation):
    seen = {k: torch.as_tensor(v)[None] for k, v in observation.items()}
    return encoder(seen, torch.zeros(1).long(), NOTHING_BEFORE)[0]


def _told_apart(space, first, second, **fields):
    """Say whether two values of a space make different inputs, with random weights."""
    encoder = _encoder(spaces.Dict(a=space), **fields)
    # Weights of their own, as a rectifier may be shut for both.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    made = [_encoded(encoder, a=np.asarray(v, space.dtype)) for v in (first, second)]
    return not torch.equal(*made)


def _filled(space, value, at=None, other=None):
    array = np.full(space.shape, value, space.dtype)
    if at is not None:
        array[at] = other
    return array


@pytest.mark.parametrize(
    ("space", "low", "high"),
    [
        (GRID, 3, 4),
        (spaces.Box(0, 1, (5, 5), np.bool_), False, True),
        (spaces.Box(0, 4, (5, 5), np.uint8), 1, 2),
        (spaces.Box(-2, 2, (9, 9), np.int8), -2, -1),
        (spaces.Box(-32768, 32767, (5, 5), np.int16), -30000, -20000),
        (spaces.Box(0, 2**31 - 1, (5, 5), np.int32), 10**6, 10**9),
        # Float pictures: beyond ten, below zero, of any size.
        (spaces.Box(0.0, 255.0, (20, 20), np.float32), 100.0, 200.0),
        (spaces.Box(-1.0, 1.0, (20, 20, 3), np.float32), -0.9, -0.1),
        (spaces.Box(-np.inf, np.inf, (20, 20), np.float32), 50.0, 60.0),
        (spaces.Box(-np.inf, np.inf, (20, 20), np.float32), -50.0, -60.0),
        (spaces.Box(0.0, 1.0, (3, 3), np.float64), 0.25, 0.5),
        (spaces.Box(0.0, 1.0, (2, 30), np.float32), 0.25, 0.5),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), 10, 200),
        (spaces.Box(0, 255, (3, 3), np.uint8), 10, 200),
        (spaces.Box(0, 1, (10, 10, 6), np.bool_), False, True),
        (spaces.Box(0.0, 1.0, (8, 8, 12), np.float32), 0.25, 0.5),
        (spaces.Box(0.0, 1.0, (2, 2, 2, 2), np.float32), 0.25, 0.5),
        (spaces.MultiDiscrete([[3, 4], [5, 6]]), 0, 2),
    ],
    ids=str,
)
def test_no_array_is_left_out_or_bent(space, low, high):
    """Whatever two values a space holds, the input tells them apart."""
    fields = {"kinds": {"a": "flat"}} if len(space.shape) == 4 else {}
    first = _filled(space, low)
    assert _told_apart(space, first, _filled(space, high), **fields)
    corner = (0,) * len(space.shape)
    assert _told_apart(space, first, _filled(space, low, corner, high), **fields)


def test_a_grid_alone_is_an_input():
    encoder = _encoder(spaces.Dict(grid=GRID))
    assert list(encoder.stored_space.spaces) == ["grid"]
    assert encoder.plan.images["grid"].role == "classes"


@pytest.mark.parametrize(
    ("space", "kind", "role"),
    [
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), None, "colour"),
        (spaces.Box(0, 255, (7, 7, 3), np.int64), None, "colour"),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), "classes", "classes"),
        (spaces.Box(0, 10, (7, 7, 3), np.uint8), None, "classes"),
        (spaces.Box(0, 10, (7, 7, 3), np.uint8), "numbers", "numbers"),
        (spaces.Box(0.0, 255.0, (20, 20), np.float32), None, "numbers"),
        (spaces.Box(0.0, 255.0, (20, 20), np.float32), "depth", "depth"),
        (spaces.Box(0.0, 255.0, (20, 20), np.float32), "flat", "vector"),
        (spaces.Box(0, 9, (2,), np.int64), None, "vector"),
        (spaces.Box(0, 9, (2,), np.int64), "classes", "categories"),
        (spaces.Box(0.0, 1.0, (2, 30), np.float32), None, "vector"),
        (spaces.Box(0, 255, (3, 40, 40), np.uint8), "colour", "colour"),
    ],
)
def test_shape_type_and_bounds_decide_or_what_is_said(space, kind, role):
    plan = _encoder(spaces.Dict(a=space), kinds={} if kind is None else {"a": kind}).plan
    parts = {"vector": plan.vectors, "categories": plan.categories}
    assert "a" in parts.get(role, plan.images)
    if "a" in plan.images:
        assert plan.images["a"].role == role


def test_class_numbers_of_several_channels_have_embeddings_of_their_own():
    space = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    encoder = _encoder(spaces.Dict(a=space), kinds={"a": "classes"})
    picture = np.zeros((1, 7, 7, 3), np.uint8)
    picture[..., 1], picture[..., 2] = 7, 255
    embedded = encoder.image_encoder("a").normalise(torch.from_numpy(picture))
    table = encoder.image_encoder("a").classes.weight
    assert embedded.shape == (1, 7, 7, 24)
    assert torch.equal(embedded[0, 3, 3], table[[0, 256 + 7, 512 + 255]].flatten())


def test_number_pictures_are_scaled_channel_by_channel():
    low, high = np.zeros((4, 5, 3), np.float32), np.ones((4, 5, 3), np.float32)
    high[..., 1], low[..., 2] = 1000, -np.inf
    encoder = _encoder(spaces.Dict(a=spaces.Box(low, high)))
    picture = torch.tensor([0.25, 250.0, -70.0]).expand(1, 4, 5, 3)
    scaled = encoder.image_encoder("a").normalise(picture)
    torch.testing.assert_close(scaled[0, 2, 2], torch.tensor([-0.5, -0.5, -70.0]))


def test_a_policy_without_input_is_refused():
    space = spaces.Dict(grid=GRID, map=spaces.Box(0.0, 1.0, (3,)))
    for fields in (
        {"privileged": ("grid", "map")},
        {"privileged": ("map",), "visual": VisualKind.BLIND},
    ):
        with pytest.raises(ValueError, match=r"keys: must leave an observation as input, got none"):
            _encoder(space, prev_action=True, **fields)
    with pytest.raises(ValueError, match="map is left out, as it is for learning only"):
        _encoder(spaces.Dict(map=space["map"]), targets=["map"], prev_action=True)
    for empty in (spaces.Box(0.0, 1.0, (0,)), spaces.Box(0, 255, (0, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match="a is left out, as it holds no numbers"):
            _encoder(spaces.Dict(a=empty), prev_action=True)
        with pytest.raises(ValueError, match=r"keys: must name observations that hold numbers"):
            _encoder(spaces.Dict(a=empty, map=space["map"]), keys=("a", "map"))
    # Said outright, it is an experiment.
    assert _encoder(space, keys=(), prev_action=True).num_features == 64


@pytest.mark.parametrize(
    ("space", "fields", "message"),
    [
        (spaces.Box(0, 255, (3, 40, 40), np.uint8), {}, r"\['a'\].*Move the channels last, or say"),
        (spaces.Box(0, 1, (4, 5, 5, 5)), {}, r"\['a'\].*kinds.a=flat"),
        (GRID, {"kinds": {"b": "flat"}}, r"encoder.kinds: must name .*got 'b'"),
        (GRID, {"privileged": ("b",)}, r"encoder.privileged: must name .*got 'b'"),
        (GRID, {"kinds": {"a": "color"}}, r"kinds.a: unknown 'color'.*Did you mean 'colour'"),
        (spaces.Discrete(3), {"kinds": {"a": "classes"}}, r"kinds.a: must be of a Box"),
        (spaces.Box(0, 9, (2, 9), np.int64), {"kinds": {"a": "classes"}}, r"kinds.a: .*Use flat"),
        (spaces.Box(0, 9, (9,)), {"kinds": {"a": "depth"}}, r"kinds.a: depth must be pictures"),
        (spaces.Box(0, 9.0, (9,)), {"kinds": {"a": "classes"}}, r"kinds.a: classes must be whole"),
        (spaces.Text(5), {}, r"\['a'\]: must be a Box.*Turn it into numbers"),
        (
            spaces.Discrete(10**12),
            {},
            r"\['a'\]: must have at most 1,000,000 cat.*1,000,000,000,000\.",
        ),
        (spaces.MultiDiscrete([10**6, 2]), {}, r"\['a'\]: must have at most .*got 1,000,002\."),
        (spaces.MultiDiscrete([2**62] * 4), {}, r"\['a'\]: must have at most .*got 18,446,"),
    ],
)
def test_what_cannot_be_taken_for_anything_is_named(space, fields, message):
    with pytest.raises(ValueError, match=message):
        _encoder(spaces.Dict(a=space), **fields)


def test_names_that_differ_in_a_dot_only_keep_their_own_weights():
    vector, goal = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3)
    space = spaces.Dict(
        {"a.b": vector, "a_b": vector, "g.x": goal, "g_x": goal, "g_x_in": goal, "g.x_in": goal}
    )
    encoder = _encoder(space, vector_widths={"a.b": 5, "a_b": 7})
    assert encoder.num_features == 5 + 7 + 4 * 64
    tables = [p for name, p in encoder.named_parameters() if name.startswith("categories")]
    assert len(tables) == 4
    zero = {"a.b": np.zeros(2, np.float32), "a_b": np.zeros(2, np.float32)}
    seen = {**zero, **dict.fromkeys(("g.x", "g_x", "g_x_in", "g.x_in"), 0)}
    first = _encoded(encoder, **seen)
    for key in seen:
        other = np.ones(2, np.float32) if key in zero else 1
        assert not torch.equal(first, _encoded(encoder, **{**seen, key: other})), key


def test_features_of_frozen_pictures_do_not_take_the_name_of_an_observation():
    camera = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    space = spaces.Dict(a=camera, a_features=spaces.Box(-1.0, 1.0, (2,)))
    encoder = _encoder(space, frozen=True)
    seen = {"a": torch.zeros(1, 16, 16, 3, dtype=torch.uint8), "a_features": torch.ones(1, 2)}
    stored = encoder.encode(seen)
    assert set(stored) == {"a_features", "a_features_"}
    assert torch.equal(stored["a_features"], torch.ones(1, 2))
    action = torch.zeros(1).long()
    raw, again = (encoder(o, action, NOTHING_BEFORE) for o in (seen, stored))
    assert torch.equal(raw, again)


def test_each_observation_has_a_line():
    space = spaces.Dict(
        {
            "rgb": spaces.Box(0, 255, (40, 40, 3), np.uint8),
            "grid": GRID,
            "map": GRID,
            "far": spaces.Box(0.0, np.inf, (20, 20)),
            "field": spaces.Box(-2.0, 2.0, (20, 20)),
            "gps": spaces.Box(-np.inf, np.inf, (2,)),
            "compass": spaces.Box(-np.pi, np.pi, (1,)),
            "goal": spaces.Discrete(4),
            "pair": spaces.MultiDiscrete([3, 4]),
            "goal_places": spaces.Box(-1.0, 1.0, (8, 2)),
        }
    )
    encoder = _encoder(space, privileged=("map",), kinds={"far": "depth"}, prev_reward=True)
    assert input_lines(encoder) == [
        "observation compass: vector of 1, as cosines and sines",
        "observation far: picture of 20 x 20 depths from 0 to 10 m, by small_cnn",
        "observation field: picture of 20 x 20 numbers, scaled by their bounds, by small_cnn",
        "observation goal: one of 4 categories, embedded",
        "observation goal_places: left out, as the agent must not know it "
        "(policy.encoder.keys can name it)",
        "observation gps: vector of 2, not scaled, through a layer of 32",
        "observation grid: picture of 5 x 5 class numbers, each of 10 with an embedding, "
        "by small_cnn",
        "observation map: left out, as the agent must not know it "
        "(policy.encoder.keys can name it)",
        "observation pair: 2 categories of 3, 4, embedded",
        "observation prev_reward: the reward of the step before",
        "observation rgb: picture of 40 x 40 with 3 colours, by small_cnn",
    ]


def test_scaling_that_leaves_little_is_said():
    space = spaces.Dict(
        {
            "place": spaces.Box(-100.0, 100.0, (2,)),
            "still": spaces.Box(-100.0, 100.0, (2,)),
            "wide": spaces.Box(-100.0, 100.0, (2,)),
            "raw": spaces.Box(-np.inf, np.inf, (2,)),
            "image": spaces.Box(0, 255, (7, 7, 3), np.uint8),
            "photo": spaces.Box(0, 255, (7, 7, 3), np.uint8),
            "field": spaces.Box(0.0, 1000.0, (5, 5)),
        }
    )
    encoder = _encoder(space)
    ramp_NT = torch.linspace(0, 1, 128).reshape(2, 64)
    place = torch.stack([ramp_NT * 3, ramp_NT * 150], -1)
    picture = torch.zeros(2, 64, 7, 7, 3, dtype=torch.uint8)
    stored = {
        "place": place,
        "still": torch.full((2, 64, 2), 5.0),
        "wide": place * 40,
        "raw": place * 1e-3,
        "image": picture + (10 * ramp_NT)[..., None, None, None].byte(),
        "photo": picture + (250 * ramp_NT)[..., None, None, None].byte(),
        "field": (20 * ramp_NT)[..., None, None].expand(2, 64, 5, 5),
    }
    lines = {line.split(":")[0]: line for line in narrow_inputs(encoder, stored)}
    assert sorted(lines) == ["observation field", "observation image", "observation place"]
    assert "uses 1.5 % of the range of 1 of its 2 numbers" in lines["observation place"]
    assert "policy.encoder.vector_units.place" in lines["observation place"]
    assert "uses 3.9 % of its range in" in lines["observation image"]
    assert "policy.encoder.kinds.image=classes" in lines["observation image"]


def test_environments_and_policies_know_the_same_kinds():
    assert ENV_KINDS == KINDS
