"""Evaluation protocols: frozen, named, versioned and hashed, so that others can repeat a number.

A protocol names its trials one by one and cuts them into blocks of a fixed number of rows. A block
is the unit of work: always stepped as one batch of one capacity, so that its outcome does not
depend on how many workers share the blocks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import yaml

from relic.bounded_yaml import parse_yaml
from relic.schema import ConfigError, at_least, build, check_bounds, nearest, to_plain
from relic.shipped import CONFIGS

PROTOCOLS = CONFIGS / "protocol"
NO_LIMIT = "none"
MOST_UNITS = 2**20
"""Trials times repeats of a protocol; more cannot be meant, and would not even be listed."""
_LIMITS = ("last", "drop_first")


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """What is evaluated and how."""

    name: str
    """How it is called: its file."""
    version: Annotated[int, at_least(1)] = 1
    """Raised whenever a field below changes, so that a name and version mean one thing."""
    env: str
    """Gymnasium id of the environment, or `module:function`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment: the split and all that defines the task."""
    first_trial: Annotated[int, at_least(0)] = 0
    """Number of the first trial."""
    trials: Annotated[int, at_least(1)]
    """How many trials are evaluated, from `first_trial` on."""
    repeats: Annotated[int, at_least(1)] = 1
    """Times that each trial is evaluated, with other acting noise."""
    episodes: Annotated[int | None, at_least(1)] = None
    """Every trial lasts this many episodes."""
    steps: Annotated[int | None, at_least(1)] = None
    """Every trial lasts this many steps, as in the paper; its unfinished episode is dropped."""
    block: Annotated[int, at_least(1)] = 16
    """Rows that are stepped together."""
    deterministic: bool = False
    """Take the most likely action; the paper samples."""
    seed: int = 0
    """Seed of the acting noise."""
    context_limit: str = NO_LIMIT
    """What the agent remembers of its trial: `last:N` steps, all but the first N from step N on
    (`drop_first:N`), or `none`: all that its policy allows."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)
        if (self.episodes is None) == (self.steps is None):
            raise ValueError(
                "episodes: must be given where steps is not, and only there, got "
                f"episodes={self.episodes}, steps={self.steps}. Set one of them."
            )
        if self.num_units > MOST_UNITS:
            raise ValueError(
                f"repeats: must leave at most {MOST_UNITS:,} evaluations of a trial, got "
                f"{self.trials} trials times {self.repeats}. Use fewer of either."
            )
        limit_fields(self.context_limit)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change with any field."""
        content = to_plain(self)
        if self.context_limit == NO_LIMIT:
            # Hashes were published before there was such a field, and still name the same thing.
            del content["context_limit"]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def num_units(self) -> int:
        """Trials times repeats."""
        return self.trials * self.repeats

    @property
    def num_blocks(self) -> int:
        """Blocks that hold all units."""
        return -(-self.num_units // self.block)

    def capacity(self, max_episode_steps: int) -> int:
        """Steps of context that the longest possible trial needs."""
        return self.steps if self.steps is not None else (self.episodes or 0) * max_episode_steps

    def least_episodes(self, max_episode_steps: int) -> int:
        """Episodes that each trial begins at least."""
        return self.episodes or -(-(self.steps or 0) // max_episode_steps)

    def blocks(self) -> Iterator[Block]:
        """Cut the trials into blocks, in order; the last one is padded with its last trial."""
        units = [
            Unit(trial=self.first_trial + t, repeat=r)
            for r in range(self.repeats)
            for t in range(self.trials)
        ]
        for index in range(self.num_blocks):
            real = units[index * self.block : (index + 1) * self.block]
            # Padded to the full size: last bits may depend on the rows of a batch.
            padding = [real[-1]] * (self.block - len(real))
            yield Block(index=index, units=(*real, *padding), num_real=len(real))


@dataclass(frozen=True, slots=True)
class Unit:
    """One trial, evaluated once."""

    trial: int
    repeat: int


@dataclass(frozen=True, slots=True)
class Block:
    """Units that are stepped as one batch; those from `num_real` on are padding."""

    index: int
    units: tuple[Unit, ...]
    num_real: int


def protocol_names(directory: Path = PROTOCOLS) -> list[str]:
    """Return the names of the protocols in a directory."""
    return sorted(path.stem for path in directory.glob("*.yaml"))


def load_protocol(name: str, directory: Path = PROTOCOLS, **changes: Any) -> Protocol:
    """Load a protocol, with fields changed if asked for.

    Args:
        name: Name of a protocol in `directory`, or the path of another file that ends in `.yaml`.
        directory: Folder of the named protocols.
        changes: Fields to change; see `change_protocol`.

    Raises:
        ConfigError: If there is no such protocol, its file is damaged, a changed field is unknown,
            or a value is refused.
    """
    path = Path(name) if _is_path(name) else directory / f"{name}.yaml"
    if not path.is_file():
        valid = protocol_names(directory)
        if _is_path(name):
            raise ConfigError(f"protocol: must be a file or a name, found no file {name}.")
        raise ConfigError(
            f"protocol: unknown {name!r}. {nearest(name, valid)} A file is named by its path, "
            f"{name}.yaml."
        )
    try:
        data = parse_yaml(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: must be YAML, got {reason:.200}. Repair it.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold the keys of a protocol, got {data!r:.80}.")
    return change_protocol(build(Protocol, {"name": path.stem, **data}, str(name)), **changes)


def change_protocol(protocol: Protocol, **changes: Any) -> Protocol:
    """Return a protocol with fields changed; it has another hash, and says so by its name.

    Raises:
        ConfigError: If a field is unknown, or a value is refused.
    """
    if not changes:
        return protocol
    changed = build(Protocol, {**to_plain(protocol), **changes}, "protocol")
    return protocol if changed == protocol else replace(changed, name=f"{protocol.name}-changed")


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def limit_fields(limit: str) -> dict[str, Any]:
    """Return what a limit asks of `SequenceModel.limit_context`.

    Args:
        limit: `none`; `last:N`, the newest N steps, the step itself included; or `drop_first:N`,
            from step N of the trial on all but the first N.

    Raises:
        ValueError: If it is none of these.
    """
    if limit == NO_LIMIT:
        return {}
    kind, _, number = limit.partition(":")
    if kind not in _LIMITS or not (number.isascii() and number.isdecimal()) or int(number) < 1:
        raise ValueError(
            "context_limit: must be none, last:N or drop_first:N with N of at least 1, got "
            f"{limit!r}. Write last:512 for the newest 512 steps."
        )
    if kind == "last":
        return {"newest": int(number), "drop_first": 0}
    return {"newest": None, "drop_first": int(number)}


def limit_words(limit: str) -> str:
    """Return how a limit is called in pictures and tables."""
    kind, _, number = limit.partition(":")
    return {"last": f"last {number} steps", "drop_first": f"first {number} steps dropped"}.get(
        kind, "no limit"
    )
