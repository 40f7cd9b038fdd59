"""Signals that ask a run to save and leave: Ctrl-C, SIGTERM and SIGUSR1."""

from __future__ import annotations

import logging
import signal
from types import FrameType, TracebackType

_log = logging.getLogger(__name__)
_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """While entered, remembers that a signal asked to stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        """Start without a request."""
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has asked."""
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        """Take over the signals."""
        for number in _ASKING:
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        _log.warning(
            "%s: saving at the next update, then leaving. Press Ctrl-C again to stop at once.",
            self.signal.name,
        )
