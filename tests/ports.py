"""Ports of this machine, for tests of what answers and what does not."""

import socket


def closed_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
