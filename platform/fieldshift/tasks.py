"""The tasks that a network can be trained for."""

from __future__ import annotations

from typing import Literal, get_args

from fieldshift.errors import unknown_name

Task = Literal["classification", "segmentation"]
TASKS: tuple[Task, ...] = get_args(Task)


def check_task(task: str | None) -> None:
    """Raises UserError unless the task is one of TASKS, or None."""
    if task is not None and task not in TASKS:
        raise unknown_name("task", task, TASKS)
