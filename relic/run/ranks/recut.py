"""Redistributes the rows of a checkpoint over another number of ranks.

Each rank saves the state of its rows. Here that is read as the state of *some* rows, whoever had
them: from the parts of all ranks in which they lie, cut and put together.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from envs.core.hooks import cut_rows, join_rows, state_of_rows
from relic.policy.memory.sequence_model import SequenceState
from relic.ppo.final_observations import FinalObservations
from relic.ppo.rollout import Rollout
from relic.ppo.source import RowGroup

Load = Callable[[str], Any]
"""Reads a saved state by its name."""


@dataclass(frozen=True, slots=True)
class SavedRows:
    """What one rank has saved."""

    first_row: int
    """Global number of its first row."""
    num_rows: int
    state: dict[str, Any]

    @property
    def groups(self) -> list[SavedRows]:
        """Its groups of rows, which share them evenly."""
        groups = self.state["collector"]["groups"]
        each = self.num_rows // len(groups)
        memory = self.state["memory"] or [None] * len(groups)
        return [
            SavedRows(self.first_row + i * each, each, {**group, "memory": kept})
            for i, (group, kept) in enumerate(zip(groups, memory, strict=True))
        ]

    def overlap(self, rows: range) -> range:
        """Return which of some rows it has."""
        begin = max(rows.start, self.first_row)
        return range(begin, max(min(rows.stop, self.first_row + self.num_rows), begin))

    def cut(self, tree: Any, rows: range, name: str) -> Any:
        """Return a part of the rows of a tree that has all of these."""
        begin = rows.start - self.first_row
        return cut_rows(tree, begin, begin + len(rows), of=self.num_rows, name=name)


def saved_by(ranks: int, num_envs: int, load: Load) -> list[SavedRows]:
    """Read what all ranks have saved, but for the steps of the rollout."""
    each = num_envs // ranks
    return [SavedRows(r * each, each, load(f"rank{r}")) for r in range(ranks)]


def groups_of(
    parts: Sequence[SavedRows], groups: Sequence[RowGroup], first_row: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Yield the saved state of each group of this rank, and what its policy remembers if saved.

    Args:
        parts: What all ranks have saved.
        groups: The groups of this rank.
        first_row: Global number of its first row.

    Raises:
        ValueError: The state of the environment, or of the memory, cannot be cut by rows.
    """
    saved = [group for part in parts for group in part.groups]
    for group in groups:
        rows = range(first_row + group.rows.start, first_row + group.rows.stop)
        found = [(part, part.overlap(rows)) for part in saved]
        found = [(part, inside) for part, inside in found if inside]
        state = {"env": state_of_rows([part.state["env"] for part, _ in found], rows)}
        for key in ("observation", "episode_starts", "demonstrates"):
            trees = [part.cut(part.state[key], inside, key) for part, inside in found]
            state[key] = join_rows(trees, key)
        kept = None
        if found[0][0].state["memory"] is not None:
            kept = join_memories(found, group.state.memory)
        yield state, kept


def join_memories(found: Sequence[tuple[SavedRows, range]], like: SequenceState) -> dict[str, Any]:
    """Return the saved state of a policy's rows out of the parts of those who had them."""

    def to_front(state: dict[str, Any], back: bool = False) -> dict[str, Any]:
        """Move rows to the first axis of all tensors, or back to where they belong."""
        moved = dict(state)
        for key, axis in like.row_axes.items():
            ends = (0, axis) if back else (axis, 0)
            moved[key] = torch.as_tensor(state[key]).movedim(*ends).contiguous()
        return moved

    parts = []
    for part, inside in found:
        kept = part.state["memory"]
        tree = {**kept, "memory": to_front(kept["memory"])}
        parts.append(part.cut(tree, inside, "memory"))
    joined = join_rows(parts, "memory", _concatenate)
    return {**joined, "memory": to_front(joined["memory"], back=True)}


def load_rollout(
    rollout: Rollout, parts: Sequence[SavedRows], first_row: int, load_chunk: Load
) -> None:
    """Take over the unfinished rollout of this rank's rows.

    Args:
        rollout: What is filled.
        parts: What all ranks have saved.
        first_row: Global number of its first row.
        load_chunk: Reads the steps that a name stands for; one chunk at a time is in memory.

    Raises:
        ValueError: Steps are missing.
    """
    rollout.clear()
    rows = range(first_row, first_row + rollout.num_envs)
    for part in parts:
        inside = part.overlap(rows)
        if not inside:
            continue
        own = slice(inside.start - first_row, inside.stop - first_row)
        reached = 0
        for name in part.state["chunks"]:
            chunk = load_chunk(name)
            if int(chunk["begin"]) == reached:
                rollout.load_chunk(_cut_chunk(part, chunk, inside), own)
                reached = int(chunk["end"])
        rollout.size = reached
        rollout.load_columns(part.cut(part.state["rollout"], inside, "rollout"), own)


def _cut_chunk(part: SavedRows, chunk: dict[str, Any], rows: range) -> dict[str, Any]:
    """Return the steps of a part of a rank's rows."""
    chunk = dict(chunk)
    begin = rows.start - part.first_row
    finals = FinalObservations.cut(chunk.pop("finals", None), begin, begin + len(rows))
    return {**part.cut(chunk, rows, "rollout"), "finals": finals}


def _concatenate(arrays: list[Any]) -> Any:
    return torch.cat(arrays) if isinstance(arrays[0], torch.Tensor) else np.concatenate(arrays)
