"""A deadline that waits for progress ends what only waits, and leaves alone what works, here or in a process below."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from tests.progress import progress_awaited

BUSY = "import time\nwhile time.process_time() < {seconds}: pass"
QUICK = {"work_s": 0.3, "look_s": 0.5}


def test_what_only_waits_fails() -> None:
    with (
        pytest.raises(pytest.fail.Exception, match=r"did less than 0.3 s of work in 2 s"),
        progress_awaited(2, **QUICK),
    ):
        threading.Event().wait(60)


def test_what_works_longer_than_the_patience_passes() -> None:
    start = time.process_time()
    with progress_awaited(3, **QUICK):
        while time.process_time() < start + 4:
            pass


def test_work_of_a_process_below_counts() -> None:
    with progress_awaited(3, **QUICK):
        subprocess.run([sys.executable, "-c", BUSY.format(seconds=4)], check=True)


def test_a_process_that_is_named_as_a_daemon_of_ray_does_not_count() -> None:
    program = BUSY.format(seconds=60)
    with pytest.raises(pytest.fail.Exception), progress_awaited(2, **QUICK):
        subprocess.run([sys.executable, "-c", program, "ray/dashboard"], check=True)
