"""The options that an environment accepts, read from its constructors; others are refused.

A constructor hands on what it does not know, so an option is known if any class on the way to
`TrialVectorEnv` takes it. Python would name that last class in its error, and no option.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from envs.core.validation import unknown_name

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
"""How Python says it."""
ROW_OPTIONS = ("seed", "first_row", "copy")
"""Options that every trial environment passes on to `TrialVectorEnv`."""


def keywords(factory: Callable[..., Any], base: type) -> list[str] | None:
    """Return the keyword arguments that a factory takes; None if it takes any.

    Args:
        factory: A class of environments, or a function that builds one.
        base: The class from which on arguments are no options: `TrialVectorEnv`.
    """
    names: list[str] = []
    for function in _constructors(factory, base):
        parameters = list(inspect.signature(function).parameters.values())
        names += [
            p.name for p in parameters if p.kind is p.KEYWORD_ONLY or p.default is not p.empty
        ]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return sorted({*names} - {"num_envs"})
    return sorted({*names, *ROW_OPTIONS} - {"num_envs"}) if inspect.isclass(factory) else None


class UnknownOptionError(ValueError):
    """An environment was given an option that it does not take."""

    def __init__(self, error: ValueError, option: str):
        """Say what `error` says of an option."""
        super().__init__(str(error))
        self.option = option


def refused_option(error: Exception) -> str | None:
    """Return the option that an environment does not take by its error; None if that is another."""
    if isinstance(error, UnknownOptionError):
        return error.option
    said = _UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    return said[1] if said else None


def refuse_options(env_class: type, base: type, unknown: Mapping[str, Any]) -> None:
    """Raise if options were given that no constructor takes.

    Raises:
        UnknownOptionError: Naming the first of them, and the nearest that there is.
    """
    known = set(keywords(env_class, base) or ())
    if "dataset_name" in known:  # a general class, which settles little itself
        known |= set(keywords(base, object) or ())
    for name in unknown:
        error = unknown_name(env_class.__name__, "an option", name, known)
        raise UnknownOptionError(error, name)


def refuse_fixed(env_class: type, base: type, options: Iterable[str]) -> None:
    """Raise if options are given that an environment settles itself, such as its number of trials.

    Args:
        env_class: The environment.
        base: As for `keywords`.
        options: Names of what its constructor would hand on.

    Raises:
        UnknownOptionError: Naming the first that is none of its own.
    """
    known = keywords(env_class, base)
    for name in options:
        if known is not None and name not in known:
            error = unknown_name(env_class.__name__, "an option", name, known)
            raise UnknownOptionError(error, name)


def _constructors(factory: Callable[..., Any], base: type) -> list[Callable[..., Any]]:
    """Return what receives the keywords: a class hands those it does not know to its bases."""
    if not inspect.isclass(factory):
        return [factory]
    bases = inspect.getmro(factory)
    own = bases[: bases.index(base)] if base in bases else bases[:1]
    return [c.__init__ for c in own if "__init__" in vars(c)]
