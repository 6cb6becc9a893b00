"""Runs that processes left open when they were killed, and the processes that runs belong to."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import psutil

from fieldshift.errors import one_line
from fieldshift.tracking.refusals import is_refused, lasting_reason
from fieldshift.tracking.sending import opened_at, perform

PROCESS_TAG, PARENT_TAG = "fieldshift.process", "mlflow.parentRunId"

_log = logging.getLogger("fieldshift.tracking")
_GONE = "gone"
"""The start in tags of a version that knew none."""


def close_abandoned(client: Any) -> list[str]:
    """Closes the runs that killed processes of this machine left RUNNING, as KILLED, and returns their ids.

    A run belongs to the process that opened it last. Runs of running processes stay unchanged, as do those of other machines
    and containers, and those from before the machine was started. As
    nothing tells when a process was killed, a run ends with the last metric of itself or its children. Runs that the store
    refuses to close, such as those of other users, stay open with one warning, and no error ends the command.
    """
    closed: list[str] = []
    first = ""
    try:
        gone = _abandoned(client)
    except Exception as error:
        _log.warning("MLflow did not list the runs that killed processes left open: %s", one_line(error, 200))
        return closed
    for run in sorted(gone, key=lambda run: PARENT_TAG not in run.data.tags):  # children first
        run_id = str(run.info.run_id)
        try:
            perform(client, run_id, "close", {"status": "KILLED", "time": last_sign(client, run)})
            closed.append(run_id)
        except Exception as error:
            first = first or f"{run_id} ({one_line(error, 200)})"
            if not (is_refused(error) or lasting_reason(error, client.tracking_uri)):
                break  # the store may be down, and each request would wait for it
    if first:
        count = len(gone) - len(closed)
        _log.warning("%d MLflow runs that killed processes left open could not be closed, first %s.", count, first)
    return closed


def _abandoned(client: Any) -> list[Any]:
    condition = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE '{socket.gethostname()}:%'"
    places = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(places, condition, max_results=1000) if places else ()
    return [run for run in found if process_is_gone(run.data.tags[PROCESS_TAG])]


def last_sign(client: Any, run: Any) -> int:
    """The time of the last metric of a run or its children, or of a child's end, in milliseconds since 1970; 0 without any."""
    times = _points_of(run)
    if PARENT_TAG not in run.data.tags:
        condition = f"tags.`{PARENT_TAG}` = '{run.info.run_id}'"
        children = client.search_runs([run.info.experiment_id], condition, max_results=1000)
        for child in children:
            times += _points_of(child)
            if child.info.end_time:  # as a time of the clock: a child that was opened again has its end set back
                times.append(int(child.info.end_time - child.info.start_time) + opened_at(child))
    return max(times, default=0)


def _points_of(run: Any) -> list[int]:
    """The times of the last points of a run's metrics, which MLflow's reply contains."""
    return [int(metric.timestamp) for metric in run.data.to_proto().metrics]


def this_process() -> str:
    """The identifier HOST:PID:START:BOOT:NAMESPACE of this process, which no other process has.

    Without /proc it is HOST:PID:START, as in earlier versions.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_start_of(os.getpid())}{_where()}"


def process_is_gone(process: str) -> bool:
    """Whether a process that this one could see has ended; all others count as running.

    Others are those of other hosts, of another start of the system, as two machines may have one name, and of other
    containers, which have numbers of processes of their own.
    """
    here = f"{socket.gethostname()}:"
    number, _, rest = process.removeprefix(here).partition(":")
    started, separator, where = rest.partition(":")
    if not process.startswith(here) or not number.isdecimal() or (separator and separator + where != _where()):
        return False
    pid = int(number)
    if not _exists(pid):
        return True
    now = _start_of(pid)
    return now is not None and started not in {now, _GONE}


def _where() -> str:
    """The start of the system and the namespace of process numbers that this process is in; "" without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return ""
    return f":{boot}:{''.join(filter(str.isdigit, space))}"


def _exists(pid: int) -> bool:
    """Whether a process exists, also one of another user, which /proc may hide."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _start_of(pid: int) -> str | None:
    """The start of a process: in clock ticks since the boot, or without /proc in seconds since 1970; None if hidden."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        return str(psutil.Process(pid).create_time())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
