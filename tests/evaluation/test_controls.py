"""Controls against a slow evaluation that builds every context step by step."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.core.vector import TrialVectorEnv
from envs.make import make_trial_env
from relic.evaluation import controls as controls_module
from relic.evaluation.controls import ContextControl, TokenLog, donor_block, refill
from relic.evaluation.evaluator import evaluate, make_env
from relic.evaluation.protocol import Protocol, Unit
from relic.noise import Stream, key, keyed_permutation, row_uniforms
from relic.policy.config import PolicyConfig
from relic.policy.policy import Policy
from relic.schema import ConfigError, build
from tests.evaluation.conftest import small_protocol
from tests.memories import CHOICES, SMALL

Episode = list[tuple[dict[str, np.ndarray], np.ndarray]]
"""What was seen and done at each step."""


def slow_unit(
    policy: Policy, protocol: Protocol, unit: Unit, context_of: Callable[[list[Episode]], list]
) -> tuple[list[Episode], list[tuple[int, float, int]]]:
    """Evaluate one unit alone; a new memory is led through its context before each episode."""
    env = make_env(replace(protocol, block=1))
    noise_key = np.array([int(key(unit.trial, unit.repeat)) & (1 << 63) - 1])
    observation, _ = env.reset(options={"trial": np.array([unit.trial])})
    past: list[Episode] = []
    outcomes, steps = [], 0
    for episode in range(protocol.episodes or 0):
        state = policy.initial_state(1, protocol.capacity(env.max_episode_steps) * 2)
        for remembered in context_of(past):
            for t, (seen, action) in enumerate(remembered):
                given = {k: torch.from_numpy(v) for k, v in seen.items()}
                policy.step(given, state, episode_starts=np.array([t == 0]))
                state.record_action(action)
        own: Episode = []
        ended = False
        while not ended:
            acted = policy.step(
                {k: torch.from_numpy(v) for k, v in observation.items()},
                state,
                episode_starts=np.array([not own]),
                noise=row_uniforms(protocol.seed, noise_key, steps, policy.noise_size),
            )
            own.append((observation, acted.action.numpy()))
            observation, _, terminated, truncated, infos = env.step(acted.action.numpy())
            ended, steps = bool(terminated[0] | truncated[0]), steps + 1
        record = infos["episode_record"]
        outcomes.append((episode, record["return"][0], record["distance_end"][0]))
        past.append(own)
    return past, outcomes


def outcomes_of(records, unit):
    chosen = [r for r in records if (r["trial"], r["repeat"]) == (unit.trial, unit.repeat)]
    return [(r["episode"], r["return"], r["distance_end"]) for r in chosen]


def test_controls_act_as_if_the_context_had_been_lived_through(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(2.0)  # small differences of the context change what is done
    protocol = small_protocol(repeats=1, block=4, episodes=5, seed=5)
    records = {c: evaluate(policy, protocol, control=c) for c in ContextControl}
    trial = 2  # the last, whose next is the first
    unit = Unit(trial, 0)

    def shuffled(past):
        keys = (5, Stream.SHUFFLE, trial, 0, len(past))
        return [past[i] for i in keyed_permutation(len(past), *keys)]

    donor, _ = slow_unit(policy, protocol, Unit(0, 0), lambda past: past)
    slow_contexts = {
        ContextControl.KEPT: lambda past: past,
        ContextControl.CLEARED: lambda past: [],
        ContextControl.SHUFFLED: shuffled,
        ContextControl.FOREIGN: lambda past: donor[: len(past)],
    }
    found = {c: outcomes_of(records[c], unit) for c in ContextControl}
    for control, slow in slow_contexts.items():
        assert found[control] == slow_unit(policy, protocol, unit, slow)[1]
    # All four act otherwise, or the above would not notice a wrong context.
    assert len(set(map(str, found.values()))) == 4


def test_controls_differ_from_the_agent_only_after_what_they_change(policy):
    protocol = small_protocol(repeats=1, episodes=5)
    kept = evaluate(policy, protocol)
    for control, equal in ((ContextControl.SHUFFLED, 2), (ContextControl.FOREIGN, 1)):
        other = evaluate(policy, protocol, control=control)
        early = [r for r in other if r["episode"] < equal]
        assert early == [r for r in kept if r["episode"] < equal]
        assert other != kept
        assert Counter(r["episode"] for r in other) == Counter(r["episode"] for r in kept)


def test_a_context_in_its_own_order_is_the_agents(policy, monkeypatch):
    monkeypatch.setattr(controls_module, "keyed_permutation", lambda size, *keys: range(size))
    protocol = small_protocol(repeats=1)
    assert evaluate(policy, protocol, control=ContextControl.SHUFFLED) == evaluate(policy, protocol)


@pytest.mark.parametrize("memory", CHOICES)
def test_refilled_memories_go_on_as_ones_that_stepped(memory):
    policy = memory_policy(memory)
    log, stepped = TokenLog(2, 9), policy.initial_state(2, 11)
    ends = np.zeros((2, 9), bool)
    ends[0, [1, 4, 8]] = ends[1, [2, 8]] = True
    starts = np.ones(2, bool)
    for t in range(9):
        acted = policy.step({"zero": torch.full((2, 1), t / 9)}, stepped, episode_starts=starts)
        log.write(acted.token, ends[:, t])
        starts = ends[:, t]
    assert [len(e) for e in log.episodes(0)] == [2, 3, 4]
    assert [len(e) for e in log.episodes(1)] == [3, 6]
    filled = policy.initial_state(2, 11)
    policy.step({"zero": torch.ones(2, 1)}, filled)  # what is forgotten
    refill(policy, filled, [1, 0], [log.episodes(1), log.episodes(0)])
    seen, noise = {"zero": torch.full((2, 1), 0.3)}, np.full((2, policy.noise_size), 0.4)
    for _ in range(2):
        one, other = (
            policy.step(seen, s, episode_starts=starts, noise=noise) for s in (stepped, filled)
        )
        assert torch.allclose(one.value, other.value, atol=1e-5)
        assert torch.equal(one.action, other.action)
        starts = np.zeros(2, bool)


def test_rows_that_remember_nothing_are_as_new():
    policy = memory_policy("transformer")
    state, fresh = (policy.initial_state(2, 4) for _ in range(2))
    seen = {"zero": torch.full((2, 1), 0.5)}
    policy.step(seen, state)
    refill(policy, state, [0, 1], [[], []])
    one, other = (policy.step(seen, s, episode_starts=np.ones(2, bool)) for s in (state, fresh))
    assert torch.equal(one.value, other.value)


def memory_policy(memory: str) -> Policy:
    config = build(PolicyConfig, {"memory": memory, **SMALL})
    torch.manual_seed(0)
    space = spaces.Dict({"zero": spaces.Box(-1.0, 1.0, (1,), np.float32)})
    return Policy(config, space, spaces.Discrete(2), max_episode_steps=9).eval()


class Quitter(TrialVectorEnv):
    """Ends an episode at once where the action says so, so that rows fall out of step."""

    def __init__(self, num_envs: int = 1, **kwargs):
        space = spaces.Dict({"zero": spaces.Box(-1.0, 1.0, (1,), np.float32)})
        super().__init__(
            num_envs, space, single_action_space=spaces.Discrete(2), dataset_name="quitter",
            num_trials=9, max_episode_steps=9, **kwargs,
        )  # fmt: skip

    def begin_trials(self, rows, trials):
        pass

    def begin_episodes(self, rows):
        pass

    def advance(self, actions):
        return np.ones(self.num_envs, np.float32), actions == 1, np.zeros(self.num_envs, bool)

    def observe_rows(self, rows, out):
        chosen = slice(None) if rows is None else rows
        out["zero"][chosen, 0] = (self.elapsed_steps / 9 - 0.5)[chosen]


@pytest.mark.parametrize("limit", [{"episodes": 6}, {"episodes": None, "steps": 40}])
@pytest.mark.parametrize("control", [ContextControl.SHUFFLED, ContextControl.FOREIGN])
def test_rows_that_are_out_of_step_fit_into_the_memory(limit, control):
    protocol = small_protocol(
        env=f"{__name__}:Quitter", options={}, trials=5, repeats=1, block=3, **limit
    )
    policy = memory_policy("transformer")
    records = evaluate(policy, protocol, control=control)
    assert records == evaluate(policy, protocol, control=control)
    per_trial = Counter(r["trial"] for r in records)
    assert set(per_trial) == set(range(5))
    if protocol.episodes:
        assert set(per_trial.values()) == {6}
    lengths = {r["length"] for r in records}
    assert len(lengths) > 2


class Halls(Quitter):
    """Two trials of the task are in one place."""

    def place_of(self, trial):
        return trial // 2


@pytest.mark.parametrize(
    ("env", "donor_of"),
    [(Quitter, {1: 2, 2: 3, 3: 4, 4: 5, 5: 1}), (Halls, {1: 2, 2: 4, 3: 4, 4: 1, 5: 1})],
)
def test_contexts_come_from_the_next_trial_in_another_place(env, donor_of):
    protocol = small_protocol(first_trial=1, trials=5, repeats=2, block=4)
    for block in protocol.blocks():
        donors = donor_block(env(1), protocol, block)
        assert (donors.index, donors.num_real) == (block.index, block.num_real)
        for unit, donor in zip(block.units, donors.units, strict=True):
            assert donor == Unit(donor_of[unit.trial], unit.repeat)


def test_contexts_of_one_place_alone_are_refused():
    protocol = small_protocol(first_trial=2, trials=2, repeats=1, block=2)
    (block,) = protocol.blocks()
    with pytest.raises(
        ConfigError, match=r"foreign needs a trial in another place .* got 2 in one"
    ):
        donor_block(Halls(1), protocol, block)


def test_the_place_of_a_trial_in_houses_is_its_house():
    env = make_trial_env(
        "relic/Houses-v0", 1, {"split": "val", "size": "small", "houses": [7, 8, 9]}
    )
    assert [env.place_of(trial) for trial in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    env.close()
