"""Whether Ray can be started or joined from here, found out before it is imported: addresses, folders, cores."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from fieldshift.cluster.config import ClusterConfig
from fieldshift.cluster.room import check_cores
from fieldshift.errors import UserError

REACH_DEADLINE_S = 5.0
LONGEST_SOCKET_BYTES = 107
# What Ray puts below its folder: the time to the microsecond, the number of the process, and its longest socket's name.
_DEEPEST = "ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"


def check_reach(cluster: ClusterConfig, workers: int) -> None:
    """Checks what `workers` workers need of Ray without importing it; nothing where this process is connected already.

    Raises:
        UserError: No cluster answers at the address that is given or in RAY_ADDRESS; or a local one has too few CPU
            cores, or a folder for its files that is too long.
    """
    if is_connected():
        return
    inherited = os.environ.get("RAY_ADDRESS")
    if cluster.address is not None:
        knock(cluster.address, "cluster.address")
    elif inherited:
        knock(inherited.removeprefix("ray://"), "RAY_ADDRESS")
    else:
        check_cores(cluster, workers, float(os.cpu_count() or 1))
        check_folder()


def is_connected() -> bool:
    """Whether this process is connected to a cluster."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def knock(address: str, source: str) -> None:
    """Knocks at HOST:PORT, because Ray itself waits for minutes. `source` is where the address was given."""
    if address in {"auto", "local"}:
        return
    host, colon, port = address.rpartition(":")
    where = "" if source == "cluster.address" else f", or unset {source}"
    if not colon or not host or "/" in host or not port.isdigit() or int(port) > 65535:
        raise UserError(f"{source} is '{address}', but must be HOST:PORT (6379 is usual) or 'auto'{where}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_DEADLINE_S).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"Nothing answers at {source} {address} ({reason});"
            f" start the cluster with `ray start --head`, check the address and the port{where}."
        ) from error


def check_folder() -> None:
    """Raises UserError where the names of a local cluster's sockets would be longer than a socket's name may be."""
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    folder = Path(os.environ[variable]) if variable else Path("/tmp")
    longest = len(os.fsencode(folder / _DEEPEST.format(pid=os.getpid())))
    if longest > LONGEST_SOCKET_BYTES:
        raise UserError(
            f"{variable} is {folder}, which is {longest - LONGEST_SOCKET_BYTES} bytes too long for the sockets of Ray;"
            " set RAY_TMPDIR to a folder with a short name, such as RAY_TMPDIR=/tmp, or use no workers."
        )
