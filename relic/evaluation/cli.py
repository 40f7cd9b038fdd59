"""The command line of evaluation: `python eval.py run=DIR [protocol=NAME] [key=value ...]`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from tqdm import tqdm

from relic.evaluation.curves import summarise
from relic.evaluation.evaluator import Context
from relic.evaluation.plots import plot_summary
from relic.evaluation.protocol import Protocol, load_protocol
from relic.evaluation.report import write_report
from relic.evaluation.store import Job, Store, identity, write_json
from relic.evaluation.subject import Subject, find_subject, fit_protocol, trained_on
from relic.evaluation.workers import OnEpisode, Task, WorkerError, run_jobs
from relic.schema import ConfigError, build, check_key, in_lines, leaves, nearest, to_plain

SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"
_FIXED = ("name", "version", "env")
"""Fields of a protocol that cannot be overridden."""
_LINE_EVERY_S = 30.0
_SHOWN = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 39)
"""Episode indices that are printed; the summary has all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the command line may say besides the fields of the protocol."""

    run: str
    """A run directory or a checkpoint."""
    protocol: str | None = None
    """Default: the one of the run's environment."""
    out: str | None = None
    """Default: `evaluations/<protocol>-<hash>/<checkpoint>` in the run directory."""
    checkpoint: Literal["latest", "best"] = "latest"
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    control: bool = True
    """Evaluate with the context cleared at each episode, too."""
    allow_trained: bool = False
    """Evaluate even on trials that the run was trained on."""
    progress: bool = True

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}.")


def main(arguments: Sequence[str]) -> int:
    """Run `eval.py` and return the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    try:
        settings, changes = parse(arguments)
        subject = find_subject(settings.run, settings.checkpoint)
        protocol = chosen_protocol(subject, settings, changes)
        fitted = fit_protocol(subject, protocol, allow_trained=settings.allow_trained)
        directory = _directory(subject, settings, protocol)
        store = Store(directory, _identity(subject, fitted, settings))
    except (ValueError, FileNotFoundError, ImportError) as error:
        return _refuse(error)
    _announce(subject, protocol, directory)
    try:
        summary = evaluate_into(store, subject, fitted, settings, named=protocol)
    except WorkerError as error:
        return _refuse(error)
    print(report(summary))
    print(f"{store.directory / REPORT_FILE}")
    return 0


def usage() -> str:
    """Say how to call it."""
    own = ", ".join(f.name for f in fields(Settings) if f.name != "run")
    of_protocol = ", ".join(f.name for f in fields(Protocol) if f.name not in _FIXED)
    return (
        "python eval.py run=DIR [protocol=NAME] [key=value ...]\n"
        f"keys: {own}\n"
        f"keys that change the protocol: {of_protocol} (options.KEY for one of the environment's)"
    )


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
    changeable = [f.name for f in fields(Protocol) if f.name not in _FIXED]
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument}: must be of the form key=value. Write key=value.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{key}: must be a YAML value, got {text!r}. Quote it.") from None
        if key in known:
            # A path or name that looks like a number is still a name.
            own[key] = text if key in ("run", "protocol", "out") else value
        elif key.partition(".")[0] in changeable:
            check_key(Protocol, key)
            changes[key] = value
        else:
            raise ConfigError(f"{key}: unknown key. {nearest(key, [*known, *changeable])}")
    return build(Settings, own), changes


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


def evaluate_into(
    store: Store, subject: Subject, protocol: Protocol, settings: Settings, *, named: Protocol
) -> dict[str, Any]:
    """Evaluate what is not done yet, and write records, summary, plots and a page about them.

    Args:
        store: Where to.
        subject: What is evaluated.
        protocol: With the run's options filled in.
        settings: Workers and the like.
        named: The protocol as it is named and hashed.

    Returns:
        The summary.
    """
    contexts = [Context.KEPT, Context.CLEARED] if settings.control else [Context.KEPT]
    jobs = [Job(context, block) for context in contexts for block in range(protocol.num_blocks)]
    left = [job for job in jobs if not store.is_done(job)]
    task = Task(
        subject.checkpoint,
        protocol,
        store.directory,
        _identity(subject, protocol, settings),
        threads=settings.threads,
        device=settings.device,
    )
    with _progress(protocol, left, len(jobs), enabled=settings.progress) as on_episode:
        run_jobs(task, left, workers=settings.workers, on_episode=on_episode)
    records = {context: store.merge(context, protocol.num_blocks) for context in contexts}
    summary = {
        "format": 1,
        "protocol": named.name,
        "protocol_version": named.version,
        "protocol_hash": named.hash,
        "env": protocol.env,
        "options": to_plain(protocol.options),
        "trained_on": bool(trained_on(subject, protocol)),
        "policy": task.identity["policy"],
        "checkpoint": subject.checkpoint.name,
        "env_steps": subject.meta.get("env_steps"),
        "episodes": len(records[Context.KEPT]),
        "trials": protocol.trials,
        "repeats": protocol.repeats,
        **summarise(records[Context.KEPT], records.get(Context.CLEARED)),
    }
    write_json(store.directory / SUMMARY_FILE, summary)
    plots = plot_summary(summary, store.directory / "plots")
    write_report(summary, plots, store.directory / REPORT_FILE)
    return summary


def report(summary: dict[str, Any]) -> str:
    """Return a summary as a short text."""
    lines = [
        f"{summary['protocol']} ({summary['protocol_hash']}): {summary['episodes']:,} episodes, "
        f"{summary['trials']} trials x {summary['repeats']}"
    ]
    for name, curve in summary["metrics"].items():
        shown = [i for i in _SHOWN if i < len(curve["mean"])]
        lines.append(f"{name} after 0, 1, ... episodes (mean, 95 % interval, context cleared)")
        for i in shown:
            cleared = curve.get("cleared_mean", [])
            control = _number(cleared[i]) if i < len(cleared) else "-"
            low, high = _number(curve["low"][i]), _number(curve["high"][i])
            lines.append(f"  {i:3d}  {_number(curve['mean'][i])}  [{low}, {high}]  {control}")
        gain = summary["gain"][name]
        lines.append(
            f"  gain at {gain['to_episode']}: {_number(gain['mean'])} [{_number(gain['low'])}, "
            f"{_number(gain['high'])}], context cleared {_number(gain['cleared_mean'])}"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _identity(subject: Subject, protocol: Protocol, settings: Settings) -> dict[str, Any]:
    return identity(subject.checkpoint, protocol, settings.threads, device=settings.device)


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


@contextmanager
def _progress(
    protocol: Protocol, left: Sequence[Job], num_jobs: int, *, enabled: bool
) -> Iterator[OnEpisode]:
    """Show a bar with the time left on a terminal, and a line now and then elsewhere."""
    terminal = sys.stderr.isatty()
    blocks = list(protocol.blocks())
    each = protocol.episodes
    total = None if each is None else sum(blocks[job.block].num_real * each for job in left)
    if enabled and len(left) < num_jobs:
        print(f"{num_jobs - len(left)} of {num_jobs} blocks are done already", file=sys.stderr)
    bar = tqdm(total=total, unit=" episodes", disable=not (enabled and terminal))
    began = last = time.monotonic()
    done = 0

    def on_episode() -> None:
        nonlocal last, done
        done += 1
        bar.update()
        now = time.monotonic()
        if enabled and not terminal and now - last >= _LINE_EVERY_S:
            last = now
            if total is None:
                print(f"{done:,} episodes", file=sys.stderr)
                return
            remaining = (now - began) / done * (total - done)
            print(f"{done:,} of {total:,} episodes, {remaining:.0f} s left", file=sys.stderr)

    with bar:
        yield on_episode


def _refuse(error: Exception) -> int:
    print(in_lines(error, None if isinstance(error, WorkerError) else 3), file=sys.stderr)
    return 2
