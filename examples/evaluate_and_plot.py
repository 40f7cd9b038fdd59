"""Evaluate an agent from Python and draw how it gets better with every episode.

    .venv/bin/python examples/evaluate_and_plot.py

The agent ships trained; a run directory of your own goes in its place.
"""

from pathlib import Path

from relic.evaluation.controls import ContextControl
from relic.evaluation.curves import summarise
from relic.evaluation.evaluator import evaluate
from relic.evaluation.protocol import load_protocol
from relic.evaluation.report.plots import plot_curve, save_figures
from relic.policy import load


def main(run: str = "pretrained/darkroom", out: str = "runs/out", **changes: object) -> list[Path]:
    """Evaluate with the context kept and cleared, and return the files that were drawn."""
    policy = load(run)
    protocol = load_protocol("darkroom_test", **{"repeats": 1, "episodes": 11, **changes})
    kept, cleared = (
        evaluate(policy, protocol, control=control)
        for control in (ContextControl.KEPT, ContextControl.CLEARED)
    )
    summary = summarise(kept, {ContextControl.CLEARED: cleared})
    curve = summary["metrics"]["return"]
    for index, (mean, without) in enumerate(zip(curve["mean"], curve["cleared_mean"], strict=True)):
        print(f"after {index:>2} episodes: return {mean:5.1f}, context cleared {without:5.1f}")
    return save_figures({"return": plot_curve(curve, "return")}, Path(out))


if __name__ == "__main__":
    main()
