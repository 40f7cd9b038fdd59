import itertools

import numpy as np
import pytest
import torch

from relic.policy.steps import SequenceBatch
from relic.ppo.config import Objective
from relic.ppo.learner import NonFiniteLossError
from relic.ppo.loss import PARTS
from relic.ppo.reduction import GradientBuffer, Reduction
from relic.ppo.returns import Credit, TimeLimit
from relic.ppo.schedule import PrefixGradient, UpdateKind
from tests.memories import CHOICES

PASSES_GRADIENT = [PrefixGradient.FULL, PrefixGradient.DETACHED]


@pytest.mark.parametrize("prefix", PASSES_GRADIENT)
@pytest.mark.parametrize("env", ["ragged", "darkroom"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_first_ratio_is_one(training, prefix, env, groups):
    """The agent acted on exactly the context that the learner sees."""
    built = training({"lr": 3e-3}, {"prefix_gradient": prefix}, env=env, groups=groups)
    reports = built.run(3)
    assert len(reports) == 12
    assert max(r.metrics["ratio_drift_first"] for r in reports) <= 1e-5
    # The policy did move, or the test would say nothing.
    assert max(r.metrics["ratio_drift_max"] for r in reports) > 0.01
    built.collector.close()


@pytest.mark.parametrize("window", [1, 13, 1000])
def test_the_first_ratio_is_one_with_a_window_of_the_prefix(training, window):
    """The window begins anywhere in a shuffled context; what lies before it stays constant."""
    built = training({"lr": 3e-3}, {"prefix_window": window}, env="ragged", groups=2)
    reports = built.run(3)
    assert max(r.metrics["ratio_drift_first"] for r in reports) <= 1e-5
    assert max(r.metrics["ratio_drift_max"] for r in reports) > 0.01
    built.collector.close()


@pytest.mark.parametrize("prefix", PASSES_GRADIENT)
def test_the_first_ratio_of_the_newest_chunk_is_one_with_a_loss_on_several(training, prefix):
    updates = {"prefix_gradient": prefix, "loss_chunks": 2}
    built = training({"lr": 3e-3}, updates, env="ragged", groups=2)
    reports = built.run(3)
    assert max(r.metrics["ratio_drift_first"] for r in reports) <= 1e-5
    assert max(r.metrics["ratio_drift_max"] for r in reports) > 0.01
    built.collector.close()


@pytest.mark.parametrize("memory", CHOICES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_first_ratio_is_one_with_every_memory(training, memory, shuffle):
    built = training(
        {"lr": 3e-3, "credit": Credit.EPISODE if shuffle else Credit.TRIAL},
        {"shuffle": shuffle},
        memory=memory,
    )
    assert max(r.metrics["ratio_drift_first"] for r in built.run(2)) <= 1e-5


def test_the_first_ratio_is_one_with_layers_dropped(training):
    built = training({"lr": 3e-3}, transformer={"depth_dropout": 0.3}, num_envs=8)
    reports = built.run(3)
    assert max(r.metrics["ratio_drift_first"] for r in reports) <= 1e-5
    memory = built.collector.groups[0].state.memory
    assert memory.depth_mask_NL is not None
    assert (memory.depth_mask_NL == 0).any()


def test_refreshed_log_probs_bring_every_ratio_to_one(training):
    built = training({"lr": 3e-3, "update_epochs": 1}, {"refresh_log_probs": True})
    for report in built.run(2):
        # One epoch of one minibatch: every ratio is taken before the only step.
        assert report.metrics["ratio_drift_max"] <= 1e-5


def slow_context(built, row, end):
    """The time steps of one row's context, episode by episode, from its order."""
    return built.rollout.context_order_NT[row, :end].tolist()


def slow_judgement(built, row, order):
    """Log-probs, values and entropies of a context, one cached decode at a time."""
    rollout, policy = built.rollout, built.policy
    state = policy.initial_state(1, len(order))
    judged = []
    for t in order:
        starts = torch.from_numpy(rollout.episode_starts_NT[row : row + 1, t])
        if not starts:
            state.record_action(rollout.action[row : row + 1, t - 1])
        batch = SequenceBatch(
            observation={k: v[row : row + 1, t : t + 1] for k, v in rollout.observation.items()},
            action=rollout.action[row : row + 1, t : t + 1],
            prev_action=state.prev_action[:, None].clone(),
            episode_starts=starts[:, None],
        )
        output = policy.replay(batch, state)
        judged.append([float(x) for x in (output.log_prob, output.value, output.entropy)])
    return np.array(judged)


def slow_returns(built, row, end, bootstrap):
    """Advantages of one row by their recurrence, in time order."""
    rollout, ppo = built.rollout, built.learner.ppo
    advantage = np.zeros(end)
    following_value, following_advantage = bootstrap, 0.0
    for t in reversed(range(end)):
        if rollout.terminated_NT[row, t] or rollout.truncated_NT[row, t]:
            following_advantage = 0.0
            bootstrapped = rollout.truncated_NT[row, t]
            following_value = float(rollout.final_value_NT[row, t]) if bootstrapped else 0.0
        value = float(rollout.value_NT[row, t])
        delta = rollout.reward_NT[row, t] + ppo.gamma * following_value - value
        advantage[t] = delta + ppo.gamma * ppo.gae_lambda * following_advantage
        following_value, following_advantage = value, advantage[t]
    return advantage


def slow_parts(built, planned, bootstrap, normalize):
    """The loss of an update from its definition, row by row and step by step."""
    rollout, ppo = built.rollout, built.learner.ppo
    rows = []
    for row in range(rollout.num_envs):
        order = slow_context(built, row, planned.at_step)
        judged = slow_judgement(built, row, order)
        advantage = slow_returns(built, row, planned.at_step, float(bootstrap[row]))
        for position in range(planned.loss_from, planned.at_step):
            t = order[position]
            old_value = float(rollout.value_NT[row, t])
            old_log_prob = float(rollout.log_prob_NT[row, t])
            rows.append((*judged[position], old_log_prob, old_value, advantage[t]))
    log_prob, value, entropy, old_log_prob, old_value, advantage = np.array(rows).T
    ret = advantage + old_value
    if normalize:
        advantage = (advantage - advantage.mean()) / advantage.std()
    ratio = np.exp(log_prob - old_log_prob)
    clip = ppo.clip_coef
    surrogate = np.minimum(ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage)
    moved = old_value + np.clip(value - old_value, -clip, clip)
    error = np.maximum((value - ret) ** 2, (moved - ret) ** 2)
    kl = ratio - 1 - np.log(ratio)
    outside = np.abs(ratio - 1) > clip
    means = [-surrogate, 0.5 * error, entropy, kl, outside, np.abs(ratio - 1)]
    return [m.mean() for m in means]


@pytest.mark.parametrize(
    ("normalize", "updates"),
    [
        (False, {}),
        (True, {}),
        (True, {"loss_chunks": 2}),
        (True, {"loss_chunks": 9, "prefix_gradient": PrefixGradient.FULL}),
        (False, {"loss_chunks": 2, "prefix_window": 5}),
    ],
)
def test_the_loss_equals_its_slow_definition(training, normalize, updates):
    ppo = {"lr": 3e-3, "update_epochs": 1, "normalize_advantage": normalize}
    ppo |= {"time_limit": TimeLimit.BOOTSTRAP}
    built = training(ppo, updates, num_envs=4, num_steps=32)
    kinds = []
    for planned, expected, report in watched_updates(built, normalize):
        got = [report.metrics[name] for name in PARTS]
        np.testing.assert_allclose(got, expected, atol=2e-5)
        kinds.append(planned.kind)
    assert kinds == [UpdateKind.PARTIAL] * 3 + [UpdateKind.FULL]


def watched_updates(built, normalize):
    """Run one rollout; work out each update's loss from its definition just before it."""
    expected = []
    update = built.learner.update

    def watch(rollout, planned, *, bootstrap_N, **rest):
        expected.append((planned, slow_parts(built, planned, bootstrap_N, normalize)))
        return update(rollout, planned, bootstrap_N=bootstrap_N, **rest)

    built.learner.update = watch
    reports = built.run(1)
    return [(*e, r) for e, r in zip(expected, reports, strict=True)]


def test_partial_updates_without_learning_change_nothing(training):
    """Learning rate 0 and no shuffle: the same actions and the same full-update loss."""
    ppo = {"lr": 0.0}
    with_partial = training(ppo, {"per_rollout": 4, "shuffle": False})
    without = training(ppo, {"per_rollout": 1, "shuffle": False})
    last, only = with_partial.run(1)[-1], without.run(1)[-1]
    assert torch.equal(with_partial.rollout.action, without.rollout.action)
    for name in (*PARTS, "explained_variance", "grad_norm", "target_mean"):
        assert last.metrics[name] == pytest.approx(only.metrics[name], abs=2e-6), name


def gradient(built, rows=None):
    """The gradient of the first minibatch of the newest partial update."""
    return built.learner.gradients.flat.clone()


@pytest.mark.parametrize("prefix", list(PrefixGradient))
def test_microbatches_change_memory_only(training, prefix):
    gradients = []
    for tokens in (None, 25, 1):
        ppo = {"lr": 0.0, "update_epochs": 1, "microbatch_tokens": tokens, "max_grad_norm": 1e9}
        built = training(ppo, {"prefix_gradient": prefix, "shuffle": False})
        built.run(1)
        gradients.append(gradient(built))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-5, atol=1e-7)


def test_what_the_prefix_gradient_means(training):
    """At the same weights the three choices give the same loss but their own gradients."""
    built = {}
    for prefix in PrefixGradient:
        updates = {"prefix_gradient": prefix, "per_rollout": 2, "full_per_rollout": 0}
        ppo = {"lr": 0.0, "update_epochs": 1, "max_grad_norm": 1e9}
        built[prefix] = training(ppo, updates | {"shuffle": False})
        built[prefix].run(1)
    losses = {p: b.reports[-1].metrics["value_loss"] for p, b in built.items()}
    assert losses[PrefixGradient.FULL] == pytest.approx(losses[PrefixGradient.DETACHED], rel=1e-5)
    assert losses[PrefixGradient.FULL] != pytest.approx(losses[PrefixGradient.NONE], rel=1e-3)
    norms = [gradient(b).norm() for b in built.values()]
    for a, b in itertools.combinations(norms, 2):
        assert abs(a - b) > 1e-4 * a


def test_a_window_lies_between_a_detached_prefix_and_the_whole_gradient(training):
    def learn(**updates):
        updates |= {"per_rollout": 2, "full_per_rollout": 0, "shuffle": False}
        built = training({"lr": 0.0, "update_epochs": 1, "max_grad_norm": 1e9}, updates)
        return built.run(1)[-1].metrics["value_loss"], gradient(built)

    loss, whole = learn(prefix_gradient=PrefixGradient.FULL)
    _, detached = learn(prefix_gradient=PrefixGradient.DETACHED)
    same_loss, some = learn(prefix_window=9)
    _, everything = learn(prefix_window=1000)
    assert same_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(everything, whole, rtol=1e-5, atol=1e-7)
    for other in (whole, detached):
        assert (some - other).norm() > 1e-4 * some.norm()


def test_row_fraction_learns_from_fewer_rows(training):
    seen = []
    built = training(updates={"row_fraction": 0.5}, num_envs=6)
    evaluate_rows = built.learner.evaluate_rows
    built.learner.evaluate_rows = lambda update, group, rows: (
        seen.append((update.planned.kind, rows)),
        evaluate_rows(update, group, rows),
    )[1]
    built.run(1)
    sizes = {kind: {len(r) for k, r in seen if k is kind} for kind in UpdateKind}
    assert sizes == {UpdateKind.PARTIAL: {3}, UpdateKind.FULL: {6}}
    partial = [tuple(sorted(r)) for k, r in seen if k is UpdateKind.PARTIAL]
    assert partial[0] == partial[1]  # both epochs of an update
    assert len(set(partial)) > 1  # not every update


def test_target_kl_stops_before_the_step(training):
    ppo = {"lr": 0.05, "update_epochs": 20, "target_kl": 1e-3}
    built = training(ppo, {"per_rollout": 1})
    metrics = built.run(1)[0].metrics
    assert metrics["optimizer_steps"] < 20
    free = training(ppo | {"target_kl": None}, {"per_rollout": 1})
    assert free.run(1)[0].metrics["optimizer_steps"] == 20


def test_a_loss_that_is_not_finite_stops_with_its_batch(training):
    built = training({"num_minibatches": 2})
    built.collector.begin_rollout()
    built.collector.collect(10)
    bootstrap = built.collector.bootstrap_value()
    before = [p.detach().clone() for p in built.policy.parameters()]
    built.rollout.reward_NT[:, 4] = np.inf
    message = r"update 0 \(partial, steps 0 to 10\), optimiser step 0, rows \[\d, \d, \d\].*reward "
    with pytest.raises(NonFiniteLossError, match=message):
        built.learner.update(
            built.rollout,
            built.learner.schedule.table[0],
            groups=built.collector.groups,
            bootstrap_N=bootstrap,
            env_steps=built.collector.env_steps,
        )
    for old, new in zip(before, built.policy.parameters(), strict=True):
        assert torch.equal(old, new)


def test_cloning_learns_what_the_expert_does(training):
    built = training(
        {"objective": Objective.CLONE, "lr": 1e-2, "update_epochs": 4, "ent_coef": 0.0},
        num_envs=16,
        total_steps=10**7,
    )
    reports = built.run(8)
    assert reports[-1].metrics["policy_loss"] < 0.6 * reports[0].metrics["policy_loss"]


def test_a_run_can_start_by_cloning(training):
    """Whole rollouts clone: here the first two of four, of 240 steps each."""
    built = training({"clone_steps": 241, "expert_share": 1.0}, total_steps=960)
    shown, cloned = [], []
    for _ in range(4):
        reports = built.run(1)[-4:]
        shown.append(torch.equal(built.rollout.action, built.rollout.expert_action))
        built.rollout.expert_action.fill_(-1)
        cloned.append([r.metrics["clip_frac"] == r.metrics["approx_kl"] == 0 for r in reports])
    assert shown == [True, True, False, False]
    assert cloned == [[True] * 4] * 2 + [[False] * 4] * 2


def test_schedules_reach_the_optimiser(training):
    built = training({"lr": 1e-3, "ent_coef": 0.1, "ent_coef_end": 0.0}, total_steps=240)
    reports = built.run(1)
    assert built.collector.env_steps == 240
    rates = [r.metrics["lr"] for r in reports]
    # As each chunk began: an update with the rate of the run's end would change nothing.
    np.testing.assert_allclose(
        rates, [1e-3 * 0.5 * (1 + np.cos(np.pi * x)) for x in (0.0, 0.25, 0.5, 0.75)], atol=1e-9
    )
    entropies = [r.metrics["ent_coef"] for r in reports]
    np.testing.assert_allclose(entropies, [0.1, 0.075, 0.05, 0.025], atol=1e-9)


@pytest.mark.parametrize(
    "damage",
    [
        lambda own: own.pop("exp_avg"),
        lambda own: own.update(exp_avg_sq=0.0),
        lambda own: own.update(exp_avg=own["exp_avg"].reshape(-1)[:-1]),
        lambda own: own.update(step=torch.zeros(2)),
    ],
)
def test_moments_that_do_not_fit_are_refused(training, damage):
    built = training({"lr": 1e-3})
    built.run(1)
    state = built.learner.state_dict()
    built.learner.load_state_dict(state)
    damage(state["optimizer"]["state"][0])
    with pytest.raises(ValueError, match="moments of a parameter must"):
        built.learner.load_state_dict(state)
    built.collector.close()


def test_the_gradient_buffer_clips_as_torch_does():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    buffer = GradientBuffer(ours.parameters())
    x = torch.randn(7, 5)
    for scale in (0.01, 10.0):
        buffer.zero()
        theirs.zero_grad()
        (scale * ours(x)).square().sum().backward()
        (scale * theirs(x)).square().sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        torch.testing.assert_close(buffer.clip(0.5), norm)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)


class FourRanks(Reduction):
    world_size = 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ppo": {"num_minibatches": 4}}, r"num_minibatches: must divide num_envs.*Use 1, 2, 3, 6"),
        ({"updates": {"row_fraction": 0.4}}, r"updates\.row_fraction: must leave a multiple"),
        (
            {"ppo": {"num_minibatches": 4}, "reduction": FourRanks()},
            r"ranks: must divide rows of a minibatch, got ranks=4, rows of a minibatch=6\.",
        ),
        ({"updates": {"per_rollout": 3}}, r"updates\.per_rollout: must divide num_steps"),
    ],
)
def test_what_does_not_divide_is_refused(training, changes, message):
    with pytest.raises(ValueError, match=message):
        training(**changes)
