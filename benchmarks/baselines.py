"""ReLIC beside its baselines and ablations, trained for equal steps and evaluated alike.

    python benchmarks/baselines.py runs/baselines                       # hours on two cores
    python benchmarks/baselines.py runs/baselines --rows rl2 --seeds 0  # one row
    python benchmarks/baselines.py runs/baselines --table-only          # from what there is

A row is the experiment with one file of `configs/ablation` or some keys changed; `relic` is the
experiment itself. Each row trains on one thread, and its best checkpoint by validation is evaluated
on trials that no agent trains on. With `--experiment houses_small_detections` the last one is, and
what counts is the worth of its context: kept minus cleared. All rows of the first seed come first.
Called again, or after Ctrl-C or SIGTERM, it goes on where it was. It writes DIR/table.md and
DIR/baselines.png about the rows that are asked for, so take a directory for each experiment; the
last line is one JSON object.

What a run came to is added to a small file, DIR/results.json or --results, and a run that is in it
is not trained: with `--results docs/baselines/darkroom.json` a machine adds what others have not.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from baselines_report import (
    EXPERIMENTS,
    ROWS,
    Results,
    Run,
    Setting,
    lines_of,
    plot,
    result_of,
    table,
)
from cases import Case, Children, claim, each, train
from timing import finish

from relic.evaluation.controls import ContextControl
from relic.files import PROJECT
from relic.run.compose import compose
from relic.run.config import RunConfig


def run_of(directory: Path, experiment: str, row: str, seed: int) -> Run:
    """Return a row's run with one seed."""
    keys = [f"{key}={value}" for key, value in keys_of(experiment, row).items()]
    case = Case(directory / f"{experiment}_{row}_{seed}", (*keys, f"seed={seed}"))
    return Run(row, seed, case, EXPERIMENTS[experiment])


def keys_of(experiment: str, row: str) -> dict[str, str]:
    """Return what `train.py` is told of a row."""
    return {"experiment": experiment, **EXPERIMENTS[experiment].keys, **ROWS[row].keys}


def same_rows(experiment: str, rows: list[str]) -> dict[str, str]:
    """Return the rows that are, in this experiment, what another row before them is already."""
    kept: dict[str, RunConfig] = {}
    same = {}
    for row in rows:
        config = compose(keys_of(experiment, row))
        twin = next((other for other in kept if kept[other] == config), None)
        if twin is None:
            kept[row] = config
        else:
            same[row] = twin
    return same


def evaluate(run: Run, setting: Setting, children: Children) -> bool:
    """Evaluate a run, if that is not done; say whether it went well."""
    controls = [c.value for c in run.records if c is not ContextControl.KEPT]
    keys = [f"run={run.case.directory.absolute()}", f"checkpoint={setting.checkpoint}"]
    keys += [f"controls=[{','.join(controls)}]", f"protocol={setting.protocol}", *setting.fresh]
    keys += ["progress=false", "replay=[]", f"out={run.evaluation.absolute()}"]
    if not claim(run.evaluation, keys):
        return False
    if all(path.is_file() for path in run.records.values()):
        return True
    ended = children.run([str(PROJECT / "eval.py"), *keys], run.case.messages)
    if ended is None or children.stopping:
        return True
    if ended[0]:
        print(f"{run.case.directory}: evaluation failed, see {run.case.messages}.", flush=True)
    return ended[0] == 0


def train_and_evaluate(
    run: Run, results: Results, total_steps: int, limit_s: float, children: Children
) -> bool:
    """Take a run as far as the limit lets it, unless it is known; say whether it went well."""
    if results.get(run.row, run.seed) is not None:
        return True
    if not train(run.case, total_steps, limit_s, children):
        return False
    reached = run.case.saved
    if reached < total_steps:
        if children.stopping:
            return True
        print(f"{run.case.directory}: stopped at {reached:,} of {total_steps:,} steps.", flush=True)
        return True
    well = evaluate(run, run.setting, children)
    if well and not children.stopping:
        results.add(result_of(run))
        print(f"{run.case.directory}: trained and evaluated.", flush=True)
    return well


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--experiment", default="darkroom", choices=EXPERIMENTS)
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="default: all of the experiment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--total-steps", type=int, help="default: the experiment's own")
    parser.add_argument("--results", type=Path, help="default: DIR/results.json")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument(
        "--limit-s",
        type=float,
        default=7200.0,
        help="most seconds of training of a run in this call; it saves and leaves",
    )
    parser.add_argument(
        "--table-only", "--plot-only", action="store_true", help="train and evaluate nothing"
    )
    args = parser.parse_args()
    setting = EXPERIMENTS[args.experiment]
    args.rows = args.rows or list(setting.rows)
    if others := [row for row in args.rows if row not in setting.rows]:
        parser.error(f"--rows: {args.experiment} has {list(setting.rows)}, got {others}.")
    if args.total_steps is None:
        own = setting.total_steps
        args.total_steps = own or compose({"experiment": args.experiment}).total_steps
    args.results = args.results or args.directory / "results.json"
    return args


def write_report(
    runs: list[Run], results: Results, args: argparse.Namespace, same: dict[str, str]
) -> list[Any]:
    """Write table and plot of what is known, say what is missing, and return the numbers."""
    known = [results.get(run.row, run.seed) for run in runs]
    found = [result for result in known if result is not None]
    titles = {row: ROWS[row].title for row in (*same, *same.values())}
    notes = [f"{titles[row]}: here the same as {titles[twin]}." for row, twin in same.items()]
    missing = [
        f"{run.row} (seed {run.seed})"
        for run, result in zip(runs, known, strict=True)
        if not result
    ]
    if missing:
        notes.append("Not finished, so left out: " + ", ".join(missing) + ".")
    setting = EXPERIMENTS[args.experiment]
    lines = lines_of(found)
    text = table(lines, setting, args.total_steps, notes)
    print(text)
    if found:
        (args.directory / "table.md").write_text(text)
        plot(lines, setting, args.directory / "baselines.png")
    return [asdict(result) for result in found]


def main() -> int:
    """Train and evaluate what is missing, then compare."""
    args = options()
    same = same_rows(args.experiment, args.rows)
    rows = [row for row in args.rows if row not in same]
    runs = [
        run_of(args.directory, args.experiment, row, seed) for seed in args.seeds for row in rows
    ]
    try:
        results = Results(args.results, args.experiment, args.total_steps)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    well = True
    args.directory.mkdir(parents=True, exist_ok=True)
    if not args.table_only:
        children = Children()
        work = partial(
            train_and_evaluate,
            results=results,
            total_steps=args.total_steps,
            limit_s=args.limit_s,
            children=children,
        )
        well = each(runs, args.jobs, work)
    found = write_report(runs, results, args, same)
    told = {**vars(args), "directory": str(args.directory), "results": str(args.results)}
    finish("baselines", told, torch.device("cpu"), found)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
