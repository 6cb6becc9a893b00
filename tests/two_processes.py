"""Two gloo processes that a process of pytest keeps, as each takes seconds to import what it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

InTwo = Callable[..., None]
"""Runs a function of a module, with picklable arguments, as rank 0 and as rank 1 of a process group of two."""
DEADLINE = timedelta(seconds=240)


def _begin() -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"


def _as_rank(rank: int, meeting: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=DEADLINE)
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()


@contextmanager
def two_processes(folder: Path) -> Iterator[InTwo]:
    """Starts the processes at the first call; `folder` is where each call's group meets."""
    with ExitStack() as stack:
        pools = [stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _begin)) for _ in range(2)]
        numbers = count()

        def run(function: Callable[..., None], *arguments: Any) -> None:
            meeting = str(folder / str(next(numbers)))
            running = [pool.submit(_as_rank, rank, meeting, function, arguments) for rank, pool in enumerate(pools)]
            for each in wait(running, return_when=FIRST_EXCEPTION).done:
                each.result()

        yield run
