"""Limits of the context in acting: an agent that remembers only a part of its trial.

A limit is the cache's own: what is no longer seen is no longer kept. Steps keep the indices that
they had in the trial, and weights are those that were trained.
"""

from __future__ import annotations

from typing import Any

import psutil
import torch

from relic.policy.policy import Policy

NO_LIMIT = "none"
_KINDS = ("last", "drop_first")


def limit_fields(limit: str) -> dict[str, Any]:
    """Return what a limit asks of `SequenceModel.limit_context`.

    Args:
        limit: `none`; `last:N`, the newest N steps, the step itself included; or `drop_first:N`,
            from step N of the trial on all but the first N.

    Raises:
        ValueError: If it is none of these.
    """
    if limit == NO_LIMIT:
        return {}
    kind, _, number = limit.partition(":")
    if kind not in _KINDS or not (number.isascii() and number.isdecimal()) or int(number) < 1:
        raise ValueError(
            "context_limit: must be none, last:N or drop_first:N with N of at least 1, got "
            f"{limit!r}. Write last:512 for the newest 512 steps."
        )
    if kind == "last":
        return {"newest": int(number), "drop_first": 0}
    return {"newest": None, "drop_first": int(number)}


def limit_words(limit: str) -> str:
    """Return how a limit is called in pictures and tables."""
    kind, _, number = limit.partition(":")
    return {"last": f"last {number} steps", "drop_first": f"first {number} steps dropped"}.get(
        kind, "no limit"
    )


def limited(policy: Policy, limit: str) -> Policy:
    """Return a policy that acts within a limit, with the same weights.

    The limit stands in the place of the policy's own.

    Args:
        policy: Shares its weights with the result; returned itself if the limit is there already.
        limit: As `limit_fields` reads it.

    Raises:
        ValueError: If the memory cannot be limited.
    """
    asked = limit_fields(limit)
    if not asked:
        return policy
    config = policy.config
    if not config.memory_can.context_limit:
        raise ValueError(
            f"context_limit: must be none for a memory of kind {config.memory}, got {limit!r}. "
            "It has no steps that could be left out."
        )
    memory = config.memory_class.limit_context(config.memory_config, **asked)
    if memory == config.memory_config:
        return policy
    other = Policy(
        config.with_memory_config(memory),
        policy.observation_space,
        policy.action_space,
        max_episode_steps=policy.max_episode_steps,
        pretrained=False,
    )
    other.load_state_dict(policy.state_dict(), assign=True)
    return other.to(policy.device).train(policy.training)


def check_reach(policy: Policy, episodes: int, steps: int) -> None:
    """Check that the policy's tables of positions reach as far as trials may go.

    Args:
        policy: Who acts.
        episodes: That a trial has at least.
        steps: That a trial may have.

    Raises:
        ValueError: If a table is too short.
    """
    reach = policy.memory.reach
    if reach.episodes is not None and episodes > reach.episodes:
        raise ValueError(
            f"protocol.episodes: must be at most {reach.episodes}, for which the policy has "
            f"learned positions, got trials of {episodes} or more. Use fewer."
        )
    if reach.steps is not None and steps > reach.steps:
        raise ValueError(
            f"protocol: must keep trials within the {reach.steps} steps that the policy has "
            f"learned positions for, got up to {steps}. Use fewer episodes or steps."
        )


def check_memory(policy: Policy, rows: int, steps: int, device: str) -> None:
    """Check that what the policy is to remember fits into the memory that is free.

    Args:
        policy: Who acts, within its limit.
        rows: Trials that are remembered at once.
        steps: That a trial may have.
        device: Where the policy will be.

    Raises:
        ValueError: If it does not fit.
    """
    wanted = rows * policy.memory.bytes_per_row(steps)
    cuda = torch.device(device).type == "cuda" and torch.cuda.is_available()
    free = torch.cuda.mem_get_info(device)[0] if cuda else psutil.virtual_memory().available
    if wanted > free:
        raise ValueError(
            f"protocol: {rows} trials of up to {steps:,} steps must fit into the {free / 2**30:.1f}"
            f" GiB of memory that are free, got {wanted / 2**30:.1f} GiB. Use fewer episodes, a "
            "smaller block, fewer workers, or context_limit=last:N."
        )
