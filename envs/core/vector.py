"""The trial contract on top of `gymnasium.vector.VectorEnv`.

Each of N rows lives in a trial: a task, named by one integer, that stays fixed while episodes
follow each other inside it. `TrialVectorEnv` does what is alike in every such environment: which
trial comes next, resets, SAME_STEP autoreset, time limits, records, saving. What
differs between environments are the methods of `envs.core.hooks`; `envs/darkroom.py` is an example.

Shapes: N rows, K some of the rows, A action dimensions. Rows are int64 indices into 0..N-1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array
from numpy.typing import NDArray

from envs.core.answers import Crashes, RowWatch
from envs.core.draws import draw_trials
from envs.core.hooks import Observation, Rows, State, Transition, TrialHooks, final_infos
from envs.core.options import refuse_options
from envs.core.validation import (
    ResetRequest,
    check_actions,
    check_choice,
    check_count,
    check_flag,
    check_in_use,
    check_kinds,
    check_privileged,
    check_reset_options,
    check_seed,
    check_state,
    check_transition,
)

TIME_LIMITS: Final = ("terminal", "bootstrap")
"""How a learner may see time limits."""

COUNTERS: Final = ("trial", "episode", "elapsed", "drawn", "return")
"""Arrays that every environment keeps for each row, and saves."""
EXPERTS: Final = ("full", "memory", "episode")
"""Kinds of experts, by what they know; see `TrialVectorEnv.expert_actions`."""


class TrialVectorEnv(TrialHooks, VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """N rows, each in its own trial, stepped together in one process.

    `reset` begins trials or episodes; `step` begins the next episode of the same trial by itself
    when one ends (SAME_STEP autoreset). What row i sees depends on the seed, its global number
    `first_row + i` and its actions only, never on N or on other rows.

    `infos` is empty on steps in which no episode ends. Else it holds, with `final_obs` and
    `final_info`, `episode_record`: a dict of (N,) arrays, meaningful where `_episode_record`.
    Every record has `trial`, `episode` (index in the trial), `length`, `return` and `crashed`.

    A row with a number that cannot be meant (NaN, infinity, beyond `envs.core.answers.SANE`) has
    crashed: its episode is truncated, with such a reward as 0 and such a `final_obs` as None, and
    other rows go on.
    """

    def __init__(
        self,
        num_envs: int,
        single_observation_space: spaces.Dict,
        *,
        single_action_space: gymnasium.Space[Any],
        dataset_name: str,
        num_trials: int,
        max_episode_steps: int,
        fixed_horizon: bool = False,
        time_limit_default: str = "bootstrap",
        privileged: Sequence[str] | None = None,
        kinds: Mapping[str, str] | None = None,
        seed: int = 0,
        first_row: int = 0,
        copy: bool = True,
        max_crashes: int = 20,
        **unknown: Any,
    ) -> None:
        """Set up rows that wait for the first `reset`.

        Args:
            num_envs: Number of rows, N.
            single_observation_space: Space of one row; its arrays are batched along axis 0.
            single_action_space: Discrete, MultiDiscrete, MultiBinary or Box.
            dataset_name: What trial numbers mean, with a version; part of every saved state.
            num_trials: Trials that are not named are drawn evenly from [0, num_trials).
            max_episode_steps: An episode that lasts this long is truncated.
            fixed_horizon: Whether every episode lasts exactly that long.
            time_limit_default: `terminal` or `bootstrap`: how a learner should see time limits.
            privileged: Observations that no agent sees. Default: those of the class.
            kinds: What arrays hold, by key. Default: that of the class.
            seed: Seed of the sequence of trials, until `reset(seed=...)`.
            first_row: Global number of row 0.
            copy: Whether to return fresh observation arrays. If not, two buffers take turns, and
                the second call after an observation overwrites it.
            max_crashes: A row that crashes more often than this, with no episode that ended well
                in between, stops the run with an error.
            unknown: Options that neither this class nor a subclass has; they are refused.

        Raises:
            ValueError: If an option is unknown, or its value is not among the allowed ones.
            TypeError: If a value is of the wrong kind.
        """
        where = type(self).__name__
        refuse_options(type(self), TrialVectorEnv, unknown)
        check_choice(where, "time_limit_default", time_limit_default, TIME_LIMITS)
        check_flag(f"{where}.fixed_horizon", fixed_horizon)
        check_flag(f"{where}.copy", copy)
        check_count(where, "num_envs", num_envs, least=1)
        check_count(where, "first_row", first_row, least=0)
        check_count(where, "max_episode_steps", max_episode_steps, least=1)
        check_count(where, "num_trials", num_trials, least=1)
        check_count(where, "max_crashes", max_crashes, least=0)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.num_envs = int(num_envs)
        self.single_observation_space = single_observation_space
        self.single_action_space = single_action_space
        self.observation_space = batch_space(single_observation_space, self.num_envs)
        self.action_space = batch_space(single_action_space, self.num_envs)
        self._single_spaces = single_observation_space.spaces
        if privileged is not None:
            self.privileged = check_privileged(where, privileged, self._single_spaces)
        if kinds is not None:
            self.kinds = check_kinds(where, kinds, self._single_spaces)
        self.crashes = Crashes(self.num_envs, max_crashes)
        self.watch = RowWatch(single_observation_space)
        self.dataset_name = dataset_name
        self.num_trials = int(num_trials)
        self.max_episode_steps = int(max_episode_steps)
        self.fixed_horizon = fixed_horizon
        self.time_limit_default = time_limit_default
        self.first_row = int(first_row)
        self._seed = check_seed(where, seed)
        self._started = False
        self._trial, self._episode, self._elapsed = np.zeros((3, self.num_envs), np.int64)
        self._drawn = np.zeros(self.num_envs, np.int64)  # the count in (seed, row, count)
        self._return = np.zeros(self.num_envs)
        self._buffers = [] if copy else [self.empty_observation() for _ in range(2)]

    @property
    def trial(self) -> Rows:
        """The trial that each row is in, int64 (N,). A copy."""
        return self._trial.copy()

    @property
    def episode(self) -> Rows:
        """Index, in its trial, of the episode that each row is in, int64 (N,). A copy."""
        return self._episode.copy()

    @property
    def elapsed_steps(self) -> Rows:
        """Steps taken in the current episode of each row, int64 (N,). A copy."""
        return self._elapsed.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin trials or episodes.

        The first reset, and any with a seed, begins new trials in all rows. A bare one begins a
        new episode in each row's trial.

        Args:
            seed: Restarts the sequence of trials of all rows with this seed.
            options: `reset_mask` (bool, (N,)): a new episode in these rows only. `new_trial`
                (bool, (N,)): a new trial in these rows. Rows in neither stay as they are, and
                their current observation is returned again. `trial` (int64, (N,)): numbers of
                the trials that begin, read where `new_trial`, or in all rows without masks.
                Without it the next number of (seed, row, count) is drawn; naming draws nothing.

        Returns:
            Observations of all rows, and empty infos.
        """
        where = self._check("reset", running=False)
        everything = seed is not None or not self._started
        checked = None if seed is None else check_seed(where, seed)
        # All is checked before anything changes: a refused call leaves the environment as it was.
        request = check_reset_options(where, options, num_envs=self.num_envs, everything=everything)
        # Seeds Gymnasium's own generator, which no row uses: draws are named by keys.
        super().reset(seed=checked)
        if checked is not None:
            self._seed = checked
            # Trials are named by (seed, row, count), so under a seed counting starts again.
            self._drawn[:] = 0
        self._apply(request)
        observation, self._started = self.observe(), True
        self._skip_broken(observation)
        return observation, {}

    def step(self, actions: Any) -> tuple[Observation, *Transition, dict[str, Any]]:
        """Act in all rows; rows whose episode ends are already in the next one afterwards.

        Args:
            actions: (N,) for discrete actions, (N, A) for vectors.

        Returns:
            Observations, rewards (float32), terminations, truncations (bool), infos. The
            observation of a row whose episode ended is the first of its next episode; the last
            one of the old episode is `infos["final_obs"][row]`.
        """
        observation, reward_N, terminated_N, truncated_N = self.transition(actions)
        rows = np.flatnonzero(terminated_N | truncated_N)
        if not len(rows):
            return observation, reward_N, terminated_N, truncated_N, {}
        # Before the rows move on: records and last observations are of the episodes that ended.
        infos = self._final_infos(rows, observation)
        self._begin(rows, self._episode[rows] + 1)
        # Overwrites these rows in the array that is handed out; `final_obs` holds copies of them.
        self._look(rows, observation)
        self._skip_broken(observation)
        return observation, reward_N, terminated_N, truncated_N, infos

    def transition(self, actions: Any) -> tuple[Observation, *Transition]:
        """Act without autoreset, as single environments do. No row terminates and truncates."""
        where = self._check("step", running=True)
        actions = check_actions(where, actions, self.single_action_space, self.num_envs)
        transition = check_transition(where, self.advance(actions), self.num_envs)
        reward_N, terminated_N, truncated_N = transition
        self._elapsed += 1
        observation = self.observe()
        self.watch.pay(reward_N)
        self._count_broken()
        self._return += reward_N
        crashed_N = self.crashes.crashed_N
        terminated_N = terminated_N & ~crashed_N
        truncated_N = truncated_N | crashed_N | (self._elapsed >= self.max_episode_steps)
        truncated_N &= ~terminated_N
        self.crashes.forgive(terminated_N | truncated_N)
        return observation, reward_N, terminated_N, truncated_N

    def observe(self) -> Observation:
        """Return what all rows see now: after `reset`, `step` or `load_state_dict`."""
        if self._buffers:
            # The observation before this one stays whole in a learner's hands.
            self._buffers.reverse()
        observation = self._buffers[0] if self._buffers else self.empty_observation()
        self._look(None, observation)
        return observation

    def _look(self, rows: Rows | None, out: Observation) -> None:
        self.observe_rows(rows, out)
        self.watch.look(type(self).__name__, out, range(self.num_envs) if rows is None else rows)

    def episode_records(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return records of these rows' current episodes, (K,) each: int64, float64 or bool."""
        record = {
            "trial": self._trial[rows],
            "episode": self._episode[rows],
            "length": self._elapsed[rows],
            "return": self._return[rows],
            "crashed": self.crashes.crashed_N[rows],
            **self.record_rows(rows),
        }
        kinds = {"i": np.int64, "u": np.int64, "f": np.float64}
        return {k: v.astype(kinds.get(v.dtype.kind, v.dtype)) for k, v in record.items()}

    def expert_actions(self, kind: str = "full") -> NDArray[Any]:
        """Return the action that an expert would take now.

        Args:
            kind: `full` knows each row's task. `memory` knows only what it was shown since the
                row's trial began, and remembers all of it; `episode` the same since the episode
                began. These look whenever they are asked, so they are asked at every step.

        Raises:
            NotImplementedError: This environment has no such expert.
            ValueError, TypeError: There is no such kind, or an action that the space lacks.
        """
        where = self._check("expert_actions", running=True)
        check_choice(where, "kind", kind, EXPERTS)
        actions = self.ask_expert() if kind == "full" else self.ask_memory_expert(kind)
        return check_actions(where, actions, self.single_action_space, self.num_envs)

    def skip_trials(self, seed: int, count: int) -> None:
        """Draw the next trials as if every row had drawn so many under this seed already.

        For a fresh environment that takes over the rows of another; `reset` must follow.
        """
        where = self._check("skip_trials", running=False)
        check_count(where, "count", count, least=0)
        self._seed = check_seed(where, seed)
        self._drawn[:] = count
        self._started = False

    def state_dict(self) -> State:
        """Return what a fresh one continues from bit for bit: dicts of copies, ints and strings."""
        self._check("state_dict", running=True)
        return {
            **self._identity(),
            "seed": self._seed,
            **{name: getattr(self, f"_{name}").copy() for name in COUNTERS},
            "crashes": self.crashes.in_a_row_N.copy(),
            "env": self.save_rows(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from a saved state. No `reset` is needed before or after.

        Raises:
            ValueError: It is not whole, or of another environment, dataset, version or row range.
                The environment is as it was.
            TypeError: It is no dict.
        """
        where = self._check("load_state_dict", running=False)
        check_state(where, state, identity=self._identity(), keys=("seed", *COUNTERS, "env"))
        self.check_rows(state["env"])
        self._seed = int(state["seed"])
        for name in COUNTERS:
            getattr(self, f"_{name}")[:] = state[name]
        self.crashes.crashed_N[:] = False
        self.crashes.in_a_row_N[:] = state.get("crashes", 0)  # states of older versions have none
        self.begin_trials(np.arange(self.num_envs), self._trial)
        self.load_rows(state["env"])
        self._started = True

    def _apply(self, request: ResetRequest) -> None:
        """Move the rows of a checked reset request."""
        rows, named_N = np.flatnonzero(request.new_trial_N), request.trial_N
        if len(rows):
            if named_N is None:
                # Global numbers: rows draw the same trials however processes share them out.
                count_N, row_N = self._drawn[rows], rows + self.first_row
                trials = draw_trials(self._seed, row_N, count_N=count_N, num_trials=self.num_trials)
                self._drawn[rows] += 1
            else:
                trials = named_N[rows]
            self._trial[rows] = trials
            self.begin_trials(rows, trials)
            self._begin(rows, np.zeros_like(rows))
        rows = np.flatnonzero(request.new_episode_N)
        if len(rows):
            self._begin(rows, self._episode[rows] + 1)

    def _begin(self, rows: Rows, episodes: Rows) -> None:
        """Begin these episodes in these rows."""
        self._episode[rows] = episodes
        self._elapsed[rows] = 0
        self._return[rows] = 0.0
        self.crashes.crashed_N[rows] = False
        self.begin_episodes(rows)

    def _skip_broken(self, out: Observation) -> None:
        """Begin the next episode where what is seen first cannot be meant."""
        while len(rows := self._count_broken()):
            self._begin(rows, self._episode[rows] + 1)
            self._look(rows, out)

    def _count_broken(self) -> Rows:
        """Count a crash in the rows that have just shown what cannot be meant; return them."""
        broken = self.watch.take_broken()
        for row, what in broken.items():
            self.crashes.add(row, self.told(row), what)
        return np.array([*broken], np.int64)

    def _final_infos(self, rows: Rows, observation: Observation) -> dict[str, Any]:
        """Return the infos of a step in which the episodes of `rows` ended."""
        crashed = rows[self.crashes.crashed_N[rows]]
        broken = self.watch.broken_in(observation, crashed)
        sound = [row for row in rows.tolist() if row not in broken]
        final_obs = np.full(self.num_envs, None, dtype=object)
        final_obs[sound] = [self.unbatch(observation, row) for row in sound]
        return final_infos(rows, final_obs, self.episode_records(rows))

    def unbatch(self, observation: Observation, row: int) -> Observation:
        """Return a copy of what one row sees, as an element of the single observation space."""
        row_of: Observation = {}
        for name, space in self._single_spaces.items():
            value = observation[name][row, ...]
            # Pictures may lie on a GPU, where arrays have other methods.
            value = value.copy() if isinstance(value, np.ndarray) else value.copy_to_host()
            row_of[name] = value[()] if isinstance(space, spaces.Discrete) else value
        return row_of

    def empty_observation(self) -> Observation:
        """Return unset observation arrays for all rows."""
        empty = create_empty_array(self.single_observation_space, self.num_envs, fn=np.empty)
        return cast("Observation", empty)

    def _identity(self) -> State:
        """Return what must be equal between the saver and the loader of a state."""
        return {
            "class": type(self).__name__,
            "state_version": self.state_version,
            "dataset": self.dataset_name,
            "num_envs": self.num_envs,
            "first_row": self.first_row,
            "max_episode_steps": self.max_episode_steps,
        }

    def _check(self, method: str, *, running: bool) -> str:
        """Refuse a call on a closed environment, or before the first reset if rows must run."""
        where = f"{type(self).__name__}.{method}"
        check_in_use(where, closed=self.closed, fresh=running and not self._started)
        return where
