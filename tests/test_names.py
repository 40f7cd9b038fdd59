"""Names and words of the public Python API: unknown ones are refused, with the nearest named."""

import gymnasium
import pytest

import envs  # noqa: F401
from envs.core.trials import EpisodeTrials
from envs.darkroom import DarkroomEnv, DarkroomVectorEnv
from relic.evaluation.curves import tabulate
from relic.evaluation.evaluator import evaluate
from relic.evaluation.few_shot import Curve, DemonstrationEffect, ProbeResult, probe
from relic.evaluation.protocol import load_protocol
from relic.evaluation.recorded_trial import record_trial
from relic.evaluation.report.plots import plot_probe
from relic.evaluation.report.trial_plots import plot_paths
from relic.evaluation.trained_agent import find_agent, find_agents
from relic.files import PROJECT
from relic.policy import load
from relic.policy.loading import find_checkpoint, read_meta

AGENT = PROJECT / "pretrained" / "darkroom"
SHORT = {"trials": 1, "repeats": 1, "episodes": 1, "block": 1}


def vectorised(name, **options):
    return lambda: gymnasium.make_vec(f"relic/{name}-v0", num_envs=1, **options)


def own(**options):
    def make():
        return gymnasium.make("CartPole-v1")

    return lambda: EpisodeTrials(make, dataset_name="x", **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (vectorised("Houses", sensor=["rgb"]), "got 'sensor'. Did you mean 'sensors'?"),
        (vectorised("Darkroom", splt="val"), "got 'splt'. Did you mean 'split'?"),
        (vectorised("FourBoxes", horizn=3), "got 'horizn'. Did you mean 'horizon'?"),
        (vectorised("Darkroom", num_trials=3), "DarkroomVectorEnv: an option must be one of"),
        (vectorised("Houses", dataset_name="x"), "HousesVectorEnv: an option must be one of"),
        (vectorised("FourBoxes", fixed_horizon=True), "FourBoxesVectorEnv: an option must be"),
        (vectorised("Darkroom", split="vall"), "Did you mean 'val'?"),
        (lambda: gymnasium.make("relic/Darkroom-v0", splt="val"), "Did you mean 'split'?"),
        (lambda: DarkroomVectorEnv(1, sed=3), "Did you mean 'seed'?"),
        (lambda: DarkroomEnv(sed=3), "Did you mean 'seed'?"),
        (own(max_epsiode_steps=3), "Did you mean 'max_episode_steps'?"),
        (own(fixd_horizon=True), "Did you mean 'fixed_horizon'?"),
        (own(time_limit_default="bootstrp"), "Did you mean 'bootstrap'?"),
    ],
)
def test_environments(call, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        call()
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["copy", "fixed_horizon"])
def test_flags_of_environments(name):
    with pytest.raises(TypeError, match=f"{name}: must be True or False, got 'no'"):
        own(**{name: "no"})()


def probed(**options):
    return lambda: probe(AGENT, counts=(0, 1), trials=1, repeats=1, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load(AGENT, which="bests"), "which: unknown 'bests'. .*Did you mean 'best'"),
        (lambda: load(AGENT, "cdua"), "device: .*got cdua .*Did you mean 'cuda'"),
        (lambda: read_meta(AGENT, which="lates"), "which: .*Did you mean 'latest'"),
        (lambda: find_checkpoint(AGENT, which="lates"), "which: .*Did you mean 'latest'"),
        (lambda: find_agent(AGENT, "bests"), "which: .*Did you mean 'best'"),
        (lambda: find_agents(AGENT, "al"), "which: .*Did you mean 'all'"),
        (probed(checkpoint="bests"), "which: .*Did you mean 'best'"),
        (probed(goals="fixd"), "goals: .*Did you mean 'fixed'"),
        (probed(protocol="darkroom_tst"), "protocol: .*Did you mean 'darkroom_test'"),
        (probed(device="cdua"), "device: .*Did you mean 'cuda'"),
        (probed(threads=0), "threads: must be at least 1, got 0"),
        (lambda: load_protocol("darkroom_tst"), "Did you mean 'darkroom_test'"),
        (lambda: load_protocol("darkroom_test", trial=1), "trial: .*Did you mean 'trials'"),
        (lambda: tabulate([{"trial": 0, "return": 1.0}], "retrn"), "Did you mean 'return'"),
    ],
)
def test_agents(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_demonstrations_that_are_no_file():
    with pytest.raises(FileNotFoundError, match=r"got 'exprt'. Did you mean 'expert'"):
        probed(demonstrations="exprt")()


def test_controls_are_taken_by_name_and_unknown_ones_refused():
    policy, protocol = (
        load(AGENT),
        load_protocol("darkroom_test", **{**SHORT, "trials": 2, "episodes": 4}),
    )
    with pytest.raises(ValueError, match=r"control: unknown 'clared'.*Did you mean 'cleared'"):
        evaluate(policy, protocol, control="clared")  # type: ignore[arg-type]
    kept, cleared = (evaluate(policy, protocol, control=c) for c in ("kept", "cleared"))  # type: ignore[arg-type]
    assert kept == evaluate(policy, protocol)
    assert kept != cleared


def test_plots():
    recorded = record_trial(load(AGENT), load_protocol("darkroom_test", **SHORT), 0, episodes=1)
    with pytest.raises(ValueError, match=r"measure: .*Did you mean 'return'"):
        plot_paths(recorded, [0], "retrn")
    with pytest.raises(ValueError, match="episodes: unknown 1"):
        plot_paths(recorded, [1])
    curve = Curve((0.0,), (None,), (None,))
    effect = DemonstrationEffect(
        demonstrated=(curve,), own=curve, difference=(curve,), demonstrator=curve
    )
    facts = {name: "" for name in ("checkpoint", "protocol", "protocol_hash", "env")}
    result = ProbeResult(
        **facts, goals="fixed", demonstrations="expert", trials=1, repeats=1, counts=(0,),
        following=1, measures={"return": effect},
    )  # fmt: skip
    for call in (plot_probe, lambda r, name: r.at_first(name, "difference")):
        with pytest.raises(ValueError, match=r"measure: .*Did you mean 'return'"):
            call(result, "retrn")
    with pytest.raises(ValueError, match=r"part: .*Did you mean 'difference'"):
        result.at_first("return", "diference")  # type: ignore[arg-type]
