"""Help pages of a configuration, generated from its docstrings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import shutil
import sys
import textwrap
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import pairwise, takewhile
from typing import Any, Literal, Union, get_args, get_origin

from relic.schema import ConfigError, bounds_of, hints_of, nearest, without_none

_NAMES: dict[Any, str] = {int: "whole number", float: "number", bool: "true or false", str: "text"}
_MUST_BE_GIVEN = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What is known of one field."""

    key: str
    """Dotted name."""
    value: Any
    """What it holds where nothing is said."""
    hint: Any
    """Its type."""
    rule: str | None
    """What its numbers must be; see `relic.schema.Bound`."""
    text: str
    """What it means."""

    @property
    def section(self) -> type | None:
        """The dataclass of a section; None: a field with a value."""
        kind = without_none(self.hint)
        is_section = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        return kind if is_section else None


def entries(cls: type, values: Mapping[str, Any], path: str = "") -> list[Entry]:
    """Return the fields of one dataclass, in order.

    Args:
        cls: The dataclass.
        values: Plain values to show; what is not among them is shown as the dataclass has it.
        path: Dotted name of the section.
    """
    hints, bounds, texts = hints_of(cls), bounds_of(cls), field_texts(cls)
    return [
        Entry(
            key=f"{path}.{field.name}" if path else field.name,
            value=values.get(field.name, _default(field)),
            hint=hints[field.name],
            rule=bounds[field.name].rule if field.name in bounds else None,
            text=" ".join(filter(None, (summary(hints[field.name]), texts.get(field.name)))),
        )
        for field in dataclasses.fields(cls)
        if field.init
    ]


def show(text: str) -> None:
    """Print a text whose reader may leave early, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is still buffered would be written, and fail again, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def page(cls: type, values: Mapping[str, Any], path: str = "") -> str:
    """Return the help about a section, or about one field.

    Args:
        cls: The whole configuration.
        values: Plain values of it.
        path: Dotted name of what is described; empty: the fields that lie in no section.

    Raises:
        ConfigError: If there is no such section or field; it names the nearest.
    """
    title, done = "", ""
    for part in path.split(".") if path else ():
        here = {e.key.rpartition(".")[2]: e for e in entries(cls, values, done)}
        if part not in here:
            raise ConfigError(f"--help {path}: unknown {part!r}. {nearest(part, here)}")
        entry = here[part]
        done = entry.key
        if entry.section is None:
            return describe(entry)
        title, cls, values = entry.text, entry.section, values.get(part) or {}
    found = entries(cls, values, path)
    heading = [_filled("", f"{path}: {title}", "")] if title else []
    inner = [e for e in found if e.section is not None]
    below = [section_list(inner)] if path and inner else []
    return "\n\n".join([*heading, *(describe(e) for e in found if e.section is None), *below])


def sections_below(cls: type, path: str = "") -> list[str]:
    """Return the dotted names of all sections, each followed by those in it."""
    names = []
    for entry in entries(cls, {}, path):
        if entry.section is not None:
            names += [entry.key, *sections_below(entry.section, entry.key)]
    return names


def section_list(sections: Iterable[Entry]) -> str:
    """Return one line for each section: its name, and what it is about."""
    return choice_list({e.key: _first_sentence(e.text) for e in sections})


def choice_list(choices: Mapping[str, str], indent: str = "  ") -> str:
    """Return one line for each choice: its name, and what it means."""
    width = max(map(len, choices)) + 2
    return "\n".join(_filled(f"{n:<{width}}", t, indent) for n, t in choices.items())


def describe(entry: Entry) -> str:
    """Return a field's key, value and type in one line, and what it means below."""
    shown = "" if entry.value is _MUST_BE_GIVEN else f"={_plain(entry.value)}"
    kind = ", ".join(filter(None, (_kind(entry.hint), entry.rule and _as_is(entry.rule))))
    lines = [f"{entry.key}{shown}    ({kind})", _filled("", entry.text, "    ")]
    members = _member_texts(without_none(entry.hint))
    if members:
        lines.append(choice_list(members, "      "))
    return "\n".join(lines)


def comment_of(text: str) -> str:
    """Return the comment that a YAML file begins with."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def summary(hint: Any) -> str:
    """Return the first paragraph of a section's own text; other types have none."""
    cls = without_none(hint)
    is_section = isinstance(cls, type) and dataclasses.is_dataclass(cls)
    return " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split()) * is_section


@cache
def field_texts(cls: type) -> dict[str, str]:
    """Return the texts that stand below the fields of a dataclass, or the members of an Enum."""
    texts: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if one.__module__.partition(".")[0] != __package__:
            continue
        body = _classes(one.__module__)[one.__name__].body
        for statement, below in pairwise(body):
            name = _assigned(statement)
            text = getattr(getattr(below, "value", None), "value", None)
            if name and isinstance(below, ast.Expr) and isinstance(text, str):
                texts[name] = " ".join(text.split())
    return texts


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _assigned(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.AnnAssign):
        target = statement.target
    elif isinstance(statement, ast.Assign):
        target = statement.targets[0]
    else:
        return None
    return target.id if isinstance(target, ast.Name) else None


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _MUST_BE_GIVEN


def _kind(hint: Any) -> str:
    """Say in words what a type takes."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        named = [_kind(a) for a in args if a is not type(None)]
        return " or ".join([*named, "null"] if type(None) in args else named)
    if origin is Literal:
        return " | ".join(map(str, args))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(str(member.value) for member in hint)
    if origin is tuple:
        return f"[{_kind(args[0])}, ...]"
    if origin is dict:
        return "mapping"
    return _NAMES.get(hint, "section")


def _member_texts(hint: Any) -> dict[str, str]:
    if not (isinstance(hint, type) and issubclass(hint, Enum)):
        return {}
    texts = field_texts(hint)
    return {str(m.value): texts[m.name] for m in hint if m.name in texts}


def _as_is(rule: str) -> str:
    return rule.removeprefix("be ")


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {_plain(v)}' for k, v in value.items())}}}"
    return json.dumps(value)


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _filled(name: str, text: str, indent: str) -> str:
    """Wrap a text; its lines begin behind the name."""
    return textwrap.fill(
        text.replace("None", "null"),  # as a command line has it
        _columns(),
        initial_indent=f"{indent}{name}",
        subsequent_indent=indent + " " * len(name),
        break_on_hyphens=False,
        break_long_words=False,
    ).rstrip()


def _columns() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 100)
