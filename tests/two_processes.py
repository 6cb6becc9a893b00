"""Two gloo processes that a process of pytest keeps, as each takes seconds to import what it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from tests.family import end_with_parent

InTwo = Callable[..., None]
"""Runs a function of a module, with picklable arguments, as rank 0 and as rank 1 of a process group of two."""
DEADLINE = timedelta(seconds=240)
TO_FAIL_S = 10.0
"""Seconds for one process to fail after the other one has."""


def _begin() -> None:
    end_with_parent()
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"


def _as_rank(rank: int, meeting: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=DEADLINE)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()


class _Pair:
    def __init__(self) -> None:
        self.pools = [ProcessPoolExecutor(1, get_context("spawn"), _begin) for _ in range(2)]
        self.processes = [psutil.Process(each.result()) for each in [pool.submit(os.getpid) for pool in self.pools]]

    def run(self, meeting: Path, function: Callable[..., None], arguments: tuple[Any, ...]) -> list[BaseException]:
        """The errors of both, none where both succeed."""
        running = [
            pool.submit(_as_rank, rank, str(meeting), function, arguments) for rank, pool in enumerate(self.pools)
        ]
        if any(each.exception() for each in wait(running, return_when=FIRST_EXCEPTION).done):
            wait(running, timeout=TO_FAIL_S)
        return [error for each in running if each.done() and (error := each.exception()) is not None]

    def end(self) -> None:
        for each in self.processes:
            if each.is_running():
                each.kill()
        for pool in self.pools:
            pool.shutdown()


@contextmanager
def two_processes(folder: Path) -> Iterator[InTwo]:
    """Starts the processes at the first call, and again after one that failed; `folder` is where each call's group meets."""
    pair: list[_Pair] = []
    numbers = count()

    def run(function: Callable[..., None], *arguments: Any) -> None:
        if not pair:
            pair.append(_Pair())
        errors = pair[0].run(folder / str(next(numbers)), function, arguments)
        if errors:
            pair.pop().end()
            raise BaseExceptionGroup("in one of two processes or in both", errors)

    try:
        yield run
    finally:
        for each in pair:
            each.end()
