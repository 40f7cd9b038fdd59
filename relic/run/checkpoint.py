"""What a checkpoint of a run holds, how it is written, and how a run takes it up again.

A checkpoint is taken at an update boundary, after shuffle and refresh, where the policy's memory
follows from weights and rollout; so the memory is recomputed, by the same code, not saved (but
where it was not refreshed there). The steps of an unfinished rollout never change again, so they
lie in append-only files beside the checkpoints, and a checkpoint names those that it needs.

State is a tree of dicts with string or integer keys, lists, None, booleans, numbers, strings, numpy
arrays and torch tensors. On disk it is JSON for the tree and safetensors for the arrays: neither
can execute code. Tuples come back as lists.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from relic.files import StateError, sync
from relic.policy.loading import load_policy_weights, save_policy
from relic.ppo.loop import restore_memory
from relic.run.components import Components
from relic.run.distributed import Ranks
from relic.run.ranks.recut import SavedRows, groups_of, load_rollout, saved_by
from relic.run.run_directory import CheckpointStore, Saved

FORMAT = 1
_CHUNKS = "rollout"
"""Directory of the steps of unfinished rollouts, beside the checkpoints."""
# Marks of what is no JSON. Tree and arrays are kept apart, and neither format can execute code.
_ARRAY = "__array__"
_TENSOR = "__tensor__"
_ITEMS = "__items__"


def save_state(directory: Path, name: str, state: Any) -> None:
    """Write `state` as `name`.json and, where it holds any, `name`.{numpy,torch}.safetensors.

    Every file is flushed to disk before this returns, so that a later rename publishes it whole.

    Raises:
        TypeError: If the state holds something else than the types above.
    """
    arrays: dict[str, np.ndarray] = {}
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(state, name, arrays, tensors)
    directory.mkdir(parents=True, exist_ok=True)
    if arrays:
        save_numpy(arrays, directory / f"{name}.numpy.safetensors")
        sync(directory / f"{name}.numpy.safetensors")
    if tensors:
        save_torch(tensors, directory / f"{name}.torch.safetensors")
        sync(directory / f"{name}.torch.safetensors")
    path = directory / f"{name}.json"
    path.write_text(json.dumps(tree))
    sync(path)


def load_state(directory: Path, name: str) -> Any:
    """Read what `save_state` wrote. Tensors come back on the CPU.

    Raises:
        StateError: If a file is missing or damaged; it names the file.
    """
    path = directory / f"{name}.json"
    try:
        tree = json.loads(path.read_text())
    except FileNotFoundError:
        raise StateError(
            f"{path}: must exist, found nothing. The checkpoint is incomplete."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StateError(f"{path}: must be JSON, but it is damaged ({error}).") from None
    arrays = _load(load_numpy, directory / f"{name}.numpy.safetensors")
    tensors = _load(load_torch, directory / f"{name}.torch.safetensors")
    try:
        return _unpack(tree, arrays, tensors)
    except KeyError as error:
        raise StateError(f"{path}: refers to the array {error}, which its files lack.") from None


def _pack(
    value: Any, key: str, arrays: dict[str, np.ndarray], tensors: dict[str, torch.Tensor]
) -> Any:
    if isinstance(value, dict):
        packed = {k: _pack(v, f"{key}.{k}", arrays, tensors) for k, v in value.items()}
        if all(isinstance(k, str) for k in value):
            return packed
        # Optimisers number their parameters; JSON would turn the numbers into text.
        if all(isinstance(k, int) for k in value):
            return {_ITEMS: [[k, v] for k, v in packed.items()]}
        raise TypeError(f"{key}: keys must be all text or all integers, got {list(value)!r}.")
    if isinstance(value, list | tuple):
        return [_pack(v, f"{key}.{i}", arrays, tensors) for i, v in enumerate(value)]
    if isinstance(value, np.ndarray):
        # safetensors has no zero-dimensional numpy arrays; the shape restores them.
        arrays[key] = np.ascontiguousarray(value).reshape(-1)
        return {_ARRAY: key, "shape": list(value.shape)}
    if isinstance(value, torch.Tensor):
        # A clone, as safetensors refuses tensors that share memory.
        tensors[key] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: key}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{key}: a state must hold plain data and arrays only, got {type(value)}.")


def _unpack(tree: Any, arrays: dict[str, np.ndarray], tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, list):
        return [_unpack(v, arrays, tensors) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if _ITEMS in tree:
        return {k: _unpack(v, arrays, tensors) for k, v in tree[_ITEMS]}
    if _ARRAY in tree:
        return arrays[tree[_ARRAY]].reshape(tree["shape"])
    if _TENSOR in tree:
        return tensors[tree[_TENSOR]]
    return {k: _unpack(v, arrays, tensors) for k, v in tree.items()}


def _load(loader: Any, path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return loader(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise StateError(
            f"{path}: must be a safetensors file, but it is damaged ({error})."
        ) from None


class RunSaver:
    """Saves and restores the parts of a run in this process; all ranks call it together."""

    def __init__(self, store: CheckpointStore, parts: Components, ranks: Ranks):
        """Remember what is saved."""
        self._store, self._parts, self._ranks = store, parts, ranks
        self._chunk_root = store.directory / _CHUNKS
        self._written: list[str] = []
        """Chunk files of the rollout that is under way, by name."""
        self._written_to = 0
        self._written_of = 0
        """Steps of a row before that rollout: which one it is."""

    def save(self, run_state: dict[str, Any]) -> Saved:
        """Write a checkpoint.

        Args:
            run_state: The trainer's own counters.
        """
        env_steps = self._parts.collector.env_steps
        # Before the checkpoint that names them: a file without a name costs space, a name without a
        # file costs the run.
        self._write_chunks()

        def write(path: Path) -> None:
            self._ranks.barrier()  # the directory is there
            self._write(path, run_state)
            self._ranks.barrier()  # all ranks have written

        if self._ranks.is_first:
            self._store.save(env_steps, write)
            # Only now: until the new checkpoint was there, the ones before it might have needed
            # theirs.
            self._drop_unused_chunks()
        else:
            write(self._store.unfinished(env_steps))
        self._ranks.barrier()
        return Saved(self._store.published(env_steps), env_steps)

    def restore(self, saved: Saved) -> dict[str, Any]:
        """Take up a checkpoint and return the trainer's counters.

        Raises:
            StateError: If it is damaged, of a newer format, or saved within a rollout by another
                number of ranks in an environment whose state cannot be cut by rows.
        """
        state = load_state(saved.path, "run")
        if state["format"] > FORMAT:
            raise StateError(
                f"{saved.path}: format must be at most {FORMAT}, got {state['format']}. "
                "Install the newer version that wrote it."
            )
        parts = self._parts
        load_policy_weights(parts.policy, saved.path)
        parts.learner.load_state_dict(state["learner"])
        own = load_state(saved.path, self._rank_name if self._as_many(state) else "rank0")
        if self._as_many(state) and len(own["collector"]["groups"]) == len(parts.collector.groups):
            rollout_of, self._written = self._own_rows(own), list(own["chunks"])
        elif own["rollout"] is None:
            # Between two rollouts the parts differ only in rows that are not needed any more.
            own["collector"]["groups"] = None
            rollout_of, self._written = self._own_rows(own), []
        else:
            # Their steps lie in the files of others, so this rank writes its own anew.
            rollout_of, self._written = self._recut(saved, state["ranks"], own), []
        if own["rollout"] is None:
            parts.rollout.clear()
        else:
            load_rollout(
                parts.rollout,
                rollout_of,
                self._first_row,
                lambda name: load_state(self._chunk_root, name),
            )
        parts.collector.load_state_dict(own["collector"])
        if own["memory"] is None:
            learner = parts.learner
            restore_memory(parts.collector, learner.updates, precision=learner.ppo.precision)
        else:
            for group, memory in zip(parts.collector.groups, own["memory"], strict=True):
                group.state.load_state_dict(memory)
        self._written_to = parts.rollout.size if self._written else 0
        self._written_of = parts.collector.rollout_began
        torch.random.set_rng_state(own["torch_rng"])
        return state["trainer"]

    @property
    def _first_row(self) -> int:
        return int(self._parts.rollout.global_row_N[0])

    def _as_many(self, state: dict[str, Any]) -> bool:
        """Say whether as many ranks have saved a checkpoint as there are now."""
        return state["ranks"] == self._ranks.world_size

    def _own_rows(self, own: dict[str, Any]) -> list[SavedRows]:
        return [SavedRows(self._first_row, self._parts.rollout.num_envs, own)]

    def _recut(self, saved: Saved, ranks: int, own: dict[str, Any]) -> list[SavedRows]:
        """Put this rank's rows together from what other ranks, or other groups, have saved.

        Args:
            saved: The checkpoint.
            ranks: Those that saved it.
            own: Is given the groups of this rank, and what their policy remembers if that is saved.

        Returns:
            What the ranks have saved.

        Raises:
            StateError: If an environment's state cannot be cut by rows.
        """
        rollout, collector = self._parts.rollout, self._parts.collector
        num_envs = rollout.num_envs * self._ranks.world_size
        parts = saved_by(ranks, num_envs, lambda name: load_state(saved.path, name))
        keeps_memory = own["memory"] is not None
        try:
            groups = list(groups_of(parts, collector.groups, self._first_row))
        except ValueError as error:
            raise StateError(
                f"{saved.path}: was saved within a rollout by {ranks} ranks, and cannot be shared "
                f"out among {self._ranks.world_size}: {error} Start it with ranks={ranks} and as "
                "many rollout.groups, until a rollout has ended."
            ) from None
        own["collector"]["groups"] = [group for group, _ in groups]
        own["memory"] = [memory for _, memory in groups] if keeps_memory else None
        return parts

    @property
    def _rank_name(self) -> str:
        return f"rank{self._ranks.rank}"

    def _write(self, path: Path, run_state: dict[str, Any]) -> None:
        parts = self._parts
        finished = parts.rollout.size == parts.rollout.num_steps
        if self._ranks.is_first:
            # Weights and optimiser are the same on all ranks.
            save_policy(path, parts.policy, env_steps=parts.collector.env_steps)
            common = {
                "format": FORMAT,
                "ranks": self._ranks.world_size,
                "learner": parts.learner.state_dict(),
                "trainer": run_state,
            }
            save_state(path, "run", common)
        updates = parts.learner.updates
        newest = parts.rollout.size // parts.learner.schedule.chunk - 1
        # Without a refresh at this boundary the memory is of older weights, and nothing else could
        # make it again.
        keeps_memory = not finished and not updates.renews_after(newest)
        memory = [g.state.state_dict() for g in parts.collector.groups] if keeps_memory else None
        own = {
            "chunks": self._written,
            # After a finished one the next begins in new trials with an empty context.
            "rollout": None if finished else parts.rollout.state_dict(),
            "collector": parts.collector.state_dict(),
            "memory": memory,
            "torch_rng": torch.random.get_rng_state(),
        }
        save_state(path, self._rank_name, own)

    def _write_chunks(self) -> None:
        """Write the steps that were collected since the last checkpoint of this rollout."""
        rollout, began = self._parts.rollout, self._parts.collector.rollout_began
        if self._written_of != began or rollout.size in (0, rollout.num_steps):
            self._written, self._written_to, self._written_of = [], 0, began
        if rollout.size in (0, rollout.num_steps, self._written_to):
            return
        # With the number of ranks: files of as many as there were before may still be needed.
        rank = f"{self._rank_name}of{self._ranks.world_size}"
        name = f"{rank}_{began:010d}_{self._written_to}_{rollout.size}"
        save_state(self._chunk_root, name, rollout.chunk_state(self._written_to, rollout.size))
        self._written = [*self._written, name]
        self._written_to = rollout.size

    def _drop_unused_chunks(self) -> None:
        if not self._chunk_root.exists():
            return
        used: set[str] = set()
        for saved in self._store.all():
            for part in saved.path.glob("rank*.json"):  # of as many ranks as saved it
                used.update(load_state(saved.path, part.stem)["chunks"])
        for path in self._chunk_root.iterdir():
            if path.name.split(".")[0] not in used:
                path.unlink()
        if not any(self._chunk_root.iterdir()):
            shutil.rmtree(self._chunk_root)
