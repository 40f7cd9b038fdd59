"""Acting: the policy's cached step, the environment's step, one column of the rollout; repeat.

`relic.policy.encoders.encoders` follows an observation from here to the loss.

Shapes: N rows, T steps, K rows whose episode ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.core.vector import TrialVectorEnv
from relic.noise import Stream, row_uniforms
from relic.policy.policy import Policy
from relic.ppo.config import ExpertKind
from relic.ppo.returns import Credit, TimeLimit
from relic.ppo.rollout import Rollout
from relic.ppo.source import Array, RolloutSource, RowGroup

Observation = dict[str, Array]


@dataclass(slots=True)
class EnvGroup(RowGroup):
    """Rows that act together while the other groups' environments simulate."""

    env: TrialVectorEnv
    observation: Observation = field(default_factory=dict)
    episode_starts_N: Array = field(default_factory=lambda: np.zeros(0, bool))
    demonstrates_N: Array = field(default_factory=lambda: np.zeros(0, bool))
    answer: Future[Any] | None = None
    """What the environment will say to the newest action."""
    crashes: int = 0
    """Crashes of its rows that have been counted."""


class Collector(RolloutSource):
    """Fills a rollout. Owns the environments and what the policy remembers of their trials.

    Results depend on seed and global row numbers only: not on how many rows there are, how they
    are grouped, or what the learner draws.
    """

    def __init__(
        self,
        envs: TrialVectorEnv | Sequence[TrialVectorEnv],
        policy: Policy,
        rollout: Rollout,
        *,
        seed: int,
        credit: Credit = Credit.EPISODE,
        time_limit: TimeLimit | None = None,
        expert_share: float = 0.0,
        expert_steps: float = math.inf,
        expert: ExpertKind = ExpertKind.FULL,
        world_size: int = 1,
        cache_dtype: torch.dtype = torch.float32,
        cuda_graph: bool = False,
    ) -> None:
        """Set up; nothing is simulated before `begin_rollout`.

        Args:
            envs: One environment for all rows, or several that share them in order. With several,
                each simulates in a thread of its own while the policy acts for the others.
            policy: Who acts.
            rollout: What is filled.
            seed: Of trials and acting noise.
            credit: Decides which final observations need a value.
            time_limit: Likewise; None takes what the environment recommends.
            expert_share: Share of the episodes in which the expert acts; the rollout must keep
                demonstrations where this is not 0.
            expert_steps: Environment steps before which a rollout must begin for the expert to be
                asked.
            expert: Which one.
            world_size: Ranks that collect alike, for counting environment steps.
            cache_dtype: Of what the policy remembers.
            cuda_graph: Replay the memory's steps from CUDA graphs.
        """
        env_list = [envs] if isinstance(envs, TrialVectorEnv) else list(envs)
        total = sum(env.num_envs for env in env_list)
        if total != rollout.num_envs:
            raise ValueError(
                f"Collector: environments must have {rollout.num_envs} rows together, as the "
                f"rollout does, got {total}. Give both the same num_envs."
            )
        if expert_share > 0 and rollout.expert_action is None:
            raise ValueError(
                f"Collector: expert_share must be 0 in a rollout without demonstrations, got "
                f"{expert_share}. Build the rollout with demonstrations=True."
            )
        super().__init__(policy, rollout, seed=seed, world_size=world_size, cache_dtype=cache_dtype)
        self.credit = credit
        self.time_limit = time_limit or TimeLimit(env_list[0].time_limit_default)
        self._expert_share = expert_share
        self._expert_steps = expert_steps
        self._expert = expert
        self._started = False
        self._threads = ThreadPoolExecutor(len(env_list)) if len(env_list) > 1 else None
        self._groups = self._make_groups(env_list)
        if cuda_graph:
            for group in self._groups:
                policy.memory.use_cuda_graph(group.state.memory)

    def _make_groups(self, env_list: list[TrialVectorEnv]) -> list[EnvGroup]:
        groups, first = [], 0
        for env in env_list:
            made = self._new_group(slice(first, first + env.num_envs))
            group = EnvGroup(made.rows, made.state, made.prefix, env)
            group.demonstrates_N = np.zeros(env.num_envs, bool)
            groups.append(group)
            first += env.num_envs
        return groups

    @property
    def groups(self) -> list[EnvGroup]:
        """The groups of rows, in their order."""
        return self._groups

    def begin_rollout(self) -> None:
        """Move all rows to new trials, with an empty rollout and an empty memory."""
        self.rollout.clear()
        with self.timed("simulate"):
            for group in self.groups:
                self._begin_trials(group)
        self._started = True

    def _begin_trials(self, group: EnvGroup) -> None:
        if self._started:
            everywhere = np.ones(group.env.num_envs, bool)
            group.observation, _ = group.env.reset(options={"new_trial": everywhere})
        else:
            # Seeded once; later trials follow from it.
            group.observation, _ = group.env.reset(seed=self.seed)
        self._count_crashes(group)
        self.policy.add_reward(group.observation, np.zeros(group.env.num_envs, np.float32))
        group.state.reset()
        self._draw_depth_mask(group)
        group.episode_starts_N = np.ones(group.env.num_envs, bool)

    def collect(self, until: int) -> None:
        """Act until `until` columns are filled."""
        for group in self.groups:
            # What is remembered as the chunk begins is the constant prefix of a partial update's
            # pass. The one before is let go of first: each may be as large as the memory.
            group.prefix = group.state.memory
            group.prefix = group.state.memory.snapshot()
        # While the policy acts for one group, the environments of the others simulate.
        for column in range(self.rollout.size, until):
            for group in self.groups:
                self._receive(group, column - 1)
                self._act(group, column)
            self.row_steps += 1
        for group in self.groups:
            self._receive(group, until - 1)
        self.rollout.size = until

    def bootstrap_value(self) -> Tensor:
        """Return what the critic expects from here on, (N,); the memory is not written."""
        with self.timed("act"):
            values = [self._value(g, g.observation, g.episode_starts_N) for g in self.groups]
        return torch.cat(values)

    def close(self) -> None:
        """Stop the threads and free captured graphs; environments stay open."""
        for group in self._groups:
            group.state.memory.release()
        if self._threads is not None:
            self._threads.shutdown()

    def _act(self, group: EnvGroup, column: int) -> None:
        """Choose actions, write their column and hand them to the environment."""
        with self.timed("act"):
            actions = self._choose(group, column)
        if self._threads is not None:
            group.answer = self._threads.submit(group.env.step, actions)
            return
        group.answer = Future()
        with self.timed("simulate"):
            group.answer.set_result(group.env.step(actions))

    def _choose(self, group: EnvGroup, column: int) -> Array:
        """Write what the policy sees and does; return what the environment is given."""
        rollout, rows, starts_N = self.rollout, group.rows, group.episode_starts_N
        features = self.policy.encode_observation(group.observation)
        # By the step in the run, not the column: no two rollouts act on the same noise.
        noise = row_uniforms(
            self.seed, rollout.global_row_N[rows], self.row_steps, self.policy.noise_size
        )
        step = self.policy.step(
            features,
            group.state,
            episode_starts=starts_N,
            noise=noise,
        )
        action = step.action
        # As it was when the rollout began: a rollout has one objective.
        steps_before = (self.row_steps - column) * rollout.num_envs * self.world_size
        if rollout.expert_action is not None and steps_before < self._expert_steps:
            action = self._demonstrate(group, column, action)
        for name, value in features.items():
            rollout.observation[name][rows, column] = value.to(rollout.device)
        rollout.action[rows, column] = action.to(rollout.device)
        rollout.log_prob_NT[rows, column] = step.log_prob.to(rollout.device)
        rollout.value_NT[rows, column] = step.value.to(rollout.device)
        rollout.episode_starts_NT[rows, column] = starts_N
        # Only the environment is given a clipped action: the log-prob is that of the draw.
        return self.policy.clip_action(self.policy.to_environment(action)).cpu().numpy()

    def _receive(self, group: EnvGroup, column: int) -> None:
        """Write what the environment said to the newest action, if one is under way."""
        if group.answer is None:
            return
        with self.timed("simulate"):
            observation, reward_N, terminated_N, truncated_N, infos = group.answer.result()
        group.answer = None
        self._count_crashes(group)
        rollout, rows = self.rollout, group.rows
        rollout.reward_NT[rows, column] = reward_N
        rollout.terminated_NT[rows, column] = terminated_N
        rollout.truncated_NT[rows, column] = truncated_N
        rollout.crashed_NT[rows, column] = infos.get("episode_record", {}).get("crashed", False)
        ended_N = terminated_N | truncated_N
        if ended_N.any():
            with self.timed("act"):
                self._write_final_values(group, column, observation, infos)
            self._keep_records(group, infos)
        # A reward belongs to its episode: the next one's first step has seen none.
        self.policy.add_reward(observation, np.where(ended_N, np.float32(0.0), reward_N))
        group.observation = observation
        group.episode_starts_N = ended_N

    def _write_final_values(
        self, group: EnvGroup, column: int, observation: Observation, infos: dict[str, Any]
    ) -> None:
        """Value the final observations that returns will be bootstrapped from.

        A crash says nothing of what would have followed, so it is always bootstrapped; a time limit
        where `time_limit` says so. The decode does not write the memory: no step was taken there.
        """
        rollout, rows = self.rollout, group.rows
        # Only these: each final value costs a decode of all rows.
        wanted_N = rollout.crashed_NT[rows, column].copy()
        if self.time_limit is TimeLimit.BOOTSTRAP:
            wanted_N |= rollout.truncated_NT[rows, column]
        if self.credit is Credit.TRIAL and column + 1 < rollout.num_steps:
            wanted_N[:] = False  # the next episode's first value follows
        if not wanted_N.any():
            return
        final = {name: value.copy() for name, value in observation.items()}
        known_N = wanted_N.copy()
        for row in np.flatnonzero(wanted_N):
            row_final = infos["final_obs"][row]
            if row_final is None:
                # A simulator that died has nothing left to show: the last value stands in.
                known_N[row] = False
                continue
            for name, value in row_final.items():
                final[name][row] = value
        # The observation is still of the episode that ended, so it has seen the reward.
        self.policy.add_reward(final, rollout.reward_NT[rows, column])
        features = self.policy.encode_observation(final)
        # No episode begins with it, whatever follows.
        value_N = self.policy.value(
            features, group.state, episode_starts=np.zeros_like(wanted_N)
        ).to(rollout.device)
        for row in np.flatnonzero(wanted_N):
            # Copies: a view would keep all rows of this step for the sake of one.
            seen = {k: v[row].to(rollout.device, copy=True) for k, v in features.items()}
            at = (int(row) + rows.start, column)
            rollout.finals.kept[at] = seen if known_N[row] else None
        known = torch.from_numpy(known_N).to(rollout.device)
        value_N = torch.where(known, value_N, rollout.value_NT[rows, column])
        wanted = torch.from_numpy(wanted_N).to(rollout.device)
        rollout.final_value_NT[rows, column] = torch.where(wanted, value_N, 0.0)

    def _count_crashes(self, group: EnvGroup) -> None:
        total = int(group.env.crashes.total_N.sum())
        self._crashes += total - group.crashes
        group.crashes = total

    def _keep_records(self, group: EnvGroup, infos: dict[str, Any]) -> None:
        has_N = infos.get("_episode_record")
        if has_N is None or not has_N.any():
            return
        record = {key: value[has_N] for key, value in infos["episode_record"].items()}
        record["row"] = self.rollout.global_row_N[group.rows][has_N]
        self._episodes.append(record)

    def _demonstrate(self, group: EnvGroup, column: int, action: Tensor) -> Tensor:
        """Keep the expert's actions, and let it act in the episodes that it was given."""
        rollout, rows = self.rollout, group.rows
        assert rollout.expert_action is not None
        expert = torch.as_tensor(group.env.expert_actions(self._expert.value), device=action.device)
        expert = self.policy.from_environment(expert)
        rollout.expert_action[rows, column] = expert.to(rollout.expert_action)
        starts_N = group.episode_starts_N
        if starts_N.any():
            drawn = row_uniforms(
                self.seed,
                rollout.global_row_N[rows],
                self.row_steps,
                1,
                stream=Stream.DEMONSTRATION,
            )
            chosen_N = drawn[:, 0] < self._expert_share
            group.demonstrates_N = np.where(starts_N, chosen_N, group.demonstrates_N)
        shown = torch.from_numpy(group.demonstrates_N).to(action.device)
        shown = shown.reshape(-1, *[1] * (action.ndim - 1))
        action = torch.where(shown, expert.to(action.dtype), action)
        # The next step is shown the action that was taken, not the one that the policy had drawn.
        group.state.record_action(action)
        return action

    def _value(self, group: EnvGroup, observation: Observation, starts_N: Array) -> Tensor:
        features = self.policy.encode_observation(observation)
        return self.policy.value(features, group.state, episode_starts=starts_N)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, but for the rollout and the memory.

        Taken between two calls of `collect`, the memory follows from weights and rollout
        (`relic.ppo.loop.refresh`), so it is not here.
        """
        return {
            "row_steps": self.row_steps,
            "started": self._started,
            "groups": [
                {
                    "env": group.env.state_dict() if self._started else None,
                    "observation": {k: v.copy() for k, v in group.observation.items()},
                    "episode_starts": group.episode_starts_N.copy(),
                    "demonstrates": group.demonstrates_N.copy(),
                }
                for group in self.groups
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; the rollout must have been restored before."""
        self.row_steps = int(state["row_steps"])
        self._started = bool(state["started"])
        # Rows are cut otherwise than when it was saved: each goes on after the trials that it has
        # had.
        if state["groups"] is None:
            rollouts = self.row_steps // self.rollout.num_steps
            for group in self.groups:
                group.env.skip_trials(self.seed, rollouts)
            return
        for group, saved in zip(self.groups, state["groups"], strict=True):
            group.state.reset()
            self._draw_depth_mask(group)
            if not self._started:
                continue
            group.env.load_state_dict(saved["env"])
            group.observation = {k: np.asarray(v).copy() for k, v in saved["observation"].items()}
            group.episode_starts_N = np.asarray(saved["episode_starts"], bool).copy()
            group.demonstrates_N = np.asarray(saved["demonstrates"], bool).copy()
