"""Mistakes in the commands about jobs, which need no cluster; the rest is tried on a real one in tests/cluster."""

from __future__ import annotations

import shlex

import pytest

from fieldshift.cli import main
from fieldshift.cluster import jobs
from fieldshift.cluster.jobs import JobGoesOn, JobOutcome
from pipelines import submitting

URL = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stop", "--address", URL], "No job is given; give the id of one, as `fieldshift jobs` lists them."),
        (["logs", "a", "b", "--address", URL], "2 jobs are given: a, b; give the id of one"),
        (["jobs", "--address", URL], "Nothing answers at http://127.0.0.1:1"),
        (["stop", "a", "--address", URL], "Nothing answers at http://127.0.0.1:1"),
        (["submit", "--address", URL, "--env", "FS_UNSET", "--", "study"], "--env names FS_UNSET, which is not set here"),
        (["fetch", "a", "--address", URL, "--out", "/tmp"], "--out /tmp exists; name a folder that does not."),
        (["submit", "--address", URL], "There is no command to submit;"),
        (["submit", "--address", URL, "--", "submit", "--address", URL, "--", "study"], "submit is a command for this machine"),
        (["submit", "--address", URL, "--", "ui", "--run", "runs/study"], "ui is a command for this machine"),
        (["submit", "--address", URL, "--", "study", "--seeds", "many"], "--seeds is 'many'"),
        (["submit", "--address", URL, "--", "train", "--cluster.workers", "-1"], "cluster.workers is -1, but must be"),
        (["submit", "--address", URL, "--", "train", "--network", "resnet19"], "Unknown network 'resnet19'"),
        (["submit", "--address", URL, "--", "train", "--form", "folded", "--frames", "2"], "--frames is 2, but --form folded"),
        (["submit", "--address", URL, "--", "train", "--data", "folder:/there", "--config", "/there/a.yaml"],
         "Nothing answers at http://127.0.0.1:1"),
        (["submit", "--address", URL, "--", "train", "--data", "folder:/there"], "Nothing answers at http://127.0.0.1:1"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fieldshift: {said}")


def test_ctrl_c_while_following_says_that_the_job_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), submitting.job_stays(URL):
        raise JobGoesOn("raysubmit_1")
    state, *commands = capsys.readouterr().out.splitlines()
    assert state == "job raysubmit_1 continues. Follow it again, or stop it:"
    follow, stop = (f"fieldshift {command} raysubmit_1 --address {URL}" for command in ("logs", "stop"))
    assert [line.strip() for line in commands] == [
        f"{follow} --follow",
        stop,
    ]  # each to copy, however narrow the terminal


def test_a_job_that_is_not_followed_is_printed_with_the_commands_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "submit", lambda *_, **__: JobOutcome("raysubmit_1", "PENDING", None))
    assert main(["submit", "--address", URL, "--", "study"]) == 0
    state, _, *commands = capsys.readouterr().out.splitlines()
    assert state == "job raysubmit_1: PENDING"
    assert [shlex.split(line)[:5] for line in commands] == [
        ["fieldshift", command, "raysubmit_1", "--address", URL] for command in ("logs", "stop", "fetch")
    ]
