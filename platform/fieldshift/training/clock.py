"""Seconds on a clock of the device, which stand beside operations and wall-clock time."""

from __future__ import annotations

import time

import torch


def device_clock(device: torch.device) -> float:
    """Seconds since some moment: CPU time of this process, all its threads added; a GPU's wall-clock time, once it is idle.

    Waits for a GPU. The CPU time of other processes, such as those that read files, is not in it.
    """
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
