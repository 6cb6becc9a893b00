"""Seconds on the device's clock, reported together with operations and wall-clock time."""

from __future__ import annotations

import time

import torch


def device_clock(device: torch.device) -> float:
    """Seconds since a fixed moment: CPU time of this process over all threads; for a GPU wall-clock time, once it is idle.

    Waits for a GPU. Excludes the CPU time of other processes, such as those that read files.
    """
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
