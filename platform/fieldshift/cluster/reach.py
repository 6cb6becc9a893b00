"""Checks before Ray is started or joined that it can be: addresses, tokens, folders, cores."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

import psutil

from fieldshift.cluster.config import ClusterConfig
from fieldshift.cluster.resources import check_cores
from fieldshift.cluster.tokens import check_token
from fieldshift.errors import UserError
from fieldshift.ports import refusal

LONGEST_SOCKET_BYTES = 107
# Ray appends to its folder: the time in microseconds, the process id, and its longest socket name.
_DEEPEST = "ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"


def check_reach(cluster: ClusterConfig, workers: int) -> None:
    """Checks what `workers` workers need from Ray, importing it only for 'auto'; does nothing in a connected process.

    Raises:
        UserError: No cluster answers at the given address or at RAY_ADDRESS, or it rejects this process's token; or a local
            one has too few CPU cores, or its folder for files has too long a name.
    """
    if is_connected():
        return
    inherited = os.environ.get("RAY_ADDRESS")
    if cluster.address is None and not inherited:
        check_cores(cluster, workers, float(os.cpu_count() or 1))
        check_folder()
        return
    given, source = (inherited, "RAY_ADDRESS") if cluster.address is None else (cluster.address, "cluster.address")
    address = found_address() if given == "auto" else given
    if address is None:
        return
    knock(address.removeprefix("ray://"), source, is_found=given == "auto")
    if given == "auto":
        check_lasts(address, source)
    if address != "local" and not address.startswith("ray://"):
        check_token(address, source, is_found=given == "auto" and inherited in (None, "", "auto"))


def found_address() -> str | None:
    """The address of the cluster of this machine that Ray chooses for 'auto'; None where it finds none, or several."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        from ray._private.services import canonicalize_bootstrap_address_or_die

        return str(canonicalize_bootstrap_address_or_die("auto"))
    except Exception:  # Ray says the same when it joins, or is missing
        return None


def check_lasts(address: str, source: str) -> None:
    """Raises UserError where a cluster that 'auto' found was started by a running program, with whose end it ends, too."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] != "raylet" or f"--gcs-address={address}" not in (process.info["cmdline"] or []):
            continue
        with contextlib.suppress(psutil.Error):
            owner = process.parent()
            if owner and "python" in Path(owner.exe()).name.lower() and not is_ray_start(owner.cmdline()):
                raise UserError(
                    f"{source} is 'auto', but the cluster of this machine belongs to process {owner.pid} and ends with it;"
                    f" start one with `ray start --head`, or give {address} to join that cluster anyway."
                )


def is_ray_start(words: list[str]) -> bool:
    """Whether a process with these words is `ray start --block`."""
    return "start" in words and Path(words[words.index("start") - 1]).name in {"ray", "ray.scripts.scripts"}


def is_connected() -> bool:
    """Whether this process is connected to a cluster."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def knock(address: str, source: str, *, is_found: bool = False) -> None:
    """Tests that HOST:PORT accepts connections, because Ray itself waits for minutes.

    `source`: where the address was given; `is_found`: 'auto' was given there, for which Ray found the address.
    """
    if address == "local":
        return
    host, colon, port = address.rpartition(":")
    where = "" if source == "cluster.address" else f", or unset {source}"
    if not colon or not host or "/" in host or not port.isdigit() or int(port) > 65535:
        raise UserError(f"{source} is '{address}', but must be HOST:PORT (6379 is usual) or 'auto'{where}.")
    reason = refusal(host.strip("[]"), int(port))
    if reason is not None and is_found:
        raise UserError(
            f"{source} is 'auto', but no cluster runs on this machine (the last one, {address}, does not answer); start one "
            "with `ray start --head`, or give HOST:PORT."
        )
    if reason is not None:
        raise UserError(
            f"Nothing answers at {source} {address} ({reason});"
            f" start the cluster with `ray start --head`, check the address and the port{where}."
        )


def check_folder() -> None:
    """Raises UserError where the socket names of a local cluster would exceed the operating system's limit."""
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    folder = Path(os.environ[variable]) if variable else Path("/tmp")
    longest = len(os.fsencode(folder / _DEEPEST.format(pid=os.getpid())))
    if longest > LONGEST_SOCKET_BYTES:
        raise UserError(
            f"{variable} is {folder}, which is {longest - LONGEST_SOCKET_BYTES} bytes too long for the sockets of Ray;"
            " set RAY_TMPDIR to a folder with a short name, such as RAY_TMPDIR=/tmp, or use no workers."
        )
