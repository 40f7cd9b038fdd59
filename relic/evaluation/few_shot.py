"""Few-shot imitation: what demonstrations in the context are worth to a trained policy.

An expert, or a recording of a person, acts in the first episodes of a trial while the policy reads
along: each step is decoded and cached as if the policy had chosen the shown action itself. Then the
policy acts. Nothing marks a demonstration but what is seen and done in it. The comparison is with
the same policy in the same episodes of the same trials after as many episodes of its own (Elawady
et al., 2024, few-shot imitation).

Shapes: U units (a trial, evaluated once), I episode index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs.core.demonstrations import (
    EXPERT,
    Demonstrations,
    read_demonstrations,
    record_expert,
    rehearse,
)
from envs.core.vector import Observation, TrialVectorEnv
from envs.make import make_trial_env
from envs.objectnav.rows import TaskRows
from relic.arguments import merged
from relic.evaluation.curves import Table, curve, measures, tabulate
from relic.evaluation.evaluator import OnAct, make_env, run_block
from relic.evaluation.protocol import Protocol
from relic.evaluation.records import Record
from relic.evaluation.trained_agent import TrainedAgent, chosen_protocol, find_agent, fit_protocol
from relic.evaluation.workers import torch_threads
from relic.files import write_json
from relic.policy.loading import check_device, load
from relic.policy.policy import Policy
from relic.schema import ConfigError, choice, nearest, to_plain

Goals = Literal["fixed", "free", "unknown"]
_GOALS: dict[bool | None, Goals] = {True: "fixed", False: "free", None: "unknown"}
_PARTS = ("mean", "low", "high")


@dataclass(frozen=True, slots=True)
class Curve:
    """Means with 95 % bootstrap intervals over houses, or goals; None where there is none."""

    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DemonstrationEffect:
    """One measure with and without demonstrations."""

    demonstrated: tuple[Curve, ...]
    """For each count of demonstrations, the policy's episodes that follow them."""
    own: Curve
    """The policy without demonstrations, by episode index."""
    difference: tuple[Curve, ...]
    """As `demonstrated`, less the policy's own episode of the same trial and index: paired."""
    demonstrator: Curve
    """The demonstrations themselves, by episode index; empty where none were shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """What demonstrations did, with all that says how it was measured."""

    checkpoint: str
    protocol: str
    protocol_hash: str
    """Of the protocol whose trials, repeats, blocks and seed were used."""
    env: str
    goals: Goals
    """Whether the goal stays the same in all episodes of a trial; unknown: the environment does not
    say it."""
    demonstrations: str
    """Whose they were: `expert`, or a file."""
    trials: int
    repeats: int
    counts: tuple[int, ...]
    """Numbers of demonstrations that were tried, ascending."""
    following: int
    """The policy's own episodes after them."""
    measures: dict[str, DemonstrationEffect] = field(default_factory=dict)

    def effect(self, measure: str) -> DemonstrationEffect:
        """Return the effect on a measure.

        Raises:
            ConfigError: If it was not measured; it names the nearest.
        """
        return self.measures[choice(measure, self.measures, "measure")]

    def at_first(self, measure: str, part: Literal["demonstrated", "difference"]) -> Curve:
        """Return a part of the effect in the episode right after the demonstrations.

        Returns:
            A curve with one entry for each of `counts`.
        """
        effect = self.effect(measure)
        by_count = getattr(effect, choice(part, ("demonstrated", "difference"), "part"))
        return Curve(*(tuple(getattr(c, name)[0] for c in by_count) for name in _PARTS))

    def write(self, path: str | Path) -> None:
        """Write everything as JSON."""
        write_json(Path(path), to_plain(self))


def probe(
    run: str | Path,
    *,
    counts: Sequence[int] = (0, 1, 2, 4),
    following: int = 1,
    demonstrations: Demonstrations | str | Path = EXPERT,
    goals: Literal["fixed", "free"] | None = None,
    protocol: Protocol | str | None = None,
    trials: int | None = None,
    repeats: int | None = None,
    checkpoint: Literal["latest", "best"] = "latest",
    allow_trained: bool = False,
    threads: int = 1,
    device: str = "cpu",
    on_episode: Callable[[], None] = lambda: None,
) -> ProbeResult:
    """Measure a policy after demonstrations, and after as many episodes of its own.

    The same call gives the same numbers, on the same machine type and thread count.

    Args:
        run: A run directory or a checkpoint.
        counts: Numbers of demonstrations to try. Each takes a pass over all trials.
        following: Number of episodes in which the policy acts after the demonstrations.
        demonstrations: `expert` for the environment's expert, or demonstrations, or a file of them.
        goals: Whether a trial asks for the same thing in all its episodes, where it asks for
            categories. None: as in the protocol, or as the environment has it.
        protocol: Which trials. None: the one of the run's environment.
        trials: How many of them. None: all.
        repeats: How often each is repeated, with other acting noise. None: as in the protocol.
        checkpoint: The checkpoint of a run directory.
        allow_trained: Probe even on trials that the run was trained on.
        threads: Threads of PyTorch; the last bits of results depend on their number.
        device: Device of the policy.
        on_episode: Called as each of the policy's episodes ends, shown ones included.

    Raises:
        ConfigError: If an argument is refused.
        DemonstrationError: If demonstrations do not fit the trials.
        FileNotFoundError: If there is no policy, or no file of demonstrations.
        ValueError: If the policy does not fit the environment.
        NotImplementedError: If the environment has no expert.
    """
    tried = _checked(counts, following)
    if goals is not None:
        choice(goals, ("fixed", "free"), "goals")
    if threads < 1:
        raise ConfigError(f"threads: must be at least 1, got {threads}. Use 1.")
    check_device(device)
    agent = find_agent(run, checkpoint)
    named = _protocol(agent, protocol, trials=trials, repeats=repeats)
    fitted, had = _fit(agent, named, goals, allow_trained=allow_trained)
    env = make_env(fitted)
    try:
        shown, demonstrator = _demonstrations(demonstrations, env, fitted, tried[-1])
        run_all = partial(_records, load(agent.checkpoint, device), env, fitted, on_episode)
        with torch_threads(threads):
            # One run of the longest kind serves all counts as comparison: it has every episode
            # index.
            own = run_all(tried[-1] + following)
            after = {
                count: run_all(count + following, playback(shown, count)) if count else own
                for count in tried
            }
    finally:
        env.close()
    return ProbeResult(
        checkpoint=str(agent.checkpoint),
        protocol=named.name,
        protocol_hash=named.hash,
        env=named.env,
        goals=had,
        demonstrations=shown.source,
        trials=named.trials,
        repeats=named.repeats,
        counts=tried,
        following=following,
        measures={
            name: _effect(name, own, after, demonstrator, following) for name in measures(own)
        },
    )


def playback(demonstrations: Demonstrations, count: int) -> OnAct:
    """Return what puts the shown actions in the place of the policy's in the first episodes."""

    def act(
        env: TrialVectorEnv, _seen: Observation, _starts_N: np.ndarray, action_N: np.ndarray
    ) -> np.ndarray:
        return demonstrations.act(env, count, action_N)

    return act


def _checked(counts: Sequence[int], following: int) -> tuple[int, ...]:
    tried = tuple(sorted(set(counts)))
    if not tried or tried[0] < 0:
        raise ConfigError(
            f"counts: must hold numbers of demonstrations, 0 or more, got {list(counts)}. "
            "Use (0, 1, 2, 4)."
        )
    if following < 1:
        raise ConfigError(f"following: must be at least 1, got {following}. Use 1.")
    return tried


def _protocol(
    agent: TrainedAgent, protocol: Protocol | str | None, **changes: int | None
) -> Protocol:
    given: dict[str, Any] = {name: v for name, v in changes.items() if v is not None}
    if isinstance(protocol, Protocol):
        return replace(protocol, **given)
    return chosen_protocol(protocol, given, agent.env).protocol


def _fit(
    agent: TrainedAgent, protocol: Protocol, goals: Goals | None, *, allow_trained: bool
) -> tuple[Protocol, Goals]:
    """Return the protocol with all options filled in, and how long its goals last."""
    env = make_trial_env(protocol.env, 1, merged(agent.options, protocol.options))
    env.close()
    own = _GOALS[env.fixed_goal]
    if goals not in (None, own):
        if not isinstance(getattr(env, "task_rows", None), TaskRows):
            raise ConfigError(
                f"goals: must be left out in {protocol.env}, whose goals are {own}, got {goals!r}. "
                "Only tasks of categories let them be chosen."
            )
        chosen = {"task": {"fixed_goal": goals == "fixed"}}
        protocol = replace(protocol, options=merged(protocol.options, chosen))
    return fit_protocol(agent, protocol, allow_trained=allow_trained), goals or own


def _demonstrations(
    given: Demonstrations | str | Path, env: TrialVectorEnv, protocol: Protocol, most: int
) -> tuple[Demonstrations, list[Record]]:
    """Return demonstrations that were tried out, and a record of each."""
    trials = range(protocol.first_trial, protocol.first_trial + protocol.trials)
    if most == 0:
        return Demonstrations(env.dataset_name, {}, EXPERT), []
    if given == EXPERT:
        shown, records = record_expert(env, trials, most)
    else:
        shown = given if isinstance(given, Demonstrations) else _read(Path(given))
        records = rehearse(shown, env, trials, most)
    # Demonstrations belong to a trial, and are the same in all its repeats.
    return shown, [{**record, "repeat": 0} for record in records]


def _read(path: Path) -> Demonstrations:
    if not path.is_file():
        raise FileNotFoundError(
            f"demonstrations: must be {EXPERT!r}, demonstrations or a file of them, got "
            f"{str(path)!r}. {nearest(str(path), [EXPERT])}"
        )
    return read_demonstrations(path)


def _records(
    policy: Policy,
    env: TrialVectorEnv,
    protocol: Protocol,
    on_episode: Callable[[], None],
    episodes: int,
    on_act: OnAct | None = None,
) -> list[Record]:
    """Run all trials for so many episodes."""
    protocol = replace(protocol, steps=None, episodes=episodes)
    records = []
    for block in protocol.blocks():
        for record in run_block(policy, env, protocol, block, on_act=on_act):
            records.append(record)
            on_episode()
    return records


def _effect(
    name: str,
    own: list[Record],
    after: Mapping[int, list[Record]],
    demonstrator: list[Record],
    following: int,
) -> DemonstrationEffect:
    own_table = tabulate(own, name)
    demonstrated, difference = [], []
    for count, records in after.items():
        episodes = slice(count, count + following)
        value_UI = tabulate(records, name).value_UI[:, episodes]
        more_UI = value_UI - own_table.value_UI[:, episodes]
        demonstrated.append(_curve(Table(value_UI, own_table.cluster_U)))
        difference.append(_curve(Table(more_UI, own_table.cluster_U)))
    return DemonstrationEffect(
        demonstrated=tuple(demonstrated),
        own=_curve(own_table),
        difference=tuple(difference),
        demonstrator=_curve(tabulate(demonstrator, name)) if demonstrator else Curve((), (), ()),
    )


def _curve(table: Table) -> Curve:
    parts = curve(table)
    return Curve(*(tuple(parts[name]) for name in _PARTS))
