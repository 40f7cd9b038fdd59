"""The recall of what the agent's own frozen encoder found, without a word from the environment."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from relic.policy.auxiliary_config import RecallConfig
from relic.policy.config import PolicyConfig
from relic.policy.encoders.config import EncoderConfig, SightingsConfig
from relic.policy.encoders.sightings import BEARING_SHIFT, MIN_DISTANCE
from relic.policy.memory.config import TransformerConfig
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch

ROWS, STEPS, CATEGORIES, COLUMNS = 3, 14, 5, 2
SPACE = spaces.Dict(
    rgb=spaces.Box(0, 255, (32, 32, 3), np.uint8),
    gps=spaces.Box(-100, 100, (2,), np.float32),
    compass=spaces.Box(-np.pi, np.pi, (1,), np.float32),
    goal=spaces.Discrete(CATEGORIES),
)
TOLD = spaces.Dict(
    **SPACE.spaces,
    goal_recall=spaces.Box(-100, 100, (3,), np.float32),
    detections=spaces.Box(-100, 100, (4 * CATEGORIES,), np.float32),
)
FOUND = {"seen": None, "goal_seen": None}


def make_policy(space=SPACE, encoder=None, **recall):
    torch.manual_seed(0)
    known = {
        "scale_vectors": False,
        "keys": ("rgb", "gps", "compass", "goal"),
        "frozen": True,
        "feature_width": 3 * CATEGORIES * COLUMNS + 8,
        "sightings": SightingsConfig(columns=COLUMNS),
    }
    config = PolicyConfig(
        encoder=EncoderConfig(**(known | (encoder or {}))),
        transformer=TransformerConfig(num_layers=1, num_heads=2, width=16, mlp_width=32),
        recall=RecallConfig(**({"relabelled": 0.3} | FOUND | recall)),
    )
    return Policy(config, space, spaces.Discrete(4), max_episode_steps=STEPS)


def make_batch():
    draw, shape = torch.Generator().manual_seed(1), (ROWS, STEPS)
    features = 3.0 * torch.rand((*shape, 3 * CATEGORIES * COLUMNS + 8), generator=draw)
    evidence = 5.0 * torch.rand((*shape, CATEGORIES, COLUMNS), generator=draw)
    evidence *= torch.rand((*shape, CATEGORIES, 1), generator=draw) < 0.3
    evidence[:, :3] = 0.0  # at first nothing is found
    features[..., : CATEGORIES * COLUMNS] = evidence.flatten(-2)
    starts = torch.zeros(shape, dtype=torch.bool)
    starts[:, 0] = True
    action = torch.randint(0, 4, shape, generator=draw)
    observation = {
        "rgb_features": features.half(),
        "gps": 4 * torch.randn((*shape, 2), generator=draw),
        "compass": torch.randn((*shape, 1), generator=draw),
        "goal": torch.randint(0, CATEGORIES, shape, generator=draw),
    }
    return SequenceBatch(observation, action, torch.roll(action, 1, 1), starts)


def after(batch, step):
    """Return the steps behind a cut."""
    observation = {key: column[:, step:] for key, column in batch.observation.items()}
    columns = (batch.action, batch.prev_action, batch.episode_starts)
    return SequenceBatch(observation, *(column[:, step:] for column in columns))


def places_in_view(batch, n, t, least):
    """Derive with complex numbers what one step shows: forward is real, left imaginary."""
    features = batch.observation["rgb_features"][n, t].double().numpy()
    tables_3GC = features[: 3 * CATEGORIES * COLUMNS].reshape(3, CATEGORIES, COLUMNS)
    forward, right = batch.observation["gps"][n, t].tolist()
    turned = np.exp(1j * float(batch.observation["compass"][n, t]))
    places = {}
    for c in range(CATEGORIES):
        best = int(tables_3GC[0, c].argmax())
        evidence, distance, bearing = tables_3GC[:, c, best]
        if evidence >= least:
            seen = MIN_DISTANCE * math.exp(distance) * np.exp(-1j * (bearing - BEARING_SHIFT))
            at = complex(forward, -right) + seen * turned
            places[c] = (at.real, -at.imag)
    return places


@pytest.mark.parametrize("least", [2.0, 4.0])
def test_labels_equal_a_slow_derivation_from_what_the_encoder_says(least):
    batch = make_batch()
    policy = make_policy(least_evidence=least)
    head = policy.auxiliary["recall"]
    uniform = torch.rand((ROWS, STEPS), generator=torch.Generator().manual_seed(4))
    lesson = head.lesson(batch, uniform)  # pyright: ignore
    answers = []
    for asked in (batch, lesson):
        with torch.no_grad():
            output = policy.evaluate_actions(asked)
        losses = policy.auxiliary_losses(output, asked)["recall"]
        answers.append((asked.observation["goal"], output.auxiliary["recall"], losses))
    empty = known_goals = 0
    for n in range(ROWS):
        last: dict[int, tuple[float, float]] = {}
        for t in range(STEPS):
            last |= places_in_view(batch, n, t, least)
            drawn = int(lesson.observation["goal"][n, t])
            if last:
                assert drawn == sorted(last)[int(float(uniform[n, t]) * len(last))]
            else:
                assert drawn == int(batch.observation["goal"][n, t])
                empty += 1
            for goal, guess, losses in answers:
                place = last.get(int(goal[n, t]))
                known_goals += place is not None
                assert bool(losses.metrics["recall_share"][n, t]) == (place is not None)
                normal = torch.distributions.Normal(guess.mean[n, t], guess.log_std[n, t].exp())
                loss = 0.0 if place is None else -normal.log_prob(torch.tensor(place)).sum()
                assert float(losses.losses["recall_loss"][n, t]) == pytest.approx(
                    float(loss), rel=1e-3, abs=1e-3
                )
    assert empty > 0
    assert known_goals > 20


def test_behind_a_cut_only_what_was_in_view_since_is_answered():
    """A constant prefix is no part of the steps, so what was last in view in it has no loss."""
    batch, cut = make_batch(), 8
    head = make_policy(least_evidence=2.0).auxiliary["recall"]
    whole = head._target(batch)[:, cut:]  # pyright: ignore
    part = head._target(after(batch, cut))  # pyright: ignore
    known, known_before = part[..., 0] > 0, whole[..., 0] > 0
    assert torch.equal(part[known], whole[known])
    assert known.any()
    assert (known_before & ~known).any()
    assert not (known & ~known_before).any()


def test_nothing_that_the_environment_knows_is_kept():
    policy = make_policy(TOLD)
    assert set(policy.stored_space.spaces) == {"rgb_features", "gps", "compass", "goal"}
    told = make_policy(TOLD, seen="detections")
    assert {"detections", "goal_recall"} < set(told.stored_space.spaces)


@pytest.mark.parametrize(
    ("encoder", "recall", "message"),
    [
        ({"sightings": None}, {}, r"recall\.seen: must name an observation .*sightings=null"),
        ({"frozen": False}, {}, r"recall\.seen: must name an observation .*frozen=false"),
        ({"sightings": SightingsConfig(position="goal")}, {}, r"recall\.position: .*'gps' and"),
        ({}, {"goal_seen": "goal_detection"}, "goal_seen: must be null where seen is null"),
        ({}, {"least_pixels": 20}, "least_pixels: must be 1 where seen is null, got 20"),
        ({}, {"target": "places"}, "target: must be goal_recall where seen is null, got places"),
        ({}, {"least_evidence": 0.0}, "least_evidence: must be positive, got 0.0"),
        (
            {},
            {"seen": "detections", "least_evidence": 3.0},
            r"least_evidence: must be 4\.0 where seen is detections, got 3\.0.*set seen=null",
        ),
    ],
)
def test_what_contradicts_it_is_refused(encoder, recall, message):
    with pytest.raises(ValueError, match=message):
        make_policy(encoder=encoder, **recall)


def test_a_token_that_tells_the_goals_place_is_refused():
    space = spaces.Dict(**SPACE.spaces, goal_detection=spaces.Box(-100, 100, (5,), np.float32))
    with pytest.raises(ValueError, match=r"leave 'goal_detection' out .*recall\.relabelled=0"):
        make_policy(space, {"keys": None})
    make_policy(space, {"keys": None}, relabelled=0.0)
