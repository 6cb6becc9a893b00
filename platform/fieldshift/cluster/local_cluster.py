"""A Ray cluster on this machine for one command: its start, and its end with all of its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fieldshift.cluster.variables import environment
from fieldshift.errors import UserError
from fieldshift.ports import free_port
from fieldshift.termination import action_held, own_signals, signals_deferred

STARTS = 5
ENDING_S = 3.0
"""Seconds for Ray's processes to end: on a busy machine Ray kills its node manager, which would have ended the others."""


@contextlib.contextmanager
def local_cluster(reason: Callable[[Exception], str], **settings: Any) -> Iterator[None]:
    """Starts a cluster for the block; when that ends, or the start is interrupted, none of its processes is left.

    `reason` puts an error of Ray into words; `settings` are passed to `ray.init`. Raises UserError where Ray does not start.
    """
    before, own = _children(), None
    try:
        with own_signals():
            _start(reason, **settings)
        own = _children() - before
        _started.add(_address())
        yield
    finally:
        _started.clear()
        own = _children() - before if own is None else own
        family = [*own, *(each for root in own for each in _below(root))]
        with signals_deferred():
            disconnect()
            _, left = psutil.wait_procs(family, timeout=ENDING_S)
            for each in left:
                with contextlib.suppress(psutil.Error):
                    each.kill()


_started: set[str] = set()
"""The address of the cluster that this process has started and not ended; empty without one."""


def _address() -> str:
    """The address of the cluster that this process is connected to; "" without one."""
    import ray

    address: str = ray.get_runtime_context().gcs_address if ray.is_initialized() else ""
    return address


def is_own_cluster() -> bool:
    """Whether the cluster that this process is connected to was started by `local_cluster` in this process."""
    return _address() in _started


def disconnect() -> None:
    """Leaves the cluster; a signal that arrives meanwhile is received after it, though Ray resets its action."""
    import ray

    with signals_deferred(), action_held(signal.SIGTERM):
        ray.shutdown()


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def _below(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


@dataclass
class _Forks:
    """Whether processes that this one starts now get a process group each."""

    apart: bool = False
    watched: bool = False

    def leave(self) -> None:
        if self.apart:
            os.setpgid(0, 0)

    @contextlib.contextmanager
    def in_own_groups(self) -> Iterator[None]:
        if not self.watched:
            os.register_at_fork(after_in_child=self.leave)
            self.watched = True
        self.apart = True
        try:
            yield
        finally:
            self.apart = False


_forks = _Forks()


def _start(reason: Callable[[Exception], str], **settings: Any) -> None:
    """Starts a local cluster, again where a busy machine exceeds the half minute that Ray allows.

    Its processes do not belong to the group of this one: a signal to the group (`timeout`, a shell's `kill %1`) would end them
    before the run is closed, and Ray then ends this process at once.
    """
    import ray

    for attempt in range(1, STARTS + 1):
        port = free_port()
        # The state API of trials queries this dashboard, not one that an older cluster left on the machine.
        inherited = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}", "PYTHONPATH": _import_path()}
        try:
            with environment(inherited), _forks.in_own_groups():
                ray.init(address="local", include_dashboard=True, dashboard_port=port, **settings)
        except Exception as error:
            disconnect()
            if "timed out" not in str(error) or attempt == STARTS:
                raise UserError(
                    f"The local Ray cluster did not start: {reason(error)}. Try again with fewer workers, or without workers."
                ) from error
        else:
            return


def _import_path() -> str:
    """PYTHONPATH that lets local workers import this process's packages from outside its Python installation."""
    own = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    outside = [
        entry
        for entry in sys.path
        if entry and Path(entry).is_dir() and not own & {Path(entry).resolve(), *Path(entry).resolve().parents}
    ]
    return os.pathsep.join(dict.fromkeys([*outside, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
