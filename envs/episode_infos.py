"""The infos of a step in which episodes ended, laid out as by Gymnasium in its SAME_STEP mode.

Shape suffixes: N rows, K rows whose episode ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def final_infos(
    rows: NDArray[np.int64], final_obs: NDArray[Any], record: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    """Return the infos of a step in which the episodes of `rows` ended.

    They are as `SyncVectorEnv` builds them from single environments, plus the record at the top,
    where `RecordEpisodeStatistics` and others put theirs.

    Args:
        rows: (K,).
        final_obs: objects, (N,): the last observation where an episode ended, else None.
        record: entries of the episode records, (K,) each.
    """
    num_envs = len(final_obs)
    ended_N = np.zeros(num_envs, dtype=bool)
    ended_N[rows] = True
    whole: dict[str, NDArray[Any]] = {}
    nested: dict[str, NDArray[Any]] = {}
    for name, value in record.items():
        whole[name] = np.zeros(num_envs, dtype=value.dtype)
        whole[name][rows] = value
        nested[name], nested[f"_{name}"] = whole[name].copy(), ended_N.copy()
    return {
        "final_obs": final_obs,
        "_final_obs": ended_N,
        "final_info": {"episode_record": nested, "_episode_record": ended_N.copy()},
        "_final_info": ended_N.copy(),
        "episode_record": whole,
        "_episode_record": ended_N.copy(),
    }
