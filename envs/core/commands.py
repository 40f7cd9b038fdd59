"""Starts the commands of environments; what a user can mend is told in a line, without a traceback.

Their modules are imported here, as Ctrl-C may come while that lasts.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

FAILED = 1
INTERRUPTED = 128 + signal.SIGINT
READER_LEFT = 128 + signal.SIGPIPE


def run(module: str) -> int:
    """Run `main` of a module; return its exit status."""
    try:
        status = int(import_module(module).main() or 0)
        sys.stdout.flush()  # or a reader that has left would be noticed after this
        return status
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Or Python would try to write the rest as it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
    except OSError as error:
        if error.errno is None:
            raise
        print(error, file=sys.stderr)
        return FAILED
