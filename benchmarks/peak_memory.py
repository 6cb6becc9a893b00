"""The most memory that a benchmark and the processes it starts have had, stated as its last line."""

from __future__ import annotations

import resource
import sys

LIMIT = 8 * 2**30  # what a benchmark may have, in bytes


def state_peak() -> None:
    """Prints the peak of resident memory; one above the limit ends the benchmark with status 1."""
    peak = peak_memory()
    print(f"peak memory {peak / 2**30:.2f} GiB, aim at most {LIMIT / 2**30:g} GiB", flush=True)
    if peak > LIMIT:
        sys.exit(1)


def peak_memory() -> int:
    """The most resident memory of this process or of any one that it started and waited for, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
