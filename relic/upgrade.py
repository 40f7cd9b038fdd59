"""Renames what older versions wrote; no other module knows the old names.

Whoever reads a stored configuration, policy, weights or metrics passes them through here first, so
that nothing else has to accept two names. A change of a stored name adds a line to a table below.
Every table is safe to apply to files of any age: names of today pass unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from relic.schema import ConfigError

T = TypeVar("T")

RENAMED: dict[str, str] = {
    "policy.place": "policy.goal_location",
    "ppo.place_coef": "policy.goal_location.weight",
    "rollout.captured_steps": "rollout.cuda_graph",
}
"""Keys of a run's configuration, old to new, in the order in which they move. A value whose new
section is absent or null is dropped: nothing reads it."""

REPLACED: dict[str, dict[Any, Any]] = {
    "policy.transformer.attention_backend": {"flex": "auto"},
}
"""By today's key: old values, and the values that do the same today."""

REMOVED: dict[str, Any] = {
    "policy.transformer.gated_residual": False,
    "policy.encoder.read_outs": None,
}
"""Keys that are gone, with the only value that still means something: that it was not used."""

IGNORED = ("policy.encoder.recompute", "policy.encoder.channels_last", "rollout.shards")
"""Keys that are gone and changed no result, whatever their value, or only which rows happened to be
in a minibatch together."""

WEIGHTS: dict[str, str] = {
    "place.": "auxiliary.goal_location.",
}
"""Beginnings of names of weights, old to new."""

METRICS: dict[str, str] = {
    "place_loss": "goal_location_loss",
    "place_error": "goal_location_error",
}
"""Names in `metrics.jsonl`, old to new."""


def upgrade_config(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's plain configuration, or a part of it, with the names of today.

    Raises:
        ConfigError: If it uses what no longer exists.
    """
    upgraded = copy.deepcopy(dict(tree))
    for old, new in RENAMED.items():
        _move(upgraded, old, new)
    for key, values in REPLACED.items():
        section, name = _section(upgraded, key)
        if section is not None and name in section and isinstance(section[name], str):
            section[name] = values.get(section[name], section[name])
    for key in IGNORED:
        section, name = _section(upgraded, key)
        if section is not None:
            section.pop(name, None)
    for key, unused in REMOVED.items():
        section, name = _section(upgraded, key)
        if section is None or name not in section:
            continue
        value = section.pop(name)
        if value != unused:
            raise ConfigError(
                f"{key}: must be {_text(unused)}, as it was removed, got {_text(value)}. "
                "Use the version that wrote this file."
            )
    return upgraded


def upgrade_section(section: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the section at a dotted path of a configuration, stored alone, with today's names.

    Raises:
        ConfigError: As `upgrade_config`.
    """
    tree: Any = section
    for name in reversed(path.split(".")):
        tree = {name: tree}
    tree = upgrade_config(tree)
    for name in path.split("."):
        tree = tree[name]
    return tree


def refuse_older_key(key: str) -> None:
    """Refuse a dotted key, as a user types it, that only older versions have.

    Raises:
        ConfigError: If it is one; it names the key of today.
    """
    for old, new in RENAMED.items():
        if f"{key}.".startswith(f"{old}."):
            raise ConfigError(f"{key}: was renamed. Use {new}{key.removeprefix(old)}.")
    if any(f"{key}.".startswith(f"{old}.") for old in (*REMOVED, *IGNORED)):
        raise ConfigError(f"{key}: was removed. Leave it out.")


def upgrade_policy(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a `policy.json` with the names of today.

    Its checksums keep the names in the weights' file beside it, which they belong to.

    Raises:
        ConfigError: If the policy uses what no longer exists.
        KeyError: If it holds no configuration.
    """
    config = upgrade_section(content["config"], "policy")
    if "kinds" not in content["config"].get("encoder", {"kinds": {}}):
        config["encoder"] |= _older_inputs(config["encoder"], content["observation_space"])
    return {**content, "config": config}


def upgrade_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the pictures of a saved encoder hold, in the words of today."""
    return {**spec, "role": {"semantic": "classes"}.get(spec["role"], spec["role"])}


def _older_inputs(encoder: Mapping[str, Any], space: Mapping[str, Any]) -> dict[str, Any]:
    """Return what older versions took the pictures of an observation space for, by type alone.

    Those of class numbers were left out unless they were named.
    """
    kinds: dict[str, str] = {}
    for key, part in space["spaces"].items():
        # Older versions refused smaller ones, but not those that are learned from.
        if part["type"] == "Box" and len(part["shape"]) in (2, 3) and min(part["shape"][:2]) >= 16:
            whole = "colour" if part["dtype"] == "uint8" else "classes"
            kinds[key] = "depth" if part["dtype"].startswith("float") else whole
    classes = [key for key, kind in kinds.items() if kind == "classes"]
    return {"kinds": kinds, "privileged": classes if encoder.get("keys") is None else []}


def upgrade_weights(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return the weights of a policy or an encoder by the names of today, in the same order.

    Policies of continuous actions that do not say their units have learned in the environment's.
    Small CNNs that do not say their ranges were never calibrated.
    """
    upgraded = {_renamed_start(name, WEIGHTS): tensor for name, tensor in tensors.items()}
    for start, names in _small_cnns(upgraded).items():
        numbers: Any = upgraded[names[0]]
        upgraded.setdefault(f"{start}ranges", numbers.reshape(-1)[: len(names)].abs() * 0.0)
    log_std: Any = upgraded.get("actor.log_std_A")
    if log_std is not None:
        nothing = log_std.double() * 0.0
        upgraded.setdefault("action_units.centre_A", nothing)
        upgraded.setdefault("action_units.half_A", nothing + 1.0)
    return upgraded


def upgrade_metrics(line: Mapping[str, T]) -> dict[str, T]:
    """Return one line of `metrics.jsonl` by the names of today."""
    return {METRICS.get(name, name): value for name, value in line.items()}


def _move(tree: dict[str, Any], old: str, new: str) -> None:
    source, name = _section(tree, old)
    if source is None or name not in source:
        return
    value = source.pop(name)
    target, name = _section(tree, new)
    if target is not None:
        target.setdefault(name, value)


def _section(tree: dict[str, Any], key: str) -> tuple[dict[str, Any] | None, str]:
    """Return the mapping that would hold a dotted key, None where there is none, and its name."""
    *path, name = key.split(".")
    section: Any = tree
    for part in path:
        section = section.get(part)
        if not isinstance(section, dict):
            return None, name
    return section, name


def _small_cnns(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of the convolutions of each small CNN, by the start of their names."""
    found: dict[str, list[str]] = {}
    others: set[str] = set()
    for name in names:
        start, middle, layer = name.rpartition("backbone.layers.")
        if not middle:
            continue
        start += "backbone."
        if layer.count(".") > 1:
            others.add(start)  # Larger networks have blocks in their layers.
        elif layer.endswith(".weight"):
            found.setdefault(start, []).append(name)
    return {start: layers for start, layers in found.items() if start not in others}


def _renamed_start(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower()
