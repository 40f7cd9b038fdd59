"""The directory of a run: its configuration, and the rule that a run keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from relic.run.checkpoint import write_atomically
from relic.run.config import RunConfig
from relic.schema import ConfigError, differences, to_plain

FREE_KEYS = ("total_steps", "run_dir", "device", "logging", "checkpoint", "cluster")
"""What may differ when a run is started again."""


class RunDirectory:
    """Paths inside a run directory, and its configuration file."""

    def __init__(self, path: Path):
        """Name the directory; nothing is made before `open`."""
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.encoder = path / "encoder"

    @contextmanager
    def opened(self, config: RunConfig) -> Iterator[None]:
        """Open for what is built inside; where that is refused, no new configuration stays.

        A start with what was wrong put right is then no other run.
        """
        was_there = self.config.exists()
        self.open(config)
        try:
            yield
        except ConfigError:
            # An encoder that was pretrained belongs to the configuration beside it.
            if not was_there and not self.encoder.exists():
                self.config.unlink()
            raise

    def open(self, config: RunConfig) -> None:
        """Make the directory, or check that the run in it has the same configuration.

        Raises:
            ConfigError: If it differs in more than `FREE_KEYS`; lists what differs.
        """
        plain = to_plain(config)
        if self.config.exists():
            changes = differences(yaml.safe_load(self.config.read_text()), plain, free=FREE_KEYS)
            if changes:
                listed = "; ".join(changes[:5]) + ("; ..." if len(changes) > 5 else "")
                raise ConfigError(
                    f"run_dir: {self.path} holds a run with another configuration: {listed}. "
                    "Choose another run_dir, or start it as it was."
                )
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config, yaml.safe_dump(plain, sort_keys=False))
