"""Brings the run folder of a job from its cluster to this machine."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from fieldshift.cluster.job_control import ENDED, FETCH, known_job, with_clusters_python
from fieldshift.cluster.jobs import POLL_S, job_client
from fieldshift.cluster.parcel import unpack
from fieldshift.errors import RunFailedError, UserError
from fieldshift.run_folder import NAMED

FETCH_DEADLINE_S = 600.0


def fetch_run(address: str, job_id: str, folder: Path, *, modules: Sequence[ModuleType] = ()) -> tuple[Path, str]:
    """Fetches the run folder of a job into `folder`. Returns the path that it has on the cluster, and the job's status.

    A second, short job sends the files through its output, so only the dashboard has to be reachable. Ray's own files and
    checkpoints are left out.

    Args:
        address: URL of the cluster's dashboard.
        folder: A folder that does not exist yet.
        modules: Packages that the second job receives, as in `submit`.

    Raises:
        UserError: `folder` exists or cannot be written, the cluster does not have the job, or the job has no run folder.
        RunFailedError: The files did not arrive whole.
    """
    if folder.exists():
        raise UserError(f"--out {folder} exists; name a folder that does not.")
    with job_client(address) as client:
        fetched = known_job(client, job_id)
        named = re.findall(rf"^{NAMED} (/.+)$", client.get_job_logs(job_id), re.MULTILINE)
        if not named:
            raise UserError(
                f"Job {job_id} names no run folder; `fieldshift logs {job_id} --address {address}` shows what it printed."
            )
        words = with_clusters_python(["-m", "fieldshift.cluster.parcel", named[0]])
        environment = {"py_modules": [str(Path(str(module.__file__)).parent) for module in modules]} if modules else {}
        sender = client.submit_job(
            entrypoint=shlex.join(words),
            runtime_env=environment,
            metadata={"command": f"fieldshift fetch {job_id}", FETCH: job_id},
        )
        deadline = time.monotonic() + FETCH_DEADLINE_S
        while (status := str(client.get_job_status(sender))) not in ENDED:
            if time.monotonic() > deadline:
                client.stop_job(sender)
                raise RunFailedError(f"The cluster did not send the run folder within {FETCH_DEADLINE_S:g} seconds.")
            time.sleep(POLL_S)
        if status != "SUCCEEDED":
            raise RunFailedError(
                f"The cluster could not send the run folder; `fieldshift logs {sender} --address {address}` shows why."
            )
        # It is not deleted: Ray then writes the end of a job that it does not know, a failed one.
        parcel = client.get_job_logs(sender)
    unpack(parcel, folder)
    return Path(named[0]), fetched.status
