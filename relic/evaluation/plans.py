"""The evaluations that a command line asks for: all are planned and checked, then made in turn."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from envs.make import make_trial_env
from relic.evaluation.controls import ContextControl, donor_block
from relic.evaluation.learning_curve import task_options
from relic.evaluation.maps import check_trials, replayed_trials
from relic.evaluation.pipeline import REPORT_FILE, evaluate_into
from relic.evaluation.protocol import NO_LIMIT, Protocol, limit_words
from relic.evaluation.records import RECORDS_FILES, RecordStore, identity, read_records
from relic.evaluation.report.side_by_side import (
    PAGE_FILE,
    Entry,
    describe_side_by_side,
    write_side_by_side,
)
from relic.evaluation.report.text import describe
from relic.evaluation.settings import Asked, Settings
from relic.evaluation.trained_agent import (
    Expert,
    TrainedAgent,
    chosen_protocol,
    find_agents,
    fit_protocol,
)
from relic.files import hold
from relic.schema import ConfigError, leaves, to_plain
from relic.stops import refusals, writing_in


@dataclass(frozen=True, slots=True)
class Plan:
    """One evaluation that is asked for, with all of it checked."""

    run: str
    """How its run is called."""
    agent: TrainedAgent | Expert
    named: Protocol
    """As it is named and hashed."""
    fitted: Protocol
    """With the run's options filled in."""
    directory: Path


def carry_out(settings: Settings, changes: dict[str, Any]) -> int:
    """Make what is asked for and return the exit status.

    Args:
        settings: What is evaluated, and how.
        changes: Of the protocol, by dotted names of its fields.
    """
    with refusals():
        trained = [s for run in settings.run for s in find_agents(run, settings.checkpoint)]
        asked = _asked(trained[0].env if trained else None, settings, changes)
        protocols = [one.protocol for one in asked]
        agents = [*_experts(trained, settings, protocols[0]), *trained]
        plans = _plan(agents, settings, protocols)
        _check_same_task(plans)
        _check_controls(settings, plans[0].fitted)
        _check_tracks(settings, plans[0].fitted)
        stores = [_open(plan, settings) for plan in plans]
        shared = shared_directory(agents, settings, protocols)
        if len(plans) > 1:
            shared.mkdir(parents=True, exist_ok=True)
        # All before the first begins, so that none is refused halfway.
        locks = [hold(store.directory, "out") for store in stores]
    _announce_changes(asked)
    try:
        entries = _evaluate(plans, stores, settings)
    finally:
        for lock in locks:
            lock.close()
    if len(entries) > 1:
        print(describe_side_by_side(write_side_by_side(entries, shared)))
        print(f"{shared / PAGE_FILE}")
    return 0


def _evaluate(
    plans: Sequence[Plan], stores: Sequence[RecordStore], settings: Settings
) -> list[Entry]:
    """Do what is planned, one after another, and say how it went."""
    entries: list[Entry] = []
    oracle = None
    for number, (plan, store) in enumerate(zip(plans, stores, strict=True), 1):
        which = f"[{number}/{len(plans)}] " if len(plans) > 1 else ""
        named = plan.named
        limit = "" if named.context_limit == NO_LIMIT else f", {limit_words(named.context_limit)}"
        print(f"{which}{_shown(plan.agent)}: {named.name} ({named.hash}){limit}")
        with writing_in(store.directory):
            summary = evaluate_into(
                store, plan.agent, plan.fitted, settings, named=named, oracle=oracle
            )
        if isinstance(plan.agent, Expert) and plan.agent.kind == "memory":
            oracle = summary
        print(describe(summary))
        print(f"{store.directory / REPORT_FILE}")
        records = read_records(store.directory / RECORDS_FILES[ContextControl.KEPT])
        entries.append(Entry(plan.run, plan.agent.name, summary, records))
    # The others are compared with the first, which is a trained agent where there is one.
    return sorted(entries, key=lambda entry: entry.checkpoint.startswith("expert_"))


def _shown(agent: TrainedAgent | Expert) -> str:
    return f"expert={agent.kind}" if isinstance(agent, Expert) else str(agent.checkpoint)


def _experts(
    trained: Sequence[TrainedAgent], settings: Settings, protocol: Protocol
) -> list[Expert]:
    """Return the expert that is asked for, in the environment of the first run if there is one."""
    if settings.expert is None:
        return []
    if not trained:
        return [Expert(settings.expert, Path("."), protocol.env, {})]
    return [Expert(settings.expert, trained[0].root, trained[0].env, trained[0].options)]


def _asked(env: str | None, settings: Settings, changes: dict[str, Any]) -> list[Asked]:
    """Return the protocol that is asked for, once for each limit of the context."""
    if not settings.context_limits:
        return [chosen_protocol(settings.protocol, changes, env)]
    return [
        chosen_protocol(settings.protocol, {**changes, "context_limit": limit}, env)
        for limit in settings.context_limits
    ]


def _check_controls(settings: Settings, protocol: Protocol) -> None:
    if ContextControl.FOREIGN.value not in settings.controls:
        return
    env = make_trial_env(protocol.env, 1, protocol.options)
    try:
        donor_block(env, protocol, next(iter(protocol.blocks())))
    finally:
        env.close()


def _check_tracks(settings: Settings, protocol: Protocol) -> None:
    env = make_trial_env(protocol.env, 1, protocol.options)
    try:
        replayed_trials(settings.replay, protocol, env)
        check_trials([trial for trial, _ in settings.filmed], protocol, env, key="videos")
    finally:
        env.close()
    for trial, episode in settings.filmed:
        if protocol.episodes is not None and episode >= protocol.episodes:
            raise ConfigError(
                f"videos: must name one of the {protocol.episodes} episodes of a trial, got "
                f"{trial}/{episode}. Count from 0."
            )


def _plan(
    agents: Sequence[TrainedAgent | Expert], settings: Settings, protocols: Sequence[Protocol]
) -> list[Plan]:
    """Check each evaluation and give it a directory of its own."""
    names = _names([agent.root.absolute() for agent in agents])
    plans = []
    for agent, protocol in product(agents, protocols):
        name = names[agent.root.absolute()]
        fitted = fit_protocol(
            agent,
            protocol,
            allow_trained=settings.allow_trained,
            device=settings.device,
            workers=settings.workers or 1,
        )
        directory = _directory(agent, settings, protocol)
        if settings.out is not None and len(agents) > 1:
            directory = directory / name / agent.name
        if settings.out is not None and len(protocols) > 1:
            directory = directory / protocol.context_limit.replace(":", "-")
        plans.append(Plan(name, agent, protocol, fitted, directory))
    return plans


def _check_same_task(plans: Sequence[Plan]) -> None:
    """Check that what the runs' own options say of the task is the same for all.

    Raises:
        ConfigError: If they differ; it names the first difference.
    """
    first, *others = [task_options(plan.fitted.options) for plan in plans]
    for plan, options in zip(plans[1:], others, strict=True):
        for key in sorted(first.keys() | options.keys()):
            one, other = (o.get(key, "its default") for o in (first, options))
            if one != other:
                raise ConfigError(
                    f"{key}: must be the same for all that are compared, got {one} of "
                    f"{plans[0].run} and {other} of {plan.run}. Set {key}=VALUE for all, or "
                    "evaluate them one by one."
                )


def _names(roots: Sequence[Path]) -> dict[Path, str]:
    """Name runs by their directories, with a number where two have the same name."""
    distinct = dict.fromkeys(roots)
    count = Counter(root.name for root in distinct)
    return {
        root: root.name if count[root.name] == 1 else f"{root.name}-{i}"
        for i, root in enumerate(distinct)
    }


def _directory(agent: TrainedAgent | Expert, settings: Settings, protocol: Protocol) -> Path:
    if settings.out is not None:
        return Path(settings.out)
    return _in(agent.root, protocol) / agent.name


def shared_directory(
    agents: Sequence[TrainedAgent | Expert], settings: Settings, protocols: Sequence[Protocol]
) -> Path:
    """Return where a comparison goes: into the only run, beside the runs, or into the first."""
    if settings.out is not None:
        return Path(settings.out)
    first = agents[0].root.absolute()
    roots = {agent.root.absolute() for agent in agents}
    root = first if len(roots) == 1 else Path(os.path.commonpath({r.parent for r in roots}))
    if root == Path(root.anchor):  # they have nothing in common
        root = first
    directory = _in(root, protocols[0])
    # Beside a comparison of checkpoints by the first of the protocols, not over it.
    return directory / "context_limits" if len(protocols) > 1 else directory


def _in(root: Path, protocol: Protocol) -> Path:
    return root / "evaluations" / f"{protocol.name}-{protocol.hash}"


def _open(plan: Plan, settings: Settings) -> RecordStore:
    digest, threads, device = plan.agent.digest, settings.threads, settings.device
    return RecordStore(plan.directory, identity(digest, plan.fitted, threads, device=device))


def _announce_changes(asked: Sequence[Asked]) -> None:
    """Say each change once, whatever limits of the context are compared."""
    said = dict.fromkeys(line for one in asked for line in _changes(one))
    for line in said:
        print(line)


def _changes(asked: Asked) -> Iterator[str]:
    before, after = leaves(to_plain(asked.base)), leaves(to_plain(asked.protocol))
    for key in sorted(after.keys() - {"name"}):
        if before.get(key) != after[key]:
            yield f"CHANGED: {key}={after[key]} instead of {before.get(key)}"
