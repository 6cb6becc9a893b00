"""A job's output is shown without Ray's own lines, however it is cut into pieces."""

from __future__ import annotations

import pytest

from fieldshift.cluster.job_output import JobOutput

ENTRYPOINT = "sh -c 'python=\nexec' fieldshift -m fieldshift.cli study"
HEADER = f"Running entrypoint for job raysubmit_1: {ENTRYPOINT}\n"


def shown(text: str, size: int) -> str:
    heard: list[str] = []
    output = JobOutput(heard.append, "raysubmit_1", ENTRYPOINT)
    for start in range(0, len(text), size):
        output.add(text[start : start + size])
    output.end()
    return "".join(heard)


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1000])
def test_the_command_is_not_repeated_before_its_output(size: int) -> None:
    assert shown(f"{HEADER}data: digits\nRunning\n", size) == "data: digits\nRunning\n"
    assert shown(f"Runtime env is set up\n{HEADER}epoch 1\n", size) == "Runtime env is set up\nepoch 1\n"
    assert shown(f"{HEADER}{HEADER}", size) == HEADER  # what the command prints itself stays


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    "text", ["", "epoch 1\n", "Running entry", HEADER.replace("raysubmit_1", "raysubmit_2"), HEADER[:-1]]
)
def test_other_output_is_complete(text: str, size: int) -> None:
    assert shown(text, size) == text
