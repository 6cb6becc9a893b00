"""Runs that processes left open when they were killed, and the processes that runs belong to."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from fieldshift.tracking.sending import perform

PROCESS_TAG, PARENT_TAG = "fieldshift.process", "mlflow.parentRunId"


def close_abandoned(client: Any) -> list[str]:
    """Closes the runs that killed processes of this machine left RUNNING, as KILLED, and returns their ids.

    A run belongs to the process that opened it last. Runs of running processes and of other machines stay unchanged. As
    nothing tells when a process was killed, a run ends with the last metric of itself or its children.
    """
    condition = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE '{socket.gethostname()}:%'"
    places = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(places, condition, max_results=1000) if places else ()
    gone = [run for run in found if process_is_gone(run.data.tags[PROCESS_TAG])]
    for run in sorted(gone, key=lambda run: PARENT_TAG not in run.data.tags):  # children first
        perform(client, run.info.run_id, "close", {"status": "KILLED", "time": _last_sign(client, run)})
    return [str(run.info.run_id) for run in gone]


def _last_sign(client: Any, run: Any) -> int:
    """The time of the last metric of a run, or the last end of its children, in milliseconds since 1970; 0 without any."""
    histories = (client.get_metric_history(run.info.run_id, name) for name in run.data.metrics)
    times = [int(point.timestamp) for history in histories for point in history]
    if PARENT_TAG not in run.data.tags:
        condition = f"tags.`{PARENT_TAG}` = '{run.info.run_id}'"
        children = client.search_runs([run.info.experiment_id], condition, max_results=1000)
        times += [int(child.info.end_time) for child in children if child.info.end_time]
    return max(times, default=0)


def this_process() -> str:
    """The identifier HOST:PID:START of this process, which no other process has."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_of(os.getpid())}"


def process_is_gone(process: str) -> bool:
    """Whether a process of this machine has ended; unknown processes and those of other machines count as running."""
    host, _, rest = process.rpartition(":")[0].rpartition(":")
    started = process.rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdigit():
        return False
    return _start_of(int(rest)) != started


def _start_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "gone"
