"""What `memories.py` compares: tasks, memories, and the tables of both."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Memory:
    """A row of the comparison."""

    title: str
    ablation: str
    """The file of `configs/ablation` that chooses it, with what such a memory needs."""
    attends: bool = False
    """Whether it attends to steps that it keeps apart. Others have a state of one size."""


MEMORIES = {
    "transformer": Memory("ReLIC's transformer", "none", attends=True),
    "transformer_xl": Memory("Transformer-XL", "transformer_xl", attends=True),
    "memo": Memory("Memo", "memo", attends=True),
    "delta_rule": Memory("gated delta rule", "delta_rule"),
    "selective": Memory("selective state space", "selective"),
    "min_gru": Memory("minGRU", "min_gru"),
    "lstm": Memory("LSTM (RL²)", "rl2"),
    "gru": Memory("GRU (RL²)", "rl2_gru"),
}


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned, and how it is measured."""

    name: str
    total_steps: int
    keys: tuple[str, ...]
    """What `train.py` is told."""
    evaluation: tuple[str, ...]
    """What `eval.py` is told."""
    measure: str
    """Of the records: success or return."""
    oracle: tuple[str, ...] = ()
    """What `eval.py` is told beyond that to measure the memory oracle; empty: there is none."""
    package: str | None = None
    """What has to be installed for it."""
    first: Task | None = None
    """What the same memory learns before it, with the same seed; training starts from there."""


@dataclass(frozen=True, slots=True)
class Table:
    """Tasks x memories x seeds."""

    tasks: tuple[Task, ...]
    memories: tuple[str, ...] = tuple(MEMORIES)
    seeds: tuple[int, ...] = (0, 1, 2)


ALIKE = (
    "threads=1",
    "logging.progress=false",
    "validation.every_rollouts=null",
    "checkpoint.best_metric=null",
)
"""Of all cells: one thread, and the last weights are measured, after equally many steps."""


def _task(name: str, experiment: str, steps: int, evaluation: str, measure: str) -> Task:
    keys = (f"experiment={experiment}", *ALIKE)
    package = experiment.partition("/")[0] if "/" in experiment else None
    return Task(name, steps, keys, tuple(evaluation.split()), measure, package=package)


_OWN = "options.split=val trials=64 block=32"
_BALLS = f"{_OWN} episodes=24 options.level=Balls options.size=17 options.max_episode_steps=30"
_ROOMS = f"{_OWN} episodes=24 options.level=MiniGrid-FourRooms-v0 options.max_episode_steps=100"
DARKROOM = _task("darkroom", "darkroom", 3_000_000, "protocol=darkroom_test", "return")
_BLIND = ("expert=memory", "options.sensors=[]")
_FRESH = "protocol=houses_small_changing first_trial=500 trials=300"
HOUSES = replace(_task("houses", "houses_small", 3_000_000, _FRESH, "success"), oracle=_BLIND)
DETECTIONS = replace(
    _task("detections", "houses_small_detections", 3_000_000, _FRESH, "success"), oracle=_BLIND
)
REVISITS = replace(
    _task("revisits", "revisits", 1_000_000, "protocol=revisits_val", "success"),
    oracle=("expert=memory",),
)
_LONG = (
    "rollout.num_steps=4096", "updates.per_rollout=16", "env.options.longest=512",
    "ppo.clone_steps=131_072",
)  # fmt: skip
REVISITS_64K = replace(
    REVISITS,
    name="revisits_64k",
    total_steps=262_144,
    keys=(*REVISITS.keys, *_LONG),
    evaluation=("protocol=revisits_64k",),
    first=REVISITS,
)
"""Trained on trials of 1,024 steps, then of 4,096, and measured on trials of 65,536."""
BALLS = replace(
    _task("minigrid_balls", "minigrid/balls", 2_000_000, _BALLS, "success"),
    oracle=("env=relic/MiniGrid-v0", "expert=memory"),
)
ROOMS = replace(
    _task("minigrid_rooms", "minigrid/four_rooms", 2_000_000, _ROOMS, "success"),
    oracle=("env=relic/MiniGrid-v0", "expert=memory"),
)
_GAMES = {
    "repeat_previous": "RepeatPreviousEasy",
    "repeat_first": "RepeatFirstEasy",
    "autoencode": "AutoencodeEasy",
    "concentration": "ConcentrationEasy",
    "higher_lower": "HigherLowerEasy",
    "count_recall": "CountRecallEasy",
}
POPGYM = tuple(
    _task(
        f"popgym_{name}",
        f"popgym/{name}",
        2_000_000,
        f"{_OWN} episodes=12 options.task={game}",
        "return",
    )
    for name, game in _GAMES.items()
)
_TINY = (
    "rollout.num_envs=8", "rollout.num_steps=64", "updates.per_rollout=2",
    "ppo.num_minibatches=2", "ppo.update_epochs=1",
)  # fmt: skip


def _tiny(task: Task, **options: int) -> Task:
    keys = tuple(f"env.options.{name}={value}" for name, value in options.items())
    own = tuple(f"options.{name}={value}" for name, value in options.items())
    # Oracles are measured without a run that would choose the protocol.
    named = [key for key in task.evaluation if key.startswith("protocol=")]
    measured = (*named, "trials=2", "episodes=7", "block=2", "options.split=val", *own)
    return replace(task, total_steps=1024, keys=(*task.keys, *_TINY, *keys), evaluation=measured)


_SMALL_ROOMS = {"size": 4, "longest": 8}
TABLES = {
    "smoke": Table(
        (
            _tiny(DARKROOM, size=5, horizon=8),
            _tiny(BALLS, size=11, max_episode_steps=8),
            replace(_tiny(REVISITS_64K, **_SMALL_ROOMS), first=_tiny(REVISITS, **_SMALL_ROOMS)),
            _tiny(POPGYM[0]),
        ),
        memories=("transformer", "memo", "min_gru"),
        seeds=(0,),
    ),
    "cpu": Table((DARKROOM, BALLS, ROOMS, *POPGYM, REVISITS, HOUSES, DETECTIONS)),
    "long": Table((REVISITS_64K,)),
}
