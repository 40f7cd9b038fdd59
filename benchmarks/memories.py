"""Memories beside each other: every task with every memory and seed, trained and evaluated alike.

    python benchmarks/memories.py runs/memories --table smoke    # minutes: does it all work?
    python benchmarks/memories.py runs/memories --table cpu      # days on two cores
    python benchmarks/memories.py runs/memories --table cpu --tasks darkroom --memories memo gru
    python benchmarks/memories.py runs/memories --table cpu --page-only

A cell is a task's experiment with one memory and one seed, trained for the task's steps on one
thread and evaluated on trials that no agent trains on, with its memory and with the memory emptied
before each episode. All cells of the first seed come first, so stopping early leaves a whole table.
Where the environment has a memory oracle, it is measured on the same trials, once.
Called again, or after Ctrl-C or SIGTERM, it goes on where it was. What a cell came to is a line
that is added to DIR/results.jsonl or --results; a cell that is in there is not trained again. The
page is DIR/memories.md or --page, from all cells in the file that are asked for, with a figure of
each task beside it in figures/.

Tasks of MiniGrid and POPGym need `pip install 'minigrid>=3.0' 'popgym>=1.0.6'`; without them they
are left out, and the page says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from cases import Case, Children, claim, each, train
from memories_figures import draw
from memories_report import Cell, Result, Results, oracle_of, page, result_of
from memories_tables import MEMORIES, TABLES, Table, Task
from timing import finish

from relic.evaluation.controls import ContextControl
from relic.evaluation.records import RECORDS_FILES
from relic.files import PROJECT, write_text


def cells_of(table: Table, args: argparse.Namespace) -> list[Cell]:
    """Return what is asked for, the first seed's cells first."""
    tasks = [task for task in table.tasks if not args.tasks or task.name in args.tasks]
    memories = args.memories or list(table.memories)
    seeds = args.seeds or list(table.seeds)
    directory = args.directory / args.table
    return [
        cell_of(task, memory, seed, directory)
        for seed in seeds
        for task in tasks
        for memory in memories
    ]


def cell_of(task: Task, memory: str, seed: int, directory: Path) -> Cell:
    """Return a cell, after that of the task that is learned first."""
    keys = (*task.keys, f"ablation={MEMORIES[memory].ablation}", f"seed={seed}")
    first = None if task.first is None else cell_of(task.first, memory, seed, directory)
    if first is not None:
        keys += (f"init_from={first.case.directory.absolute()}",)
    return Cell(task, memory, seed, Case(directory / f"{task.name}_{memory}_{seed}", keys), first)


def missing_package(task: Task) -> str | None:
    """Return the package that a task needs and that is not there."""
    return task.package if task.package and find_spec(task.package) is None else None


def evaluate(out: Path, keys: Sequence[str], messages: Path, children: Children) -> bool:
    """Evaluate what the keys say, if that is not done; say whether it went well."""
    keys = [*keys, "controls=[cleared]", "replay=[]", "progress=false", f"out={out.absolute()}"]
    if not claim(out, keys):
        return False
    if all((out / name).is_file() for name in _RECORDS):
        return True
    ended = children.run([str(PROJECT / "eval.py"), *keys], messages)
    if ended is None or children.stopping:
        return True
    if ended[0]:
        print(f"{out}: evaluation failed, see {messages}.", flush=True)
    return ended[0] == 0


_RECORDS = [RECORDS_FILES[c] for c in (ContextControl.KEPT, ContextControl.CLEARED)]


def work_on(cell: Cell, results: Results, children: Children) -> bool:
    """Train and evaluate a cell, unless it is known; say whether it went well."""
    if results.get(cell) is not None or children.stopping:
        return True
    for part in (cell.first, cell):
        if part is None:
            continue
        part.case.directory.parent.mkdir(parents=True, exist_ok=True)
        if not train(part.case, part.task.total_steps, None, children):
            return False
        if part.case.saved < part.task.total_steps:
            return True  # It is being stopped.
    keys = [f"run={cell.case.directory.absolute()}", *cell.task.evaluation]
    well = evaluate(cell.evaluation, keys, cell.case.messages, children)
    if well and not children.stopping:
        results.add(result_of(cell))
        print(f"{cell.case.directory}: trained and evaluated.", flush=True)
    return well


def ask_oracle(task: Task, directory: Path, results: Results, children: Children) -> bool:
    """Measure a task's memory oracle, unless it has none or is known; say whether it went well."""
    if not task.oracle or results.oracle(task) is not None or children.stopping:
        return True
    out = directory / f"{task.name}_oracle"
    directory.mkdir(parents=True, exist_ok=True)
    keys = [*task.evaluation, *task.oracle]
    well = evaluate(out, keys, out.with_name(f"{out.name}.log"), children)
    if well and not children.stopping:
        results.add(oracle_of(task, out))
    return well


def write_page(args: argparse.Namespace, cells: Sequence[Cell], results: Results) -> int:
    """Write the page and its figures from what is known; return the number of known cells."""
    table = TABLES[args.table]
    found: list[Result] = [r for r in map(results.get, cells) if r is not None]
    lacking = {c.task.name: p for c in cells if (p := missing_package(c.task))}
    notes = [f"{task}: left out, {package} is not installed." for task, package in lacking.items()]
    unknown = [cell for cell in cells if results.get(cell) is None]
    if left := [str(cell) for cell in unknown if cell.task.name not in lacking]:
        notes.append("Not finished, so left out: " + ", ".join(left) + ".")
    known = {result.task for result in found}
    tasks = [task for task in table.tasks if task.name in known]
    oracles = {task.name: o for task in tasks if (o := results.oracle(task)) is not None}
    figures = {task.name: f"figures/{args.table}_{task.name}.png" for task in tasks}
    (args.page.parent / "figures").mkdir(parents=True, exist_ok=True)
    for task in tasks:
        own = [result for result in found if result.task == task.name]
        draw(task, own, oracles.get(task.name), args.page.parent / figures[task.name])
    text = page(
        table, found, notes, command=f"--table {args.table}", oracles=oracles, figures=figures
    )
    write_text(args.page, text)
    print(text)
    return len(found)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--table", default="smoke", choices=list(TABLES))
    parser.add_argument("--tasks", nargs="+", help="default: all of the table")
    parser.add_argument("--memories", nargs="+", choices=list(MEMORIES))
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--results", type=Path, help="default: DIR/results.jsonl")
    parser.add_argument("--page", type=Path, help="default: DIR/memories.md")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--page-only", action="store_true", help="train and evaluate nothing")
    args = parser.parse_args()
    known = [task.name for task in TABLES[args.table].tasks]
    for name in args.tasks or ():
        if name not in known:
            parser.error(f"--tasks: must be of table {args.table}, got {name}. It has {known}.")
    args.results = args.results or args.directory / "results.jsonl"
    args.page = args.page or args.directory / "memories.md"
    return args


def main() -> int:
    """Train and evaluate what is missing, then write the page."""
    args = options()
    table = TABLES[args.table]
    cells = cells_of(table, args)
    results = Results(args.results, args.table)
    well = True
    if not args.page_only:
        children = Children()
        able = [cell for cell in cells if missing_package(cell.task) is None]
        well = each(able, args.jobs, partial(work_on, results=results, children=children))
        for task in {cell.task.name: cell.task for cell in able}.values():
            well &= ask_oracle(task, args.directory / args.table, results, children)
    found = write_page(args, cells, results)
    told = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    finish("memories", told, torch.device("cpu"), {"cells": found, "of": len(cells)})
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
