"""What does a partial update cost, by context and by what becomes of the steps before its chunk?

    python benchmarks/bench_update.py                       # 4k, 16k and 64k steps, minutes
    python benchmarks/bench_update.py --contexts 4096 16384 --rows 4 --size small --device cuda
    python benchmarks/bench_update.py --quick

Takes the last partial update of a rollout, one epoch on the newest 256 steps: with the prefix's
keys and values as constants (`detached`, the default of training), with the gradient through the
last so many steps of it (`window`), and through all of it (`full`). They take turns. The settings
are those of experiment=darkroom_64k; the rollout is filled with random steps. From the times at
several contexts follows what all partial updates of the longest rollout take: a polynomial through
them, of second degree for `full`, of first for the others, summed over the updates. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from filled import fill, learn
from timing import finish, measure_in_turns

from relic.policy.memory.config import TRANSFORMER_SIZES
from relic.ppo.config import UpdatesConfig
from relic.ppo.schedule import PlannedUpdate, PrefixGradient, UpdateKind
from relic.run.components import Components, build_components
from relic.run.compose import compose
from relic.run.distributed import join_ranks
from relic.run.trainer import prepare_process

CHUNK = 256
DEGREES = {"detached": 1, "window": 1, "full": 2}
"""Degree of an update's cost in the length of its context, by what becomes of the prefix."""


def build(args: argparse.Namespace, context: int) -> Components:
    """Build a run whose rollout ends with the update that is measured."""
    config = compose(
        {
            "experiment": "darkroom_64k",
            "device": args.device,
            "threads": args.threads,
            "rollout": {"num_envs": args.rows, "num_steps": context},
            "updates.per_rollout": context // CHUNK,
            "policy.transformer": {**TRANSFORMER_SIZES[args.size], "rope_base": 10_000},
        }
    )
    prepare_process(config)
    return build_components(config, join_ranks(args.device))


def choices(updates: UpdatesConfig, window: int) -> dict[str, UpdatesConfig]:
    """Return the rivals: what an update does with the steps before its chunk."""
    detached = replace(updates, prefix_gradient=PrefixGradient.DETACHED)
    return {
        "detached": detached,
        "window": replace(detached, prefix_window=window),
        "full": replace(updates, prefix_gradient=PrefixGradient.FULL),
    }


def at_step(step: int, updates: UpdatesConfig) -> PlannedUpdate:
    """Return the partial update after so many steps."""
    newest = step - CHUNK
    whole = updates.prefix_gradient is PrefixGradient.FULL
    return PlannedUpdate(
        index=step // CHUNK - 1,
        begin=0 if whole else max(0, newest - updates.prefix_window),
        loss_from=newest,
        chunk_from=newest,
        at_step=step,
        kind=UpdateKind.PARTIAL,
        teaches=False,
        last=False,
    )


def case(args: argparse.Namespace, context: int) -> dict[str, dict[str, float]]:
    """Measure all choices at one context."""
    parts = build(args, context)
    rivals = choices(parts.learner.updates, min(args.window, context - CHUNK))

    def call(updates: UpdatesConfig, step: int) -> Callable[[], Any]:
        def run() -> None:
            parts.learner.updates = updates
            learn(parts, at_step(step, updates))

        return run

    device = parts.policy.device
    fill(parts, at_step(2 * CHUNK, rivals["detached"]))
    for updates in rivals.values():  # compiles
        call(replace(updates, prefix_window=min(updates.prefix_window, CHUNK)), 2 * CHUNK)()
    fill(parts, at_step(context, rivals["detached"]))
    calls = {name: call(updates, context) for name, updates in rivals.items()}
    took = measure_in_turns(calls, device, args.repeats, limit_s=args.seconds)
    parts.close()
    return took


def over_rollout(rows: list[dict[str, Any]], prefix: str) -> float | None:
    """Return the seconds of all partial updates of the longest rollout, one epoch each.

    None if fewer contexts were measured than the polynomial has coefficients.
    """
    measured = [(r["context"], r["ms"]) for r in rows if r["prefix"] == prefix]
    if len(measured) <= DEGREES[prefix]:
        return None
    context, ms = (np.array(column, float) for column in zip(*measured, strict=True))
    fitted = np.polynomial.Polynomial.fit(context, ms, DEGREES[prefix], w=1.0 / ms)
    ends = np.arange(CHUNK, context.max(), CHUNK)  # the last update is a full one
    return float(fitted(ends).clip(min=0).sum() / 1e3)


def table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all cases and print them as they come."""
    print(f"size {args.size}, {args.rows} rows, the newest {CHUNK} steps, one epoch")
    print(
        f"{'context':>8} {'prefix':9} {'update':>11} {'spread':>19} {'times':>7} {'learned/s':>10}"
    )
    rows: list[dict[str, Any]] = []
    for context in args.contexts:
        took = case(args, context)
        for prefix, spread in took.items():
            row = {"context": context, "prefix": prefix, **spread}
            row["times_detached"] = row["ms"] / took["detached"]["ms"]
            row["learned_per_s"] = args.rows * CHUNK / row["ms"] * 1e3
            rows.append(row)
            print(
                f"{context:8,} {prefix:9} {row['ms']:8,.0f} ms "
                f"{row['min_ms']:8,.0f} - {row['max_ms']:8,.0f} {row['times_detached']:6.1f}x "
                f"{row['learned_per_s']:10,.0f}",
                flush=True,
            )
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", default="darkroom", choices=tuple(TRANSFORMER_SIZES))
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--contexts", type=int, nargs="+", default=[4096, 16_384, 65_536])
    parser.add_argument("--window", type=int, default=1024, help="steps that let the gradient in")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="most of one context, about")
    parser.add_argument("--quick", action="store_true", help="one repeat at short contexts")
    args = parser.parse_args()
    if args.quick:
        args.contexts, args.repeats, args.window = [512, 1024, 2048], 1, 256
    return args


def main() -> None:
    args = parse()
    rows = table(args)
    longest = max(args.contexts)
    totals = {prefix: over_rollout(rows, prefix) for prefix in DEGREES}
    for prefix, seconds in totals.items():
        if seconds is not None:
            print(f"all partial updates of {longest:,} steps, {prefix}: {seconds:,.1f} s an epoch")
    results = {"updates": rows, "rollout_s": totals}
    finish("update", vars(args), torch.device(args.device), results)


if __name__ == "__main__":
    main()
