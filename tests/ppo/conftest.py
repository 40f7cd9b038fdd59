from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.core.draws import keyed_generator
from envs.core.vector import TrialVectorEnv
from envs.darkroom import DarkroomVectorEnv
from envs.houses.env import HousesVectorEnv
from relic.policy.config import PolicyConfig
from relic.policy.encoders.config import EncoderConfig
from relic.policy.memory.memories import MemorySections
from relic.policy.policy import Policy
from relic.ppo.collector import Collector
from relic.ppo.config import PPOConfig, UpdatesConfig
from relic.ppo.learner import Learner
from relic.ppo.loop import restore_memory, run_rollout
from relic.ppo.reduction import Reduction
from relic.ppo.rollout import Rollout
from relic.schema import build
from tests.memories import SMALL

# Tiny matrices gain nothing from threads, and lose much where cores are shared.
torch.set_num_threads(1)


class RaggedEnv(TrialVectorEnv):
    """Rows that end their episodes at random: by success, by a limit, or by a crash.

    A row sees its trial's number and a counter; the reward is 1 where the action equals the
    trial's number modulo 3. What ends an episode, and when, depends on (trial, episode).
    """

    saved_arrays: ClassVar = {"end": "_end", "kind": "_kind"}

    def __init__(self, num_envs: int, *, limit: int = 9, **kwargs: Any):
        super().__init__(
            num_envs,
            spaces.Dict({"seen": spaces.Box(-1.0, 1.0, (3,), np.float32)}),
            single_action_space=spaces.Discrete(3),
            dataset_name="ragged",
            num_trials=1000,
            max_episode_steps=limit,
            **kwargs,
        )
        self._end = np.zeros(num_envs, np.int64)
        self._kind = np.zeros(num_envs, np.int64)

    def begin_trials(self, rows, trials):
        pass

    def begin_episodes(self, rows):
        for row in rows:
            draw = keyed_generator(int(self.trial[row]), int(self.episode[row]))
            self._end[row] = draw.integers(2, self.max_episode_steps + 3)
            self._kind[row] = draw.integers(3)

    def advance(self, actions):
        reward = (actions == self.trial % 3).astype(np.float32)
        over = self.elapsed_steps + 1 >= self._end
        for row in np.flatnonzero(over & (self._kind == 2)):
            self.crashes.count(int(row))
        return reward, over & (self._kind == 0), over & (self._kind == 1)

    def observe_rows(self, rows, out):
        where = slice(None) if rows is None else rows
        out["seen"][where, 0] = (self.trial[where] % 7) / 7.0
        out["seen"][where, 1] = self.elapsed_steps[where] / 10.0
        out["seen"][where, 2] = np.sin(self.trial[where] + self.episode[where])

    def ask_expert(self):
        return self.trial % 3


@dataclass
class Training:
    """Everything that one small run is made of."""

    policy: Policy
    collector: Collector
    learner: Learner
    rollout: Rollout
    reports: list = field(default_factory=list)

    def run(self, rollouts=1):
        for _ in range(rollouts):
            loop = run_rollout(self.collector, self.learner, self.learner.schedule)
            self.reports.extend(loop)
        return self.reports

    def take_over(self, stopped, chunks):
        """Go on where another has stopped, given the chunks of its rollout so far."""
        self.policy.load_state_dict(stopped.policy.state_dict())
        self.learner.load_state_dict(stopped.learner.state_dict())
        self.rollout.load_state_dict(stopped.rollout.state_dict(), chunks)
        self.collector.load_state_dict(stopped.collector.state_dict())
        learner = self.learner
        restore_memory(self.collector, learner.updates, precision=learner.ppo.precision)


def make_policy(
    env,
    memory="transformer",
    seed=0,
    auxiliary=None,
    kind=PolicyConfig,
    keys=None,
    encoder=None,
    **transformer,
):
    torch.manual_seed(seed)
    sizes = SMALL | {"transformer": SMALL["transformer"] | transformer}
    sections = build(MemorySections, {"memory": memory, **sizes})
    config = kind(
        encoder=EncoderConfig(scale_vectors=False, keys=keys, **(encoder or {})),
        **(auxiliary or {}),
        **{one.name: getattr(sections, one.name) for one in fields(sections)},
    )
    policy = Policy(
        config,
        env.single_observation_space,
        env.single_action_space,
        max_episode_steps=env.max_episode_steps,
    )
    # As initialised, the policy is uniform whatever it sees; tests want it to care.
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return policy


def make_training(
    ppo=None,
    updates=None,
    *,
    env="ragged",
    num_envs=6,
    num_steps=40,
    groups=1,
    first_row=0,
    seed=3,
    memory="transformer",
    transformer=None,
    auxiliary=None,
    policy_config=PolicyConfig,
    keys=None,
    encoder=None,
    reduction: Reduction | None = None,
    total_steps=100_000,
    cache_dtype=torch.float32,
    cuda_graph=False,
):
    ppo = PPOConfig(**({"warmup_steps": 0, "update_epochs": 2, "num_minibatches": 1} | (ppo or {})))
    updates = UpdatesConfig(**({"per_rollout": 4} | (updates or {})))
    each = num_envs // groups
    kinds = {
        "ragged": RaggedEnv,
        "darkroom": lambda n, **kw: DarkroomVectorEnv(n, size=5, horizon=8, **kw),
        "houses": lambda n, **kw: HousesVectorEnv(
            n, sensors=(), compass=True, goal_places=True, task={"max_episode_steps": 12}, **kw
        ),
    }
    make_env = kinds[env] if isinstance(env, str) else env
    envs = [make_env(each, first_row=first_row + i * each) for i in range(groups)]
    policy = make_policy(
        envs[0],
        memory,
        auxiliary=auxiliary,
        kind=policy_config,
        keys=keys,
        encoder=encoder,
        **(transformer or {}),
    )
    rollout = Rollout(
        num_envs,
        num_steps,
        policy.stored_space,
        action_space=envs[0].single_action_space,
        first_row=first_row,
        demonstrations=ppo.expert_steps > 0,
    )
    world = 1 if reduction is None else reduction.world_size
    collector = Collector(
        envs if groups > 1 else envs[0],
        policy,
        rollout,
        seed=seed,
        credit=ppo.credit,
        time_limit=ppo.time_limit,
        expert_share=ppo.expert_share if ppo.expert_steps else 0.0,
        expert_steps=ppo.expert_steps,
        expert=ppo.expert,
        world_size=world,
        cache_dtype=cache_dtype,
        cuda_graph=cuda_graph,
    )
    learner = Learner(
        policy,
        ppo,
        updates,
        num_envs=num_envs,
        num_steps=num_steps,
        total_steps=total_steps,
        seed=seed,
        time_limit=collector.time_limit,
        reduction=reduction,
    )
    return Training(policy, collector, learner, rollout)


@pytest.fixture
def training():
    """The function that builds a small run; keyword arguments as in `make_training`."""
    return make_training
