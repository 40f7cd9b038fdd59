"""What is asked of an evaluation besides its protocol, read from the keys of a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from relic.arguments import read, section_of, split
from relic.evaluation.protocol import Protocol, limit_fields, load_protocol
from relic.schema import ConfigError, at_least, build, check_bounds, hint_at, nearest, to_plain

FIXED = ("name", "version", "env")
"""Fields of a protocol that cannot be overridden."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How an evaluation is made, besides its protocol; keys of the command line."""

    run: tuple[str, ...] = ()
    """Run directories or checkpoints; several are compared."""
    expert: Literal["full", "memory"] | None = None
    """Evaluate the environment's expert, too, and compare; alone where no run is named. `full`
    knows where all goals are, `memory` what was in its view in the trial."""
    protocol: str | None = None
    """What is measured. Default: the protocol of the run's environment."""
    out: str | None = None
    """Where to. Default: `evaluations/<protocol>-<hash>/<checkpoint>` in the run directory. With
    several runs or checkpoints, each has a directory in it, beside the comparison."""
    checkpoint: Literal["latest", "best", "all"] = "latest"
    """Which one of a run directory. With `all` they are compared."""
    workers: Annotated[int | None, at_least(1)] = None
    """Processes that share the blocks; records do not depend on it. None: one a core on a CPU, as
    far as blocks and memory suffice for them."""
    threads: Annotated[int, at_least(1)] = 1
    """CPU threads of torch in each of them."""
    device: str = "cpu"
    """Where the policy acts, such as cuda:0."""
    controls: tuple[Literal["cleared", "shuffled", "foreign"], ...] = ("cleared",)
    """Other contexts that the same trials are evaluated with, see `controls.ContextControl`."""
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
        if not self.run and self.protocol is None:
            raise ValueError(
                "protocol: must be named where no run is, got none. Set protocol=NAME."
            )
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
                raise ValueError(
                    f"videos: must name episodes as TRIAL/EPISODE, got {name!r}. Write 3/0 for the "
                    "first episode of trial 3."
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
        key, text = split(argument)
        root = key.partition(".")[0]
        if root not in (*known, *changeable):
            raise ConfigError(f"{key}: unknown key. {nearest(key, [*known, *changeable])}")
        owner, values = (Settings, own) if root in known else (Protocol, changes)
        values[key] = read(key, text, hint_at(owner, key))
    if own.get("context_limits") and "context_limit" in changes:
        raise ConfigError(
            "context_limit: must not be given with context_limits, which sets it, got both. "
            "Leave one out."
        )
    return build(Settings, own), changes


def chosen_protocol(name: str, changes: Mapping[str, Any]) -> Protocol:
    """Load a protocol with its fields changed.

    Args:
        name: Of the protocol.
        changes: Values by dotted name of its field.

    Raises:
        ConfigError: If the name or a value is refused.
    """
    plain = to_plain(load_protocol(name))
    for key, value in changes.items():
        section, last = section_of(plain, key)
        section[last] = value
    roots = {key.partition(".")[0] for key in changes}
    return load_protocol(name, **{root: plain[root] for root in roots})
