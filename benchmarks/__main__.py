"""Runs every benchmark of this folder in its short form, one after the other, and prints how long each took.

    python benchmarks

Each script has a process of its own, a copy of this one, which has imported what they all import.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = {"__main__.py", "record.py", "pages.py"}
"""Files of this folder that are no benchmarks."""
SHARED = ("record", "fieldshift.search", "fieldshift.training", "torch._dynamo")
"""Modules that nearly every script imports; torch's optimizers import the last one at their first step."""


def scripts() -> list[Path]:
    return sorted(path for path in HERE.glob("*.py") if path.name not in PARTS)


def status_of(script: Path) -> int:
    """Runs the script as if by `python SCRIPT`, and returns its exit status."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        sys.argv = [str(script)]
        runpy.run_path(str(script), run_name="__main__")
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(status)


def main() -> int:
    for name in SHARED:
        importlib.import_module(name)
    began = time.perf_counter()
    for script in scripts():
        started = time.perf_counter()
        print(f"== benchmarks/{script.name}")
        if status := status_of(script):
            print(f"benchmarks/{script.name} ended with status {status}", file=sys.stderr)
            return 1
        print(f"   {script.name} took {time.perf_counter() - started:.0f} s")
    print(f"== all took {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
