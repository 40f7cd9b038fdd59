"""How right is what a frozen encoder finds? By the evidence that it is asked for.

    python benchmarks/sightings.py

Walks in val houses, by the memory oracle and at random, with the policy of
`experiment=houses_small_no_expert`. What its encoder finds in the pictures is compared with the
environment's detections: in single pictures, and as an answer to where the goal was last in view
(`policy.recall.seen=null`), beside the environment's answer. The last line is one JSON object.

Shapes: N rows (trials), T steps, C categories.
"""

from __future__ import annotations

import argparse
from typing import cast

import torch
from gymnasium import spaces
from recall import collect
from timing import finish
from torch import Tensor

from envs.make import make_trial_env
from relic.policy.policy import Policy
from relic.policy.recall import answers, last_in_view
from relic.policy.steps import SequenceBatch
from relic.run.compose import compose_arguments

EVIDENCE = (2.0, 3.0, 3.5, 4.0, 5.0, 6.0)
CLEAR = 20
"""Pixels of what an agent may be expected to see."""


def compare(policy: Policy, batch: SequenceBatch, least: float) -> dict[str, float]:
    """Return shares in per cent and median distances in metres."""
    observation = batch.observation
    found = policy.encoder.sighted(observation)
    seen_NTC4 = observation["detections"].unflatten(-1, (-1, 4))
    found_NTC, there_NTC = found.evidence_G >= least, seen_NTC4[..., 0] > 0.5
    right_NTC, clear_NTC = found_NTC & there_NTC, there_NTC & (seen_NTC4[..., 1] >= CLEAR)
    away_NTC = (found.offset_G2 - seen_NTC4[..., 2:]).norm(dim=-1)
    goal_NT, truth_NT3 = observation["goal"].long(), observation["goal_recall"]
    answer_NT3 = answers(last_in_view(found_NTC), found.place_G2, goal_NT)
    told_NT, known_NT = answer_NT3[..., 0] > 0.5, truth_NT3[..., 0] > 0.5
    both_NT = told_NT & known_NT
    off_NT = (answer_NT3[..., 1:] - truth_NT3[..., 1:]).norm(dim=-1)
    return {
        "right_of_found": _percent(right_NTC, found_NTC),
        "found_of_there": _percent(right_NTC, there_NTC),
        f"found_of_{CLEAR}_pixels": _percent(right_NTC & clear_NTC, clear_NTC),
        "median_error_m": round(float(away_NTC[right_NTC].median()), 2),
        "answered_of_known": _percent(both_NT, known_NT),
        "known_of_answered": _percent(both_NT, told_NT),
        "median_error_of_answers_m": round(float(off_NT[both_NT].median()), 2),
    }


def _percent(some: Tensor, all_of: Tensor) -> float:
    return round(100 * float(some.sum()) / float(all_of.sum()), 1)


def main() -> None:
    """Walk, and print a row for each evidence."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = compose_arguments(["experiment=houses_small_no_expert", *args.overrides])
    told = {"sensors": ["rgb", "detections"], "goal_recall": True, "split": "val"}
    env = make_trial_env(config.env.id, args.trials, {**config.env.options, **told})
    space = cast("spaces.Dict", env.single_observation_space)
    policy = Policy(
        config.policy, space, env.single_action_space, max_episode_steps=env.max_episode_steps
    )
    batch = collect(env, policy, args.seed, args.steps)
    rows = {f"{least:g}": compare(policy, batch, least) for least in EVIDENCE}
    for least, row in rows.items():
        print(f"evidence {least}: " + ", ".join(f"{k} {v:g}" for k, v in row.items()))
    finish("sightings", {**vars(args)}, torch.device("cpu"), {"by_evidence": rows})


if __name__ == "__main__":
    main()
