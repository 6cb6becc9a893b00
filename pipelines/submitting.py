"""Jobs on a Ray cluster: submit, list, follow and stop commands, and fetch their results."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshift.console import duration, say, table
from fieldshift.errors import UserError, unknown_name
from fieldshift.run_folder import check_writable
from fieldshift.tracking.config import holds_password
from pipelines.options import only_one

if TYPE_CHECKING:
    from fieldshift.cluster import JobOutcome

HERE_ONLY = ("submit", "jobs", "logs", "stop", "fetch", "ui")
"""The commands that talk to a cluster or to a person, and are not submitted."""


def submit(
    *, address: str, command: list[str] | None = None, follow: bool = False, env: list[str] | None = None
) -> int:
    """Submits a fieldshift command to a running Ray cluster as a job; everything after `--` is the command.

    Args:
        address: the cluster's dashboard, such as http://127.0.0.1:8265.
        command: the command and its options, written after `--`.
        follow: print the job's output until it ends, and exit with its status.
        env: names of environment variables to copy from this machine into the job, such as MLFLOW_TRACKING_TOKEN.
    """
    import pipelines
    from fieldshift.cluster.job_control import with_clusters_python
    from fieldshift.cluster.jobs import submit as submit_job
    from fieldshift.experiment.placement import packages

    if not command:
        raise UserError("There is no command to submit; write it after --, such as: submit --address URL -- study.")
    known = [name.replace("_", "-") for name in pipelines.HOMES]
    if command[0] not in known:
        raise unknown_name("command", command[0], known)
    if command[0] in HERE_ONLY:
        raise UserError(
            f"{command[0]} is a command for this machine, not for a cluster; give one that computes, such as study."
        )
    check_words(command[0], command[1:])
    passed = passed_on(env or [])
    with job_stays(address):
        outcome = submit_job(
            address,
            with_clusters_python(["-m", "fieldshift.cli", *command]),
            follow=follow,
            modules=(*packages(), pipelines),
            env=passed,
            command=["fieldshift", *command],
        )
    code = report_outcome(outcome)
    if not follow:
        job = f"{outcome.job_id} --address {shlex.quote(address)}"
        say("next:")
        say(f"  fieldshift logs {job} --follow", whole=True)
        say(f"  fieldshift stop {job}", whole=True)
        say(f"  fieldshift fetch {job} --out FOLDER", whole=True)
    return code


submit.positional = "command"  # type: ignore[attr-defined]


def check_words(command: str, words: list[str]) -> None:
    """Raises UserError for an option or a value that the command does not take, and for a value that holds a password.

    What only the cluster knows is left to it: the data, files, and so the options in a --config.
    """
    import pipelines
    from fieldshift.arguments import given_texts, normalise, option_kinds
    from fieldshift.command_parser import parsed
    from fieldshift.experiment.options import Experiment

    function = getattr(pipelines, command.replace("-", "_"))
    options, loose = normalise(words, option_kinds(function), getattr(function, "positional", None))
    given = [(option.partition("=")[0], option.partition("=")[2]) for option in options]
    for name, value in [*given, *((word, word) for word in loose or ())]:
        if any("://" in text and holds_password(text) for text in given_texts(value)):
            where = name if name.startswith("--") else "A word of the command"
            raise UserError(
                f"{where} holds a password, which Ray's list of jobs would show; leave it out of the address, and pass a"
                " variable that has it with --env, such as --env PGPASSWORD."
            )
    if any(name in {"--config", "--print_config", "--help", "-h"} for name, _ in given):
        return
    values = parsed(command, function, words)
    shared = {field.name for field in fields(Experiment)}
    if shared <= values.keys():
        Experiment(**{name: values[name] for name in shared if values[name] is not None}).check_values()


def jobs(*, address: str) -> int:
    """Lists the jobs of a Ray cluster, the latest first.

    Args:
        address: the cluster's dashboard, such as http://127.0.0.1:8265.
    """
    from fieldshift.cluster.job_control import list_jobs

    found = list_jobs(address)
    if not found:
        say(f"No job was sent to {address}.")
        return 0
    rows = [
        (
            job.job_id,
            job.status,
            "-" if job.started is None else f"{job.started.astimezone():%Y-%m-%d %H:%M:%S}",
            duration(job.seconds),
            job.command,
        )
        for job in found
    ]
    table(("job", "status", "started", "time", "command"), rows, right=("time",), whole=("job", "status"))
    return 0


def logs(*, address: str, job: list[str] | None = None, follow: bool = False) -> int:
    """Prints the output of a job on a Ray cluster.

    Args:
        address: the cluster's dashboard, such as http://127.0.0.1:8265.
        job: the job's id, as `submit` and `jobs` show it.
        follow: continue printing until the job ends, and exit with its status.
    """
    from fieldshift.cluster.job_control import show_logs

    with job_stays(address):
        outcome = show_logs(address, the_job(job), follow=follow)
    return report_outcome(outcome) if follow else 0


logs.positional = "job"  # type: ignore[attr-defined]


def stop(*, address: str, job: list[str] | None = None) -> int:
    """Stops a job on a Ray cluster: its runs are closed as after Ctrl-C, and --resume continues them.

    Args:
        address: the cluster's dashboard, such as http://127.0.0.1:8265.
        job: the job's id, as `submit` and `jobs` show it.
    """
    from fieldshift.cluster.job_control import stop_job

    report_outcome(stop_job(address, the_job(job)))
    return 0


stop.positional = "job"  # type: ignore[attr-defined]


def fetch(*, address: str, out: str, job: list[str] | None = None) -> Path:
    """Fetches the run folder of a job from its Ray cluster: result.json, policies, figures, weights, and the MLflow store.

    Ray's own files and checkpoints stay on the cluster.

    Args:
        address: the cluster's dashboard, such as http://127.0.0.1:8265.
        out: folder to create for the run.
        job: the job's id, as `submit` and `jobs` show it.
    """
    from fieldshift.cluster.fetching import fetch_run
    from fieldshift.experiment.placement import packages

    folder = Path(out)
    check_writable(folder, "a folder elsewhere")
    there, status = fetch_run(address, the_job(job), folder, modules=packages())
    say(f"{there} of the cluster is now in {folder}", whole=True)
    if status == "RUNNING":
        say(
            "note: the job is still running, so the folder holds only what it had written; fetch it into another folder when it"
            " has ended"
        )
    return folder


fetch.positional = "job"  # type: ignore[attr-defined]


def the_job(words: list[str] | None) -> str:
    """The one job that was named. Raises UserError for none or several."""
    return only_one(words, "job", "jobs", "give the id of one, as `fieldshift jobs` lists them")


def passed_on(names: list[str]) -> dict[str, str]:
    """Environment variables of this process, by name. Raises UserError for one that is not set."""
    for name in names:
        if name not in os.environ:
            raise UserError(f"--env names {name}, which is not set here; set it, or leave it out.")
    return {name: os.environ[name] for name in names}


def report_outcome(outcome: JobOutcome) -> int:
    say(f"job {outcome.job_id}: {outcome.status}{f' ({outcome.message})' if outcome.message else ''}")
    return outcome.exit_code or 0


@contextmanager
def job_stays(address: str) -> Iterator[None]:
    """Reports, when Ctrl-C ends the following of a job, that the job continues and how to stop it."""
    from fieldshift.cluster.jobs import JobGoesOn

    try:
        yield
    except JobGoesOn as left:
        job = f"{left.job_id} --address {shlex.quote(address)}"
        say(f"job {left.job_id} continues. Follow it again, or stop it:")
        say(f"  fieldshift logs {job} --follow", whole=True)
        say(f"  fieldshift stop {job}", whole=True)
        raise
