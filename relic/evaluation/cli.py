"""The command line of evaluation: `python eval.py run=DIR [protocol=NAME] [key=value ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relic.evaluation.context import Context
from relic.evaluation.pipeline import REPORT_FILE, evaluate_into, identity_of
from relic.evaluation.protocol import Protocol, load_protocol
from relic.evaluation.settings import Settings, parse, usage
from relic.evaluation.store import Store
from relic.evaluation.subject import Subject, find_subject, fit_protocol
from relic.evaluation.text import describe
from relic.evaluation.workers import WorkerError
from relic.schema import ConfigError, in_lines, leaves, to_plain


def main(arguments: Sequence[str]) -> int:
    """Run `eval.py` and return the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    try:
        settings, changes = parse(arguments)
        subject = find_subject(settings.run, settings.checkpoint)
        protocol = chosen_protocol(subject, settings, changes)
        _check_controls(settings, protocol)
        fitted = fit_protocol(subject, protocol, allow_trained=settings.allow_trained)
        directory = _directory(subject, settings, protocol)
        store = Store(directory, identity_of(subject, fitted, settings))
    except (ValueError, FileNotFoundError, ImportError) as error:
        return _refuse(error)
    _announce(subject, protocol, directory)
    try:
        summary = evaluate_into(store, subject, fitted, settings, named=protocol)
    except WorkerError as error:
        return _refuse(error)
    print(describe(summary))
    print(f"{store.directory / REPORT_FILE}")
    return 0


def chosen_protocol(subject: Subject, settings: Settings, changes: dict[str, Any]) -> Protocol:
    """Load the protocol that is asked for, with its fields changed.

    Raises:
        ConfigError: If its name or a value is refused.
    """
    name = settings.protocol or subject.default_protocol
    plain = to_plain(load_protocol(name))
    for key, value in changes.items():
        *path, last = key.split(".")
        place = plain
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {part} is a single value. Set {part}=VALUE.")
        place[last] = value
    roots = {key.partition(".")[0] for key in changes}
    return load_protocol(name, **{root: plain[root] for root in roots})


def _check_controls(settings: Settings, protocol: Protocol) -> None:
    if Context.FOREIGN.value in settings.controls and protocol.trials < 2:
        raise ConfigError(
            "controls: foreign needs another trial to take the context from, got trials=1. "
            "Raise trials, or leave foreign out."
        )


def _directory(subject: Subject, settings: Settings, protocol: Protocol) -> Path:
    if settings.out is not None:
        return Path(settings.out)
    name = f"{protocol.name}-{protocol.hash}"
    return subject.root / "evaluations" / name / subject.checkpoint.name


def _announce(subject: Subject, protocol: Protocol, directory: Path) -> None:
    print(f"{subject.checkpoint}: {protocol.name} ({protocol.hash}), into {directory}")
    if not protocol.name.endswith("-changed"):
        return
    before = leaves(to_plain(load_protocol(protocol.name.removesuffix("-changed"))))
    after = leaves(to_plain(protocol))
    for key in sorted(after.keys() - {"name"}):
        if before.get(key) != after[key]:
            print(f"CHANGED: {key}={after[key]} instead of {before.get(key)}")


def _refuse(error: Exception) -> int:
    print(in_lines(error, None if isinstance(error, WorkerError) else 3), file=sys.stderr)
    return 2
