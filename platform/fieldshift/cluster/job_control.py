"""The jobs of a Ray cluster: which there are, what they print, and how they are stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fieldshift.cluster.job_output import JobOutput
from fieldshift.cluster.jobs import POLL_S, STOP_DEADLINE_S, JobOutcome, follow_job, job_client, print_text
from fieldshift.errors import UserError, unknown_name

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
FETCH = "fieldshift_fetch"
"""The mark, among a job's metadata, of one that `fetch` sent."""

# The Python that the cluster itself runs with, which the shell of a job need not find in its PATH: among the processes that
# the job descends from, Ray's node manager was started with it.
_CLUSTERS_PYTHON = r"""
python= above=$PPID
while [ -z "$python" ] && [ "${above:-1}" -gt 1 ]; do
  python=$(tr '\0' '\n' < "/proc/$above/cmdline" | sed -n 's/^--python_worker_command=\([^ ]*\).*/\1/p')
  above=$(sed 's/.*) [A-Z] \([0-9]*\) .*/\1/' "/proc/$above/stat")
done 2> /dev/null
exec "${python:-python}" "$@"
"""


@dataclass(frozen=True)
class Job:
    """A job of a cluster: its id, status, command, start (None while it waits) and seconds so far, or in all."""

    job_id: str
    status: str
    command: str
    started: datetime | None
    seconds: float


def with_clusters_python(arguments: list[str]) -> list[str]:
    """A command, word by word, that runs the cluster's own Python with these arguments."""
    return ["sh", "-c", _CLUSTERS_PYTHON.strip(), "fieldshift", *arguments]


def list_jobs(address: str) -> list[Job]:
    """The jobs that were sent to the cluster, the latest first, without those of `fetch`. Raises UserError as `submit` does."""
    with job_client(address) as client:
        found = [job for job in client.list_jobs() if job.submission_id and not _is_fetch(job)]
    return sorted((_job(each) for each in found), key=lambda job: job.started or datetime.now(UTC), reverse=True)


def show_logs(address: str, job_id: str, *, follow: bool = False) -> JobOutcome:
    """Prints a job's output so far; with `follow` until it ends. Raises UserError for a job that the cluster has not."""
    with job_client(address) as client:
        job = known_job(client, job_id)
        if not follow:
            output = JobOutput(print_text, job_id, client.get_job_info(job_id).entrypoint)
            output.add(client.get_job_logs(job_id))
            output.end()
            return JobOutcome(job_id, job.status, None)
    return follow_job(client, job_id)


def stop_job(address: str, job_id: str) -> JobOutcome:
    """Lets a job end as SIGTERM ends it, and waits until it has. Raises UserError for a job that the cluster has not."""
    with job_client(address) as client:
        job = known_job(client, job_id)
        if job.status not in ENDED:
            client.stop_job(job_id)
        deadline = time.monotonic() + 2 * STOP_DEADLINE_S
        while (status := str(client.get_job_status(job_id))) not in ENDED and time.monotonic() < deadline:
            time.sleep(POLL_S)
    return JobOutcome(job_id, status, None)


def known_job(client: Any, job_id: str) -> Job:
    """The job of this id. Raises UserError for one that the cluster does not have."""
    jobs = {str(job.submission_id): job for job in client.list_jobs() if job.submission_id}
    if job_id not in jobs:
        own = [name for name, job in jobs.items() if not _is_fetch(job)]
        raise (
            unknown_name("job", job_id, own)
            if own
            else UserError(f"The cluster has no jobs, so there is no job '{job_id}'.")
        )
    return _job(jobs[job_id])


def _is_fetch(job: Any) -> bool:
    return FETCH in (job.metadata or {})


def _job(details: Any) -> Job:
    begun = None if details.start_time is None else datetime.fromtimestamp(details.start_time / 1000, UTC)
    ended = datetime.now(UTC) if not details.end_time else datetime.fromtimestamp(details.end_time / 1000, UTC)
    return Job(
        job_id=str(details.submission_id),
        status=str(details.status),
        command=(details.metadata or {}).get("command") or str(details.entrypoint),
        started=begun,
        seconds=0.0 if begun is None else (ended - begun).total_seconds(),
    )
