"""The end of a process with all that descend from it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading

import psutil

DEADLINE_S = 20.0


def end_family(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and its descendants, of whatever process groups, and waits until none of them is left."""
    try:
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for each in family:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(timeout=DEADLINE_S)
    _, left = psutil.wait_procs(family, timeout=DEADLINE_S)
    assert not left, left


def end_with_parent() -> None:
    """Ends this process, which `multiprocessing` has started, as soon as the one that started it has ended, however."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
