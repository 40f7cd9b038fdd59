"""Say whether runs are on track: `python -m relic.compare RUN [RUN ...]`.

A run's learning curve, from its `metrics.jsonl`, is held against the curves that ship with its
experiment; several runs come in one table and one plot. To compare what agents do in their context,
evaluate them together: `python eval.py run=[RUN1,RUN2]`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure

from relic.evaluation.learning_curve import (
    Run,
    Shipped,
    Standing,
    Verdict,
    as_shipped,
    expected,
    judge,
    read_run,
    read_shipped,
    shipped_file,
    write_shipped,
)
from relic.evaluation.report.text import aligned
from relic.figures import (
    LOOKS,
    REFERENCE,
    draw_line,
    legend_beside,
    panel,
    save_figures,
    score_axis,
    steps_axis,
)
from relic.files import make_directory
from relic.measures import label
from relic.run.config import RunConfig
from relic.schema import ConfigError
from relic.shipped import located, outside
from relic.stops import guarded

T = TypeVar("T", Run, Shipped)
_SHOWN_CHANGES = 5
_HEAD = ("run", "experiment", "env steps", "score", "newest", "best", "on track", "verdict")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if a run is behind the shipped ones, or the disk refuses; 2 if something else does.
    """
    return guarded(lambda: _main(parse(arguments)))


def _main(options: argparse.Namespace) -> int:
    runs = [_completed(read_run(path)) for path in options.runs]
    if options.save is not None:
        make_directory(options.save.parent, key="--save")
        write_shipped(as_shipped(runs), options.save)
        print(options.save)
        return 0
    shipped = [_shipped_for(run, options.reference) for run in runs]
    verdicts = [s and judge(run, s) for run, s in zip(runs, shipped, strict=True)]
    out = options.out or outside(located(options.runs[0])) / "plots"
    make_directory(out, key="--out")
    (drawn,) = save_figures({"learning_curve": plot(runs, shipped[0])}, out)
    for run, verdict in zip(runs, verdicts, strict=True):
        print(sentence(run, verdict))
    if len(runs) > 1:
        print(as_table(runs, verdicts))
    print(drawn)
    return int(any(v is not None and v.standing is Standing.BEHIND for v in verdicts))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m relic.compare",
        description="Say whether runs learn as fast as the ones that ship.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run directory")
    parser.add_argument(
        "--reference",
        type=Path,
        help="a file of learning curves or another run; default: the experiment's own file",
    )
    parser.add_argument("--out", type=Path, help="folder of the plot; default: RUN/plots")
    parser.add_argument(
        "--save", type=Path, help="write the learning curves of the runs to this file instead"
    )
    return parser.parse_args(arguments)


def sentence(run: Run, verdict: Verdict | None) -> str:
    """Say in a few words where a run stands."""
    if verdict is None:
        curve = run.curves[run.score]
        return (
            f"{run.name}: {run.score} {curve.score_P[-1]:.3f} at {curve.step_P[-1]:,.0f} "
            f"environment steps. {run.experiment} has no reference runs; name one by --reference."
        )
    text = f"{run.name} is {verdict.standing.value} the reference runs of {verdict.experiment}: "
    text += (
        f"{verdict.name} {verdict.score:.3f} at {verdict.step:,.0f} environment steps; "
        f"{verdict.low:.3f} to {verdict.high:.3f} is on track there"
    )
    if verdict.standing is Standing.BEHIND and verdict.usual_step is not None:
        text += f", and they had this score at {verdict.usual_step:,.0f}"
    text += "."
    if verdict.changes:
        more = len(verdict.changes) - _SHOWN_CHANGES
        listed = "; ".join(verdict.changes[:_SHOWN_CHANGES])
        text += f" It was configured otherwise: {listed}" + (f"; {more} more." * (more > 0) or ".")
    return text


def as_table(runs: Sequence[Run], verdicts: Sequence[Verdict | None]) -> str:
    """Return one line per run."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for run, verdict in zip(runs, verdicts, strict=True):
        score = run.score if verdict is None else verdict.name
        curve = run.curves[score]
        rows.append(
            (
                run.name,
                run.experiment,
                f"{curve.step_P[-1]:,.0f}",
                score,
                f"{curve.score_P[-1]:.3f}",
                f"{curve.score_P.max():.3f}",
                "-" if verdict is None else f"{verdict.low:.3f} to {verdict.high:.3f}",
                "-" if verdict is None else verdict.standing.name.lower().replace("_", " "),
            )
        )
    return "\n".join(aligned(rows))


def plot(runs: Sequence[Run], shipped: Shipped | None) -> Figure:
    """Draw the runs' scores against environment steps, over what is on track.

    Raises:
        ConfigError: If the runs have no score in common.
    """
    preferred = runs[0].score if shipped is None else shipped.score_for(runs[0])
    candidates = (preferred, *runs[0].curves)
    shared = [name for name in candidates if all(name in run.curves for run in runs)]
    if not shared:
        raise ConfigError(
            f"{runs[0].name}: must have a score in common with the other runs, got "
            f"{'; '.join(', '.join(run.curves) for run in runs)}. Compare runs of one task."
        )
    score = shared[0]
    figure, axes = panel(8, 4.5)
    others = () if shipped is None else shipped.curves.get(score, ())
    if others:
        step_P = np.linspace(0.0, max(curve.step_P[-1] for curve in others), 200)
        low_P, high_P = np.array([expected(others, step, score) for step in step_P]).T
        axes.fill_between(
            step_P, low_P, high_P, color=REFERENCE, alpha=0.15, lw=0, label="on track"
        )
        for number, curve in enumerate(others):
            text = "shipped" if number == 0 else "_"  # one entry of the legend for all
            axes.plot(curve.step_P, curve.score_P, color=REFERENCE, lw=1, label=text)
    for number, run in enumerate(runs):
        curve = run.curves[score]
        draw_line(axes, curve.step_P, curve.score_P, LOOKS[number % len(LOOKS)], label=run.name)
    where, _, measure = score.rpartition("/")
    score_axis(axes, measure, f"{label(measure)} in {'validation' if where else 'training'}")
    steps_axis(axes)
    legend_beside(axes)
    return figure


def _shipped_for(run: Run, reference: Path | None) -> Shipped | None:
    file = reference or shipped_file(run.experiment)
    return _completed(read_shipped(file)) if reference is not None or file.is_file() else None


def _completed(made: T) -> T:
    """Return what older versions may have made with the fields that they did not have yet."""
    return replace(made, config=RunConfig.completed(made.config))


if __name__ == "__main__":
    sys.exit(main())
