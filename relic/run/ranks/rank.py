"""The work of one training process: alone, as a rank of torchrun, or of `train.py` itself."""

from __future__ import annotations

from relic.run.config import RunConfig
from relic.run.distributed import ALONE, Ranks, join_ranks
from relic.run.run_directory import RunDirectory
from relic.run.trainer import Outcome, Trainer
from relic.run.validation import final_scores
from relic.stops import writing_in


def train_as(config: RunConfig, ranks: Ranks) -> None:
    """Train as one of the ranks of a run; the first draws the plots and says how it went."""
    with writing_in(config.directory):
        trainer = Trainer(config, ranks)
        try:
            outcome = trainer.run()
        finally:
            trainer.close()
        conclude(config, outcome, ranks)


def conclude(config: RunConfig, outcome: Outcome, ranks: Ranks = ALONE) -> None:
    """Score and plot a run that has ended, and say where it lies.

    A start of a run that has done its steps already comes here, too: what an earlier one was killed
    in is done again.

    Args:
        config: The run.
        outcome: How it ended.
        ranks: Those that share the trials; all call it together, the first speaks.
    """
    directory = RunDirectory(config.directory)
    scores = None
    if outcome is not Outcome.STOPPED and config.validation.final_trials:
        scores = final_scores(config, directory, ranks)
    if not ranks.is_first:
        return
    if scores is not None:
        print(scores)
    from relic.run.plots import plot_run  # Matplotlib, which of all ranks this one alone needs

    path = directory.path
    if outcome is Outcome.ALREADY_FINISHED:
        if directory.metrics.exists():
            plot_run(path)
        print(
            f"{path} has done its {config.total_steps:,} steps already. "
            "Raise total_steps to go on, or choose another run_dir."
        )
        return
    plots = plot_run(path)
    print(f"{outcome.value}: {path} ({len(plots)} plots in {path / 'plots'})")


def train_alone(config: RunConfig) -> None:
    """Train in this process, as the only one or as one that torchrun has started."""
    ranks = join_ranks(config.device)
    try:
        train_as(config, ranks)
    finally:
        ranks.close()
