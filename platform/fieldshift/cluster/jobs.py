"""Submits a command to a Ray cluster as a job and follows its output."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from fieldshift.cluster.connect import require_ray
from fieldshift.cluster.job_output import JobOutput
from fieldshift.cluster.tokens import TOKEN_ADVICE
from fieldshift.console import say
from fieldshift.errors import RunFailedError, UserError, one_line
from fieldshift.ports import refusal
from fieldshift.run_folder import IN_JOB, JOB_COMMIT, code_commit

POLL_S = 1.0
ENDING_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0
AGENT_DEADLINE_S = 90.0
AWAY_DEADLINE_S = 600.0
"""Seconds that the following of a job waits for a dashboard that stopped answering, as where a tunnel is built again."""


class JobGoesOn(KeyboardInterrupt):
    """Ctrl-C ended the following of a job, not the job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a job.

    Attributes:
        job_id: Identifier for `ray job status|logs|stop`.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        exit_code: Exit code of the job's command; 130 when it was stopped, None while it runs.
        message: Ray's message about a job that did not succeed.
    """

    job_id: str
    status: str
    exit_code: int | None
    message: str = ""


def submit(
    address: str,
    argv: Sequence[str],
    *,
    follow: bool = True,
    modules: Sequence[ModuleType] = (),
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    on_text: Callable[[str], object] | None = None,
    start_timeout_s: float = 600.0,
) -> JobOutcome:
    """Runs a command on a cluster as a job; with `follow` prints its output until it ends.

    Ctrl-C while following stops following, not the job: it raises JobGoesOn.

    Args:
        address: URL of the cluster's dashboard, such as http://HEAD:8265.
        argv: The command, word by word.
        modules: Packages that the job and its workers receive (`py_modules`); nothing else is sent: no data, no
            environment.
        env: Environment variables of the job.
        command: The command as lists of jobs show it, where `argv` holds more than a person wrote.
        on_text: Receives the job's output in pieces; None prints it.
        start_timeout_s: Seconds to wait for the job to start while it is followed.

    Raises:
        UserError: Nothing answers at the address, it rejects the token, or the job does not start in time.
    """
    if not argv:
        raise UserError("The job has no command; give one after `--`, such as `-- study --data digit-pairs-left`.")
    with job_client(address) as client:
        folders = [str(Path(str(module.__file__)).parent) for module in modules]
        runtime_env: dict[str, Any] = {"py_modules": folders} if folders else {}
        commit = code_commit()
        runtime_env["env_vars"] = {
            "RAY_JOB_STOP_WAIT_TIME_S": f"{STOP_DEADLINE_S:.0f}",
            IN_JOB: "1",
            **({JOB_COMMIT: commit} if commit and modules else {}),
            **(env or {}),
        }
        job_id = _submitted(client, shlex.join(argv), runtime_env, {"command": shlex.join(command or argv)})
    if not follow:
        return JobOutcome(job_id, _status_now(client, job_id), None)
    return follow_job(client, job_id, on_text=on_text, start_timeout_s=start_timeout_s)


def follow_job(
    client: Any, job_id: str, *, on_text: Callable[[str], object] | None = None, start_timeout_s: float = 600.0
) -> JobOutcome:
    """Passes on a job's output, from its beginning, until the job ends.

    Raises JobGoesOn on Ctrl-C, UserError where the dashboard does not answer for AWAY_DEADLINE_S, and RunFailedError where the
    cluster no longer knows the job.
    """
    try:
        _await_start(client, job_id, start_timeout_s)
        entrypoint = _answer(client.get_job_info, job_id).entrypoint
        output = JobOutput(on_text or print_text, job_id, entrypoint)
        _follow(client, job_id, output.add)
        output.end()
        return _outcome(client, job_id)
    except KeyboardInterrupt:
        raise JobGoesOn(job_id) from None


@contextlib.contextmanager
def job_client(address: str) -> Iterator[Any]:
    """Ray's client of the jobs at a dashboard. Raises UserError where nothing answers or the cluster refuses, in one line."""
    _knock(address)
    require_ray("A cluster's jobs")
    with _named_address_only(), _errors_in_one_line(address):
        from ray.job_submission import JobSubmissionClient

        for name in list(logging.root.manager.loggerDict):
            if name.startswith("ray"):  # their progress lines are not part of the job's output
                logging.getLogger(name).setLevel(logging.ERROR)
        yield JobSubmissionClient(address)


def _submitted(client: Any, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> str:
    """The job's name; a cluster whose agent is still starting is asked again until the deadline."""
    deadline = time.monotonic() + AGENT_DEADLINE_S
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, metadata=metadata))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def print_text(text: str) -> None:
    print(text, end="", flush=True)


def _knock(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError(f"The address is '{address}', but must be the URL of a dashboard, such as http://HOST:8265.")
    port = parts.port or (443 if parts.scheme == "https" else 8265)
    reason = refusal(parts.hostname, port)
    if reason is not None:
        raise UserError(
            f"Nothing answers at {address} ({reason}); check the address, or forward the port"
            " with `kubectl port-forward` or `ssh -L`."
        )


@contextlib.contextmanager
def _named_address_only() -> Iterator[None]:
    """Makes Ray use the given address rather than one from the environment."""
    ours = {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(ours)


@contextlib.contextmanager
def _errors_in_one_line(address: str) -> Iterator[None]:
    from ray.exceptions import RayError

    try:
        yield
    except UserError:  # a ValueError too
        raise
    except (OSError, RayError, RuntimeError, ValueError) as error:  # what requests raises is an OSError
        text = one_line(error)
        # Whole numbers only: the text names the port as well.
        if re.search(r"\b(401|403)\b|[Aa]uthentication|[Uu]nauthorized", text):
            raise UserError(f"The cluster at {address} rejects this client's token; {TOKEN_ADVICE}.") from error
        raise UserError(f"The cluster at {address} does not accept the request: {text[:300]}") from error


def _await_start(client: Any, job_id: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while str(_answer(client.get_job_status, job_id)) == "PENDING":
        if time.monotonic() > deadline:
            client.stop_job(job_id)
            raise UserError(
                f"Job {job_id} did not start within {timeout_s:g} seconds and was stopped;"
                " run `ray status` on the cluster to see what it waits for."
            )
        time.sleep(POLL_S)


def _status_now(client: Any, job_id: str) -> str:
    """The job's status; PENDING, which every job begins with, where the dashboard has gone away."""
    try:
        return str(client.get_job_status(job_id))
    except OSError:
        return "PENDING"


def _answer(ask: Callable[[str], Any], job_id: str) -> Any:
    """The dashboard's answer about a job, asked again while it does not answer, as where a tunnel broke."""
    deadline, told = time.monotonic() + AWAY_DEADLINE_S, False
    while True:
        try:
            return ask(job_id)
        except OSError as error:  # what requests raises is one
            if not told:
                minutes = AWAY_DEADLINE_S / 60
                say(f"The dashboard does not answer; asking again for {minutes:.0f} minutes (Ctrl-C: the job goes on).")
                told = True
            if time.monotonic() > deadline:
                raise UserError(
                    f"The dashboard does not answer any more ({one_line(error)[:200]}); the job goes on: "
                    f"`fieldshift logs --follow {job_id}`, with the same --address, continues once it does."
                ) from error
        except RuntimeError as error:
            if not re.search(r"\b404\b", str(error)):
                raise UserError(f"The cluster does not say how job {job_id} is: {one_line(error)[:200]}") from error
            raise RunFailedError(
                f"The cluster does not know job {job_id} any more, as after a restart of its head, which ends all jobs; submit"
                " the same command with --resume to continue its run."
            ) from error
        time.sleep(POLL_S)


def _follow(client: Any, job_id: str, on_text: Callable[[str], object]) -> None:
    """Streams the job's output; reconnects after an interruption as long as the job runs."""
    from aiohttp import ClientError

    seen = 0

    async def stream() -> None:
        nonlocal seen
        skip = seen
        async for text in client.tail_job_logs(job_id):
            fresh, skip = text[skip:], max(0, skip - len(text))
            if fresh:
                seen += len(fresh)
                on_text(fresh)

    while True:
        try:
            asyncio.run(stream())
        except (RuntimeError, OSError, ClientError):
            time.sleep(POLL_S)
        if str(_answer(client.get_job_status, job_id)) != "RUNNING":
            break
        time.sleep(POLL_S)
    rest = _answer(client.get_job_logs, job_id)[seen:]
    if rest:
        on_text(rest)


def _outcome(client: Any, job_id: str) -> JobOutcome:
    deadline = time.monotonic() + ENDING_DEADLINE_S
    while True:
        info = _answer(client.get_job_info, job_id)
        status = str(info.status)
        if status not in {"PENDING", "RUNNING"} or time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    code = {"SUCCEEDED": 0, "STOPPED": 130}.get(status, info.driver_exit_code or 1)
    # Ray repeats the end of the log in its message, after its own text.
    message = (
        "" if status == "SUCCEEDED" else " ".join((info.message or "").partition(", last available logs")[0].split())
    )
    return JobOutcome(job_id, status, code, message)
