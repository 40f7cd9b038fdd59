import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.objectnav.config import observation_space
from relic.policy.encoders.config import EncoderConfig, VisualKind, VitConfig
from relic.policy.encoders.encoders import ObservationEncoder
from relic.policy.encoders.images import ImageEncoder, ImageSpec, save_image_encoder
from relic.policy.encoders.vit import VisionTransformer

WIDTH = 16
ACTIONS = spaces.Discrete(6)
SPACES = {
    "rgb": spaces.Box(0, 255, (32, 32, 3), np.uint8),
    "depth": spaces.Box(0, np.inf, (32, 32, 1), np.float32),
    "semantic": spaces.Box(0, 30, (32, 32), np.int16),
    "gps": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "cell": spaces.Box(0, 9, (2,), np.int64),
    "unit": spaces.Box(-1, 1, (3,), np.float32),
    "level": spaces.Box(0, 4, (), np.float32),
    "goal": spaces.Discrete(20),
    "from_one": spaces.Discrete(4, start=1),
    "pair": spaces.MultiDiscrete([3, 5]),
    "flags": spaces.MultiBinary(4),
    # Names of methods of `nn.Module`, and a dot.
    "type": spaces.Discrete(2),
    "half.x": spaces.Box(-1, 1, (1,), np.float32),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _space(*keys):
    return spaces.Dict({k: SPACES[k] for k in keys})


def _observe(space, *leading, seed=0):
    space.seed(seed)
    count = int(np.prod(leading))
    drawn = [space.sample() for _ in range(count)]
    return {
        k: torch.as_tensor(np.stack([d[k] for d in drawn]).reshape(*leading, *s.shape))
        for k, s in space.spaces.items()
    }


def _encoder(space, *, actions=ACTIONS, **fields):
    # As the environments that show them say of these.
    said = {"depth": "depth", "semantic": "classes"}
    fields.setdefault("kinds", {k: v for k, v in said.items() if k in getattr(space, "spaces", ())})
    return ObservationEncoder(EncoderConfig(**fields), space, actions, width=WIDTH)


def _starts(*leading, p=0.0):
    return torch.rand(leading) < p


@pytest.mark.parametrize(
    ("keys", "features"),
    [
        (["rgb"], WIDTH),
        (["rgb", "depth"], 2 * WIDTH),
        (["gps"], 32),
        (["cell"], 2),
        (["unit", "level", "half.x"], 5),
        (["goal", "from_one", "pair", "type"], 4 * WIDTH),
        (["flags"], 4),
        (list(SPACES), 7 * WIDTH + 32 + 2 + 3 + 1 + 4 + 1),
    ],
)
@pytest.mark.parametrize("leading", [(3,), (2, 4)])
def test_width_is_the_sum_of_the_parts(keys, features, leading):
    space = _space(*keys)
    encoder = _encoder(space)
    assert encoder.num_features == features + WIDTH
    action = torch.randint(0, 6, leading)
    encoded = encoder(_observe(space, *leading), action, _starts(*leading))
    assert encoded.shape == (*leading, encoder.num_features)
    assert encoded.dtype == torch.float32


def test_steps_are_encoded_one_by_one():
    """A batch of steps equals its steps alone: nothing leaks between rows or steps."""
    space = _space(*SPACES)
    encoder = _encoder(space)
    observation, action, starts = _observe(space, 2, 3), torch.randint(0, 6, (2, 3)), _starts(2, 3)
    together = encoder(observation, action, starts)
    for row in range(2):
        for step in range(3):
            one = {k: v[row, step][None] for k, v in observation.items()}
            alone = encoder(one, action[row, step][None], starts[row, step][None])
            torch.testing.assert_close(together[row, step], alone[0], atol=1e-5, rtol=1e-5)


def test_vectors_enter_as_they_are_or_scaled_by_their_bounds():
    space = _space("cell", "unit", "level", "gps")
    observation = {
        "cell": torch.tensor([[0, 9]]),
        "unit": torch.tensor([[-1.0, 0.5, 1.0]]),
        "level": torch.tensor([1.0]),
        "gps": torch.tensor([[3.0, -4.0]]),
    }
    none = _starts(1)
    encoder = _encoder(space, prev_action=False, vector_widths={})
    encoded = encoder(observation, torch.zeros(1).long(), none)[0].tolist()
    # In the order of their names: cell, gps, level, unit.
    assert encoded == [-1.0, 1.0, 3.0, -4.0, -0.5, -1.0, 0.5, 1.0]
    raw = _encoder(space, prev_action=False, vector_widths={}, scale_vectors=False)
    encoded = raw(observation, torch.zeros(1).long(), none)[0].tolist()
    assert encoded == [0.0, 9.0, 3.0, -4.0, 1.0, -1.0, 0.5, 1.0]


def test_vectors_are_divided_by_units_of_their_own():
    space = _space("cell", "unit", "level")
    fields = {"vector_units": {"unit": (1.0, 2.0, 4.0), "cell": [3]}, "vector_widths": {}}
    observation = {
        "cell": torch.tensor([[6, 9]]),
        "unit": torch.tensor([[-1.0, 0.5, 1.0]]),
        "level": torch.tensor([1.0]),
    }
    for scaled, level in ((True, -0.5), (False, 1.0)):
        encoder = _encoder(space, prev_action=False, scale_vectors=scaled, **fields)
        encoded = encoder(observation, torch.zeros(1).long(), _starts(1))[0].tolist()
        # In the order of their names: cell, level, unit.
        assert encoded == [2.0, 3.0, level, -1.0, 0.25, 0.25]
    repeated = _encoder(
        spaces.Dict(table=spaces.Box(0, 100, (4,), np.float32)),
        prev_action=False,
        vector_units={"table": (1.0, 10.0)},
    )
    encoded = repeated({"table": torch.tensor([[1.0, 20.0, 3.0, 40.0]])}, None, _starts(1))
    assert encoded[0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_detections_are_of_the_size_of_one():
    space = observation_space(
        ("detections",), (64, 64), compass=True, prev_reward=False, where="Test"
    )
    encoder = _encoder(space, scale_vectors=False, vector_widths={})
    far = {"detections": [1.0, 200.0, 6.0, -6.0] * 20, "goal_detection": [1.0, 6.0, -6.0, 9.0, 9.0]}
    far |= {"depth_scan": [10.0] * 16, "named_place": [9.0, -9.0]}
    for key, values in far.items():
        out = encoder.vectors[f"{key}_in"](torch.tensor([values]))
        assert 1.0 <= out.abs().max() <= 4.0, key


@pytest.mark.parametrize("names", [("goal", "named"), ("zoo", "named")])
def test_one_table_names_both_what_is_asked_for_and_what_is_named(names):
    asked, named = names
    space = spaces.Dict({asked: spaces.Discrete(5), named: spaces.Discrete(6)})
    encoder = _encoder(space, prev_action=False, same_categories={named: asked})
    assert [len(p) for p in encoder.parameters()] == [5]
    everything = torch.arange(6)
    observation = {asked: everything.clamp(max=4), named: everything}
    parts = encoder(observation, torch.zeros(6).long(), _starts(6)).split(WIDTH, -1)
    asked_is_first = asked < named
    of_asked, of_named = parts if asked_is_first else parts[::-1]
    assert torch.equal(of_named[:5], of_asked[:5])
    assert not of_named[5].any()
    # It learns from both.
    of_named[2].sum().backward()
    gradient = encoder.categories[f"{asked}_in"].table.weight.grad
    assert gradient is not None
    assert gradient[2].tolist() == [1.0] * WIDTH
    # A copy is whole: its weights are its own, and still shared.
    copied = copy.deepcopy(encoder)
    with torch.no_grad():
        copied.categories[f"{asked}_in"].table.weight.zero_()
    assert not copied(observation, torch.zeros(6).long(), _starts(6)).any()
    assert encoder(observation, torch.zeros(6).long(), _starts(6)).any()


def test_categories_without_the_other_observation_have_a_table_of_their_own():
    encoder = _encoder(spaces.Dict(named=spaces.Discrete(6)), prev_action=False)
    assert [len(p) for p in encoder.parameters()] == [6]


def test_angles_enter_as_cosine_and_sine():
    space = spaces.Dict(heading=spaces.Box(-np.pi, np.pi, (1,), np.float32))
    encoder = _encoder(space, angles=("heading",), prev_action=False)
    heading = torch.linspace(-3.0, 3.0, 7)[:, None]
    out = encoder({"heading": heading}, torch.zeros(7, dtype=torch.int64), _starts(7))
    torch.testing.assert_close(out, torch.cat([heading.cos(), heading.sin()], -1))
    turned = encoder({"heading": heading + 2 * np.pi}, torch.zeros(7).long(), _starts(7))
    torch.testing.assert_close(turned, out, atol=1e-5, rtol=0)


def test_the_order_of_a_space_does_not_matter():
    keys = ["unit", "goal", "cell", "gps", "level"]
    encoded = []
    for order in (keys, keys[::-1]):
        torch.manual_seed(0)
        encoder = _encoder(spaces.Dict([(k, SPACES[k]) for k in order]))
        observation = {k: torch.ones(2, *SPACES[k].shape).long() for k in order}
        encoded.append(encoder(observation, torch.zeros(2).long(), _starts(2)))
    assert torch.equal(encoded[0], encoded[1])


def test_categories_are_told_apart():
    space = _space("pair")
    encoder = _encoder(space, prev_action=False)
    pairs = torch.tensor([[i, j] for i in range(3) for j in range(5)])
    encoded = encoder({"pair": pairs}, torch.zeros(15).long(), _starts(15))
    distance = torch.cdist(encoded, encoded) + torch.eye(15)
    assert distance.min() > 0.1
    shifted = _encoder(_space("from_one"), prev_action=False)
    numbers = torch.tensor([1, 2, 3, 4])
    encoded = shifted({"from_one": numbers}, torch.zeros(4).long(), _starts(4))
    assert torch.equal(encoded, shifted.categories["from_one_in"].table.weight)


def test_previous_action_is_not_looked_at_where_an_episode_starts():
    space = _space("unit")
    encoder = _encoder(space)
    observation = _observe(space, 6)
    starts = torch.tensor([True, False, True, False, True, False])
    first = encoder(observation, torch.tensor([0, 1, 2, 3, 4, 5]), starts)
    second = encoder(observation, torch.tensor([5, 1, 4, 3, 0, 5]), starts)
    assert torch.equal(first, second)
    # The symbol for none is none of the actions.
    table = encoder.prev_action.table.weight
    assert torch.equal(first[starts][:, -WIDTH:], table[:1].expand(3, WIDTH))
    assert torch.equal(first[~starts][:, -WIDTH:], table[[2, 4, 6]])


def test_previous_vector_action_is_not_looked_at_where_an_episode_starts():
    space = _space("unit")
    encoder = _encoder(space, actions=spaces.Box(-1, 1, (2,)))
    observation, starts = _observe(space, 2), torch.tensor([True, False])
    actions = torch.tensor([[float("nan"), 7.0], [0.1, -0.2]])
    encoded = encoder(observation, actions, starts)
    other = encoder(observation, torch.tensor([[0.0, 0.0], [0.1, -0.2]]), starts)
    assert torch.equal(encoded, other)
    zero = encoder(observation, torch.zeros(2, 2), starts)
    assert not torch.allclose(zero[0, -WIDTH:], zero[1, -WIDTH:])


def test_previous_reward_is_zero_where_an_episode_starts():
    space = _space("unit")
    encoder = _encoder(space, prev_reward=True, prev_action=False)
    assert encoder.num_features == 4
    assert list(encoder.stored_space.spaces) == ["prev_reward", "unit"]
    observation = {**_observe(space, 2), "prev_reward": torch.tensor([5.0, 5.0])}
    starts = torch.tensor([True, False])
    encoded = encoder(observation, torch.zeros(2).long(), starts)
    assert encoded[:, 3].tolist() == [0.0, 5.0]
    # An environment that observes it decides itself.
    own = spaces.Dict(prev_reward=spaces.Box(-1, 1, (1,)))
    assert _encoder(own, prev_reward=True, prev_action=False).num_features == 1


def test_privileged_pictures_are_used_only_by_name():
    space = _space("rgb", "semantic", "gps")
    hidden = {"privileged": ("semantic",)}
    assert set(_encoder(space, **hidden).stored_space.spaces) == {"rgb", "gps"}
    named = _encoder(space, keys=("semantic",), **hidden)
    assert set(named.stored_space.spaces) == {"semantic"}


def test_blind_leaves_pictures_out():
    encoder = _encoder(_space("rgb", "depth", "gps"), visual=VisualKind.BLIND)
    assert set(encoder.stored_space.spaces) == {"gps"}
    assert not encoder.images


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_frozen_encoders_store_features_and_do_not_learn(dtype):
    space = _space("rgb", "depth", "gps")
    encoder = _encoder(space, frozen=True, feature_dtype=dtype)
    width = encoder.image_encoder("rgb").num_features
    assert set(encoder.stored_space.spaces) == {"rgb_features", "depth_features", "gps"}
    assert encoder.stored_space["rgb_features"].shape == (width,)
    assert encoder.stored_dtypes["rgb_features"] == getattr(torch, dtype)
    observation, action, starts = _observe(space, 3), torch.zeros(3).long(), _starts(3)
    stored = encoder.encode(observation)
    assert {k: v.dtype for k, v in stored.items()} == encoder.stored_dtypes
    for key, part in encoder.stored_space.spaces.items():
        assert stored[key].shape == (3, *part.shape)
    from_pixels = encoder(observation, action, starts)
    from_features = encoder(stored, action, starts)
    assert torch.equal(from_pixels, from_features)
    from_features.sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in encoder.images.parameters())
    assert all(p.grad is not None for p in encoder.projections.parameters())
    encoder.train()
    assert not encoder.image_encoder("rgb").training


def test_learning_encoders_store_pixels_and_learn():
    space = _space("rgb", "goal")
    encoder = _encoder(space)
    observation = {**_observe(space, 3), "unused": torch.zeros(3)}
    stored = encoder.encode(observation)
    assert set(stored) == {"rgb", "goal"}
    assert stored["rgb"].dtype == torch.uint8
    encoder(stored, torch.zeros(3).long(), _starts(3)).sum().backward()
    assert all(p.grad is not None for p in encoder.images.parameters())


def test_cameras_that_are_alike_share_one_vit(tmp_path):
    sizes = VitConfig(width=24, depth=1, heads=3, patch=8, image_size=32)
    vit = VisionTransformer(width=24, depth=1, heads=3, patch=8, image_size=32)
    torch.save({"model": vit.state_dict()}, tmp_path / "vit.pth")
    camera = spaces.Box(0, 255, (48, 48, 3), np.uint8)
    space = spaces.Dict(left=camera, right=camera)
    path = str(tmp_path / "vit.pth")
    encoder = _encoder(
        space, visual=VisualKind.VIT, vit=sizes, checkpoint=path, feature_dtype="float32"
    )
    assert encoder.is_frozen
    assert encoder.image_encoder("left") is encoder.image_encoder("right")
    assert set(encoder.stored_space.spaces) == {"left_features", "right_features"}
    pictures = _observe(space, 2)
    features = encoder.encode(pictures)["left_features"]
    expected = vit(pictures["left"].movedim(-1, 1) / 255)
    torch.testing.assert_close(features, expected, atol=2e-3, rtol=1e-3)


def test_pretrained_encoders_are_plugged_in_by_path(tmp_path):
    encoder = ImageEncoder(EncoderConfig(feature_width=5), ImageSpec("colour", 32, 32, 3))
    save_image_encoder(tmp_path, encoder)
    fields = {"checkpoint": str(tmp_path), "feature_width": 5}
    filled = _encoder(_space("rgb"), frozen=True, **fields).image_encoder("rgb")
    for ours, theirs in zip(filled.parameters(), encoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keys": ("rbg",)}, r"encoder.keys: .*got 'rbg'. Did you mean 'rgb'"),
        ({"vector_widths": {"gsp": 8}}, r"encoder.vector_widths: .*'gsp'. Did you mean 'gps'"),
        ({"vector_units": {"gsp": (8.0,)}}, r"encoder.vector_units: .*'gsp'. Did you mean 'gps'"),
        ({"vector_units": {"gps": (1.0,) * 3}}, r"encoder.vector_units: .*got 3 for 2 numbers"),
        ({"vector_units": {"gps": 0.0}}, r"vector_units.gps: must be a list of positive numbers"),
        ({"vector_units": {"gps": (0.0,)}}, r"vector_units.gps: must be a list of positive"),
        ({"same_categories": {"gaol": "x"}}, r"encoder.same_categories: .*got 'gaol'"),
        ({"same_categories": {"a": "b", "b": "c"}}, r"same_categories.a: must name .*Name 'c'"),
        ({"angles": ("gsp",)}, r"encoder.angles: .*'gsp'. Did you mean 'gps'"),
        ({"keys": (), "prev_action": False}, r"encoder.keys: must leave at least one input"),
        ({"visual": VisualKind.VIT}, r"encoder.visual: vit must see colour pictures"),
        ({"visual": VisualKind.VIT, "keys": ("rgb",)}, r"encoder.checkpoint: must be given"),
    ],
)
def test_configurations_that_do_not_fit_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        _encoder(_space("rgb", "depth", "gps"), **fields)


@pytest.mark.parametrize(
    "bad", [spaces.Text(4), spaces.Dict(x=spaces.Discrete(2)), spaces.Box(0, 1, (5, 5, 5, 5))]
)
def test_spaces_that_cannot_be_encoded_are_named(bad):
    with pytest.raises(ValueError, match=r"observation_space\['note'\]: must be .* encoder.keys"):
        _encoder(spaces.Dict(note=bad))
    assert _encoder(spaces.Dict(note=bad, goal=spaces.Discrete(2)), keys=("goal",))


def test_missing_observations_are_named():
    encoder = _encoder(_space("gps", "goal"))
    observation = _observe(_space("gps"), 2)
    with pytest.raises(ValueError, match=r"observation: must hold 'goal', got the keys \['gps'\]"):
        encoder(observation, torch.zeros(2).long(), _starts(2))
    with pytest.raises(ValueError, match=r"observation: must hold 'goal'"):
        encoder.encode(observation)
    with pytest.raises(TypeError, match="observation_space: must be a Dict"):
        _encoder(SPACES["gps"])
