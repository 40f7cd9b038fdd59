"""The directory of a run: its configuration, and the rule that a run keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from relic.files import hold, write_text
from relic.run.config import RunConfig
from relic.schema import ConfigError, build, differences, to_plain
from relic.upgrade import upgrade_config

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
        self._lock: IO[str] | None = None

    @contextmanager
    def opened(self, config: RunConfig) -> Iterator[None]:
        """Open for what is built inside; where that is refused, no new configuration stays.

        A start with what was wrong put right is then no other run. Until `release`, no other
        process on this machine can open it, but for jobs on Ray.

        Raises:
            ConfigError: As `open`, or if another process trains in it.
        """
        was_there = self.config.exists()
        self._make()
        if config.cluster.backend != "ray":  # whose actors end a while after their job
            self._lock = hold(self.path, "run_dir")
        try:
            self.open(config)
            yield
        except BaseException:
            # An encoder that was pretrained belongs to the configuration beside it.
            if not was_there and not self.encoder.exists():
                self.config.unlink(missing_ok=True)
            self.release()
            raise

    def release(self) -> None:
        """Let other processes open it again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def open(self, config: RunConfig) -> None:
        """Make the directory, or check that the run in it has the same configuration.

        Raises:
            ConfigError: If it differs in more than `FREE_KEYS`, which lists what differs; or if
                the directory cannot be made, or the configuration in it not be read.
        """
        plain = to_plain(config)
        self._make()
        if self.config.exists():
            changes = differences(self._read(), plain, free=FREE_KEYS)
            if changes:
                listed = "; ".join(changes[:5]) + ("; ..." if len(changes) > 5 else "")
                raise ConfigError(
                    f"run_dir: {self.path} holds a run with another configuration: {listed}. "
                    "Choose another run_dir, or start it as it was."
                )
        write_text(self.config, yaml.safe_dump(plain, sort_keys=False))

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"run_dir: must be a directory that can be written, got {self.path} "
                f"({error.strerror}). Choose another run_dir."
            ) from None

    def _read(self) -> dict[str, Any]:
        """Return the run's configuration, with fields that it was made without at their default."""
        try:
            content = dict(yaml.safe_load(self.config.read_text()))
        except (yaml.YAMLError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.config}: must be the configuration of a run, got a damaged file "
                f"({str(error).splitlines()[0]}). Restore it, or choose another run_dir."
            ) from None
        try:
            return to_plain(build(RunConfig, upgrade_config(content)))
        except ConfigError:  # Of a version with other fields: the comparison names them.
            return content
