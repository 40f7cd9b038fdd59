"""Composes the configuration of a run: defaults, one choice of each group, then keys of one's own.

`configs/config.yaml` names the groups, in the order in which they are laid over each other, with
what is chosen where nothing is said. A choice is a file `configs/GROUP/NAME.yaml`, a part of the
configuration; NAME may have folders, and its key `base` names another of the group, over which it
is laid.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_origin

import yaml

from relic.arguments import Loader, alternatives, is_text, merge, read, section_of, split
from relic.bounded_yaml import parse_yaml
from relic.help import comment_of
from relic.run.config import RunConfig
from relic.run.run_directory import FREE_KEYS
from relic.schema import (
    ConfigError,
    build,
    hint_at,
    leaves,
    names_below,
    nearest,
    to_plain,
    without_none,
)
from relic.shipped import CONFIGS
from relic.upgrade import refuse_older_key

LONGEST_NAME = 100
"""Bytes of a directory's name."""
LONGEST_VALUE = 32
"""Characters of a swept value in it."""
OLDER_LONGEST_NAME = 200
"""What `LONGEST_NAME` was when names held all arguments."""


def groups() -> dict[str, list[str]]:
    """Return the config groups and the choices in each."""
    found = {}
    for group in _chosen_by_default():
        files = [p.relative_to(CONFIGS / group) for p in (CONFIGS / group).rglob("*.yaml")]
        found[group] = sorted(p.with_suffix("").as_posix() for p in files)
    return found


def describe_choice(group: str, name: str) -> str:
    """Return what a choice of a group says of itself: the comment that it begins with."""
    return comment_of(_file(f"{group}/{name}.yaml"))


def compose(overrides: Mapping[str, Any]) -> RunConfig:
    """Return what a command line with these keys would train.

    Args:
        overrides: Choices of groups and dotted keys; text is read as on a command line, and
            mappings stand for the keys below theirs.

    Raises:
        ConfigError: If anything is refused.
    """
    if not isinstance(overrides, Mapping):
        raise ConfigError(f"overrides: must be a dict of keys and values, got {overrides!r:.200}.")
    for key in overrides:
        if not isinstance(key, str):
            raise ConfigError(f"overrides: keys must be text, got {key!r}. Name a field.")
    return _composed(overrides.items())


def compose_arguments(arguments: Sequence[str]) -> RunConfig:
    """Return what the `key=value` arguments of a command line train.

    Raises:
        ConfigError: If anything is refused.
    """
    return _composed(map(_split, arguments))


def _split(argument: str) -> tuple[str, str]:
    """Split `key=value`; a value alone is taken for a choice of the first group that has it."""
    return split(argument, next((g for g, names in groups().items() if argument in names), "key"))


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One run of a sweep."""

    arguments: list[str]
    """The `key=value` arguments of it alone."""
    name: str
    """Its directory, below that of its experiment's sweeps: one for the sweep, which all that is
    not swept tells from others, and one in it, of the swept values."""


def sweep(arguments: Sequence[str]) -> list[SweepRun]:
    """Return the runs of a sweep: all combinations of values between commas.

    The same command gives the same names, also with more values.
    """
    said: dict[str, list[str]] = {}
    for key, text in map(_split, arguments):
        said.pop(key, None)  # the last counts, in its place
        said[key] = alternatives(text)
        _refuse_twins(key, said[key])
    keys = list(said.items())
    swept = sorted({key for key, values in keys if len(values) > 1})
    ends = [key.rpartition(".")[2] for key in swept]
    short = {k: end if ends.count(end) == 1 else k for k, end in zip(swept, ends, strict=True)}
    folder = _bounded("_".join(short.values()) or "run") + _of_fixed(keys)
    jobs: list[dict[str, str]] = [{}]
    for key, values in keys:
        jobs = [{**job, key: value} for job in jobs for value in values]
    runs = []
    for job in jobs:
        values = _bounded("_".join(_shown(key, job[key], short[key]) for key in swept))
        own = [f"{key}={value}" for key, value in job.items()]
        runs.append(SweepRun(own, f"{folder}/{values}" if swept else folder))
    return runs


def _refuse_twins(key: str, values: Sequence[str]) -> None:
    """Refuse a value that would be trained twice."""
    typed = [repr(_typed(key, value)) for value in values] if len(values) > 1 else []
    if len(set(typed)) < len(typed):
        raise ConfigError(
            f"{key}: must be another value in each run of a sweep, got {','.join(values)}. Name "
            "each once."
        )


def _of_fixed(keys: Sequence[tuple[str, list[str]]]) -> str:
    """Return an ending that tells sweeps apart by what they do not sweep."""
    # The experiment has a directory of its own, and `FREE_KEYS` make no other run.
    unread = ("experiment", *FREE_KEYS)
    fixed = {
        key: _typed(key, values[0])
        for key, values in keys
        if len(values) == 1 and key.partition(".")[0] not in unread
    }
    return f"-{_digest(json.dumps(sorted(fixed.items()), default=str))}" if fixed else ""


def _typed(key: str, text: str) -> Any:
    """Return the value that is set, so that 1e-3 and 0.001 are one."""
    return text if key in groups() else read(key, text, hint_at(RunConfig, key))


def _shown(key: str, text: str, short: str) -> str:
    """Return a swept value for a name: without what shells, lists and paths take for their own."""
    typed = _typed(key, text)
    if isinstance(typed, float) and typed.is_integer():
        typed = int(typed)  # 1e6 is how people write a million steps
    number = isinstance(typed, int | float) and not isinstance(typed, bool)
    whole = str(typed) if number else text
    clean = re.sub(r"[^\w.+-]+", "-", whole)[:LONGEST_VALUE].strip("-.")
    return f"{short}-{clean}" if clean == whole else f"{short}-{clean}-{_digest(whole)}"


def _bounded(name: str) -> str:
    encoded = name.encode()
    if len(encoded) <= LONGEST_NAME:
        return name
    return f"{encoded[: LONGEST_NAME - 9].decode(errors='ignore')}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def older_sweep_names(arguments: Sequence[str]) -> list[str]:
    """Return the names that older versions gave to a run of a sweep: of all its arguments."""
    shown = []
    for key, text in map(split, arguments):
        typed = _typed(key, text)
        number = isinstance(typed, int | float) and not isinstance(typed, bool)
        shown.append(f"{key}={typed if number else text}")
    name = ",".join(sorted(shown)).replace("/", "_")
    if len(name.encode()) > OLDER_LONGEST_NAME:
        name = f"{name.encode()[: OLDER_LONGEST_NAME - 9].decode(errors='ignore')}-{_digest(name)}"
    return [name, _hydra_sweep_name(arguments)]


def _hydra_sweep_name(arguments: Sequence[str]) -> str:
    """Return the name that versions which composed with Hydra gave to a run of a sweep.

    They wrote true as True, lists and mappings without spaces, and `++` before what no file named.
    """
    shown = []
    for key, text in map(split, arguments):
        if key in groups():
            shown.append(f"{key}={text}")
        else:
            hint = hint_at(RunConfig, key)
            value = text if is_text(hint) else _as_hydra(read(key, text, hint), text)
            shown.append(f"{'++' if _may_be_absent(key) else ''}{key}={value}")
    return ",".join(sorted(shown)).replace("/", "_")


def _as_hydra(value: Any, text: str) -> str:
    """Write a value as Hydra did; text keeps the quotes that it was typed with."""
    if isinstance(value, list | tuple):
        return f"[{','.join(_as_hydra(v, str(v)) for v in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{k}:{_as_hydra(v, str(v))}' for k, v in value.items())}}}"
    return "null" if value is None else text if isinstance(value, str) else str(value)


def _may_be_absent(key: str) -> bool:
    """Say whether a key lies inside free options, or in a section that may be null."""
    parts = key.split(".")
    above = [hint_at(RunConfig, ".".join(parts[:n])) for n in range(1, len(parts))]
    return any(h is Any or get_origin(h) is dict or h is not without_none(h) for h in above)


def _composed(overrides: Iterable[tuple[str, Any]]) -> RunConfig:
    chosen: dict[str, Any] = _chosen_by_default()
    known = groups()
    keys: list[tuple[str, Any]] = []
    for key, value in overrides:
        if key in known and isinstance(value, str) and not value.lstrip().startswith("{"):
            chosen[key] = _choice(key, value, known[key])
        else:
            keys.append((key, _value(key, value)))
            for path in leaves(keys[-1][1], key):
                refuse_older_key(path)
    tree = to_plain(RunConfig())
    for group, name in chosen.items():
        if name != "null":
            merge(tree, _load(group, name))
    for key, value in keys:
        section, last = section_of(tree, key)
        _refuse_to_empty(key, value, section.get(last))
        merge(section, {last: value})
    return build(RunConfig, tree)


def _refuse_to_empty(key: str, value: Any, before: Any) -> None:
    """Refuse an empty mapping over free options, which adds nothing and takes nothing away."""
    if not isinstance(value, dict) or value or not isinstance(before, dict) or not before:
        return
    hint = without_none(_hint(key))
    if hint is Any or get_origin(hint) is dict:
        raise ConfigError(
            f"{key}: must have a key, got {{}}. It is added to what the files set, which are "
            f"{', '.join(before)}, and would change nothing. Set one of them, such as "
            f"{key}.{next(iter(before))}=VALUE, or choose another experiment."
        )


def _choice(group: str, text: str, choices: Sequence[str]) -> str:
    for name in map(str.strip, alternatives(text)):
        if name not in (*choices, "null"):
            raise ConfigError(f"{group}: unknown {name!r}. {nearest(name, choices)}")
    _refuse_several(group, text)
    return text.strip()


def _value(key: str, value: Any) -> Any:
    hint = _hint(key)
    if not isinstance(value, str):
        # Sweepers hand over NumPy's numbers; to import it only to ask would cost a start its time.
        return value.item() if getattr(value, "ndim", None) == 0 else to_plain(value)
    if not is_text(hint):
        _refuse_several(key, value)
    return read(key, value, hint)


def _hint(key: str) -> Any:
    """Return the type of a field; an unknown key may be an older one, or have meant a group."""
    refuse_older_key(key)
    try:
        return hint_at(RunConfig, key)
    except ConfigError as error:
        ends = {name.rpartition(".")[2] for name in names_below(RunConfig)}
        if "." in key or key in ends:
            raise
        meant = nearest(key, groups())
        if meant.startswith("Did"):
            raise ConfigError(f"{key}: unknown key. {meant}") from None
        if "Choose one of" in str(error):
            raise ConfigError(f"{error} One of the environment is env.options.{key}.") from None
        raise


def _refuse_several(key: str, text: str) -> None:
    if len(alternatives(text)) > 1:
        raise ConfigError(f"{key}: must be one value, got {text}. Add -m to train one by one.")


@cache
def _file(path: str) -> str:
    return (CONFIGS / path).read_text()


def _chosen_by_default() -> dict[str, str]:
    return yaml.load(_file("config.yaml"), Loader)


def _load(group: str, name: str) -> dict[str, Any]:
    try:
        content = parse_yaml(_file(f"{group}/{name}.yaml"), Loader) or {}
    except yaml.YAMLError as error:
        reason = str(error).replace("\n", " ")
        raise ConfigError(f"{group}/{name}.yaml: must be YAML, got {reason}. Repair it.") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{group}/{name}.yaml: must hold keys, got {content!r}. Write key: value."
        )
    base = content.pop("base", None)
    if base is None:
        return content
    tree = _load(group, base)
    merge(tree, content)
    return tree
