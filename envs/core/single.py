"""One row of a trial environment as a plain `gymnasium.Env`.

All that happens is decided in `envs.core.vector`; here it is only turned into scalars.

Shape suffix: N rows, of which there is one.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from envs.core.validation import EpisodeEndedError, check_state
from envs.core.vector import Observation, State, TrialVectorEnv


class SingleTrialEnv(gymnasium.Env[Observation, Any]):
    """One row of a `TrialVectorEnv` as a plain environment: scalars, and no autoreset.

    `reset` takes the vector environment's options as scalars: `new_trial` (bool) and `trial`
    (int, which implies a new trial unless `new_trial` is false). `info` is empty but at an
    episode's end, where it holds `episode_record`, a dict of scalars.
    """

    def __init__(self, vector: TrialVectorEnv) -> None:
        """Show the only row of `vector`, which must not be stepped by anybody else."""
        if vector.num_envs != 1:
            raise ValueError(
                f"{type(self).__name__}: the vector environment must have one row, "
                f"got num_envs={vector.num_envs}."
            )
        self.vector = vector
        self.metadata = {"render_modes": []}
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space
        self.max_episode_steps = vector.max_episode_steps
        self._ended = False

    @property
    def trial(self) -> int:
        """The current trial."""
        return int(self.vector.trial[0])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new trial (first call, `seed`, or options) or else the trial's next episode."""
        super().reset(seed=seed)
        options = dict(options or {})
        new_trial = options.pop("new_trial", options.get("trial") is not None)
        if not isinstance(new_trial, bool | np.bool_):
            raise TypeError(
                f"{type(self).__name__}.reset: options['new_trial'] must be True or False, got "
                f"{new_trial!r}."
            )
        if new_trial:
            options["new_trial"] = np.ones(1, dtype=bool)
        trial = options.pop("trial", None)
        if new_trial and trial is not None:
            options["trial"] = np.asarray([trial])
        observation, info = self.vector.reset(seed=seed, options=options)
        self._ended = False
        return self.vector.unbatch(observation, 0), info

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act once.

        Raises:
            EpisodeEndedError: The episode is over: call `reset`.
        """
        if self._ended:
            raise EpisodeEndedError(
                f"{type(self).__name__}.step: the episode must be running, got a step after its "
                "end. Call reset()."
            )
        # Not `step`, which would begin the next episode by itself.
        seen, reward_N, terminated_N, truncated_N = self.vector.transition(np.asarray(action)[None])
        self._ended = bool(terminated_N[0] or truncated_N[0])
        info: dict[str, Any] = {}
        if self._ended:
            records = self.vector.episode_records(np.zeros(1, dtype=np.int64))
            info["episode_record"] = {name: value[0].item() for name, value in records.items()}
        return (
            self.vector.unbatch(seen, 0),
            float(reward_N[0]),
            bool(terminated_N[0]),
            bool(truncated_N[0]),
            info,
        )

    def expert_actions(self, kind: str = "full") -> Any:
        """Return the expert's action; see `TrialVectorEnv.expert_actions`."""
        return self.vector.expert_actions(kind)[0]

    def state_dict(self) -> State:
        """Return everything that is needed to continue from here bit for bit."""
        return {"ended": int(self._ended), "vector": self.vector.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: It is no state of a single environment, or one of another environment.
        """
        where = f"{type(self).__name__}.load_state_dict"
        check_state(where, state, identity={}, keys=("ended", "vector"))
        self.vector.load_state_dict(state["vector"])
        self._ended = bool(state["ended"])

    def close(self) -> None:
        """Close the row."""
        self.vector.close()
