"""The steps of one evaluation, in order: blocks, records, summary, plots, page, videos.

`Settings` says what of this is wanted; `relic.evaluate` reads it from the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.core.kernels import compile_ahead
from envs.core.vector import TrialVectorEnv
from envs.make import kernel_parts, make_trial_env
from relic.evaluation.controls import ContextControl
from relic.evaluation.curves import episodes_within, summarise, summarise_groups
from relic.evaluation.maps import Track, missing_tracks, read_track, replayed_trials
from relic.evaluation.protocol import Protocol
from relic.evaluation.records import Job, Record, RecordStore, count_crashed
from relic.evaluation.report.page import write_report
from relic.evaluation.report.plots import plot_groups, plot_summary
from relic.evaluation.report.replay import replay_data
from relic.evaluation.report.video import write_videos
from relic.evaluation.settings import Settings
from relic.evaluation.trained_agent import Expert, TrainedAgent, trained_on
from relic.evaluation.workers import Assignment, progress, run_jobs
from relic.evaluation.worth import context_worth, with_oracle
from relic.files import write_json
from relic.schema import ConfigError, to_plain

SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"


def evaluate_into(
    store: RecordStore,
    agent: TrainedAgent | Expert,
    protocol: Protocol,
    settings: Settings,
    *,
    named: Protocol,
    oracle: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate what is not done yet, and write records, summary, plots and a page about them.

    Args:
        store: Where to.
        agent: What is evaluated.
        protocol: With the run's options filled in.
        settings: Workers and the like.
        named: The protocol as it is named and hashed.
        oracle: Summary of the memory oracle by the same protocol.

    Returns:
        The summary.

    Raises:
        WorkerError: If a block could not be evaluated.
        ConfigError: If an episode is to be filmed that a trial did not reach, or none ended.
    """
    env = make_trial_env(protocol.env, 1, protocol.options)
    try:
        replayed = replayed_trials(settings.replay, protocol, env)
        tracked = tuple(dict.fromkeys([*replayed, *(trial for trial, _ in settings.filmed)]))
        records = _records(store, agent, protocol, settings, tracked)
        summary = _summary(agent, protocol, named, records, env.goal_categories)
        if oracle is not None:
            summary["context"] = with_oracle(summary["context"], oracle["context"])
        write_json(store.directory / SUMMARY_FILE, summary)
        pictures = store.directory / "plots"
        plots = [*plot_summary(summary, pictures), *plot_groups(summary, pictures)]
        tracks = {trial: read_track(store.directory, trial) for trial in tracked}
        kept = records[ContextControl.KEPT]
        replays = _replays(env, [tracks[trial] for trial in replayed], kept)
        report = store.directory / REPORT_FILE
        write_report(summary, plots, report, run=_title(agent), replays=replays)
        write_videos(env, tracks, kept, settings.filmed, store.directory / "videos")
    finally:
        env.close()
    return summary


def _title(agent: TrainedAgent | Expert) -> str:
    """Return what a page about an agent is called."""
    if isinstance(agent, Expert):
        return f"expert ({agent.kind})"
    return agent.root.name if agent.root == agent.checkpoint else f"{agent.root.name}, {agent.name}"


def _records(
    store: RecordStore,
    agent: TrainedAgent | Expert,
    protocol: Protocol,
    settings: Settings,
    tracked: tuple[int, ...],
) -> dict[ContextControl, list[Record]]:
    """Evaluate the blocks that are not done and return all records."""
    controls = [ContextControl.KEPT, *map(ContextControl, settings.controls)]
    jobs = [Job(control, block) for control in controls for block in range(protocol.num_blocks)]
    missing = missing_tracks(store.directory, protocol, tracked)
    left = [
        job
        for job in jobs
        # A block that is done is done again where a track is missing: its records come out the
        # same.
        if not store.is_done(job) or (job.control is ContextControl.KEPT and job.block in missing)
    ]
    assignment = Assignment(
        agent,
        protocol,
        store.directory,
        threads=settings.threads,
        device=settings.device,
        tracked=tracked,
    )
    compile_ahead(kernel_parts(protocol.env))  # before the bar, and not in each worker
    with progress(protocol, left, len(jobs), enabled=settings.progress) as on_episode:
        run_jobs(assignment, left, workers=settings.workers, on_episode=on_episode)
    records = {control: store.merge(control, protocol.num_blocks) for control in controls}
    if not records[ContextControl.KEPT]:
        raise ConfigError(
            f"protocol.steps: must let some trial end an episode, got {protocol.steps}, in which "
            "none did. Raise steps."
        )
    return records


def _summary(
    agent: TrainedAgent | Expert,
    protocol: Protocol,
    named: Protocol,
    records: dict[ContextControl, list[Record]],
    categories: Sequence[str],
) -> dict[str, Any]:
    kept = records[ContextControl.KEPT]
    controls = {
        c: others for c, others in records.items() if c is not ContextControl.KEPT and others
    }
    return {
        "format": 1,
        "protocol": named.name,
        "protocol_version": named.version,
        "protocol_hash": named.hash,
        "env": protocol.env,
        "options": to_plain(protocol.options),
        "trained_on": bool(trained_on(agent, protocol)),
        "policy": agent.digest,
        "checkpoint": agent.name,
        "env_steps": agent.meta.get("env_steps"),
        "episodes": len(kept),
        "crashed": count_crashed(kept),
        "trials": protocol.trials,
        "repeats": protocol.repeats,
        "context_limit": protocol.context_limit,
        "trained_steps": agent.trained_steps,
        "trained_episodes": episodes_within(kept, agent.trained_steps),
        **summarise(kept, controls),
        "context": context_worth(records),
        **summarise_groups(kept, categories),
    }


def _replays(
    env: TrialVectorEnv, tracks: Sequence[Track], records: Sequence[Record]
) -> list[dict[str, Any]]:
    """Return what the page replays: the first repeat of trials that have a whole episode."""
    own = [[r for r in records if r["trial"] == t.trial and r["repeat"] == 0] for t in tracks]
    return [
        replay_data(env, track, episodes)
        for track, episodes in zip(tracks, own, strict=True)
        if episodes
    ]
