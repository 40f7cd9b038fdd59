"""Typed, frozen configuration from plain mappings, with errors that name the nearest valid key.

Dataclasses say what a configuration holds: `Annotated[int, at_least(1)]` the range of one field,
and ``__post_init__``, which begins with `check_bounds(self)`, what several ask of each other. This
module knows nothing of any component.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that is refused; its text is what the user is shown."""


@dataclass(frozen=True)  # no slots: the doctor imports this file under older Pythons too
class Bound:
    """What a field's number must satisfy; None, where a field takes it, always passes."""

    rule: str
    """To follow "must"."""
    fits: Callable[[float], bool]
    """False for NaN too."""
    advice: str
    """A sentence that says what to use instead."""


def at_least(least: float) -> Bound:
    """Return the bound of numbers from `least` on."""
    return Bound(f"be at least {least}", lambda v: v >= least, f"Use {least} or more.")


LARGEST = 2**63
"""What no whole number may reach, as arrays and PyTorch have none that is larger."""


def within(least: int, most: int) -> Bound:
    """Return the bound of sizes: what is larger cannot be meant, and would never end."""
    rule = f"be from {least} to {most}"
    return Bound(rule, lambda v: least <= v <= most, "Use a number in between.")


MOST_THREADS = 4096
"""Threads or processes that may be asked for; no machine has as many cores."""
FINITE = Bound("be at least 0 and finite", lambda v: 0 <= v < math.inf, "Use 0 or more.")
POSITIVE = Bound("be positive", lambda v: v > 0, "Choose a larger one.")
FRACTION = Bound("be in [0, 1]", lambda v: 0 <= v <= 1, "Use a number from 0 to 1.")


def check_bounds(config: object) -> None:
    """Check the fields of a dataclass whose annotations have a `Bound`.

    Raises:
        ValueError: If one lies outside; it names field, rule and value.
    """
    for name, bound in bounds_of(type(config)).items():
        value = getattr(config, name)
        if value is not None and not bound.fits(value):
            raise ValueError(f"{name}: must {bound.rule}, got {value}. {bound.advice}")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which of the valid names was probably meant, or list them all."""
    options = [str(v) for v in valid]
    close = difflib.get_close_matches(str(name), options, n=1, cutoff=0.5)
    same = [option for option in options if _without_form(option) == _without_form(str(name))]
    if same or close:
        return f"Did you mean {(same or close)[0]!r}?"
    return f"Choose one of: {', '.join(options)}." if options else "There are none."


def _without_form(name: str) -> str:
    """Return what is left of a name without its form: no_x, x_none and X are ways to say one."""
    joined = re.sub(r"[\W_]+", "", name.lower())
    negated = re.fullmatch(r"(?:no|without)(.+)|(.+?)(?:none|off)", joined)
    return f"no {negated[1] or negated[2]}" if negated else joined


def in_lines(error: BaseException, most: int | None) -> str:
    """Return an error's text without empty lines, `most` lines of it (None: all)."""
    return "\n".join([line for line in str(error).splitlines() if line.strip()][:most])


def build(cls: type[T], data: Mapping[str, Any], path: str = "") -> T:
    """Turn a mapping into the frozen dataclass `cls`, all of it checked.

    Args:
        cls: A dataclass. Nested dataclasses, enums, literals, optionals, tuples and plain
            scalars are understood as field types.
        data: Values by field name; fields with defaults may be absent.
        path: Dotted name of the mapping, for messages.

    Raises:
        ConfigError: On an unknown, missing or ill-typed key, or a value the dataclass refuses.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path or 'configuration'}: must be a mapping, got {data!r}.")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ConfigError(f"{_join(path, key)}: unknown key. {nearest(key, fields)}")
    hints = hints_of(cls)
    values = {k: convert(hints[k], v, _join(path, k)) for k, v in data.items()}
    missing = [n for n, f in fields.items() if n not in values and not _has_default(f)]
    if missing:
        raise ConfigError(f"{_join(path, missing[0])}: must be given, got nothing. Set it.")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        # Components name their own fields; the prefix says where in the whole they stand.
        text = str(error)
        raise ConfigError(text if not path or text.startswith(path) else f"{path}.{text}") from None


def convert(hint: Any, value: Any, path: str) -> Any:
    """Check `value` against a type hint and return it in that type.

    Raises:
        ConfigError: If the value does not fit.
    """
    origin = get_origin(hint)
    if hint is Any:
        return _convert_plain(value, path)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value, path)
    if origin is Literal:
        return choice(value, get_args(hint), path)
    if origin is tuple:
        return _convert_tuple(get_args(hint), value, path)
    if origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: must be a mapping, got {value!r}.")
        *_, kind = get_args(hint) or (Any,)
        _check_keys(value, path)
        return {key: convert(kind, part, _join(path, key)) for key, part in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else build(hint, value, path)
    if isinstance(hint, type) and issubclass(hint, Enum):
        if isinstance(value, hint):
            return value
        # YAML reads a bare `none` as text but `null` as nothing; both name a member "none".
        text = "none" if value is None else value
        return hint(choice(text, [m.value for m in hint], path))
    return _convert_scalar(hint, value, path)


def to_plain(value: Any) -> Any:
    """Return a configuration as nested dicts, lists and scalars, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {k: to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    return value


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Flatten a plain configuration into dotted names."""
    if isinstance(value, Mapping) and value:
        nested = (leaves(v, _join(path, str(k))) for k, v in value.items())
        return {k: v for part in nested for k, v in part.items()}
    return {path: value}


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, free: Collection[str] = ()
) -> list[str]:
    """List the keys whose values differ in two plain configurations, as `key: old -> new`.

    Args:
        old: One configuration.
        new: The other.
        free: Dotted names of values and sections that may differ.
    """
    before, after = leaves(old), leaves(new)

    def is_free(key: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in free)

    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not is_free(key)
    ]


def hint_at(cls: type, dotted: str) -> Any:
    """Return the type of a dotted name in a configuration; `Any` among free options.

    Raises:
        ConfigError: If a part is unknown; it names the nearest.
    """
    declared: Any = cls
    done = ""
    for part in dotted.split("."):
        hint = without_none(declared)
        if hint is dict or get_origin(hint) is dict:
            return Any  # free-form options are checked by their owner
        if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
            raise ConfigError(f"{dotted}: unknown key. {done} is a single value. Set {done}=VALUE.")
        hints = hints_of(hint)
        if part not in hints:
            elsewhere = [repr(key) for key in names_below(cls) if key.rpartition(".")[2] == part]
            meant = f"Did you mean {' or '.join(elsewhere)}?" if elsewhere else nearest(part, hints)
            raise ConfigError(f"{dotted}: unknown key. {meant}")
        declared = hints[part]
        done = _join(done, part)
    return declared


def names_below(cls: type) -> list[str]:
    """Return the dotted names of all fields of a configuration, sections included."""
    found = []
    for name, hint in hints_of(cls).items():
        kind = without_none(hint)
        is_section = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        found += [name, *(f"{name}.{one}" for one in names_below(kind))] if is_section else [name]
    return found


def without_none(hint: Any) -> Any:
    """Return the type of a field's values other than None, where there is one such type."""
    options = [o for o in get_args(hint) if o is not type(None)]
    is_union = get_origin(hint) in (Union, types.UnionType)
    return options[0] if is_union and len(options) == 1 else hint


def _convert_plain(value: Any, path: str) -> Any:
    """Return a value of any type that files can hold."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()  # a number of NumPy's
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_convert_plain(part, f"{path}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, Mapping):
        _check_keys(value, path)
        return {key: _convert_plain(part, _join(path, key)) for key, part in value.items()}
    raise ConfigError(
        f"{path}: must be a number, text, true, false or null, or a list or mapping of these, got "
        f"{value!r:.200}. Files can hold nothing else."
    )


def _check_keys(value: Mapping[Any, Any], path: str) -> None:
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: must have keys of text, got {key!r}. Quote it.")


def _convert_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    rest = [o for o in options if o is not type(None)]
    if len(rest) == 1:
        return convert(rest[0], value, path)
    errors = []
    for option in rest:
        try:
            return convert(option, value, path)
        except ConfigError as error:
            errors.append(str(error))
    raise ConfigError(errors[0])


def _convert_tuple(args: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{path}: must be a list, got {value!r}.")
    items = list(value)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(convert(args[0], v, f"{path}[{i}]") for i, v in enumerate(items))
    if len(items) != len(args):
        raise ConfigError(f"{path}: must have {len(args)} entries, got {items!r}.")
    pairs = zip(args, items, strict=True)
    return tuple(convert(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(pairs))


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if hint not in wanted:
        raise TypeError(f"{path}: the schema has no rule for {hint!r}.")
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        if not value.strip():  # a path of no letters would be the working directory
            raise ConfigError(
                f"{path}: must not be empty, got {value!r}. Write null, or leave it out."
            )
        return value
    # To Python, true and false are whole numbers too.
    if hint in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) >= LARGEST and (hint is int or isinstance(value, int)):
            raise ConfigError(f"{path}: must be less than 2^63, got {_short(value)}. Use less.")
        # 1e6 is how people write a million steps.
        if hint is float or float(value).is_integer():
            return hint(value)
    raise ConfigError(f"{path}: must be {wanted[hint]}, got {value!r}.")


def choice(value: Any, valid: Iterable[Any], path: str) -> Any:
    """Return a value that is one of some choices.

    Args:
        value: What was given.
        valid: The choices.
        path: Name of what was given, for messages.

    Raises:
        ConfigError: If it is none of them; it names the nearest.
    """
    options = list(valid)
    if value in options:
        return value
    hint = nearest(str(value), [str(o) for o in options])
    listed = ", ".join(str(o) for o in options)
    tail = "" if hint.startswith("Choose") else f" {hint}"
    raise ConfigError(f"{path}: unknown {value!r}. Choose one of: {listed}.{tail}")


def _short(value: float) -> str:
    """Return a number in few characters, which all others can be told from."""
    short = isinstance(value, float) or abs(value) < 10**40
    return str(value) if short else "a number of more than 40 digits"


@cache
def hints_of(cls: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name."""
    return typing.get_type_hints(cls)  # without what `Annotated` adds


@cache
def bounds_of(cls: type) -> dict[str, Bound]:
    """Return the bounds of those fields that have one, by name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        name: extra
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
        for extra in hint.__metadata__
        if isinstance(extra, Bound)
    }


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
