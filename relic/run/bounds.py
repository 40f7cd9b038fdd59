"""Ranges of configured numbers, refused by one sentence."""

from __future__ import annotations

from collections.abc import Mapping


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a value that is too small."""
    if value < least:
        raise ValueError(f"{name}: must be at least {least}, got {value}.")


def at_most(name: str, value: int, most_name: str, most: int) -> None:
    """Refuse a value that is larger than another field's."""
    if value > most:
        raise ValueError(
            f"{name}: must be at most {most_name}, got {value} for {most}. Use {most} or fewer."
        )


def between(name: str, value: float, low: float, high: float) -> None:
    """Refuse a value outside a range."""
    if not low <= value <= high:
        raise ValueError(f"{name}: must be between {low} and {high}, got {value}.")


def all_equal(section: str, part: object, values: Mapping[str, object], *, when: str) -> None:
    """Refuse fields of a section that are not what a choice made elsewhere asks of them.

    Args:
        section: Path of the section.
        part: The section.
        values: What each field must be.
        when: The choice, to follow "must be ...".
    """
    for name, value in values.items():
        given = getattr(part, name)
        if given != value:
            wanted, got = (str(x).lower() for x in (value, given))
            path = f"{section}.{name}"
            raise ValueError(f"{path}: must be {wanted} {when}, got {got}. Set {path}={wanted}.")
