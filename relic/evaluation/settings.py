"""Settings of an evaluation besides its protocol, read from the keys of a command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from relic.arguments import read, section_of, split
from relic.evaluation.protocol import (
    Protocol,
    change_protocol,
    limit_fields,
    load_protocol,
    protocol_names,
)
from relic.schema import (
    MOST_THREADS,
    ConfigError,
    build,
    check_bounds,
    hint_at,
    nearest,
    to_plain,
    within,
)
from relic.shipped import located

FIXED = ("name", "version")
"""Fields of a protocol that cannot be overridden."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How an evaluation is made, besides its protocol; keys of the command line."""

    run: tuple[str, ...] = ()
    """Run directories or checkpoints; several are compared."""
    expert: Literal["full", "memory"] | None = None
    """Evaluate the environment's expert, too, and compare; without a run, evaluate it alone. `full`
    knows where all goals are, `memory` only what was in its view in the trial."""
    protocol: str | None = None
    """Which trials, episodes and noise: a name of configs/protocol, or a file, as `PATH.yaml`.
    Default: that of the run's environment, or else one that the keys below define."""
    out: str | None = None
    """Folder of results. Default: `evaluations/<protocol>-<hash>/<checkpoint>` in the run's. With
    several runs or checkpoints, each has a folder in it, beside the comparison."""
    checkpoint: Literal["latest", "best", "all"] = "latest"
    """Which one of a run directory; `all` evaluates all and compares them."""
    workers: Annotated[int | None, within(1, MOST_THREADS)] = None
    """Processes that share the blocks; records do not depend on it. None: one a core on a CPU, as
    far as blocks and memory suffice for them."""
    threads: Annotated[int, within(1, MOST_THREADS)] = 1
    """CPU threads of torch in each of them."""
    device: str = "cpu"
    """Where the policy acts, such as cuda:0."""
    controls: tuple[Literal["cleared", "shuffled", "foreign"], ...] = ("cleared",)
    """Evaluate the same trials once more for each, with another context at each episode's start:
    `cleared` is empty, `shuffled` has the earlier episodes in another order, `foreign` has episodes
    of a trial in another place."""
    context_limits: tuple[str, ...] = ()
    """Values of the protocol's `context_limit` that are evaluated one by one and compared."""
    replay: tuple[int, ...] | None = None
    """Trials that the report replays on the map. Default: the first three, where there is one."""
    videos: tuple[str, ...] = ()
    """Episodes that are filmed, as TRIAL/EPISODE: the map beside the view."""
    allow_trained: bool = False
    """Evaluate even on trials that the run was trained on."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)
        if not self.run and self.expert is None:
            raise ValueError("run: must name at least one run, got none. Set run=DIR.")
        if self.expert is not None and not {"shuffled", "foreign"}.isdisjoint(self.controls):
            raise ValueError(
                f"controls: must be [cleared] or [] with expert, got {list(self.controls)}. "
                "Evaluate the run alone for the others."
            )
        if self.expert is not None and self.context_limits:
            raise ValueError(
                "context_limits: must not be given with expert, whose memory has no limit, got "
                f"{list(self.context_limits)}. Leave one out."
            )
        if len(set(self.controls)) < len(self.controls):
            raise ValueError(f"controls: must differ, got {list(self.controls)}. Name each once.")
        for limit in self.context_limits:
            limit_fields(limit)
        if len(set(self.context_limits)) < len(self.context_limits):
            raise ValueError(
                f"context_limits: must differ, got {list(self.context_limits)}. Name each once."
            )
        for name in self.videos:
            trial, _, episode = name.partition("/")
            if not (trial.isdecimal() and episode.isdecimal()):
                like = int(trial) if trial.isdecimal() else 3
                raise ValueError(
                    f"videos: must name episodes as TRIAL/EPISODE, got {name!r}. Write {like}/0 "
                    f"for the first episode of trial {like}."
                )

    @property
    def filmed(self) -> tuple[tuple[int, int], ...]:
        """Trials and episodes of the videos."""
        return tuple((int(t), int(e)) for t, _, e in (name.partition("/") for name in self.videos))


def parse(arguments: Sequence[str]) -> tuple[Settings, dict[str, Any]]:
    """Split `key=value` arguments into settings and changes of the protocol.

    Returns:
        The settings, and values by dotted name of the protocol's field.

    Raises:
        ConfigError: On an unknown key, which names the nearest, or a value that does not fit.
    """
    own: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    known = [f.name for f in fields(Settings)]
    changeable = [f.name for f in fields(Protocol) if f.name not in FIXED]
    for argument in arguments:
        key, text = split(argument, _key_of(argument))
        root = key.partition(".")[0]
        if root not in (*known, *changeable):
            raise ConfigError(f"{key}: unknown key. {nearest(key, [*known, *changeable])}")
        owner, values = (Settings, own) if root in known else (Protocol, changes)
        if key == "run" and key in values:  # of other keys the last counts, as usual
            raise ConfigError(
                f"run: must be given once, got {text} as well. Write run=[DIR1,DIR2]."
            )
        values[key] = _runs(text) if key == "run" else read(key, text, hint_at(owner, key))
    settings = build(Settings, own)
    if not settings.run and settings.protocol is None and "env" not in changes:
        raise ConfigError("protocol: must be named where no run is, got none. Set protocol=NAME.")
    if own.get("context_limits") and "context_limit" in changes:
        raise ConfigError(
            "context_limit: must not be given with context_limits, which sets it, got both. "
            "Leave one out."
        )
    return settings, changes


def _key_of(argument: str) -> str:
    """Return which key a value alone was meant for: a run is what people name first."""
    if "=" in argument:  # it may be longer than any path
        return "key"
    if argument in protocol_names():
        return "protocol"
    return "run" if "/" in argument or located(argument).is_dir() else "key"


def _runs(text: str) -> list[str]:
    """Read a list of runs; a path that holds commas is one run, if it is there."""
    inner, found = text.strip(), []
    pieces = inner[1:-1].split(",")
    is_list = inner.startswith("[") and inner.endswith("]")
    if not is_list or any(piece.strip()[:1] in ("'", '"') for piece in pieces):
        return read("run", text, hint_at(Settings, "run"))
    while pieces:
        ends = range(len(pieces), 0, -1)
        whole = (end for end in ends if os.path.exists(",".join(pieces[:end]).strip()))
        end = next(whole, 1)
        found.append(",".join(pieces[:end]).strip())
        pieces = pieces[end:]
    if not found[-1]:
        found.pop()  # a comma may end the list
    return found if all(found) else read("run", text, hint_at(Settings, "run"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A protocol as it is asked for."""

    protocol: Protocol
    base: Protocol
    """What it was before its fields were changed."""

    @classmethod
    def of(cls, base: Protocol, changes: Mapping[str, Any]) -> Asked:
        """Change fields of a protocol, given by their dotted names."""
        return cls(change_protocol(base, **set_fields(to_plain(base), changes, only=True)), base)


def set_fields(
    plain: dict[str, Any], changes: Mapping[str, Any], *, only: bool = False
) -> dict[str, Any]:
    """Set values at dotted names in a plain protocol; return it, or `only` the fields changed."""
    for key, value in changes.items():
        section, last = section_of(plain, key)
        section[last] = value
    roots = {key.partition(".")[0] for key in changes}
    return {root: plain[root] for root in roots} if only else plain


def named_protocol(name: str, changes: Mapping[str, Any]) -> Asked:
    """Load a protocol with its fields changed.

    Args:
        name: Of the protocol, or the path of its file.
        changes: Values by dotted name of its field.

    Raises:
        ConfigError: If the name or a value is refused.
    """
    if "env" in changes:
        raise ConfigError(
            f"env: must not be given with protocol, which names its own, got {changes['env']}. "
            "Leave one out."
        )
    return Asked.of(load_protocol(name), changes)
