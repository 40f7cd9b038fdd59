"""The RLlib algorithm: drives the learners, one whole rollout in each `training_step`.

The training itself is that of `relic.run` and `relic.ppo`, inside the learners. Here is the
driver's part: it notices dead actors, finds checkpoints, and hands the metrics to RLlib.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.actor_manager import FaultTolerantActorManager
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)

from relic.cluster.config import ReLICConfig
from relic.cluster.job import run_of
from relic.cluster.learner import Step
from relic.policy.loading import read_meta
from relic.run.config import Placement, RunConfig
from relic.run.run_directory import CheckpointStore, RunDirectory
from relic.schema import to_plain

_log = logging.getLogger(__name__)
_GRACE_S = 10.0
"""How long the other learners may take to say that they died, once one complains of its peers."""
_RLLIB_NAMES = {"return_mean": EPISODE_RETURN_MEAN, "length_mean": EPISODE_LEN_MEAN}


class LostLearnerError(RuntimeError):
    """A learner that died or says nothing; the run goes on from its last checkpoint."""

    foreseen = True


class ReLIC(Algorithm):
    """In-context PPO with partial updates, as an RLlib algorithm.

    The run directory (`run_dir` of the configuration, else one in RLlib's own log directory) must
    be visible to all learners and to the driver. A fresh algorithm takes up what lies there.
    """

    on_update: Callable[[dict[str, Any]], None] | None = None
    """Is given the metrics of each update as it ends."""
    stopping: Callable[[], bool] | None = None
    """Is asked before each update; after a yes, that update is the last, and it is saved."""

    @classmethod
    def get_default_config(cls) -> ReLICConfig:
        """Return the configuration that changes nothing."""
        return ReLICConfig()

    def setup(self, config: Any) -> None:
        """Start the actors and connect them."""
        self._choose_directory()
        super().setup(config)
        if self.run.cluster.placement is Placement.SPLIT:
            assert self.env_runner_group is not None
            self._ask("connect", _in_order(self.env_runner_group._worker_manager))
        self._last: Step | None = None

    def _choose_directory(self) -> None:
        """Fix where the run is written: trials of Tune never share a directory."""
        assert isinstance(self.config, ReLICConfig)
        run = self.run
        trial = self._storage.trial_dir_name if self._storage is not None else None  # of Tune
        if run.run_dir is None:
            directory = Path(str(self.logdir)) / "run"
        elif trial is not None:
            directory = run.directory / trial
        else:
            directory = run.directory
        fixed = replace(run, run_dir=str(directory.absolute()))
        object.__setattr__(self.config, "relic", to_plain(fixed))  # RLlib has frozen it

    @property
    def run(self) -> RunConfig:
        """The run that is trained."""
        return run_of(self.config)

    @property
    def directory(self) -> RunDirectory:
        """Where the run is written."""
        return RunDirectory(self.run.directory)

    @property
    def is_finished(self) -> bool:
        """Whether the run's steps are done, as far as this driver has seen."""
        return self._last is not None and self._last.finished

    def describe(self) -> list[str]:
        """Return what is to be said of the run before it starts."""
        return self._ask("describe")[0]

    def training_step(self) -> None:
        """Train for one rollout: all its chunks and updates.

        Raises:
            LostLearnerError: If a learner died or said nothing for `cluster.timeout_s`.
            NonFiniteLossError: If the loss breaks.
        """
        metrics: dict[str, Any] = {}
        while True:
            stop = self.stopping is not None and self.stopping()
            steps: list[Step] = self._ask("train_update", stop)
            self._last = steps[0]
            if steps[0].metrics is None:
                break
            metrics |= steps[0].metrics
            if self.on_update is not None:
                self.on_update(steps[0].metrics)
            if stop or steps[0].rollout_ended or steps[0].finished:
                break
        self._report(metrics, sum(step.restarts for step in steps))

    def _report(self, metrics: dict[str, Any], restarts: int) -> None:
        """Show RLlib the rollout's last metrics: all of them as `relic/...`, some by its names."""
        assert self._last is not None
        key = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
        new = self._last.env_steps - int(self.metrics.peek(key, default=0))
        self.metrics.log_value(key, new, reduce="lifetime_sum")
        self.metrics.log_value(("relic", "env_runner_restarts"), restarts, reduce="item")
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self.metrics.log_value(("relic", name), value, reduce="item")
                if name in _RLLIB_NAMES:
                    key = (ENV_RUNNER_RESULTS, _RLLIB_NAMES[name])
                    self.metrics.log_value(key, value, reduce="item")

    def step(self) -> dict[str, Any]:
        """Run one iteration; the result says `done` with the rollout that reaches the steps."""
        results = super().step()
        results["done"] = self.is_finished
        return results

    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        """Save RLlib's own state, and a checkpoint of the run beside it, in the same directory.

        `eval.py checkpoint=PATH` and `init_from=PATH` read it like one of a local run.
        """
        saved_at = super().save_to_path(path, **kwargs)
        source = self._ask("save_run")[0]
        for file in source.iterdir():
            shutil.copy2(file, Path(saved_at) / file.name)
        return saved_at

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint; what the run directory holds beyond it is dropped."""
        Checkpointable.restore_from_path(self, path, *args, **kwargs)
        env_steps = int(read_meta(path)["env_steps"])
        part = self.run.checkpoint
        store = CheckpointStore(self.directory.checkpoints, keep=part.keep, metric=part.best_metric)
        # First the learners let go of what they were doing, then later checkpoints go.
        self._ask("rewind")
        store.drop_after(env_steps)
        if env_steps not in [saved.env_steps for saved in store.all()]:
            store.save(env_steps, lambda target: _copy_run(Path(path), target))

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's own state: iterations and metrics. The run's lies in its checkpoint."""
        return super().get_state(components=["none"])

    def get_checkpointable_components(self) -> list[tuple[str, Checkpointable]]:
        """Return nothing: learners save themselves."""
        return []

    def cleanup(self) -> None:
        """Let the learners close what they have opened, then stop all actors."""
        if self.learner_group is not None:
            calls: list[Any] = [actor.shutdown.remote() for actor in self._learner_actors()]
            ray.wait(calls, num_returns=len(calls), timeout=_GRACE_S)
        super().cleanup()

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of all learners at once and return their answers, by rank.

        Raises:
            LostLearnerError: If one is dead or says nothing; the others are stopped.
        """
        actors = self._learner_actors()
        timeout_s = self.run.cluster.timeout_s
        calls = [getattr(actor, method).remote(*arguments) for actor in actors]
        waiting = list(calls)
        while waiting:
            # One by one: when a learner fails, its peers wait for it and would never answer.
            done, waiting = ray.wait(waiting, num_returns=1, timeout=timeout_s)
            if not done:
                self._give_up(actors, f"said nothing for cluster.timeout_s={timeout_s:g}")
            self._check(done, waiting, actors)
        return ray.get(calls)

    def _learner_actors(self) -> list[ActorHandle]:
        """Return the learners in the order of their ranks."""
        assert self.learner_group is not None
        return _in_order(self.learner_group._worker_manager)

    def _check(self, done: list[Any], waiting: list[Any], actors: list[ActorHandle]) -> None:
        """Raise what a learner raised; but a lost peer explains what the others complain of."""
        try:
            ray.get(done)
            return
        except RayActorError:
            self._give_up(actors, "died")
        except RayTaskError as error:
            if waiting:
                waiting, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_GRACE_S)
            # A peer that died is the cause; what this learner raised is only how it noticed.
            if any(_is_dead(call) for call in waiting):
                self._give_up(actors, "died")
            _kill(actors)
            raise error.cause from None

    def _give_up(self, actors: Iterable[ActorHandle], reason: str) -> None:
        """Stop what is left of the learners, and say so."""
        _kill(actors)
        raise LostLearnerError(
            f"ReLIC: a learner {reason}. What it did since the last checkpoint is lost; "
            "start again to go on from there."
        )


ReLICConfig.algorithm = ReLIC


def _in_order(manager: FaultTolerantActorManager | None) -> list[ActorHandle]:
    """Return the actors of a group, as they are numbered."""
    assert manager is not None, "actors are remote in every placement"
    return [manager.actors()[number] for number in sorted(manager.actors())]


def _kill(actors: Iterable[ActorHandle]) -> None:
    """Stop learners that would wait for ever for one that has failed."""
    for actor in actors:
        ray.kill(actor)


def _is_dead(call: Any) -> bool:
    try:
        ray.get(call)
    except RayActorError:
        return True
    except RayError:
        return False
    return False


def _copy_run(source: Path, target: Path) -> None:
    """Copy the run's files of a checkpoint, not RLlib's."""
    for file in source.iterdir():
        if file.suffix in (".json", ".safetensors"):
            shutil.copy2(file, target / file.name)
