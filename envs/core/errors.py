"""Errors that environments raise, and the wording they share. No environment lives here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EnvStateError(RuntimeError):
    """A method was called at a time when the environment cannot serve it."""


class StepBeforeResetError(EnvStateError):
    """`step` (or anything else that needs a running episode) came before the first `reset`."""


class EpisodeEndedError(EnvStateError):
    """`step` came after the end of an episode of a single environment."""


class ClosedError(EnvStateError):
    """A closed environment was used."""


def unknown_name(where: str, what: str, name: object, known: Iterable[str]) -> ValueError:
    """Build the error for a name that is none of the known ones, with the nearest one guessed.

    Args:
        where: dotted path or `Class.method` that received the name.
        what: what the name should have named.
        name: what was given.
        known: the valid names.

    Returns:
        The error, for the caller to raise.
    """
    choices = sorted(known)
    nearest = difflib.get_close_matches(str(name), choices, n=1)
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return ValueError(f"{where}: {what} must be one of {', '.join(choices)}, got {name!r}.{guess}")
