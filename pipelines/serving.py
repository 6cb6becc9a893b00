"""Commands sent to a Ray cluster, and MLflow's pages on a run's store."""

from __future__ import annotations

from fieldshift.console import say
from fieldshift.errors import UserError, unknown_name
from fieldshift.tracking import TrackingConfig


def submit(*, address: str, command: list[str] | None = None, follow: bool = False) -> int:
    """Sends any fieldshift command to a running Ray cluster as a job; everything after `--` is the command.

    Args:
        address: the cluster's dashboard, such as http://127.0.0.1:8265.
        command: the command and its options, written after `--`.
        follow: print the job's output until it ends, and exit with its status.
    """
    from fieldshift.cluster.jobs import submit as submit_job
    from pipelines import HOMES
    from pipelines.placement import packages

    if not command:
        raise UserError("There is no command to submit; write it after --, such as: submit --address URL -- study.")
    known = [name.replace("_", "-") for name in HOMES]
    if command[0] not in known:
        raise unknown_name("command", command[0], known)
    for number, word in enumerate(command):
        if word.startswith("--tracking.uri"):
            _, equals, value = word.partition("=")
            TrackingConfig(uri=value if equals else next(iter(command[number + 1 :]), ""))  # refuses a password
    outcome = submit_job(address, ["python", "-m", "fieldshift.cli", *command], follow=follow, modules=packages())
    say(f"job {outcome.job_id}: {outcome.status}{f' ({outcome.message})' if outcome.message else ''}")
    return outcome.exit_code or 0


submit.positional = "command"  # type: ignore[attr-defined]


def ui(*, run: str = "runs/study", host: str = "127.0.0.1", port: int = 5000) -> int:
    """Opens MLflow's pages on the store of a run folder, or of a tracking server, until Ctrl-C.

    Args:
        run: run folder (with its SQLite store) or a store's URI.
        host: address that the pages are served on; keep it local.
        port: its port.
    """
    from fieldshift.tracking.server import serve

    serve(run, host=host, port=port)
    return 0
