"""Means over the episodes that ended in training, of all ranks together.

Legend: M measures, I indices of an episode in its trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from relic.run.distributed import Ranks

MEASURES = ("return", "length", "success", "spl")
CURVES = ("return", "success")
"""Measures that are also averaged by the episode's index in its trial."""


def summarise_episodes(
    episodes: Mapping[str, np.ndarray], ranks: Ranks
) -> tuple[int, dict[str, Any]]:
    """Average records of episodes; all ranks must call it together.

    Args:
        episodes: Records of this rank, one entry each by name; empty if none ended.
        ranks: Those that train together.

    Returns:
        How many episodes ended, and metrics: means, and means by index with None where no episode
        ended. A measure that no record has is absent.
    """
    index = np.asarray(episodes.get("episode", ()), np.int64)
    longest = torch.tensor([index.max(initial=-1) + 1], device=ranks.device)
    length = int(ranks.reduction.max(longest).item())
    sum_2MI = np.zeros((2, len(MEASURES), length))
    for i, name in enumerate(MEASURES):
        if name in episodes:
            sum_2MI[0, i] = np.bincount(index, np.asarray(episodes[name]), length)
            sum_2MI[1, i] = np.bincount(index, minlength=length)
    sum_MI, count_MI = ranks.reduction.sum(torch.from_numpy(sum_2MI).to(ranks.device)).cpu()
    metrics: dict[str, Any] = {}
    for name, sum_I, count_I in zip(MEASURES, sum_MI, count_MI, strict=True):
        if not count_I.any():
            continue
        metrics[f"{name}_mean"] = float(sum_I.sum() / count_I.sum())
        if name in CURVES:
            pairs = zip(sum_I.tolist(), count_I.tolist(), strict=True)
            metrics[f"{name}_by_episode"] = [s / c if c else None for s, c in pairs]
    return int(count_MI[0].sum()), metrics
