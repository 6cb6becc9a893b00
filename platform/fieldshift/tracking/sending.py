"""MLflow calls for each kind of message, used by live runs and by replays."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fieldshift.tracking.refusals import is_refused
from fieldshift.wording import printable

METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
PARAM_LENGTH = 6000
DATA_NAME_LENGTH = 500
OPENED_TAG = "fieldshift.opened"
"""When a run was opened, less the time in which it was open before, in milliseconds since 1970."""

TIMEOUT, SHORT_S, UPLOAD_S = "MLFLOW_HTTP_REQUEST_TIMEOUT", "10", "120"
"""MLflow's variable for the seconds that a server has for an answer, its value here, and the one while files are sent."""
UPLOADS = {"image", "table", "artifact", "register"}
"""The kinds of messages that send files, or let the server read some."""

_log = logging.getLogger("fieldshift.tracking")
_TABLES_TAG = "mlflow.loggedArtifacts"


def sendable_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {printable(name): printable(value) for name, value in tags.items()}


def perform(client: Any, run_id: str, what: str, message: dict[str, Any], array: Any = None) -> None:
    """Carries out one message on a run; `what` is its kind: params, metrics, tags, experiment, ..., register or close.

    A run that was deleted while it was in progress is restored, as it would take no more messages.
    """
    with uploading(client, run_id) if what in UPLOADS else contextlib.nullcontext():
        try:
            _carry_out(client, run_id, what, message, array)
        except Exception as error:
            if not (is_refused(error) and _restored(client, run_id)):
                raise
            _carry_out(client, run_id, what, message, array)


@contextlib.contextmanager
def uploading(client: Any, run_id: str) -> Iterator[None]:
    """Gives a server UPLOAD_S seconds for each answer within the block, unless the user set MLflow's variable to others.

    A server that is down is found out before, within the short time.
    """
    if os.environ.get(TIMEOUT) != SHORT_S:
        yield
        return
    client.get_run(run_id)
    os.environ[TIMEOUT] = UPLOAD_S
    try:
        yield
    finally:
        os.environ[TIMEOUT] = SHORT_S


def _carry_out(client: Any, run_id: str, what: str, message: dict[str, Any], array: Any) -> None:
    if what == "params":
        _params(client, run_id, message["params"])
    elif what == "metrics":
        _metrics(client, run_id, message)
    elif what == "tags":
        _tags(client, run_id, message["tags"])
    elif what == "experiment":
        experiment_id = client.get_run(run_id).info.experiment_id
        for name, value in sendable_tags(message["tags"]).items():
            client.set_experiment_tag(experiment_id, name, value)
    elif what == "dataset":
        _dataset(client, run_id, message)
    elif what == "image":
        _image(client, run_id, message, array)
    elif what == "table":
        _table(client, run_id, message["file"], message["text"])
    elif what == "artifact":
        client.log_artifact(run_id, message["path"], message["folder"])
    elif what == "register":
        _register(client, run_id, message["name"], message["folder"])
    elif what == "close":
        client.set_terminated(run_id, message["status"], end_of(client.get_run(run_id), message["time"]))
    else:
        raise ValueError(f"There is no message '{what}'.")


def _restored(client: Any, run_id: str) -> bool:
    """Restores a run, with its experiment, if it was deleted; returns whether it was."""
    info = client.get_run(run_id).info
    if info.lifecycle_stage != "deleted":
        return False
    if client.get_experiment(info.experiment_id).lifecycle_stage == "deleted":
        client.restore_experiment(info.experiment_id)
    if client.get_run(run_id).info.lifecycle_stage == "deleted":
        client.restore_run(run_id)
    _log.warning("The MLflow run %s was deleted while it was in progress, and is restored.", run_id)
    return True


def end_of(run: Any, now: int) -> int:
    """The end of a run that is closed at `now`, in milliseconds since 1970: its start plus the time in which it was open.

    MLflow's pages show end minus start as the duration, and a start cannot be changed: a run that was opened again would
    also count the time in which nobody worked on it. MLflow keeps the end of a run that was opened again, and the run keeps
    at least the duration that it had then.
    """
    start = int(run.info.start_time)
    kept = int(run.info.end_time or start) - start
    return start + max(0, kept, now - opened_at(run))


def opened_at(run: Any) -> int:
    """The time at which a run was opened, less that in which it was open before, in milliseconds since 1970."""
    return int(run.data.tags.get(OPENED_TAG, run.info.start_time))


def _params(client: Any, run_id: str, params: dict[str, str]) -> None:
    from mlflow.entities import Param

    params = {name: printable(value) for name, value in params.items()}
    long = {name: value for name, value in params.items() if len(value) > PARAM_LENGTH}
    with uploading(client, run_id) if long else contextlib.nullcontext():
        for name, value in long.items():
            client.log_text(run_id, value, f"params/{name}.txt")
    entries = [Param(name, f"see params/{name}.txt" if name in long else value) for name, value in params.items()]
    for some in _chunks(entries, PARAMS_PER_BATCH):
        client.log_batch(run_id, params=some)


def _tags(client: Any, run_id: str, tags: dict[str, str]) -> None:
    from mlflow.entities import RunTag

    for some in _chunks([RunTag(name, value) for name, value in sendable_tags(tags).items()], PARAMS_PER_BATCH):
        client.log_batch(run_id, tags=some)


def _dataset(client: Any, run_id: str, message: dict[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput

    name = printable(message["name"])[:DATA_NAME_LENGTH]
    data = Dataset(
        name=name, digest=message["digest"], source_type="fieldshift", source=name,
        profile=json.dumps(message["counts"]),
    )  # fmt: skip
    client.log_inputs(run_id, datasets=[DatasetInput(dataset=data, tags=[])])


def _image(client: Any, run_id: str, message: dict[str, Any], array: Any) -> None:
    """Logs a picture, and replaces the copy that MLflow's grids show, whose longer side has 256 pixels, by one of `shown`."""
    client.log_image(
        run_id, array, key=message["key"], step=message["step"], timestamp=message["time"], synchronous=True
    )
    if message.get("shown") is None:
        return
    from PIL import Image

    small = Image.fromarray(array.squeeze())
    small.thumbnail((message["shown"], message["shown"]), Image.Resampling.BOX)
    for file in client.list_artifacts(run_id, "images"):
        name = file.path.rpartition("/")[2]
        if str(message["time"]) in name and "compressed" in name:
            with tempfile.TemporaryDirectory() as place:
                small.save(Path(place) / name, lossless=True)
                client.log_artifact(run_id, str(Path(place) / name), "images")


def _register(client: Any, run_id: str, name: str, folder: str) -> None:
    """Adds the model in a run's artifacts to the registry as a new version, once for each run."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if not any(version.run_id == run_id for version in client.search_model_versions(f"name = '{name}'")):
        source = f"{client.get_run(run_id).info.artifact_uri.rstrip('/')}/{folder}"
        client.create_model_version(name, source=source, run_id=run_id)


def _metrics(client: Any, run_id: str, message: dict[str, Any]) -> None:
    from mlflow.entities import Metric

    entries = [Metric(name, value, message["time"], message["step"]) for name, value in message["metrics"].items()]
    for some in _chunks(entries, METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=some)


def _table(client: Any, run_id: str, file: str, text: str) -> None:
    """Replaces a table (MLflow's own log_table appends) and registers it for the compare view."""
    client.log_text(run_id, text, file)
    listed = json.loads(client.get_run(run_id).data.tags.get(_TABLES_TAG, "[]"))
    entry = {"path": file, "type": "table"}
    if entry not in listed:
        client.set_tag(run_id, _TABLES_TAG, json.dumps([*listed, entry]))


def _chunks(entries: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(entries)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
