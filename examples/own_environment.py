"""Bring an environment of your own: check it, train in it, and evaluate what was learned.

    .venv/bin/python examples/own_environment.py

Behind one of eight doors is a prize, the same door in all episodes of a trial. Whoever never tries
a door twice opens 4.5 of them, whoever remembers the prize opens one. After the 400,000 steps of
this script the agent opens 5.9 doors in the first episode of a trial and 3.9 in the fifth.
"""

from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

from envs import check_trial_env
from envs.core.trials import EpisodeTrials, by_option
from relic.evaluation.curves import summarise
from relic.evaluation.evaluator import evaluate
from relic.evaluation.protocol import Protocol
from relic.policy import load
from relic.run.compose import compose
from relic.train import train_run

NUM_DOORS = 8
TRIALS = {"train": (0, 10_000), "test": (10_000, 1_000)}
"""First trial and number of trials of each split."""


class Doors(gymnasium.Env):
    """Open doors until the prize is found; each costs a little."""

    action_space = spaces.Discrete(NUM_DOORS)
    observation_space = spaces.Dict({"found": spaces.Discrete(2)})

    def reset(self, *, seed=None, options=None):
        """Begin an episode of the trial `options["trial"]`."""
        super().reset(seed=seed)
        assert options is not None  # `by_option` below names the trial here
        self.prize = int(np.random.default_rng(options["trial"]).integers(NUM_DOORS))
        return {"found": 0}, {}

    def step(self, action):
        """Open a door."""
        found = int(action) == self.prize
        return {"found": int(found)}, float(found) - 0.1, found, False, {"success": found}


def make(num_envs: int, *, split: str = "train", **options) -> EpisodeTrials:
    """Build the environment of `num_envs` rows; `env.id=own_environment:make` names it."""
    first_trial, num_trials = TRIALS[split]
    return EpisodeTrials(
        Doors,
        num_envs,
        dataset_name=f"doors-v1/{split}",
        start=by_option("trial"),
        first_trial=first_trial,
        num_trials=num_trials,
        max_episode_steps=16,
        record=["success"],
        **options,
    )


def main(**keys: object) -> list[float]:
    """Check, train and evaluate; return the mean length of an episode by its index."""
    check_trial_env(make(3), make=make)
    chosen = {
        "experiment": "darkroom",
        "env.id": "own_environment:make",
        "validation.every_rollouts": None,
        "checkpoint.best_metric": None,
        "run_dir": "runs/doors",
        "total_steps": 400_000,
    }
    config = compose({**chosen, **keys})
    train_run(config)
    protocol = Protocol(
        name="doors",
        env=config.env.id,
        options={"split": "test"},
        trials=100,
        episodes=5,
    )
    metrics = summarise(evaluate(load(Path(config.directory)), protocol))["metrics"]
    print("doors opened, by episodes in context:", np.round(metrics["length"]["mean"], 2))
    return metrics["length"]["mean"]


if __name__ == "__main__":
    main()
