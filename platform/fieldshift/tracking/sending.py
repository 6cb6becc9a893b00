"""MLflow calls for each kind of message, used by live runs and by replays."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
PARAM_LENGTH = 6000
_TABLES_TAG = "mlflow.loggedArtifacts"


def perform(client: Any, run_id: str, what: str, message: dict[str, Any], array: Any = None) -> None:
    """Carries out one message on a run; `what` is its kind: params, metrics, tags, experiment, ..., register or close."""
    if what == "params":
        _params(client, run_id, message["params"])
    elif what == "metrics":
        _metrics(client, run_id, message)
    elif what == "tags":
        _tags(client, run_id, message["tags"])
    elif what == "experiment":
        experiment_id = client.get_run(run_id).info.experiment_id
        for name, value in message["tags"].items():
            client.set_experiment_tag(experiment_id, name, value)
    elif what == "dataset":
        _dataset(client, run_id, message)
    elif what == "image":
        client.log_image(
            run_id, array, key=message["key"], step=message["step"], timestamp=message["time"], synchronous=True
        )
    elif what == "table":
        _table(client, run_id, message["file"], message["text"])
    elif what == "artifact":
        client.log_artifact(run_id, message["path"], message["folder"])
    elif what == "register":
        _register(client, run_id, message["name"], message["folder"])
    elif what == "close":
        client.set_terminated(run_id, message["status"], message["time"])
    else:
        raise ValueError(f"There is no message '{what}'.")


def _params(client: Any, run_id: str, params: dict[str, str]) -> None:
    from mlflow.entities import Param

    long = {name: value for name, value in params.items() if len(value) > PARAM_LENGTH}
    for name, value in long.items():
        client.log_text(run_id, value, f"params/{name}.txt")
    entries = [Param(name, f"see params/{name}.txt" if name in long else value) for name, value in params.items()]
    for some in _chunks(entries, PARAMS_PER_BATCH):
        client.log_batch(run_id, params=some)


def _tags(client: Any, run_id: str, tags: dict[str, str]) -> None:
    from mlflow.entities import RunTag

    for some in _chunks([RunTag(name, value) for name, value in tags.items()], PARAMS_PER_BATCH):
        client.log_batch(run_id, tags=some)


def _dataset(client: Any, run_id: str, message: dict[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput

    data = Dataset(
        name=message["name"], digest=message["digest"], source_type="fieldshift", source=message["name"],
        profile=json.dumps(message["counts"]),
    )  # fmt: skip
    client.log_inputs(run_id, datasets=[DatasetInput(dataset=data, tags=[])])


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
