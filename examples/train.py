"""Train an agent from Python: compose a configuration, train it, read its learning curve.

    .venv/bin/python examples/train.py

Any key of the command line is a key of `compose`, with the same checks. Started again, a run that
was stopped goes on, and one that is finished says so.
"""

from pathlib import Path

from relic.run.compose import compose
from relic.run.metrics import read_metrics
from relic.train import train_run


def main(**keys: object) -> Path:
    """Train, print the mean return of each rollout, and return the run directory."""
    chosen = {"experiment": "darkroom", "run_dir": "runs/example", "total_steps": 500_000}
    config = compose({**chosen, **keys})
    train_run(config)
    for line in read_metrics(config.directory / "metrics.jsonl"):
        if line.get("update") == "full":
            print(f"{line['env_steps']:>9,} steps: return {line['return_mean']:.1f}")
    return config.directory


if __name__ == "__main__":
    main()
