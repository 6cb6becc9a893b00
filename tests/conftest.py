"""What all tests share: checks of shapes, which process a file goes to, and the deadlines of tests with a cluster."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Temporary files of all processes of a test run go to one folder, which its first process removes: Ray and MLflow leave some.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest keeps its own folders
IS_FIRST = "PYTEST_XDIST_WORKER" not in os.environ
if IS_FIRST:
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="fs-")  # a short name: Ray makes sockets in it
# Ray's own deadlines at its start, read when it is imported: those of the tests wait for progress (`tests/progress.py`).
os.environ.setdefault("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "3600")
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "3600")

from tests.shapes import check_shapes

check_shapes()

import contextlib
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from tests.progress import progress_awaited
from tests.two_processes import InTwo, two_processes

AWAITED = pytest.StashKey[contextlib.ExitStack]()


# Fixtures made once by a process: all files whose tests use one stay together.
SHARED = ("small_study", "in_two")
ON_RAY = "_on_ray.py"
LONG = (ON_RAY, "small_study", ".ipynb", "")
"""Parts of the names of groups, those that take longest first: none of them is begun when other processes have nothing left."""


@cache
def group_of(file: Path) -> str:
    """The group of files that one process runs: those with Ray clusters, those that share a fixture, or a single file."""
    if file.name.endswith(ON_RAY):
        return ON_RAY
    text = file.read_text()
    return next((fixture for fixture in SHARED if re.search(rf"\b{fixture}\b", text)), str(file))


class FilesTogether(LoadScopeScheduling):
    """Gives a process whole files, as their tests share what they trained; those with Ray clusters all go to one.

    A scheduler of our own, because groups of pytest-xdist 3.8 are not seen by pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(self.config.rootpath / nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether:
    config.option.loadscopereorder = False  # the order is that of LONG
    return FilesTogether(config, log)


def pytest_unconfigure() -> None:
    if IS_FIRST:
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        assert item.location[0].endswith(ON_RAY) == bool(item.get_closest_marker("cluster")), item
    items.sort(key=lambda item: LONG.index(next(part for part in LONG if part in group_of(item.path))))


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """The timeout of a test with a cluster counts the seconds without progress: how long Ray takes is the machine's."""
    if item.get_closest_marker("cluster") is None:
        return None
    item.stash[AWAITED] = contextlib.ExitStack()
    item.stash[AWAITED].enter_context(progress_awaited(settings.timeout))
    return True


def pytest_timeout_cancel_timer(item: pytest.Item) -> bool | None:
    if AWAITED not in item.stash:
        return None
    item.stash[AWAITED].close()
    return True


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Generated data goes to a folder of this test run."""
    os.environ["FIELDSHIFT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InTwo]:
    """Runs a function in two gloo processes."""
    with two_processes(tmp_path_factory.mktemp("meetings")) as run:
        yield run
