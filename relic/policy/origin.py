"""The run that a policy comes from, and the environment that it was trained in."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from gymnasium import spaces

from envs.core.options import keywords
from envs.core.vector import TrialVectorEnv
from envs.make import make_trial_env
from relic.arguments import merged
from relic.bounded_yaml import parse_yaml
from relic.files import parse_json, read_sealed_text, write_json
from relic.schema import ConfigError
from relic.upgrade import upgrade_config

if TYPE_CHECKING:
    from relic.policy.policy import Policy

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True, slots=True)
class Origin:
    """What the configuration beside a checkpoint says."""

    root: Path
    """The run, or the directory that a checkpoint alone was found in."""
    env: str
    """Id of the environment."""
    options: Mapping[str, Any]
    """Its keyword arguments."""
    num_steps: int | None
    """Steps of a rollout, which is one trial; None where the run does not say it."""


PROGRAMS = ("python", "backend", "simulator")
"""Options of environments that name what is started."""


def find_origin(checkpoint: Path) -> Origin:
    """Return what is known of the run of a checkpoint.

    Raises:
        FileNotFoundError: If no configuration comes with it.
        ConfigError: If the configuration is damaged, or names code that came with it.
    """
    # A run keeps checkpoints two levels down; one that is shipped has all files together.
    for root in (checkpoint, *list(checkpoint.absolute().parents)[:2]):
        if (root / CONFIG_FILE).is_file():
            origin = Origin(root, *_read(root / CONFIG_FILE))
            _refuse_code_inside(origin)
            return origin
    raise FileNotFoundError(
        f"{checkpoint}: must have the {CONFIG_FILE} of its run beside it or two levels up, found "
        "none. Name the run directory, or copy the file there."
    )


def make_env(policy: Policy, num_envs: int, options: Mapping[str, Any]) -> TrialVectorEnv:
    """Build the environment that a policy was trained in; see `Policy.make_env`."""
    if policy.checkpoint is None:
        raise ConfigError(
            "make_env: must be asked of a policy that was loaded from a run, got one that was "
            "built. Use envs.make.make_trial_env."
        )
    origin = find_origin(policy.checkpoint)
    check_programs(origin.root, origin.options, options)
    env = make_trial_env(origin.env, num_envs, merged(origin.options, options))
    try:
        check_fit(policy, env, "make_env: ")
    except ValueError:
        env.close()
        raise
    return env


def remember_programs(options: Mapping[str, Any]) -> None:
    """Note the programs of an environment that this user trains in, to be started again later."""
    file, named = _known_programs(), {str(p) for p in programs_in(options).values() if p}
    if not named:
        return
    with contextlib.suppress(OSError):  # evaluation then asks
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, sorted(named | _read_known(file)))


def programs_in(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that name programs."""
    return {name: options[name] for name in PROGRAMS if name in options}


def check_programs(root: Path, options: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to start a program that only the configuration of a run names.

    Args:
        root: The run.
        options: Of its environment.
        asked: What the user has said of them.

    Raises:
        ConfigError: If it names one that this user has neither trained with nor asked for now.
    """
    known = {sys.executable} | _read_known(_known_programs())
    for name in PROGRAMS:
        value = options.get(name)
        if value is not None and name not in asked and str(value) not in known:
            raise ConfigError(
                f"options.{name}: must be asked for where a run names a program that was not "
                f"trained with here, got {value} in {root / CONFIG_FILE}. If you trust it, set "
                f"options.{name}={value}."
            )


def _known_programs() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "relic" / "programs.json"


def _read_known(file: Path) -> set[str]:
    try:
        return set(map(str, parse_json(file.read_bytes())))
    except (OSError, ValueError, TypeError):
        return set()


def _refuse_code_inside(origin: Origin) -> None:
    """Refuse an environment whose module lies in the run's own folder, before it is imported."""
    module, colon, _ = origin.env.partition(":")
    parts = module.split(".")
    for base in (os.getcwd(), *sys.path) if colon else ():
        place, root = Path(base, *parts).resolve(), origin.root.resolve()
        there = place.is_dir() or place.with_name(f"{parts[-1]}.py").exists()
        if there and place.is_relative_to(root):
            raise ConfigError(
                f"env.id: must not be a module inside the run's own folder, got {origin.env} in "
                f"{root}, which would run code that came with the run. If you trust it, move "
                f"{parts[-1]}.py elsewhere."
            )


def check_fit(policy: Policy, env: TrialVectorEnv, asked: str = "protocol.") -> None:
    """Check that a policy can act in an environment.

    Args:
        policy: Who is to act.
        env: Where.
        asked: What stands before the environment's settings where the user chose them.

    Raises:
        ValueError: If observations, actions or the length of episodes do not fit.
    """
    shown = dict(cast("spaces.Dict", env.single_observation_space).spaces)
    for name, space in policy.observation_space.spaces.items():
        if name not in policy.encoder.plan.inputs:
            continue  # perhaps learned from, but never looked at
        if shown.get(name) != space:
            is_option = name not in shown and name in (keywords(type(env), TrialVectorEnv) or ())
            advice = f"Set options.{name}=true; in Python, {name}=True" if is_option else ""
            raise ValueError(
                f"{asked}options: must let the environment show {name} as {space}, which the "
                f"policy was trained on, got {shown.get(name, 'nothing')}. "
                f"{advice or 'Choose those of its task'}."
            )
    if env.single_action_space != policy.action_space:
        raise ValueError(
            f"{asked}env: must have the policy's actions {policy.action_space}, got "
            f"{env.single_action_space}. Choose that of its task."
        )
    if env.max_episode_steps > policy.max_episode_steps:
        raise ValueError(
            f"{asked}options: must keep episodes within the {policy.max_episode_steps} steps "
            f"that the policy was built for, got {env.max_episode_steps}. Shorten them."
        )


def _read(file: Path) -> tuple[str, dict[str, Any], int | None]:
    """Return the environment's id and options, and the steps of a rollout."""
    try:
        content = upgrade_config(parse_yaml(read_sealed_text(file)))
        steps = (content.get("rollout") or {}).get("num_steps")
        env = content["env"]
        return str(env["id"]), dict(env.get("options") or {}), None if steps is None else int(steps)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{file}: must say env.id and env.options of the run, got a damaged file "
            f"({str(error).splitlines()[0]}). Restore it."
        ) from None
