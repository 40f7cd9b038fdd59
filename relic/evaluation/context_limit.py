"""Limits of the context in acting: an agent that remembers only a part of its trial.

A limit is the cache's own: what is no longer seen is no longer kept. Steps keep the indices that
they had in the trial, and weights are those that were trained.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psutil
import torch

from relic.policy.attention.inputs import AttentionBackend
from relic.policy.config import MemoryKind, PositionKind
from relic.policy.policy import Policy

NO_LIMIT = "none"
_KINDS = ("last", "drop_first")


def limit_fields(limit: str) -> dict[str, int | None]:
    """Return the fields of the transformer's configuration that a limit sets.

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
        return {"attention_window": int(number), "drop_first": 0}
    return {"attention_window": None, "drop_first": int(number)}


def limit_words(limit: str) -> str:
    """Return how a limit is called in pictures and tables."""
    kind, _, number = limit.partition(":")
    return {"last": f"last {number} steps", "drop_first": f"first {number} steps dropped"}.get(
        kind, "no limit"
    )


def limited(policy: Policy, limit: str) -> Policy:
    """Return a policy that acts within a limit, with the same weights.

    The limit stands in the place of the policy's own. Attention is computed by what fits it, since
    a backend that was chosen for the whole trial may not.

    Args:
        policy: Shares its weights with the result; returned itself if the limit is there already.
        limit: As `limit_fields` reads it.

    Raises:
        ValueError: If the memory is no transformer.
    """
    changes: dict[str, Any] = limit_fields(limit)
    if not changes:
        return policy
    config = policy.config
    if config.memory is not MemoryKind.TRANSFORMER:
        raise ValueError(
            f"context_limit: must be none for a memory of kind {config.memory.value}, got "
            f"{limit!r}. Only a transformer's cache has steps that can be left out."
        )
    transformer = replace(config.transformer, attention_backend=AttentionBackend.AUTO, **changes)
    if transformer == config.transformer:
        return policy
    other = Policy(
        replace(config, transformer=transformer),
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
    config = policy.config.transformer
    if policy.config.memory is not MemoryKind.TRANSFORMER:
        return
    learned = PositionKind.LEARNED
    if config.episode_position is learned and episodes > config.max_episodes:
        raise ValueError(
            f"protocol.episodes: must be at most {config.max_episodes}, for which the policy has "
            f"learned positions, got trials of {episodes} or more. Use fewer."
        )
    rows = config.max_positions or 0
    runs_on = config.in_episode_position is learned and not config.reset_position
    if runs_on and steps > rows:
        raise ValueError(
            f"protocol: must keep trials within the {rows} steps that the policy has learned "
            f"positions for, got up to {steps}. Use fewer episodes or steps."
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
