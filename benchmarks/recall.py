"""What teaches a memory to recall places? Supervised learning of the recall head alone.

    python benchmarks/recall.py
    python benchmarks/recall.py --questions episode            # each episode's own goal only
    python benchmarks/recall.py policy.transformer.rope_base=100
    python benchmarks/recall.py --experiment houses_small_no_expert    # from pictures

Trials are collected once per run: episodes by the memory oracle and by random walks in small train
houses. Then the policy of the experiment, with its recall head, learns from them by nothing but the
head's loss, and is asked in val houses for the goals of their episodes: how far off it is, by how
long ago the goal was last in view, as the environment knows it. Questions are one category a step
(the lesson of `policy.recall.relabelled`) or one an episode. Further arguments are configuration
keys. The last line is one JSON object.

Shapes: N rows (trials), T steps, C categories.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from timing import finish

from envs.core.vector import TrialVectorEnv
from envs.make import make_trial_env
from envs.objectnav.config import Action
from relic.noise import Stream, row_uniforms
from relic.policy.auxiliary import AuxiliaryHead
from relic.policy.policy import Policy
from relic.policy.steps import SequenceBatch
from relic.run.compose import compose_arguments

STEPS = 1024
RANDOM_SHARE = 0.4
"""Of episodes by random walks; in the others every tenth step is random."""
TRUTH = ("detections", "goal_recall")
"""What answers are compared with; what the policy does not store, it does not learn from."""
AGES = ((0, 0), (1, 100), (101, 400), (401, STEPS))
"""Steps since the goal was last in view, both included."""


def collect(
    env: TrialVectorEnv, policy: Policy, seed: int, num_steps: int = STEPS
) -> SequenceBatch:
    """Return a trial of every row."""
    rng, rows = np.random.default_rng(seed), env.num_envs
    shown, _ = env.reset(seed=seed)
    starts_N, wander_N = np.ones(rows, bool), rng.random(rows) < RANDOM_SHARE
    columns: dict[str, list[Any]] = {key: [] for key in (*policy.stored_space.spaces, *TRUTH)}
    action_TN, starts_TN = (np.zeros((num_steps, rows), kind) for kind in (np.int64, bool))
    moves = [Action.FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT]
    for t in range(num_steps):
        truth = {key: torch.as_tensor(shown[key]) for key in TRUTH}
        for key, stored in (truth | policy.encode_observation(shown)).items():
            columns[key].append(stored.clone())
        starts_TN[t] = starts_N
        walk_N = rng.choice(moves, rows, p=[0.6, 0.2, 0.2])
        wanders_N = wander_N | (rng.random(rows) < 0.1)
        action_TN[t] = np.where(wanders_N, walk_N, env.expert_actions("memory"))
        shown, _, terminated_N, truncated_N, _ = env.step(action_TN[t])
        starts_N = terminated_N | truncated_N
        wander_N = np.where(starts_N, rng.random(rows) < RANDOM_SHARE, wander_N)
    action_NT = torch.from_numpy(action_TN.T.copy())
    observation = {key: torch.stack(column, 1) for key, column in columns.items()}
    starts_NT = torch.from_numpy(starts_TN.T.copy())
    return SequenceBatch(observation, action_NT, action_NT.roll(1, 1), starts_NT)


def take(batch: SequenceBatch, rows: np.ndarray) -> SequenceBatch:
    """Return some rows."""
    index = torch.from_numpy(rows)
    observation = {key: column[index] for key, column in batch.observation.items()}
    columns = (batch.action[index], batch.prev_action[index], batch.episode_starts[index])
    return SequenceBatch(observation, *columns)


def last_seen(batch: SequenceBatch) -> np.ndarray:
    """Return the steps since each step's goal was last in view, (N, T); -1 where it never was."""
    seen_NTC = batch.observation["detections"].unflatten(-1, (-1, 4))[..., 0].numpy() > 0.5
    goal_NT1 = batch.observation["goal"].long().numpy()[..., None]
    seen_NT = np.take_along_axis(seen_NTC, goal_NT1, axis=2)[..., 0]
    step_T = np.arange(seen_NT.shape[1])
    last_NT = np.maximum.accumulate(np.where(seen_NT, step_T, -1), axis=1)
    return np.where(last_NT >= 0, step_T - last_NT, -1)


def median_errors(policy: Policy, batch: SequenceBatch) -> dict[str, float]:
    """Return the median distance in metres between guess and place, by the age of the sighting."""
    errors = []
    for first in range(0, len(batch.action), 8):
        part = take(batch, np.arange(first, min(first + 8, len(batch.action))))
        with torch.no_grad():
            guess = policy.evaluate_actions(part).auxiliary["recall"].mean
        errors.append((guess - part.observation["goal_recall"][..., 1:]).norm(dim=-1).numpy())
    error_NT, age_NT = np.concatenate(errors), last_seen(batch)
    names = {"all": age_NT >= 0}
    names |= {f"{low} to {high}": (age_NT >= low) & (age_NT <= high) for low, high in AGES}
    return {name: round(float(np.median(error_NT[chosen])), 3) for name, chosen in names.items()}


def questions(
    head: AuxiliaryHead, train: SequenceBatch, args: argparse.Namespace
) -> Iterator[SequenceBatch]:
    """Yield minibatches for ever."""
    rng = np.random.default_rng(args.seed)
    for draw in range(10**9):
        rows = rng.choice(len(train.action), args.rows, replace=False)
        batch = take(train, rows)
        if args.questions == "step":
            uniform = row_uniforms(args.seed, rows, draw, STEPS, stream=Stream.LESSON)
            batch = head.lesson(batch, torch.from_numpy(uniform))
        yield batch


def main() -> None:
    """Collect, train, and print what is recalled."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--experiment", default="houses_small_detections")
    parser.add_argument("--questions", choices=("step", "episode"), default="step")
    parser.add_argument("--tokens", type=float, default=2.4e6)
    parser.add_argument("--trials", type=int, default=192)
    parser.add_argument("--rows", type=int, default=4, help="of a minibatch")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    config = compose_arguments([f"experiment={args.experiment}", *args.overrides])
    sensors = dict.fromkeys([*config.env.options["sensors"], "detections"])
    options = {**config.env.options, "sensors": list(sensors), "goal_recall": True}
    made = {
        split: make_trial_env(config.env.id, rows, {**options, "split": split})
        for split, rows in (("train", args.trials), ("val", 32))
    }
    env = made["train"]
    policy = Policy(
        config.policy,
        cast("spaces.Dict", env.single_observation_space),
        env.single_action_space,
        max_episode_steps=env.max_episode_steps,
    )
    train, val = (collect(made[split], policy, args.seed) for split in ("train", "val"))
    head = policy.auxiliary["recall"]
    assert isinstance(head, AuxiliaryHead)
    optimizer = torch.optim.Adam(policy.parameters(), args.lr)
    steps, began = round(args.tokens / args.rows / STEPS), time.process_time()
    for i, batch in zip(range(steps), questions(head, train, args), strict=False):
        for group in optimizer.param_groups:
            # Warm up, then down to a tenth by a cosine.
            falling = 0.55 + 0.45 * np.cos(np.pi * i / steps)
            group["lr"] = args.lr * min(1.0, (i + 1) / 50) * falling
        losses = head.auxiliary_losses(policy.evaluate_actions(batch).auxiliary["recall"], batch)
        loss = losses.losses["recall_loss"].sum() / losses.metrics["recall_share"].sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    spent = time.process_time() - began
    found = median_errors(policy, val)
    for age, error in found.items():
        print(f"{age:>12} steps ago: {error:.2f} m")
    results = {"cpu_s": round(spent, 1), "median_error_m": found}
    finish("recall", {**vars(args)}, torch.device("cpu"), results)


if __name__ == "__main__":
    main()
