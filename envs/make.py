"""Builds a trial environment from a name and options, with errors that name the nearest."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

import envs as _registers  # noqa: F401
from envs.core.options import keywords, refused_option
from envs.core.validation import unknown_name
from envs.core.vector import TrialVectorEnv

_NAMESPACE = "relic/"


def known_ids() -> list[str]:
    """Return the Gymnasium ids of this project's environments."""
    return sorted(i for i in gymnasium.registry if i.startswith(_NAMESPACE))


def kernel_parts(name: str) -> Mapping[str, str]:
    """Return what of an environment can be compiled ahead; see `envs.core.kernels.compile_ahead`.

    Raises:
        ValueError: If the name is unknown.
    """
    return getattr(_factory(name), "kernel_parts", {})


def default_protocol(name: str) -> Any:
    """Return how an environment wants to be evaluated, None where it does not say it.

    Raises:
        ValueError: If the name is unknown.
    """
    return getattr(_factory(name), "default_protocol", None)


def option_names(name: str) -> list[str]:
    """Return the options that an environment names; none where it takes any.

    Raises:
        ValueError: If the name is unknown.
    """
    return keywords(_factory(name), TrialVectorEnv) or []


def make_trial_env(name: str, num_envs: int, options: Mapping[str, Any]) -> TrialVectorEnv:
    """Build the vector environment `name` with `num_envs` rows.

    Args:
        name: A Gymnasium id such as `relic/Houses-v0`, or `module:function` for an environment
            of one's own; the function is called like the vector entry point of an id.
        num_envs: Rows.
        options: Further keyword arguments of the environment.

    Raises:
        ValueError: If the name or an option is unknown.
        TypeError: If what was built is not a `TrialVectorEnv`.
    """
    factory = _factory(name)
    valid = keywords(factory, TrialVectorEnv)
    for option in options:
        if valid == []:
            raise ValueError(
                f"env.options.{option}: must not be given, as {name} takes no options, got "
                f"{options[option]!r}. Let it take them, as docs/own_environment.md shows."
            )
        if valid is not None and option not in valid:
            error = unknown_name(f"env.options.{option}", f"an option of {name}", option, valid)
            raise ValueError(f"{error}{_let_it(name, option)}")
    try:
        env = factory(num_envs=num_envs, **options)
    except (TypeError, ValueError) as error:
        option = refused_option(error)
        if option is None or option not in options:
            raise
        said = str(error).rstrip(".")
        raise ValueError(
            f"env.options.{option}: must be an option of {name}, got {options[option]!r}, but: "
            f"{said}.{_meant(factory, name, option) or _let_it(name, option)}"
        ) from error
    if not isinstance(env, TrialVectorEnv):
        raise TypeError(
            f"env.id: {name} must build an envs.core.vector.TrialVectorEnv, got "
            f"{type(env).__name__}. Wrap it as docs/own_environment.md shows."
        )
    return env


def _meant(factory: Callable[..., Any], name: str, option: str) -> str:
    """Say which argument of a function of one's own an option that it hands on is nearest to."""
    own = inspect.signature(factory).parameters if ":" in name else ()
    near = difflib.get_close_matches(option, own, n=1)
    return f" Did you mean {near[0]!r}, which {name} takes itself?" if near else ""


def _let_it(name: str, option: str) -> str:
    """Say what helps where an environment of one's own does not take an option."""
    own = ":" in name
    return f" Let it take {option}, as docs/own_environment.md shows." if own else ""


def _factory(name: str) -> Callable[..., Any]:
    return _own_factory(name) if ":" in name else _registered_factory(name)


def _registered_factory(name: str) -> Callable[..., Any]:
    if name not in known_ids():
        error = unknown_name("env.id", "the environment", name, known_ids())
        raise ValueError(f"{error} One of your own is MODULE:FUNCTION.")
    return _load(str(gymnasium.spec(name).vector_entry_point))


def _own_factory(name: str) -> Callable[..., Any]:
    # Scripts have their own folder on the path, and console commands none.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
            raise ImportError("it is of another form")
        factory = _load(name)
        if not callable(factory):
            raise ImportError(f"{name} is a {type(factory).__name__}")
        return factory
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"env.id: {name!r} must name a function as module:function, but {error}. "
            "Check the spelling and that the module can be imported from here."
        ) from None


def _load(path: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
