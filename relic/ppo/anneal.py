"""Learning rate and entropy coefficient as functions of the environment steps done. Pure."""

from __future__ import annotations

import math

from relic.ppo.config import Anneal, PPOConfig

_WARMUP_START = 1e-3


def learning_rate(config: PPOConfig, env_steps: int, total_steps: int) -> float:
    """Return the learning rate after so many steps of a run of `total_steps`."""
    if env_steps < config.warmup_steps:
        share = env_steps / config.warmup_steps
        return config.lr * (_WARMUP_START + (1.0 - _WARMUP_START) * share)
    done = progress(env_steps - config.warmup_steps, total_steps - config.warmup_steps)
    return config.lr * interpolate(config.lr_anneal, 1.0, config.lr_end, done)


def entropy_coefficient(config: PPOConfig, env_steps: int, total_steps: int) -> float:
    """Return the weight of the entropy bonus after so many steps of a run of `total_steps`."""
    end = config.ent_coef if config.ent_coef_end is None else config.ent_coef_end
    return interpolate(Anneal.LINEAR, config.ent_coef, end, progress(env_steps, total_steps))


def interpolate(kind: Anneal, start: float, end: float, done: float) -> float:
    """Go from `start` to `end` as `done` goes from 0 to 1."""
    if kind is Anneal.CONSTANT:
        return start
    if kind is Anneal.LINEAR:
        return start + (end - start) * done
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))


def progress(steps: int, total_steps: int) -> float:
    """Return the share of a run that is done, in [0, 1]."""
    return 1.0 if total_steps <= 0 else min(max(steps / total_steps, 0.0), 1.0)
