"""A search run in two gloo processes, once for each order of the outer gradient."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

from fieldshift.search import FoundPolicy

Run = Callable[[Path, str], None]
"""Searches with an order and leaves what it found in a folder; a function of a module, as new processes import it."""


def keep_policy(result: FoundPolicy, folder: Path) -> None:
    """Writes this process's policy."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    (folder / f"policy-{rank}.json").write_text(result.policy.to_json())


def in_two(folder: Path, run: Run, orders: Sequence[str]) -> Path:
    """Runs `run` for each order in two processes, each order in a folder of its own below `folder`, which is returned."""
    multiprocessing.spawn(_worker, args=(str(folder / "rendezvous"), str(folder), run, orders), nprocs=2, join=True)
    return folder


def _worker(rank: int, rendezvous: str, folder: str, run: Run, orders: Sequence[str]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    try:
        for order in orders:
            (Path(folder) / order).mkdir(exist_ok=True)
            run(Path(folder) / order, order)
    finally:
        dist.destroy_process_group()
