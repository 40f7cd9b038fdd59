"""The command line of training: composes and checks configurations, then trains here or on Ray."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from relic.console import started_as
from relic.help import choice_list, entries, page, section_list, sections_below, show
from relic.run.compose import (
    SweepRun,
    compose_arguments,
    describe_choice,
    groups,
    older_sweep_names,
    sweep,
)
from relic.run.config import RunConfig
from relic.run.ranks.ranks import number_of_ranks, started_by_launcher
from relic.run.ranks.supervisor import Supervisor
from relic.schema import ConfigError, to_plain
from relic.stops import INTERRUPTED, guarded, in_main_thread


def train(arguments: Sequence[str]) -> int:
    """Run `train.py`: compose, refuse or train, and return the exit status."""
    return guarded(lambda: _train(arguments))


def _train(arguments: Sequence[str]) -> int:
    said, others = _parser().parse_known_intermixed_args(arguments)
    if others:
        raise ConfigError(
            f"{others[0]}: unknown option, those are --multirun, --cfg job and --help. "
            f"Keys have no dashes: {others[0].lstrip('-').partition('=')[0]}=VALUE."
        )
    if said.help is not None:
        asked = [said.help] if "=" in said.help else []  # a key, where no page is named
        text = help_page("" if asked else said.help, [*said.keys, *asked])
        show(text.replace("train.py", started_as("train.py")))
        return 0
    if not said.multirun:
        config = compose_arguments(said.keys)
        if not said.cfg:
            return train_run(config)
        print(yaml.safe_dump(to_plain(config), sort_keys=False), end="")
        return 0
    if said.cfg:
        raise ConfigError("--cfg: shows the configuration of one run, got --multirun. Drop one.")
    # All are composed first: a mistake in the last is refused before the first trains.
    configs = [in_sweep(compose_arguments(run.arguments), run) for run in sweep(said.keys)]
    directories = Counter(config.directory.absolute() for config in configs)
    if shared := next((path for path, count in directories.items() if count > 1), None):
        raise ConfigError(
            f"run_dir: must be another in each run of a sweep, got {shared} in several. Leave it "
            "out, or name one for each."
        )
    statuses = []
    for config in configs:
        statuses.append(guarded(lambda c=config: train_run(c)))
        if statuses[-1] == INTERRUPTED:  # the sweep is meant, not one of its runs
            break
    return max(statuses)


def in_sweep(config: RunConfig, run: SweepRun) -> RunConfig:
    """Give a run of a sweep its own directory, the one of an older version where that is there."""
    if config.run_dir is not None:
        return config
    sweeps = Path("runs") / "multirun" / config.experiment
    names = [name for name in older_sweep_names(run.arguments) if len(name.encode()) < 256]
    there = (name for name in names if name and (sweeps / name).is_dir())
    return replace(config, run_dir=str(sweeps / next(there, run.name)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=started_as("train.py"),
        usage="%(prog)s [key=value ...] [-m] [-c job] [-h [PAGE]]",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("keys", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    parser.add_argument("-h", "--help", nargs="?", const="")
    return parser


_GENERAL = """usage: train.py [key=value ...]

Train an agent, or go on with a run that was stopped.

  train.py experiment=darkroom              an experiment as it is
  train.py experiment=darkroom ppo.lr=1e-3  with a field changed
  train.py experiment=darkroom seed=0,1 -m  one run after another for each value between commas
  train.py experiment=darkroom --cfg job    show the whole configuration, checked, and leave

Files that set many fields at once; --help PAGE says what each is:
{groups}

Fields; --help PAGE describes those of a section, or one, such as --help ppo.lr:
  run          {run}
{sections}

--help all shows all pages. Values are those of the run that the other keys make.
"""


def help_page(name: str, keys: Sequence[str]) -> str:
    """Return a page of `train.py --help`.

    Args:
        name: A group, a section, a field, `run` for the fields in no section, `all`, or nothing
            for the page that lists them.
        keys: `key=value` arguments of the run whose values are shown.

    Raises:
        ConfigError: If there is no such page; it names the nearest.
    """
    plain = to_plain(compose_arguments(keys))
    found = entries(RunConfig, plain)
    sections = [e for e in found if e.section is not None]
    if name in groups():
        choices = {choice: describe_choice(name, choice) for choice in groups()[name]}
        said = f"{name}=NAME sets what configs/{name}/NAME.yaml says:\n\n{choice_list(choices)}"
        both = name in {e.key for e in sections}
        return f"{said}\n\n{page(RunConfig, plain, name)}" if both else said
    if name == "run":
        return page(RunConfig, plain)
    if name == "all":
        names = dict.fromkeys([*groups(), "run", *sections_below(RunConfig)])
        return "\n\n".join(help_page(one, keys) for one in names)
    if name:
        return page(RunConfig, plain, name)
    single = [e.key for e in found if e.section is None and e.key not in groups()]
    return _GENERAL.format(
        groups=choice_list({group: ", ".join(names) for group, names in groups().items()}),
        run=", ".join(single),
        sections=section_list(sections),
    ).rstrip()


def train_run(config: RunConfig) -> int:
    """Train one configuration and draw its plots; return the exit status.

    It may be called in any thread. Signals that ask to stop come to the main thread only.

    Raises:
        RunFailedError: If a process of the run has failed.
        Exception: Whatever else stops the run, where it is trained in this process.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    count = number_of_ranks(config)
    # Threads share PyTorch's random numbers and settings; runs that share those would differ.
    apart = not (in_main_thread() or started_by_launcher() or config.cluster.backend != "none")
    if count > 1 or apart:
        return Supervisor(config, count).run()
    # Here, because torch takes seconds to import, and only who trains in this process needs it.
    from relic.run.ranks.rank import conclude, train_alone

    if config.cluster.backend == "ray":
        from relic.cluster.launch import train_on_ray  # Ray is optional, and slow to import

        conclude(config, train_on_ray(config))
    else:
        train_alone(config)
    return 0
