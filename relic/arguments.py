"""`key=value` arguments of the command lines, read as the type of the field that they set.

What a user types into a field of text is what the run gets, whatever stands in it: spaces, `=`,
commas, `#`. Only `null`, and quotes around the whole, are special there; in a list of texts, commas
and quotes. Other values are YAML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import yaml

from relic.bounded_yaml import parse_yaml
from relic.schema import ConfigError, without_none

_QUOTED = re.compile(r"""\s*(?:'(?:[^']|'')*'|"(?:[^"\\]|\\.)*")\s*""", re.DOTALL)
_QUOTED_FIRST = re.compile(rf"({_QUOTED.pattern})(?:,|$)", re.DOTALL)
_TIGHT_KEY = re.compile(r"\s*[\w.]+:(?=\S)")
_TAG = "tag:yaml.org,2002:"
_NUMBERS = {
    "int": re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)"),
    "float": re.compile(
        r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|\.?(inf|Inf|INF))|\.?(nan|NaN|NAN)"
    ),
}


class Loader(yaml.SafeLoader):
    """YAML in which 1e-3 and inf are numbers, as people expect, but 12:30, 010 and dates are text.

    In YAML 1.1 it is the other way round: 12:30 is 750 there, and 010 is 8.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [r for r in rules if r[0] not in {f"{_TAG}{t}" for t in (*_NUMBERS, "timestamp")}]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _kind, _form in _NUMBERS.items():
    _whole = re.compile(rf"(?:{_form.pattern})$")
    Loader.add_implicit_resolver(f"{_TAG}{_kind}", _whole, list("-+.0123456789iInN"))


class _TextLoader(yaml.BaseLoader):
    """YAML whose scalars all stay text."""


def split(argument: str, meant: str = "key") -> tuple[str, str]:
    """Split an argument at its first `=`; a `+` before the key means nothing.

    Args:
        argument: As it was typed.
        meant: The key that is advised where it names none.

    Raises:
        ConfigError: If it has none, or if the key or a part of it is empty.
    """
    key, equals, text = argument.partition("=")
    if key.startswith("-"):
        wanted = f"{key.lstrip('-')}={text or 'VALUE'}"
        raise ConfigError(f"{argument}: must be a key without dashes. Write {wanted}.")
    key = key.lstrip("+")
    if not equals or not all(key.split(".")):
        wanted = "key=value" if meant == "key" or equals else f"{meant}={argument}"
        raise ConfigError(f"{argument}: must be of the form key=value. Write {wanted}.")
    return key, text


def read(key: str, text: str, hint: Any) -> Any:
    """Return the plain value that a text stands for, still unchecked.

    Args:
        key: For messages.
        text: What was typed after the `=`.
        hint: Type of the field; see `relic.schema.hint_at`.

    Raises:
        ConfigError: If it is not YAML where it has to be, or nothing at all.
    """
    if not text.strip():  # such as a variable of the shell that is not set
        raise ConfigError(f"{key}: must have a value, got none. Write {key}=null, or leave it out.")
    if is_text(hint):
        if text.strip() == "null":
            return None
        return _load(key, text, _TextLoader) if _QUOTED.fullmatch(text) else text
    kind = without_none(hint)
    if get_origin(kind) is not tuple:
        return _load(key, text, Loader)
    if not text.lstrip().startswith("["):
        return None if text.strip() == "null" else [read(key, text, get_args(kind)[0])]
    return _texts(key, text) if is_text(get_args(kind)[0]) else _load(key, text, Loader)


def _texts(key: str, text: str) -> list[str]:
    """Split a list of texts at its commas; only quotes around a whole text are special there."""
    inner = text.strip().removeprefix("[")
    if not inner.endswith("]"):
        raise ConfigError(f"{key}: must be a list, got {text!r}. End it with a bracket.")
    found, rest = [], inner[:-1].strip()
    while rest:
        quoted = _QUOTED_FIRST.match(rest)
        one, _, rest = ("", "", rest[quoted.end() :]) if quoted else rest.partition(",")
        if not quoted and not one.strip():
            raise ConfigError(f"{key}: must hold something between commas, got {text}. Drop one.")
        found.append(_load(key, quoted[1], _TextLoader) if quoted else one.strip())
    return found


def is_text(hint: Any) -> bool:
    """Say whether a field takes text alone: any, or names from a list."""
    kind = without_none(hint)
    if get_origin(kind) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind))
    return isinstance(kind, type) and issubclass(kind, str | Enum)


def alternatives(text: str) -> list[str]:
    """Split a value at the commas that stand in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "[{(") - (character in "]})")
        if character == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts] if len(parts) > 1 else [text]


def section_of(tree: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that holds a dotted key, made where it is absent or null, and its name.

    Raises:
        ConfigError: If a part of the key is a single value.
    """
    *path, last = key.split(".")
    section = tree
    for part in path:
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise ConfigError(f"{key}: {part} is a single value. Set {part}=VALUE.")
    return section, last


def merge(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Lay a plain tree over another, in place: mappings key by key, anything else as a whole."""
    for key, value in over.items():
        if isinstance(value, Mapping):
            inner = tree.get(key)
            tree[key] = dict(inner) if isinstance(inner, Mapping) else {}
            merge(tree[key], value)
        else:
            tree[key] = value


def merged(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain tree with another one laid over it, as `merge` does; neither is changed."""
    both = dict(tree)
    merge(both, over)
    return both


def _load(key: str, text: str, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader]) -> Any:
    spaced = _spaced(text)
    try:
        value = parse_yaml(spaced, loader)
        kept = sum(t.value.count("#") for t in yaml.scan(spaced) if isinstance(t, yaml.ScalarToken))
    except yaml.MarkedYAMLError:
        raise ConfigError(f"{key}: must be a YAML value, got {text!r}. Quote it.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: must be a YAML value, got {text!r:.200}, but {error}.") from None
    if kept < text.count("#"):
        raise ConfigError(
            f"{key}: must be a YAML value, got {text!r}, which a comment ends. Quote what has a #."
        )
    return value


def _spaced(text: str) -> str:
    """Put a space behind keys in braces: YAML would take the whole of {a:1} for a key."""
    spaced, opened, quote, position = "", "", "", 0
    while position < len(text):
        character = text[position]
        position += 1
        spaced += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[{":
            opened += character
        elif character in "]}":
            opened = opened[:-1]
        begins = not quote and character in "{,"
        key = _TIGHT_KEY.match(text, position) if begins and opened[-1:] == "{" else None
        if key is not None:
            spaced += f"{key[0]} "
            position = key.end()
    return spaced
