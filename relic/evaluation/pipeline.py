"""One evaluation from its blocks to its page: records, summary, plots, report."""

from __future__ import annotations

from typing import Any

from relic.evaluation.context import Context
from relic.evaluation.curves import summarise
from relic.evaluation.group_plots import plot_groups
from relic.evaluation.groups import goal_categories, summarise_groups
from relic.evaluation.plots import plot_summary
from relic.evaluation.progress import progress
from relic.evaluation.protocol import Protocol
from relic.evaluation.report import write_report
from relic.evaluation.settings import Settings
from relic.evaluation.store import Job, Store, identity, write_json
from relic.evaluation.subject import Subject, trained_on
from relic.evaluation.workers import Task, run_jobs
from relic.schema import to_plain

SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"


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
    controls = [Context(name) for name in settings.controls]
    contexts = [Context.KEPT, *controls]
    jobs = [Job(context, block) for context in contexts for block in range(protocol.num_blocks)]
    left = [job for job in jobs if not store.is_done(job)]
    task = Task(
        subject.checkpoint,
        protocol,
        store.directory,
        identity_of(subject, protocol, settings),
        threads=settings.threads,
        device=settings.device,
    )
    with progress(protocol, left, len(jobs), enabled=settings.progress) as on_episode:
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
        **summarise(records[Context.KEPT], {control: records[control] for control in controls}),
        **summarise_groups(records[Context.KEPT], goal_categories(protocol)),
    }
    write_json(store.directory / SUMMARY_FILE, summary)
    pictures = store.directory / "plots"
    plots = [*plot_summary(summary, pictures), *plot_groups(summary, pictures)]
    write_report(summary, plots, store.directory / REPORT_FILE)
    return summary


def identity_of(subject: Subject, protocol: Protocol, settings: Settings) -> dict[str, Any]:
    """Return what decides the records of an evaluation."""
    return identity(subject.checkpoint, protocol, settings.threads, device=settings.device)
