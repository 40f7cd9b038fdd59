"""What a run says of its observations, and that a run that goes on sees what it saw."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces

from envs.core.trials import EpisodeTrials, by_option
from envs.make import make_trial_env
from relic.policy import load
from relic.policy.loading import save_policy
from relic.policy.policy import Policy
from relic.run.components import build_policy, changes_at_start
from relic.run.compose import compose_arguments
from relic.run.distributed import join_ranks
from relic.run.metrics import is_clock, read_metrics
from relic.run.trainer import Trainer
from relic.run.validation import final_scores, kind_of_trials, validation_protocol
from relic.schema import ConfigError

from .conftest import TINY
from .ends import ALONE, config_of


class Rare(gymnasium.Env):
    """Categories that begin elsewhere than at 0, and a depth camera of millimetres."""

    action_space = spaces.Discrete(3, start=5, dtype=np.uint8)
    observation_space = spaces.Dict(
        {
            "floor": spaces.Discrete(4, start=7),
            "dials": spaces.MultiDiscrete([3, 4], start=[-2, 10]),
            "metres": spaces.Box(0, 65535, (8, 8, 1), np.uint16),
        }
    )

    def observe(self):
        return {
            "floor": 7 + self.steps % 4,
            "dials": np.array([-2 + self.steps % 3, 10 + self.steps % 4]),
            "metres": np.full((8, 8, 1), 40_000 + self.steps, np.uint16),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.last = 0, 5 + options["task"] % 7  # so that rows end at different times
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observe(), float(action == 6), False, self.steps == self.last, {}


def make_rare(num_envs, *, split="train", **options):
    del split
    return EpisodeTrials(
        Rare,
        num_envs,
        dataset_name="rare-v1",
        start=by_option("task"),
        max_episode_steps=20,
        **options,
    )


class Field(gymnasium.Env):
    """Shows arrays of which type and bounds do not say what they hold."""

    def __init__(self):
        self.action_space = spaces.Discrete(3)
        self.observation_space = spaces.Dict(
            {
                "grid": spaces.Box(0, 9, (16, 16), np.int64),
                "metres": spaces.Box(0.0, 100.0, (16, 16), np.float32),
                "answer": spaces.Box(-1.0, 1.0, (1,), np.float32),
                "place": spaces.Box(-1000.0, 1000.0, (1,), np.float32),
            }
        )

    def observe(self):
        return {
            "grid": np.full((16, 16), self.place % 10),
            "metres": np.full((16, 16), 90.0 + self.place, np.float32),
            "answer": np.array([self.task % 2], np.float32),
            "place": np.array([self.place], np.float32),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.task, self.place = options["task"], 5
        return self.observe(), {}

    def step(self, action):
        self.place = min(max(self.place + int(action) - 1, 0), 9)
        return self.observe(), float(self.place == 9 * (self.task % 2)), False, False, {}


def make_silent(num_envs, *, split="train", **options):
    del split  # that of the experiment
    return EpisodeTrials(
        Field,
        num_envs,
        dataset_name="field-v1",
        start=by_option("task"),
        max_episode_steps=20,
        **options,
    )


def make(num_envs, **options):
    return make_silent(num_envs, privileged=["answer"], kinds={"metres": "depth"}, **options)


def _config(run_dir, *more):
    keys = [key for key in TINY if not key.startswith(("validation", "env."))]
    own = f"env.id={__name__}:make"
    return compose_arguments([*keys, own, f"run_dir={run_dir}", "device=cpu", *more])


def _train(config):
    with closing(Trainer(config, join_ranks("cpu"))) as trainer:
        trainer.run()


def _lines(run_dir):
    lines = read_metrics(Path(run_dir) / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not is_clock(k)} for line in lines]


def test_a_run_says_what_each_observation_becomes(tmp_path, capfd):
    """The environment's own word counts, and that of the configuration goes before it."""
    config = _config(tmp_path / "run", "total_steps=512", "logging.progress=true")
    _train(config)
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("observation")] == [
        "observation answer: left out, as the agent must not know it "
        "(policy.encoder.keys can name it)",
        "observation grid: picture of 16 x 16 class numbers, each of 10 with an embedding, "
        "by small_cnn",
        "observation metres: picture of 16 x 16 depths from 0 to 10 m, by small_cnn",
        "observation place: vector of 1, scaled by their bounds",
    ]
    (warning,) = [line for line in said if line.startswith("warning")]
    assert warning.startswith("warning: observation place: uses 0.")
    # A run that goes on has seen its first rollout.
    _train(replace(config, total_steps=1024))
    assert "warning" not in capfd.readouterr().err
    other = _config(tmp_path / "other", "policy.encoder.kinds.metres=numbers")
    with closing(Trainer(other, join_ranks("cpu"))) as trainer:
        assert trainer.parts.policy.encoder.plan.images["metres"].role == "numbers"


def test_rare_spaces_are_trained_on(tmp_path, capfd):
    """Also where a pass is measured before there are observations, and where episodes are cut."""
    rare = (
        f"env.id={__name__}:make_rare",
        "logging.progress=true",
        "policy.encoder.prev_reward=true",
    )
    _train(_config(tmp_path, "total_steps=512", "ppo.time_limit=bootstrap", *rare))
    said = capfd.readouterr().err
    assert "observation dials: 2 categories of 3, 4, embedded" in said
    assert "warning: observation metres: uses 0.0" in said
    assert load(tmp_path).action_space == Rare.action_space


def test_a_run_of_an_older_version_goes_on_with_the_inputs_that_it_had(tmp_path):
    """Which judged pictures by their type alone: float ones were depth, and whole ones left out."""
    silent = f"env.id={__name__}:make_silent"
    older = ("policy.encoder.kinds={metres: depth}", "policy.encoder.privileged=[grid]", silent)
    _train(_config(tmp_path / "whole", "total_steps=1024", *older))
    config = _config(tmp_path / "run", "total_steps=1024", *older)
    with closing(Trainer(config, join_ranks("cpu"))) as trainer:
        for _ in trainer.updates(lambda: trainer.env_steps >= 512):
            pass
    stored = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(stored.read_text())
    for name in ("kinds", "privileged"):
        del content["policy"]["encoder"][name]
    stored.write_text(yaml.safe_dump(content))
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step_*512")
    (checkpoint / "checksums.json").unlink()  # older versions had none
    description = json.loads((checkpoint / "policy.json").read_text())
    del description["sha256"]
    for name in ("kinds", "privileged"):
        del description["config"]["encoder"][name]
    (checkpoint / "policy.json").write_text(json.dumps(description))
    assert set(load(tmp_path / "run").encoder.plan.left_out) == {"grid"}
    _train(_config(tmp_path / "run", "total_steps=1024", silent))
    assert set(load(tmp_path / "run").encoder.plan.left_out) == {"grid"}
    assert _lines(tmp_path / "run") == _lines(tmp_path / "whole")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"privileged": ["answers"]}, r"privileged must be one of .*Did you mean 'answer'"),
        ({"privileged": "answer"}, "privileged must be a list of names"),
        ({"kinds": {"metres": "deep"}}, r"kinds\['metres'\] must be one of .*Did you mean 'depth'"),
        ({"kinds": {"meters": "depth"}}, "kinds must be one of .*Did you mean 'metres'"),
        ({"kinds": ["metres"]}, "kinds must be a dict"),
    ],
)
def test_an_environment_that_says_nonsense_is_refused(said, message):
    with pytest.raises((ValueError, TypeError), match=message):
        EpisodeTrials(Field, dataset_name="x", start=by_option("task"), max_episode_steps=9, **said)


def test_policies_of_older_versions_keep_their_inputs(tmp_path):
    """Judged by type alone, whatever today's rules are."""
    config = _config(tmp_path / "run", "policy.encoder.kinds={metres: depth, small: colour}")
    space = spaces.Dict(
        {
            **Field().observation_space.spaces,
            "small": spaces.Box(0, 9, (16, 16), np.uint8),
        }
    )
    encoder = replace(config.policy.encoder, privileged=("grid",))
    policy = Policy(
        replace(config.policy, encoder=encoder), space, spaces.Discrete(3), max_episode_steps=20
    )
    save_policy(tmp_path, policy)
    description = json.loads((tmp_path / "policy.json").read_text())
    del description["sha256"]
    for name in ("kinds", "privileged"):
        del description["config"]["encoder"][name]
    (tmp_path / "policy.json").write_text(json.dumps(description))
    loaded = load(tmp_path)
    assert {k: s.role for k, s in loaded.encoder.plan.images.items()} == {
        "metres": "depth",
        "small": "colour",
    }
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in policy.state_dict().items())


def test_an_input_that_an_option_shows_is_advised_by_it():
    hidden = (
        "env.options.compass=false",
        "policy.recall=null",
        "policy.encoder.sightings=null",
        "policy.critic.privileged=[]",
    )
    keys = ("experiment=houses_small", *hidden, "policy.encoder.keys=[goal,compass]")
    config = compose_arguments(keys)
    with closing(make_trial_env(config.env.id, 1, config.env.options)) as env:
        with pytest.raises(ConfigError, match=r"Set env\.options\.compass=true\."):
            build_policy(config, env, torch.device("cpu"))
        unknown = compose_arguments([*keys, "policy.encoder.keys=[goal,rbg]"])
        with pytest.raises(ValueError, match="got 'rbg'"):
            build_policy(unknown, env, torch.device("cpu"))


def test_final_trials_must_be_others_than_those_of_the_validation(tmp_path):
    """Beyond the last number the first come again, which the validation may have picked by."""
    off = ("validation.every_rollouts=null", "checkpoint.best_metric=null")
    keys = (*TINY, f"run_dir={tmp_path}", *off, "validation.trials=8")
    refused = compose_arguments([*keys, "validation.final_trials=3"])
    message = r"validation\.final_trials: must be among the 10 .*val.* behind the 8 .* got 3\."
    with pytest.raises(ConfigError, match=message):
        Trainer(refused, join_ranks("cpu"))
    Trainer(compose_arguments([*keys, "validation.final_trials=2"]), join_ranks("cpu")).close()


def test_a_run_starts_from_weights_that_mean_the_same(tmp_path):
    """Units of actions come with the weights, and layers without a place would be dropped."""
    sizes = [key for key in TINY if key.startswith(("policy.", "experiment"))]
    sizes.append("ablation=sink_none")  # a sink has its layers in its shape
    config = compose_arguments(sizes)

    def built(config, low, high, *, reach=1.0):
        position = spaces.Box(-reach, reach, (2,), np.float32)
        facts = SimpleNamespace(
            single_observation_space=spaces.Dict({"position": position}),
            single_action_space=spaces.Box(low, high, (2,), np.float32),
            max_episode_steps=20,
            privileged=(),
            kinds={},
        )
        return build_policy(config, facts, torch.device("cpu"))

    first = built(compose_arguments([*sizes, "policy.transformer.num_layers=2", "seed=5"]), -1, 1)
    save_policy(tmp_path, first)
    begun_with = ("policy.transformer.num_layers=2", f"init_from={tmp_path}")
    begun = compose_arguments([*sizes, *begun_with])
    state = built(begun, -1, 1).state_dict()
    assert all(torch.equal(state[name], value) for name, value in first.state_dict().items())
    with pytest.raises(ConfigError, match=r"init_from: .* the actions Box\(0.0, 10.0"):
        built(begun, 0, 10)
    with pytest.raises(ConfigError, match=r"init_from: .* saw position as Box\(-8.0, 8.0"):
        built(begun, -1, 1, reach=8.0)
    assert changes_at_start(begun) == []
    turned = compose_arguments([*sizes, *begun_with, "policy.transformer.rope_base=500"])
    (line,) = changes_at_start(turned)
    assert line.startswith("init_from: policy.transformer.rope_base: ")
    assert " -> 500.0 (changed since " in line
    shallow = replace(config, init_from=str(tmp_path))
    with pytest.raises(ConfigError, match=r"init_from: .* no other weights .* such as memory\."):
        built(shallow, -1, 1)


def test_trials_that_were_trained_on_are_not_called_unseen():
    config = compose_arguments(["experiment=darkroom", "validation.final_trials=2"])
    protocol = replace(validation_protocol(config), trials=2)
    assert kind_of_trials(config, protocol) == "unseen trials"
    same = replace(config, validation=replace(config.validation, options={}))
    protocol = replace(validation_protocol(same), trials=2)
    assert kind_of_trials(same, protocol) == "trials, 2 of them of those that it trains on"


def test_a_protocol_that_an_own_environment_states_is_checked_first(tmp_path, monkeypatch):
    (tmp_path / "own_stated.py").write_text(
        "from envs.darkroom import DarkroomVectorEnv\n"
        "def make(num_envs, **options):\n    return DarkroomVectorEnv(num_envs, **options)\n"
        "make.default_protocol = {'trialz': 2, 'episodes': 2}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = config_of(tmp_path / "run", **{"env.id": "own_stated:make"})
    with pytest.raises(ConfigError, match=r"make\.default_protocol\.trialz: .* mean 'trials'"):
        Trainer(config, ALONE)


def test_final_scores_name_what_a_run_began_from(tmp_path):
    first = tmp_path / "first"

    def scores(directory, **keys):
        config = config_of(directory, **keys)
        with closing(Trainer(config, ALONE)) as trainer:
            trainer.run()
            return final_scores(config, trainer.directory, ALONE).splitlines()

    trained, untrained = scores(first)
    assert trained.startswith("trained: mean ")
    assert untrained.startswith("untrained: mean ")
    _, begun = scores(tmp_path / "second", init_from=str(first))
    # It is what the first run had learned.
    assert begun == trained.replace("trained", f"as it began, from {first}", 1)
