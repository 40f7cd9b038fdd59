"""The recall of where the goal was last in view: its loss, and what it may know."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from relic.policy.auxiliary_config import RecallConfig
from relic.policy.config import PolicyConfig
from relic.policy.encoders.config import EncoderConfig
from relic.policy.memory.config import TransformerConfig
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch

ROWS, STEPS = 3, 12
SPACE = spaces.Dict(
    gps=spaces.Box(-100, 100, (2,), np.float32),
    compass=spaces.Box(-np.pi, np.pi, (1,), np.float32),
    goal=spaces.Discrete(4),
    goal_recall=spaces.Box(-100, 100, (3,), np.float32),
)


def make_policy(space=SPACE):
    torch.manual_seed(0)
    config = PolicyConfig(
        encoder=EncoderConfig(scale_vectors=False),
        transformer=TransformerConfig(num_layers=1, num_heads=2, width=16, mlp_width=32),
        recall=RecallConfig(),
    )
    policy = Policy(config, space, spaces.Discrete(4), max_episode_steps=STEPS)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return policy


def make_batch(recall):
    draw = torch.Generator().manual_seed(1)
    shape = (ROWS, STEPS)
    starts = torch.zeros(shape, dtype=torch.bool)
    starts[:, 0] = True
    action = torch.randint(0, 4, shape, generator=draw)
    observation = {
        "gps": 4 * torch.randn((*shape, 2), generator=draw),
        "compass": torch.randn((*shape, 1), generator=draw),
        "goal": torch.randint(0, 4, shape, generator=draw),
        "goal_recall": recall,
    }
    return SequenceBatch(observation, action, torch.roll(action, 1, 1), starts)


def targets():
    draw = torch.Generator().manual_seed(2)
    seen = torch.rand((ROWS, STEPS, 1), generator=draw) < 0.6
    place = 4 * torch.randn((ROWS, STEPS, 2), generator=draw)
    return torch.cat([seen.float(), place * seen], -1)


def test_only_what_was_seen_is_to_be_recalled() -> None:
    policy, recall = make_policy(), targets()
    batch = make_batch(recall)
    output = policy.evaluate_actions(batch)
    lesson = policy.auxiliary_losses(output, batch)["recall"]
    guess = output.auxiliary["recall"]
    for n in range(ROWS):
        for t in range(STEPS):
            normal = torch.distributions.Normal(guess.mean[n, t], guess.log_std[n, t].exp())
            expected = -normal.log_prob(recall[n, t, 1:]).sum() * recall[n, t, 0]
            torch.testing.assert_close(lesson.losses["recall_loss"][n, t], expected)
            away = (guess.mean[n, t] - recall[n, t, 1:]).norm() * recall[n, t, 0]
            torch.testing.assert_close(lesson.metrics["recall_error"][n, t], away)
    assert 0.3 < lesson.metrics["recall_share"].mean() < 0.9


def test_the_lesson_reaches_the_memory_but_is_no_input() -> None:
    policy = make_policy()
    one, other = make_batch(targets()), make_batch(targets() * 3.0 + 1.0)
    assert torch.equal(policy.evaluate_actions(one).value, policy.evaluate_actions(other).value)
    output = policy.evaluate_actions(one)
    policy.auxiliary_losses(output, one)["recall"].losses["recall_loss"].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.memory.parameters())


def test_without_the_observation_it_is_refused() -> None:
    bare = spaces.Dict({k: v for k, v in SPACE.spaces.items() if k != "goal_recall"})
    with pytest.raises(ValueError, match=r"policy\.recall: goal_recall must be observed with 3"):
        make_policy(bare)


CATEGORIES = 5
DETECTING = spaces.Dict(
    gps=spaces.Box(-100, 100, (2,), np.float32),
    compass=spaces.Box(-np.pi, np.pi, (1,), np.float32),
    goal=spaces.Discrete(CATEGORIES),
    goal_recall=spaces.Box(-100, 100, (3,), np.float32),
    detections=spaces.Box(-100, 100, (4 * CATEGORIES,), np.float32),
    goal_detection=spaces.Box(-100, 100, (5,), np.float32),
)


def make_teacher(space=DETECTING, relabelled=0.3, keys=None, **recall):
    config = PolicyConfig(
        encoder=EncoderConfig(scale_vectors=False, keys=keys),
        transformer=TransformerConfig(num_layers=1, num_heads=2, width=16, mlp_width=32),
        recall=RecallConfig(relabelled=relabelled, **recall),
    )
    return Policy(config, space, spaces.Discrete(4), max_episode_steps=STEPS)


def detecting_batch():
    draw = torch.Generator().manual_seed(3)
    batch, shape = make_batch(targets()), (ROWS, STEPS)
    seen = 4 * torch.randn((*shape, CATEGORIES, 4), generator=draw)
    seen[..., 0] = torch.rand(seen.shape[:-1], generator=draw) < 0.15
    seen[..., 1] = seen[..., 1].abs().ceil()
    observation = {
        **batch.observation,
        "detections": (seen * seen[..., :1]).flatten(-2),
        "goal_detection": torch.zeros(*shape, 5),
    }
    return SequenceBatch(observation, batch.action, batch.prev_action, batch.episode_starts)


@pytest.mark.parametrize("least", [1, 4])
def test_the_lesson_asks_for_what_was_in_view_and_answers_as_a_slow_loop_does(least) -> None:
    batch = detecting_batch()
    uniform = torch.rand((ROWS, STEPS), generator=torch.Generator().manual_seed(4))
    head = make_teacher(least_pixels=least).auxiliary["recall"]
    lesson = head.lesson(batch, uniform).observation  # pyright: ignore
    asked_for = set()
    for n in range(ROWS):
        last: dict[int, tuple[float, float]] = {}
        for t in range(STEPS):
            seen = batch.observation["detections"][n, t].view(CATEGORIES, 4).tolist()
            forward, right = batch.observation["gps"][n, t].tolist()
            heading = float(batch.observation["compass"][n, t])
            now: dict[int, tuple[float, float]] = {}
            for c, (flag, pixels, ahead, aside) in enumerate(seen):
                if flag:
                    # Counter-clockwise, with right the negative of left.
                    at = complex(forward, -right) + complex(ahead, -aside) * np.exp(1j * heading)
                    now[c] = (at.real, -at.imag)
                    if pixels >= least:
                        last[c] = now[c]
            goal, told = int(lesson["goal"][n, t]), lesson["goal_recall"][n, t].tolist()
            if not last:
                assert goal == int(batch.observation["goal"][n, t])
                assert told[0] == 0.0
                continue
            known = sorted(last)
            assert goal == known[int(float(uniform[n, t]) * len(known))]
            assert told == pytest.approx([1.0, *last[goal]], abs=1e-4)
            shown = [*seen[goal][2:], *now[goal]] if seen[goal][0] else [0.0] * 4
            assert lesson["goal_detection"][n, t].tolist() == pytest.approx(
                [float(seen[goal][0]), *shown], abs=1e-4
            )
            asked_for.add(goal)
    assert len(asked_for) == CATEGORIES
    same = {"gps", "compass", "detections"}
    assert all(lesson[key] is batch.observation[key] for key in same)


def test_a_lesson_without_detections_is_refused() -> None:
    bare = spaces.Dict({k: v for k, v in DETECTING.spaces.items() if k != "detections"})
    with pytest.raises(ValueError, match=r"policy\.recall\.relabelled: must be 0 where"):
        make_teacher(bare)
    make_teacher(bare, relabelled=0.0)
    blind = spaces.Dict({k: v for k, v in DETECTING.spaces.items() if k != "goal_detection"})
    with pytest.raises(ValueError, match=r"goal_detection must be observed .* goal_seen=null"):
        make_teacher(blind)


@pytest.mark.parametrize(
    "goal", [spaces.Discrete(CATEGORIES, start=1), spaces.MultiBinary(CATEGORIES), None]
)
def test_a_goal_that_questions_cannot_name_is_refused(goal):
    """Numbers that begin elsewhere would ask for other categories than the token names."""
    other = {key: space for key, space in DETECTING.spaces.items() if key != "goal"}
    space = spaces.Dict(other if goal is None else {**other, "goal": goal})
    with pytest.raises(ValueError, match=r"policy\.recall\.goal: must be observed as a Discrete"):
        make_teacher(space)
    make_teacher(space, relabelled=0.0)


@pytest.mark.parametrize("keys", [None, ("gps", "compass", "goal", "goal_detection")])
def test_inputs_that_a_lesson_would_contradict_are_refused(keys) -> None:
    """The lesson asks for another goal, and the token would still say where the first one is."""
    with pytest.raises(ValueError, match=r"encoder\.keys: must leave 'goal_detection' out") as told:
        make_teacher(keys=keys, goal_seen=None)
    assert "or set policy.recall.goal_seen=goal_detection." in str(told.value)
    make_teacher(keys=keys, goal_seen=None, relabelled=0.0)  # no lesson, no contradiction
    with pytest.raises(ValueError, match="must not name what is learned from, got 'detections'"):
        make_teacher(keys=("gps", "compass", "goal", "detections"), goal_seen=None)


def test_with_pictures_what_is_in_view_only_answers() -> None:
    policy = make_teacher(keys=("gps", "compass", "goal"), goal_seen=None)
    assert "detections" in policy.stored_space.spaces
    assert "goal_detection" not in policy.stored_space.spaces
    assert policy.encoder.plan.left_out["detections"] == "left out, as it is for learning only"
    batch = detecting_batch()
    uniform = torch.rand((ROWS, STEPS), generator=torch.Generator().manual_seed(4))
    lesson = policy.auxiliary["recall"].lesson(batch, uniform)  # pyright: ignore
    told = make_teacher().auxiliary["recall"].lesson(batch, uniform)  # pyright: ignore
    for key in ("goal", "goal_recall"):
        assert torch.equal(lesson.observation[key], told.observation[key])
    blank = {**batch.observation, "detections": torch.zeros_like(batch.observation["detections"])}
    blind = SequenceBatch(blank, batch.action, batch.prev_action, batch.episode_starts)
    assert torch.equal(policy.evaluate_actions(batch).value, policy.evaluate_actions(blind).value)


def test_in_a_whole_context_its_own_order_decides_what_can_be_recalled() -> None:
    """The environment tells recall in the order of time, and knows no shuffle."""
    batch = detecting_batch()
    head = make_teacher(relabelled=0.3).auxiliary["recall"]
    order = torch.randperm(STEPS, generator=torch.Generator().manual_seed(5))
    shuffled = {key: values[:, order] for key, values in batch.observation.items()}
    context = replace(batch, observation=shuffled)
    assert torch.equal(head._target(context), shuffled["goal_recall"])  # pyright: ignore
    target = head._target(replace(context, whole=True))  # pyright: ignore
    known = 0
    for n in range(ROWS):
        for t in range(STEPS):
            goal = int(shuffled["goal"][n, t])
            seen = shuffled["detections"][n, : t + 1].view(-1, CATEGORIES, 4)[:, goal]
            steps = seen[:, 0].nonzero()[:, 0].tolist()
            assert float(target[n, t, 0]) == bool(steps)
            if steps:
                ahead, aside = seen[steps[-1], 2:].tolist()
                heading = float(shuffled["compass"][n, steps[-1]])
                forward, right = shuffled["gps"][n, steps[-1]].tolist()
                at = complex(forward, -right) + complex(ahead, -aside) * np.exp(1j * heading)
                assert target[n, t, 1:].tolist() == pytest.approx([at.real, -at.imag], abs=1e-4)
                known += 1
    assert 5 < known < ROWS * STEPS - 3
