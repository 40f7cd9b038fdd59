"""The command line of training: keys checked first, then Hydra composes, then the run starts."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from relic.files import PROJECT
from relic.policy.weights import CheckpointError
from relic.run.config import RunConfig
from relic.run.distributed import join_ranks
from relic.run.plots import plot_run
from relic.run.run_directory import RunDirectory
from relic.run.saving import StateError
from relic.run.trainer import Outcome, Trainer
from relic.run.validation import compare_with_untrained
from relic.schema import (
    ConfigError,
    build,
    check_key,
    in_lines,
    leaves,
    may_be_absent,
    nearest,
    to_plain,
)

CONFIGS = PROJECT / "configs"
_OVERRIDE = re.compile(r"^(?P<sign>\+\+|\+|~)?(?P<key>[^=\s]+?)(@[^=]*)?(=(?P<value>.*))?$", re.S)
_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--info", "-i")
"""Flags of Hydra whose value may follow as an argument of its own."""


def groups(directory: Path = CONFIGS) -> dict[str, list[str]]:
    """Return the config groups and the choices in each."""
    return {
        d.name: sorted(p.stem for p in d.glob("*.yaml"))
        for d in sorted(directory.iterdir())
        if d.is_dir() and not d.name.startswith("_")
    }


def check_overrides(arguments: Sequence[str], directory: Path = CONFIGS) -> None:
    """Check every `key=value` of a command line against the groups and the schema.

    Raises:
        ConfigError: On the first that is unknown; it names the nearest.
    """
    known = groups(directory)
    for argument in _split(arguments)[1]:
        match = _OVERRIDE.match(argument)
        if match is None or (match["value"] is None and match["sign"] != "~"):
            raise ConfigError(f"{argument}: must be of the form key=value. Write key=value.")
        key, value = match["key"], match["value"]
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            continue
        if key in known and "." not in key and _is_choice(value):
            _check_choices(key, value or "", known[key])
        else:
            _check_field(key, known)


def complete(arguments: Sequence[str]) -> list[str]:
    """Return checked arguments as Hydra takes them.

    Flags come first, as its parser does not let them stand between overrides; and an override
    of an option that is not there yet adds a key, which Hydra asks a `++` for.
    """
    flags, overrides = _split(arguments)
    completed = []
    for argument in overrides:
        match = _OVERRIDE.match(argument)
        adds = match is not None and not match["sign"] and may_be_absent(RunConfig, match["key"])
        completed.append(f"++{argument}" if adds else argument)
    return [*flags, *completed]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate flags, with the values that follow them, from overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    before = ""
    for argument in arguments:
        is_flag = argument.startswith("-") or before in _FLAGS_WITH_VALUE
        (flags if is_flag else overrides).append(argument)
        before = argument
    return flags, overrides


def from_hydra(composed: DictConfig) -> RunConfig:
    """Turn what Hydra composed into a checked configuration.

    Raises:
        ConfigError: If anything in it is refused.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    assert isinstance(plain, dict)
    return build(RunConfig, {str(k): v for k, v in plain.items()})


def compose(overrides: Mapping[str, Any]) -> RunConfig:
    """Return what a command line with these keys would train.

    Args:
        overrides: Choices of groups and dotted keys; mappings stand for the keys below theirs.

    Raises:
        ConfigError: If anything is refused.
    """
    arguments = [f"{key}={_as_text(value)}" for key, value in leaves(overrides).items()]
    check_overrides(arguments)
    return _composed(arguments)


def _composed(overrides: Sequence[str]) -> RunConfig:
    """Return what checked `key=value` arguments would train."""
    _store_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            composed = hydra.compose("config", complete(overrides))
        except HydraException as error:
            raise ConfigError(in_lines(error, 1)) from None
    return from_hydra(composed)


def _as_text(value: Any) -> str:
    """Write a value as it stands on a command line."""
    if isinstance(value, str) and re.fullmatch(r"[\w./-]+", value):
        return value
    return json.dumps(value.item() if isinstance(value, np.generic) else to_plain(value))


def _store_schema() -> None:
    """Give Hydra every field with its default, so that each can be overridden.

    A plain mapping, as Hydra refuses overrides of frozen dataclasses.
    """
    ConfigStore.instance().store(name="schema", node=to_plain(RunConfig()))


def refuse(error: Exception) -> int:
    """Print a refusal in at most three lines and return the exit status for it."""
    print(in_lines(error, 3), file=sys.stderr)
    return 2


def guarded(task: Callable[[], Any]) -> int:
    """Run a command; a refused configuration becomes at most three lines and status 2."""
    try:
        return int(task() or 0)
    except (ConfigError, StateError, CheckpointError, FileNotFoundError, ImportError) as error:
        return refuse(error)


def _is_choice(value: str | None) -> bool:
    return value is not None and not value.lstrip().startswith(("{", "["))


def _check_choices(group: str, value: str, choices: Sequence[str]) -> None:
    for choice in value.split(","):  # a comma sweeps
        if choice.strip() not in (*choices, "null"):
            raise ConfigError(f"{group}: unknown {choice.strip()!r}. {nearest(choice, choices)}")


def _check_field(key: str, known: dict[str, list[str]]) -> None:
    try:
        check_key(RunConfig, key.replace("/", "."))
    except ConfigError:
        first = key.split(".")[0]
        if "." not in key and nearest(first, known).startswith("Did"):
            raise ConfigError(f"{key}: unknown key. {nearest(first, known)}") from None
        raise


def train(arguments: Sequence[str]) -> int:
    """Run `train.py`: compose, refuse or train, and return the exit status."""
    return guarded(lambda: _train(list(arguments)))


def _train(arguments: list[str]) -> int:
    check_overrides(arguments)
    _store_schema()
    _check_shown(arguments)
    status: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
    def task(composed: DictConfig) -> None:
        status.append(guarded(lambda: train_run(_named_by_sweep(from_hydra(composed)))))

    previous = sys.argv
    sys.argv = [previous[0], *complete(arguments)]
    try:
        task()
    finally:
        sys.argv = previous
    return max(status, default=0)


def _check_shown(arguments: Sequence[str]) -> None:
    """Check the configuration that `--cfg` shows: Hydra prints it before a task could refuse it."""
    flags, overrides = _split(arguments)
    if not any(re.match(r"(--cfg|-c)(=|$)", flag) for flag in flags):
        return
    if not {"-m", "--multirun"}.isdisjoint(flags):
        raise ConfigError("--cfg: shows the configuration of one run, got --multirun. Drop one.")
    _composed(overrides)


def train_run(config: RunConfig) -> int:
    """Train one configuration and draw its plots; return the exit status."""
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
        print(compare_with_untrained(config, RunDirectory(directory)))
    plots = plot_run(directory)
    print(f"{outcome.value}: {directory} ({len(plots)} plots in {directory / 'plots'})")
    return 0


def _named_by_sweep(config: RunConfig) -> RunConfig:
    """Give each job of a sweep its own run directory."""
    job = HydraConfig.get()
    if job.mode is not RunMode.MULTIRUN or "run_dir" in job.job.override_dirname:
        return config
    name = job.job.override_dirname.replace("/", "_") or str(job.job.num)
    return replace(config, run_dir=str(Path("runs") / "multirun" / config.experiment / name))
