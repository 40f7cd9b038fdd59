"""An environment that shows nothing: what it asks for must be done every time."""

import numpy as np
from gymnasium import spaces

from envs.core.vector import TrialVectorEnv


class BlindEnv(TrialVectorEnv):
    """Keeps the actions that it is given; a kind says what they earn."""

    def __init__(self, num_envs, action_space, *, name, **options):
        super().__init__(
            num_envs,
            spaces.Dict({"zero": spaces.Box(-1.0, 1.0, (1,), np.float32)}),
            single_action_space=action_space,
            dataset_name=name,
            num_trials=9,
            max_episode_steps=5,
            **options,
        )
        self.given = []

    def earn(self, actions):
        raise NotImplementedError

    def begin_trials(self, rows, trials):
        pass

    def begin_episodes(self, rows):
        pass

    def advance(self, actions):
        self.given.append(actions.copy())
        never = np.zeros(self.num_envs, bool)
        return self.earn(actions).astype(np.float32), never, never.copy()

    def observe_rows(self, rows, out):
        out["zero"][slice(None) if rows is None else rows] = 0.0
