"""The public API: each function is one command, and only combines parts of the platform.

The functions are loaded when they are first used, so that `import pipelines` and `fieldshift --help` stay quick.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# Read by GNU's OpenMP library as torch loads it: how often a thread that waits for others looks before it sleeps. By default
# it looks 300,000 times, and where two programs share the cores it keeps out the thread that it waits for; 1,000 is the
# library's own number for a machine with too many threads (benchmarks/shared_cores.py).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# The order is that of `fieldshift --help`.
HOMES = {
    "study": "pipelines.studying",
    "search": "pipelines.searching",
    "explain": "pipelines.explaining",
    "compare": "pipelines.comparing",
    "sweep_frames": "pipelines.sweeping",
    "receptive_field": "pipelines.fields",
    "compare_fields": "pipelines.fields",
    "train": "pipelines.training",
    "tune": "pipelines.tuning",
    "evaluate": "pipelines.using",
    "predict": "pipelines.using",
    "export": "pipelines.exporting",
    "preview": "pipelines.previewing",
    "init": "pipelines.checking",
    "check": "pipelines.checking",
    "describe": "pipelines.describing",
    "datasets": "pipelines.describing",
    "submit": "pipelines.submitting",
    "jobs": "pipelines.submitting",
    "logs": "pipelines.submitting",
    "stop": "pipelines.submitting",
    "fetch": "pipelines.submitting",
    "ui": "pipelines.serving",
    "sync": "pipelines.serving",
    "results": "pipelines.collecting",
}

__all__ = [*HOMES]  # noqa: PLE0604 - names of functions, loaded lazily


def __getattr__(name: str) -> Any:
    if name in HOMES:
        from fieldshift.keyword_values import checked

        globals()[name] = checked(getattr(importlib.import_module(HOMES[name]), name), __name__)
        return globals()[name]
    raise AttributeError(f"module 'pipelines' has no attribute '{name}'")
