"""Training end to end against PPO with an LSTM of a known library, on the same environments.

    python benchmarks/bench_library.py                    # Darkroom and small houses, minutes
    python benchmarks/bench_library.py --tasks houses
    python benchmarks/bench_library.py --quick

Three agents take turns of one rollout each, learning included: ours as the experiment trains it,
ours with an LSTM instead (RL²), and RecurrentPPO of sb3-contrib, which steps the same environment
through its own vector interface. All have the same rows, steps, epochs and minibatches and one
thread; the library has the LSTM's width of the experiment, one LSTM for actor and critic, which is
its fastest form, and every default else. What differs: our policy attends to all steps of the
trial and learns from parts of the rollout as it goes; the library's LSTM forgets at each episode's
end, and its gradient ends there. In houses our experiment's encoder of pictures is frozen and
learned before (`ours`), or learns along (`ours, encoder learns`) as the library's does.

Steps per second are of CPU time, as other programs may share the machine. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import finish

from envs.core.vector import TrialVectorEnv
from relic.policy.policy import Policy
from relic.ppo.loop import run_rollout
from relic.run.components import build_components, build_envs
from relic.run.compose import compose
from relic.run.config import RunConfig
from relic.run.distributed import join_ranks
from relic.run.trainer import prepare_process

try:
    from sb3_contrib import RecurrentPPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.vec_env import VecEnv  # pyright: ignore[reportMissingImports]
except ImportError:
    raise SystemExit(
        "bench_library.py: sb3-contrib must be installed, got none. "
        "Run: .venv/bin/pip install -c constraints.txt -e '.[bench]'"
    ) from None

LEARNED_ENCODER = {
    "policy.encoder.frozen": False,
    "policy.encoder.checkpoint": None,
    "policy.encoder.sightings": None,
}
TASKS: dict[str, dict[str, Any]] = {
    "darkroom": {"experiment": "darkroom"},
    "houses": {
        "experiment": "houses_small",
        "ppo.lesson_steps": 0,
        "ppo.clone_steps": 0,
        "ppo.expert": "full",
        # What one agent cannot learn from, no agent is given.
        "policy.recall": None,
        "policy.critic.privileged": [],
        "env.options.goal_recall": False,
        "env.options.critic_state": False,
        "env.options.sensors": ["rgb"],
    },
}


class LibraryRows(VecEnv):
    """Our rows as the library's vector environment: what ended and its last observation, in lists.

    All rows move to new trials after so many steps, as they do for our trainer.
    """

    def __init__(self, env: TrialVectorEnv, trial_steps: int):
        self.env = env
        self._trial_steps = trial_steps
        self._taken = 0
        self._action = np.zeros(env.num_envs, np.int64)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Begin a trial in each row."""
        return self.env.reset(seed=0)[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions; they are done when they are waited for."""
        self._action = actions

    def step_wait(self) -> Any:
        """Step all rows."""
        observation, reward_N, terminated_N, truncated_N, infos = self.env.step(self._action)
        ended_N = terminated_N | truncated_N
        said: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(ended_N):
            said[row]["terminal_observation"] = infos["final_obs"][row]
            said[row]["TimeLimit.truncated"] = bool(truncated_N[row] and not terminated_N[row])
        self._taken += 1
        if self._taken % self._trial_steps == 0:
            every = np.ones(self.num_envs, bool)
            last = observation
            observation = self.env.reset(options={"new_trial": every})[0]
            for row in np.flatnonzero(~ended_N):
                said[row]["terminal_observation"] = {k: v[row] for k, v in last.items()}
            ended_N = every
        return observation, reward_N, ended_N, said

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the environment, once for each row."""
        return [getattr(self.env, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: rows share one environment."""
        raise NotImplementedError

    def env_method(self, method_name: str, *method_args: Any, **method_kwargs: Any) -> list[Any]:
        """Refuse: rows share one environment."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Say that nothing is wrapped."""
        return [False] * self.num_envs


class Agent:
    """One that trains for a rollout when it is its turn."""

    def __init__(self, run: Callable[[], Any], close: Callable[[], None], parameters: int):
        self.run, self.close, self.parameters = run, close, parameters


def ours(config: RunConfig) -> Agent:
    """Build our trainer's parts."""
    parts = build_components(config, join_ranks("cpu"))

    def run() -> None:
        for _ in run_rollout(parts.collector, parts.learner, parts.learner.schedule):
            pass

    return Agent(run, parts.close, learned(parts.policy))


def library(config: RunConfig) -> Agent:
    """Build the library's trainer on the environment of a configuration."""
    steps, rows, ppo = config.rollout.num_steps, config.rollout.num_envs, config.ppo
    env = LibraryRows(build_envs(config, range(rows))[0], steps)
    model = RecurrentPPO(
        "MultiInputLstmPolicy",
        env,
        n_steps=steps,
        batch_size=rows * steps // ppo.num_minibatches,
        n_epochs=ppo.update_epochs,
        learning_rate=ppo.lr,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        ent_coef=ppo.ent_coef,
        policy_kwargs={
            "lstm_hidden_size": config.policy.recurrent.width,
            "shared_lstm": True,
            "enable_critic_lstm": False,
        },
        seed=0,
        device="cpu",
    )

    def run() -> None:
        model.learn(rows * steps, reset_num_timesteps=False)

    return Agent(run, env.close, learned(model.policy))


def learned(policy: Policy | torch.nn.Module) -> int:
    """Count the weights that learn."""
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)


def configs(task: str, rollout: dict[str, int]) -> dict[str, RunConfig]:
    """Return what each agent trains, by its name; the library's comes last."""
    base = {**TASKS[task], "device": "cpu", "threads": 1}
    base |= {f"rollout.{name}": value for name, value in rollout.items()}
    variants: dict[str, dict[str, Any]] = {"ours": {}}
    if task == "houses":
        variants["ours, encoder learns"] = LEARNED_ENCODER
    variants["ours, LSTM"] = {"ablation": "rl2", **variants.get("ours, encoder learns", {})}
    built = {name: compose({**base, **keys}) for name, keys in variants.items()}
    return {**built, "RecurrentPPO": built["ours"]}


def compare(task: str, args: argparse.Namespace) -> dict[str, Any]:
    """Let the agents of a task take turns, after short rollouts that compile and warm up."""
    rollout = {"num_envs": args.rows, "num_steps": args.steps}
    chosen = configs(task, {k: v for k, v in rollout.items() if v})
    short = configs(task, {"num_envs": 16, "num_steps": 64})
    agents: dict[str, Agent] = {}
    for name, config in chosen.items():
        prepare_process(config)
        make = library if name == "RecurrentPPO" else ours
        warm = make(short[name])
        warm.run()
        warm.close()
        agents[name] = make(config)
    config = chosen["ours"]
    steps = config.steps_per_rollout
    rates: dict[str, list[float]] = {name: [] for name in agents}
    walls: dict[str, list[float]] = {name: [] for name in agents}
    end = time.perf_counter() + args.seconds
    for turn in range(args.repeats):
        if turn and time.perf_counter() > end:
            break
        for name, agent in agents.items():
            cpu, wall = time.process_time(), time.perf_counter()
            agent.run()
            rates[name].append(steps / (time.process_time() - cpu))
            walls[name].append(steps / (time.perf_counter() - wall))
    for agent in agents.values():
        agent.close()
    print(
        f"\n{task}: {config.rollout.num_envs} rows x {config.rollout.num_steps} steps, "
        f"{config.ppo.update_epochs} epochs, {config.ppo.num_minibatches} minibatches, 1 thread, "
        f"rollouts of each: {len(rates['ours'])}"
    )
    return {name: described(name, agents, rates, walls) for name in agents}


def described(
    name: str, agents: dict[str, Agent], rates: dict[str, list[float]], walls: dict[str, Any]
) -> dict[str, Any]:
    """Print and return one agent's line."""
    rate, rival = statistics.median(rates[name]), statistics.median(rates["RecurrentPPO"])
    low, high = min(rates[name]), max(rates[name])
    print(
        f"{name:22} {agents[name].parameters:9,} weights {rate:8,.0f} steps per CPU second "
        f"({low:,.0f} - {high:,.0f}), {rate / rival:5.2f} times the library's",
        flush=True,
    )
    return {
        "parameters": agents[name].parameters,
        "per_cpu_second": rate,
        "worst": low,
        "best": high,
        "wall": statistics.median(walls[name]),
        "times_library": rate / rival,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=tuple(TASKS))
    parser.add_argument("--rows", type=int, help="default: the experiment's")
    parser.add_argument("--steps", type=int, help="of a rollout; default: the experiment's")
    parser.add_argument("--repeats", type=int, default=3, help="most rollouts of each")
    parser.add_argument(
        "--seconds",
        type=float,
        default=240.0,
        help="after so many no further round of a task begins",
    )
    parser.add_argument("--quick", action="store_true", help="one small rollout of each")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.steps, args.repeats = 16, 128, 1
    results = {task: compare(task, args) for task in args.tasks}
    finish("library", vars(args), torch.device("cpu"), results)


if __name__ == "__main__":
    main()
