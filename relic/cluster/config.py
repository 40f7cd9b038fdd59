"""The configuration of the RLlib algorithm: the names of `train.py`, turned into RLlib's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from relic.cluster.env_runner import ReLICEnvRunner
from relic.cluster.job import FACTS, resolve
from relic.cluster.learner import ReLICLearner, ReLICModule
from relic.run.config import RunConfig
from relic.schema import ConfigError, to_plain


class ReLICConfig(PPOConfig):
    """Configures `ReLIC`. All that concerns training is in `relic`, under the names of `train.py`.

    `ReLICConfig().training(relic={"experiment": "darkroom", "ppo.lr": 3e-4})` is what the command
    line `experiment=darkroom ppo.lr=3e-4` is; values may be Tune's search spaces. The fields that
    `PPOConfig` inherits for learning (`lr`, `gamma`, `clip_param`, ...) are not looked at.
    """

    algorithm: ClassVar[type | None] = None
    """What is configured. `relic.cluster.algorithm` sets it, which needs this class first."""

    def __init__(self, algo_class: type | None = None) -> None:
        """Start from `train.py`'s defaults."""
        super().__init__(algo_class=algo_class or self.algorithm)
        self.relic: dict[str, Any] = {}
        self.env_runner_cls = ReLICEnvRunner
        self.num_env_runners = 0
        # Learners and EnvRunners exchange weights and states themselves, in lock step.
        self.merge_env_runner_states = False
        self.broadcast_env_runner_states = False
        self._dont_auto_sync_env_runner_states = True
        self.add_default_connectors_to_env_to_module_pipeline = False
        self.add_default_connectors_to_module_to_env_pipeline = False
        self.add_default_connectors_to_learner_pipeline = False

    @classmethod
    def of(cls, config: RunConfig) -> ReLICConfig:
        """Return what runs a finished configuration."""
        return cls().training(relic=to_plain(config))

    def training(self, *, relic: Mapping[str, Any] | None = None, **kwargs: Any) -> ReLICConfig:
        """Set what concerns training.

        Args:
            relic: Group choices and dotted keys, as on the command line of `train.py`; or all
                sections of a configuration, nested as in `config.yaml`.
            kwargs: Go to `PPOConfig.training`; nothing that ReLIC does depends on them.
        """
        super().training(**kwargs)
        if relic is not None:
            self.relic = dict(relic)
        return self

    def run_config(self) -> RunConfig:
        """Return the checked configuration of the run.

        Raises:
            ConfigError: If anything in it is refused.
        """
        return resolve(self.relic)

    def validate(self) -> None:
        """Check the run, and size RLlib's actors as its `cluster` section says.

        Raises:
            ConfigError: If the run is refused, or RLlib was told other numbers.
        """
        cluster = self.run_config().cluster
        self._settle("num_learners", cluster.num_learners, untouched=0)
        self._settle("num_env_runners", cluster.env_runners, untouched=0)
        self.num_cpus_per_learner = cluster.cpus_per_learner
        if cluster.gpus_per_learner is not None:
            self.num_gpus_per_learner = cluster.gpus_per_learner
        self.num_cpus_per_env_runner = cluster.cpus_per_env_runner
        # RLlib wants an EnvRunner in the driver where there is no other; it only knows the spaces.
        self.create_local_env_runner = cluster.env_runners == 0
        super().validate()

    def _settle(self, name: str, value: int, *, untouched: int) -> None:
        given = getattr(self, name)
        if given not in (untouched, value):
            raise ConfigError(
                f"ReLICConfig.{name}: must be what cluster.{name} says ({value}), got {given}. "
                f"Set training(relic={{'cluster.{name}': {given}}}) instead."
            )
        setattr(self, name, value)

    def get_default_learner_class(self) -> type[ReLICLearner]:
        """Return the learner."""
        return ReLICLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return what the learner's module will be; the learner builds it around its policy."""
        return RLModuleSpec(module_class=ReLICModule)

    def get_multi_rl_module_spec(self, **kwargs: Any) -> MultiRLModuleSpec:
        """Return RLlib's description of the module, with the facts of the environment in it."""
        spaces = kwargs.get("spaces") or {}
        spec = super().get_multi_rl_module_spec(**kwargs)
        modules = spec.rl_module_specs
        if FACTS in spaces and isinstance(modules, dict):
            modules[DEFAULT_MODULE_ID].model_config = {FACTS: spaces[FACTS]}
        return spec
