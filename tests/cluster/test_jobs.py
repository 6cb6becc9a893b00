"""Sending a job: what is said when a cluster is away or refuses, and how a job is followed."""

import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import requests

import fieldshift
from fieldshift.cluster import jobs, submit
from fieldshift.cluster.job_control import FETCH, known_job, list_jobs, show_logs, stop_job
from fieldshift.errors import RunFailedError, UserError
from fieldshift.run_folder import JOB_COMMIT, code_commit

pytest.importorskip("ray.job_submission")


class _Refusing(BaseHTTPRequestHandler):
    status = 401

    def do_GET(self) -> None:
        body = b"Unauthorized: Missing authentication token"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=[401, 500])
def refusing(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    handler = type("Handler", (_Refusing,), {"status": request.param})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", request.param
        server.shutdown()
        thread.join()


def test_a_cluster_that_refuses_is_one_line_of_advice(refusing: tuple[str, int]) -> None:
    url, status = refusing
    with pytest.raises(UserError) as caught:
        submit(url, ["true"])
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"The cluster at {url}")
    assert ("RAY_AUTH_MODE=token" in text) == (status == 401)


def test_an_address_where_nothing_answers_is_said_at_once() -> None:
    with socket.socket() as held_back:
        held_back.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held_back.getsockname()[1]}"
        with pytest.raises(UserError, match=re.escape(f"Nothing answers at {url}")):
            submit(url, ["true"])


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "", "http://"])
def test_an_address_that_is_no_url_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="must be the URL of a dashboard"):
        submit(address, ["true"])


def test_the_commands_own_error_is_not_the_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown job is an answer of ours, with the jobs there are, and no refusal by the cluster."""
    known = SimpleNamespace(submission_id="raysubmit_1", metadata=None)
    monkeypatch.setattr(jobs, "_knock", lambda _: None)
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda _: SimpleNamespace(list_jobs=lambda: [known]))
    for ask in (show_logs, stop_job):
        with pytest.raises(UserError) as caught:
            ask("http://127.0.0.1:1", "nothing")
        assert str(caught.value) == "Unknown job 'nothing'. Known: raysubmit_1."


def test_a_job_without_a_command_is_refused() -> None:
    with pytest.raises(UserError, match="has no command"):
        submit("http://127.0.0.1:1", [])


@pytest.mark.parametrize("commit", ["0123abc-dirty", None])
def test_a_job_records_the_commit_of_the_code_that_was_sent(
    monkeypatch: pytest.MonkeyPatch, commit: str | None
) -> None:
    sent: list[dict[str, Any]] = []

    def submit_job(*, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> str:
        sent.append(runtime_env["env_vars"])
        return "job"

    client = SimpleNamespace(submit_job=submit_job, get_job_status=lambda _: "PENDING")
    monkeypatch.setattr(jobs, "_knock", lambda _: None)
    monkeypatch.setattr(jobs, "code_commit", lambda: commit)
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda _: client)
    for modules in ([], [fieldshift]):
        submit("http://127.0.0.1:1", ["true"], follow=False, modules=modules)
    assert [variables.get(JOB_COMMIT) for variables in sent] == [None, commit]
    if commit:
        monkeypatch.setenv(JOB_COMMIT, commit)
        code_commit.cache_clear()
        assert code_commit() == commit
        code_commit.cache_clear()


class _Client:
    """A job server whose stream breaks once and whose job then ends."""

    def __init__(self, statuses: list[str], text: str, breaks_at: int, exit_code: int | None = None) -> None:
        self.statuses, self.text, self.breaks_at, self.exit_code = statuses, text, breaks_at, exit_code
        self.stopped: list[str] = []

    def get_job_status(self, _job: str) -> str:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def get_job_info(self, job: str) -> Any:
        return SimpleNamespace(status=self.get_job_status(job), driver_exit_code=self.exit_code, message="it\nfailed")

    def get_job_logs(self, _job: str) -> str:
        return self.text

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)

    async def tail_job_logs(self, _job: str) -> AsyncIterator[str]:
        upto, self.breaks_at = self.breaks_at, len(self.text)
        for start in range(0, upto, 4):
            yield self.text[start : min(start + 4, upto)]
        if upto < len(self.text):
            raise RuntimeError("WebSocket connection closed unexpectedly")


@pytest.mark.parametrize("breaks_at", range(0, 22, 3))
def test_a_broken_stream_is_taken_up_without_repeating_or_missing(
    monkeypatch: pytest.MonkeyPatch, breaks_at: int
) -> None:
    monkeypatch.setattr(jobs, "POLL_S", 0)
    text = "epoch 1\nepoch 2\nepoch 3\n"
    heard: list[str] = []
    jobs._follow(_Client(["RUNNING", "SUCCEEDED"], text, breaks_at), "job", heard.append)
    assert "".join(heard) == text


@pytest.mark.parametrize("lost_at", ["get_job_status", "get_job_info", "get_job_logs"])
@pytest.mark.parametrize("follow", [True, False], ids=["submit", "logs"])
def test_a_cluster_that_has_lost_the_job_is_one_line(
    lost_at: str, follow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the head was replaced: whatever is asked next, the new one answers that it has no such job."""
    monkeypatch.setattr(jobs, "POLL_S", 0)
    monkeypatch.setattr(jobs, "_knock", lambda _: None)
    client = _Client(["RUNNING"], "epoch 1\n", 8)
    details = {"submission_id": "a", "status": "RUNNING", "entrypoint": "x", "start_time": 1, "end_time": 0}
    client.submit_job = lambda **_: "a"  # type: ignore[attr-defined]
    client.list_jobs = lambda: [SimpleNamespace(**details, metadata={})]  # type: ignore[attr-defined]
    client.get_job_info = lambda _: SimpleNamespace(**details)  # type: ignore[method-assign]
    if lost_at != "get_job_status":
        client.statuses = ["RUNNING", "SUCCEEDED"]

    def lost(_job: str) -> None:
        raise RuntimeError("Request failed with status code 404: Job a does not exist.")

    monkeypatch.setattr(client, lost_at, lost)
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda _: client)
    with pytest.raises(
        RunFailedError, match=r"^The cluster does not know job a any more, .* --resume to continue its run\.$"
    ):
        submit("http://127.0.0.1:1", ["true"]) if follow else show_logs("http://127.0.0.1:1", "a", follow=True)


def test_the_jobs_of_fetch_are_not_listed_but_known(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"status": "FAILED", "entrypoint": "x", "start_time": 1, "end_time": 2}
    sent = SimpleNamespace(submission_id="a", metadata={}, **times)
    fetch = SimpleNamespace(submission_id="b", metadata={"command": "fieldshift fetch a", FETCH: "a"}, **times)
    monkeypatch.setattr(jobs, "_knock", lambda _: None)
    monkeypatch.setattr(
        "ray.job_submission.JobSubmissionClient", lambda _: SimpleNamespace(list_jobs=lambda: [fetch, sent])
    )
    assert [job.job_id for job in list_jobs("http://127.0.0.1:1")] == ["a"]
    assert known_job(SimpleNamespace(list_jobs=lambda: [fetch, sent]), "b").status == "FAILED"  # its logs say why
    with pytest.raises(UserError, match=r"Unknown job 'c'\. Known: a\.$"):
        show_logs("http://127.0.0.1:1", "c")


@pytest.mark.parametrize("broken", [aiohttp.ServerDisconnectedError(), RuntimeError("closed"), ConnectionError("gone")])
def test_a_dashboard_that_is_away_for_a_while_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: Exception
) -> None:
    """As where `kubectl port-forward` is started again: the stream breaks, and the next questions fail too."""
    monkeypatch.setattr(jobs, "POLL_S", 0)
    text = "epoch 1\nepoch 2\n"

    class Away(_Client):
        refused = 0

        def get_job_status(self, job: str) -> str:
            if self.breaks_at == len(text) and self.refused < 3:
                self.refused += 1
                raise requests.ConnectionError("Connection refused")
            return super().get_job_status(job)

        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            try:
                async for piece in super().tail_job_logs(job):
                    yield piece
            except RuntimeError:
                raise broken from None

    client = Away(["RUNNING", "RUNNING", "SUCCEEDED"], text, 8)
    heard: list[str] = []
    jobs._follow(client, "job", heard.append)
    assert "".join(heard) == text
    assert client.refused == 3
    assert capsys.readouterr().out.count("The dashboard does not answer; asking again for 10 minutes") == 1
    monkeypatch.setattr(jobs, "AWAY_DEADLINE_S", -1)
    client.breaks_at, client.refused = len(text), 0
    with pytest.raises(UserError, match="the job goes on: `fieldshift logs --follow job`"):
        jobs._await_start(client, "job", 0)
    assert jobs._status_now(client, "job") == "PENDING"  # a job that is not followed is not waited for
    client.refused = 3
    assert jobs._status_now(client, "job") == "SUCCEEDED"


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [("SUCCEEDED", None, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", None, 130)],
)
def test_the_exit_code_is_the_jobs(status: str, code: int | None, wanted: int) -> None:
    outcome = jobs._outcome(_Client([status], "", 0, code), "job")
    assert (outcome.status, outcome.exit_code) == (status, wanted)
    assert outcome.message == ("" if status == "SUCCEEDED" else "it failed")


def test_a_job_that_does_not_start_is_stopped_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "POLL_S", 0)
    client = _Client(["PENDING"], "", 0)
    with pytest.raises(UserError, match="did not start within 0 seconds"):
        jobs._await_start(client, "job", 0)
    assert client.stopped == ["job"]
