"""TCP ports: free ones, and whether one accepts connections."""

from __future__ import annotations

import socket

DEADLINE_S = 5.0


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` that no process listens at."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def refusal(host: str, port: int) -> str | None:
    """The reason why no connection to a port is accepted within the deadline; None if one is."""
    try:
        socket.create_connection((host, port), timeout=DEADLINE_S).close()
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None
