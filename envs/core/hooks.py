"""The methods that a trial environment implements, infos, and how saved states are split by row.

Shapes: N rows, K some of the rows, A action dimensions. Rows are int64 indices into 0..N-1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.core.validation import check_state

if TYPE_CHECKING:
    from envs.core.vector import TrialVectorEnv

Rows = NDArray[np.int64]
Observation = dict[str, NDArray[Any]]
State = dict[str, Any]
Transition = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]
"""Rewards, terminations, truncations."""


class TrialHooks:
    """What trial environments fill in: the first four methods, and what else they have."""

    goal_categories: ClassVar[tuple[str, ...]] = ()
    """What the records' `goal` counts, by name; empty where goals have no categories."""
    fixed_goal: bool | None = None
    """Whether all episodes of a trial have the same goal; None: nobody has said."""
    privileged: Sequence[str] = ()
    """Observations that an agent must not know, if they are shown."""
    kinds: Mapping[str, str] = {}
    """What arrays hold (`KINDS`), by the observation's name, where the space does not say it."""
    kernel_parts: ClassVar[Mapping[str, str]] = {}
    """What can be compiled before it is called; see `envs.core.kernels.compile_ahead`."""
    state_version: ClassVar[int] = 1
    """Raise it in a subclass whenever the meaning of its saved state changes."""
    saved_arrays: ClassVar[Mapping[str, str]] = {}
    """Names of array attributes that `begin_trials` does not restore, by name in saved states."""
    # Set by `TrialVectorEnv`.
    dataset_name: str
    first_row: int
    _trial: Rows
    _episode: Rows

    def begin_trials(self, rows: Rows, trials: Rows) -> None:
        """Set up the tasks of these trials. `begin_episodes` or `load_rows` follows."""
        raise NotImplementedError

    def begin_episodes(self, rows: Rows) -> None:
        """Place these rows at the start of episode `self.episode[rows]` of their trials."""
        raise NotImplementedError

    def advance(self, actions: NDArray[Any]) -> Transition:
        """Act in all rows; return fresh arrays.

        The time limit is added by the caller: truncations are those for other reasons.
        """
        raise NotImplementedError

    def observe_rows(self, rows: Rows | None, out: Observation) -> None:
        """Write what these rows (None: all) see now into `out[name][rows]`.

        Must be a function of the state alone: it is called again for rows that do not move.
        """
        raise NotImplementedError

    def record_rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return entries of the episode record beyond the common ones, (K,) each."""
        return {}

    def shared_trials(self, other: TrialVectorEnv, trials: Sequence[int]) -> list[int]:
        """Return which of these trials have a task that trials of another environment have, too.

        Here: all, if both have the same dataset. An environment whose datasets overlap says more.
        """
        return list(trials) if self.dataset_name == other.dataset_name else []

    def place_of(self, trial: int) -> int:
        """Return the number of the place that a trial is in, the same for all trials in it.

        Here: each trial is a place of its own. An environment that arranges a place in several ways
        says more.
        """
        return trial

    def told(self, row: int) -> str:
        """Return the name of this environment and where a row is in it, for messages."""
        return (
            f"{type(self).__name__} {self.dataset_name}, row {self.first_row + row}, trial "
            f"{self._trial[row]}, episode {self._episode[row]}"
        )

    def ask_expert(self) -> ArrayLike:
        """Return expert actions, (N,) or (N, A); the caller checks that the space allows them."""
        raise NotImplementedError(
            f"{type(self).__name__}.expert_actions: this environment has no expert."
        )

    def ask_memory_expert(self, kind: str) -> ArrayLike:
        """Return actions of an expert that knows only what it was shown in the trial.

        Args:
            kind: `memory`, or `episode` for one that forgets when an episode begins.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.expert_actions: this environment has no expert of kind {kind}."
        )

    def save_rows(self) -> State:
        """Return copies of what `begin_trials` does not restore: here, of `saved_arrays`.

        In a form that `cut_rows` can cut, so that other processes can share out the rows.
        """
        return {key: getattr(self, name).copy() for key, name in self.saved_arrays.items()}

    def check_rows(self, state: State) -> None:
        """Raise ValueError if `load_rows` cannot take a state over. Nothing has changed before.

        Here: if one of `saved_arrays` is absent.
        """
        where = f"{type(self).__name__}.load_state_dict"
        check_state(where, state, identity={}, keys=tuple(self.saved_arrays))

    def load_rows(self, state: State) -> None:
        """Take over what `save_rows` returned. The trials have been begun before."""
        for key, name in self.saved_arrays.items():
            getattr(self, name)[:] = state[key]


def final_infos(
    rows: Rows, final_obs: NDArray[Any], records: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Return the infos of a step in which episodes ended.

    They are as `SyncVectorEnv` builds them from single environments, plus the record at the top,
    where `RecordEpisodeStatistics` and others put theirs.

    Args:
        rows: in which they ended.
        final_obs: what was seen last, (N,) objects.
        records: of the episodes, (K,) each.
    """
    ended_N = np.zeros(len(final_obs), dtype=bool)
    ended_N[rows] = True
    whole, nested = {}, {}
    for name, value in records.items():
        whole[name] = np.zeros(len(final_obs), value.dtype)
        whole[name][rows] = value
        # Copies, so that a wrapper that writes into one place changes no other.
        nested[name], nested[f"_{name}"] = whole[name].copy(), ended_N.copy()
    return {
        "final_obs": final_obs,
        "_final_obs": ended_N,
        "final_info": {"episode_record": nested, "_episode_record": ended_N.copy()},
        "_final_info": ended_N.copy(),
        "episode_record": whole,
        "_episode_record": ended_N.copy(),
    }


def state_of_rows(states: Sequence[State], rows: range) -> State:
    """Return the state of an environment of some rows, out of states of others that had them.

    Args:
        states: From `TrialVectorEnv.state_dict`, of environments alike but for their rows.
        rows: Global numbers of the rows.

    Raises:
        ValueError: A state cannot be cut by rows, or a row is in none of them.
    """
    if not all({"first_row", "num_envs"} <= state.keys() for state in states):
        raise ValueError("state: must hold first_row and num_envs, got one without them.")
    parts, reached = [], rows.start
    for state in sorted(states, key=lambda state: state["first_row"]):
        first, count = int(state["first_row"]), int(state["num_envs"])
        begin, end = max(reached, first), min(rows.stop, first + count)
        if begin == reached < end:
            parts.append(cut_rows(state, begin - first, end - first, of=count))
            reached = end
    if reached != rows.stop:
        raise ValueError(f"state: must hold row {reached}, got states without it.")
    for part in parts:
        part |= {"first_row": rows.start, "num_envs": len(rows)}
    return join_rows(parts)


def cut_rows(tree: Any, begin: int, end: int, *, of: int, name: str = "state") -> Any:
    """Return a part of the rows of nested state.

    Arrays have one entry a row along their first axis, and so has a dict with the keys "0", "1" and
    so on. All else is the same for every row.

    Args:
        tree: Dicts, arrays, and what is alike in all rows.
        begin: First row of the part.
        end: One past its last row.
        of: Rows of the tree.
        name: What the tree is called in messages.

    Raises:
        ValueError: An array has another number of entries.
    """
    if isinstance(tree, dict):
        if tree.keys() == {str(row) for row in range(of)}:
            return {str(row - begin): tree[str(row)] for row in range(begin, end)}
        return {
            key: cut_rows(value, begin, end, of=of, name=f"{name}.{key}")
            for key, value in tree.items()
        }
    if not hasattr(tree, "shape"):
        return tree
    if tree.shape[:1] != (of,):
        raise ValueError(
            f"{name}: must have one entry for each of {of} rows, got shape {tuple(tree.shape)}."
        )
    return tree[begin:end]


def join_rows(
    parts: Sequence[Any],
    name: str = "state",
    concatenate: Callable[[list[Any]], Any] = np.concatenate,
) -> Any:
    """Put parts together that `cut_rows` has cut, in their order.

    Rows of integers that are shorter in one part than in another are filled up with -1.

    Args:
        parts: Of one form.
        name: What they are called in messages.
        concatenate: Joins arrays along their first axis.

    Raises:
        ValueError: What is alike in all rows differs.
    """
    first = parts[0]
    if isinstance(first, dict):
        if all(map(_is_by_row, parts)):
            entries = [part[str(row)] for part in parts for row in range(len(part))]
            return {str(row): entry for row, entry in enumerate(entries)}
        keys = {key: None for part in parts for key in part}
        return {
            key: join_rows([_entry(p, key, name) for p in parts], f"{name}.{key}", concatenate)
            for key in keys
        }
    if hasattr(first, "shape"):
        return concatenate(_as_wide(parts))
    for part in parts:
        if part != first:
            raise ValueError(f"{name}: must be alike in all parts, got {first!r} and {part!r}.")
    return first


def _is_by_row(part: Any) -> bool:
    """Return whether a part has the keys "0", "1" and so on."""
    return isinstance(part, dict) and bool(part) and part.keys() == set(map(str, range(len(part))))


def _entry(part: dict[str, Any], key: str, name: str) -> Any:
    if key not in part:
        raise ValueError(f"{name}: must hold {key} in all parts, got one without it.")
    return part[key]


def _as_wide(parts: Sequence[Any]) -> list[Any]:
    """Fill up rows of integers with -1 where other parts have longer ones."""
    widths = {part.shape[1] for part in parts if part.ndim == 2}
    if len(widths) < 2 or not isinstance(parts[0], np.ndarray) or parts[0].dtype.kind != "i":
        return list(parts)
    most = max(widths)
    return [np.pad(part, [(0, 0), (0, most - part.shape[1])], constant_values=-1) for part in parts]
