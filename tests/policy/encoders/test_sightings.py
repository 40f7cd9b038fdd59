"""What a token says of the objects that a pretrained encoder found in a picture."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.houses.env import HousesVectorEnv
from envs.objectnav.goals import GOAL_CATEGORIES
from relic.policy.encoders.config import EncoderConfig, SightingsConfig
from relic.policy.encoders.encoders import ObservationEncoder
from relic.policy.encoders.inputs import CategoryEncoder
from relic.policy.encoders.sightings import BEARING_SHIFT, MIN_DISTANCE, Sightings

NUM = len(GOAL_CATEGORIES)


def make_sightings(columns=4, width=6):
    categories = CategoryEncoder(spaces.Discrete(NUM), width)
    module = Sightings(SightingsConfig(columns=columns), categories, 3 * NUM * columns + 8)
    return module, categories.table.weight


def draw(leading, columns=4):
    generator = torch.Generator().manual_seed(3)
    features = torch.rand(*leading, 3 * NUM * columns + 8, generator=generator) * 3.5
    goal = torch.randint(NUM, leading, generator=generator)
    position = torch.randn(*leading, 2, generator=generator) * 4
    heading = torch.rand(*leading, 1, generator=generator) * 6 - 3
    return features, goal, position, heading


def slow_numbers(tables_3GC, category, position, heading):
    """Derive what is said of one category with complex numbers: forward real, left imaginary."""
    evidence_C, distance_C, bearing_C = tables_3GC[:, category]
    best = int(np.argmax(evidence_C))
    if evidence_C[best] <= 0:
        return np.zeros(5)
    distance = MIN_DISTANCE * math.exp(distance_C[best])
    seen = distance * np.exp(-1j * (bearing_C[best] - BEARING_SHIFT))
    place = complex(position[0], -position[1]) + seen * np.exp(1j * heading)
    offset = [seen.real / 3, -seen.imag / 3]
    return np.array([*offset, place.real / 5, -place.imag / 5, math.tanh(evidence_C[best] / 4)])


def test_numbers_equal_a_slow_derivation_and_one_object_is_named():
    module, embeddings = make_sightings()
    features, goal, position, heading = draw((5, 7))
    features[0, 0] = 0.0
    out = module(features, goal, embeddings, position, heading).detach().numpy()
    assert out.shape[-1] == module.num_features
    for n, t in np.ndindex(5, 7):
        tables = features[n, t, : 3 * NUM * 4].reshape(3, NUM, 4).double().numpy()
        pose = position[n, t].numpy(), float(heading[n, t, 0])
        np.testing.assert_allclose(
            out[n, t, :5], slow_numbers(tables, int(goal[n, t]), *pose), atol=1e-4, rtol=1e-4
        )
        rows = np.flatnonzero(
            (embeddings.detach().numpy() == out[n, t, 10:]).all(-1) & (tables[0].max(-1) > 3)
        )
        if n == t == 0:
            assert not out[n, t].any()
        if n == t == 0 or not (tables[0] > 3).any():
            assert not out[n, t, 5:].any()
            continue
        assert len(rows) == 1
        expected = slow_numbers(tables, int(rows[0]), *pose)
        np.testing.assert_allclose(out[n, t, 5:10], expected, atol=1e-4, rtol=1e-4)


def test_all_that_is_in_view_gets_its_turn():
    module, embeddings = make_sightings()
    features = torch.zeros(400, 3 * NUM * 4 + 8)
    features[:, [0, 20, 40]] = 4.0  # three categories in their first column
    position, heading = torch.randn(400, 2) * 3, torch.rand(400, 1) * 6
    goal = torch.zeros(400, dtype=torch.int64)
    named = module(features, goal, embeddings, position, heading)[:, 10:]
    shares = [(named == embeddings[row]).all(-1).float().mean() for row in (0, 5, 10)]
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0.2


def test_a_step_says_what_a_batch_says():
    module, embeddings = make_sightings()
    features, goal, position, heading = draw((4, 50))
    whole = module(features, goal, embeddings, position, heading)
    for t in (0, 17, 49):
        step = module(features[:, t], goal[:, t], embeddings, position[:, t], heading[:, t])
        torch.testing.assert_close(step, whole[:, t], rtol=1e-6, atol=1e-6)


def test_places_are_those_of_the_environment():
    """Told exactly what shows and where, the token has the places that detections have."""
    env = HousesVectorEnv(4, split="val", sensors=("detections",), compass=True, seed=2)
    module, embeddings = make_sightings(columns=1)
    observation, _ = env.reset(seed=2)
    compared = 0
    for step in range(30):
        seen_NG4 = torch.from_numpy(observation["detections"]).reshape(4, NUM, 4)
        distance = torch.hypot(seen_NG4[..., 2], seen_NG4[..., 3]).clamp(min=MIN_DISTANCE)
        bearing = torch.atan2(seen_NG4[..., 3], seen_NG4[..., 2]) + BEARING_SHIFT
        tables = [4 * seen_NG4[..., 0], (distance / MIN_DISTANCE).log(), bearing]
        features = torch.cat([*tables, torch.zeros(4, 8)], -1)
        named = torch.from_numpy(observation["named"]).long()
        pose = [torch.from_numpy(observation[key]) for key in ("gps", "compass")]
        out = module(features, named.clamp(max=NUM - 1), embeddings, *pose)
        there = named < NUM
        place = torch.from_numpy(observation["named_place"])[there] / 5
        torch.testing.assert_close(out[there, 2:4], place, atol=1e-4, rtol=1e-4)
        compared += int(there.sum())
        observation, *_ = env.step(np.full(4, 1 + step % 3))
    assert compared > 20


def make_encoder(**fields):
    space = spaces.Dict(
        {
            "rgb": spaces.Box(0, 255, (32, 32, 3), np.uint8),
            "gps": spaces.Box(-100, 100, (2,), np.float32),
            "compass": spaces.Box(-np.pi, np.pi, (1,), np.float32),
            "goal": spaces.Discrete(NUM),
        }
    )
    config = EncoderConfig(
        sightings=SightingsConfig(**fields), frozen=True, feature_width=3 * NUM * 4 + 8
    )
    return ObservationEncoder(config, space, spaces.Discrete(4), width=16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "gps"}, r"encoder\.sightings\.source: must be observed pictures, got 'gps'"),
        ({"category": "gaol"}, r"sightings\.category: .*got 'gaol'. Did you mean 'goal'"),
        ({"position": "compass"}, r"sightings\.position: must be an observed vector of 2 numbers"),
        ({"heading": "gps"}, r"sightings\.heading: must be an observed vector of 1 number"),
        ({"columns": 9}, r"encoder\.sightings: rgb must have more than .* = 540 features"),
        ({"units": (0.0, 1.0)}, r"units: must be two positive numbers"),
    ],
)
def test_what_cannot_be_read_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(**fields)


def test_an_encoder_reads_them():
    encoder = make_encoder()
    assert encoder.sightings is not None
    generator = np.random.default_rng(0)
    observation = {
        "rgb": generator.integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8),
        "gps": generator.normal(size=(2, 3, 2)).astype(np.float32),
        "compass": generator.normal(size=(2, 3, 1)).astype(np.float32),
        "goal": generator.integers(0, NUM, (2, 3)),
    }
    starts, action = torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.int64)
    raw = encoder(observation, action, starts)
    stored = encoder.encode(observation)
    assert raw.shape == (2, 3, encoder.num_features)
    torch.testing.assert_close(encoder(stored, action, starts), raw)
