"""The command line of training: composes and checks configurations, then trains here or on Ray."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from relic.files import CheckpointError, StateError
from relic.run.compose import (
    LONGEST_NAME,
    compose_arguments,
    groups,
    older_sweep_name,
    sweep,
    sweep_name,
)
from relic.run.config import RunConfig
from relic.schema import ConfigError, in_lines, to_plain


def train(arguments: Sequence[str]) -> int:
    """Run `train.py`: compose, refuse or train, and return the exit status."""
    return _guarded(lambda: _train(arguments))


def _train(arguments: Sequence[str]) -> int:
    said = _parser().parse_intermixed_args(arguments)
    if not said.multirun:
        config = compose_arguments(said.keys)
        if not said.cfg:
            return train_run(config)
        print(yaml.safe_dump(to_plain(config), sort_keys=False), end="")
        return 0
    if said.cfg:
        raise ConfigError("--cfg: shows the configuration of one run, got --multirun. Drop one.")
    # All are composed first: a mistake in the last is refused before the first trains.
    configs = [in_sweep(compose_arguments(job), job) for job in sweep(said.keys)]
    return max([_guarded(lambda c=config: train_run(c)) for config in configs])


def in_sweep(config: RunConfig, arguments: Sequence[str]) -> RunConfig:
    """Give a run of a sweep its own directory, the one of an older version where that is there."""
    if config.run_dir is not None:
        return config
    sweeps = Path("runs") / "multirun" / config.experiment
    name, older = sweep_name(arguments) or "0", older_sweep_name(arguments)
    if len(older.encode()) <= LONGEST_NAME and older and (sweeps / older).is_dir():
        name = older
    return replace(config, run_dir=str(sweeps / name))


def _parser() -> argparse.ArgumentParser:
    choices = "\n".join(f"  {group}={'|'.join(names)}" for group, names in groups().items())
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train an agent, or go on with a run that was stopped.",
        epilog=f"groups:\n{choices}\nAny other field by its dotted key, such as ppo.lr=1e-3; "
        "--cfg job shows them all.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("keys", nargs="*", metavar="key=value", help="what the run changes")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="train one run for each value between commas"
    )
    parser.add_argument(
        "-c", "--cfg", choices=["job"], help="show the whole configuration, checked, and leave"
    )
    return parser


def train_run(config: RunConfig) -> int:
    """Train one configuration and draw its plots; return the exit status."""
    # Here, because torch takes seconds to import, and only a run that was composed needs it.
    from relic.run.distributed import join_ranks
    from relic.run.plots import plot_run
    from relic.run.run_directory import RunDirectory
    from relic.run.trainer import Outcome, Trainer
    from relic.run.validation import final_scores

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if config.cluster.backend == "ray":
        from relic.cluster.launch import train_on_ray  # Ray is optional, and slow to import

        outcome = train_on_ray(config)
    else:
        ranks = join_ranks(config.device)
        trainer = Trainer(config, ranks)
        try:
            outcome = trainer.run()
        finally:
            trainer.close()
            ranks.close()
        if not ranks.is_first:
            return 0
    directory = config.directory
    if outcome is Outcome.ALREADY_FINISHED:
        print(
            f"{directory} has done its {config.total_steps:,} steps already. "
            "Raise total_steps to go on, or choose another run_dir."
        )
        return 0
    if outcome is Outcome.FINISHED and config.validation.final_trials:
        print(final_scores(config, RunDirectory(directory)))
    plots = plot_run(directory)
    print(f"{outcome.value}: {directory} ({len(plots)} plots in {directory / 'plots'})")
    return 0


def _guarded(task: Callable[[], Any]) -> int:
    """Run a command; a refusal becomes at most three lines and status 2."""
    try:
        return int(task() or 0)
    except (ConfigError, StateError, CheckpointError, FileNotFoundError, ImportError) as error:
        print(in_lines(error, 3), file=sys.stderr)
        return 2
