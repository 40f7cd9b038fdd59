"""What a finished run is worth: its newest agent beside the untrained one, on fresh trials."""

from __future__ import annotations

from dataclasses import replace

import torch

from relic.evaluation.curves import area, tabulate
from relic.evaluation.evaluator import evaluate, make_env
from relic.evaluation.protocol import Protocol
from relic.policy import load
from relic.policy.policy import Policy
from relic.run.components import build_policy
from relic.run.config import RunConfig
from relic.run.pretrain import name_encoder
from relic.run.run_directory import RunDirectory
from relic.run.validation import validation_protocol


def compare_with_untrained(config: RunConfig, directory: RunDirectory) -> str:
    """Evaluate both agents and say how they did, with 95 % intervals, in two lines.

    Args:
        config: The run; its validation says what is evaluated.
        directory: Where its checkpoints are.
    """
    part = config.validation
    protocol = replace(
        validation_protocol(config),
        name=f"{config.experiment}-final",
        first_trial=part.trials,  # the validation may have picked a checkpoint on those before
        trials=part.final_trials,
        block=min(part.final_trials, 32),
    )
    env = make_env(protocol)
    try:
        untrained = build_policy(name_encoder(config, directory), env, torch.device("cpu"))
    finally:
        env.close()
    trained = load(directory.path)
    return "\n".join(
        f"{name}: {_score(policy, protocol)}"
        for name, policy in (("trained", trained), ("untrained", untrained))
    )


def _score(policy: Policy, protocol: Protocol) -> str:
    policy.eval()
    with torch.no_grad():
        records = evaluate(policy, protocol)
    name = "success" if "success" in records[0] else "return"
    interval = area(tabulate(records, name))
    shown = "unknown interval"
    if interval["low"] is not None:
        shown = f"95 % interval {interval['low']:.3f} to {interval['high']:.3f}"
    return (
        f"mean {name} {interval['mean']:.3f} ({shown}) in {len(records)} episodes of "
        f"{protocol.trials} unseen trials"
    )
