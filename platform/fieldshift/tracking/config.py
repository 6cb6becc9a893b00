"""Configuration of experiment tracking."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from fieldshift.errors import UserError
from fieldshift.settings import accept_fields

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
LONGEST_NAME = 500
VARIABLE = "MLFLOW_TRACKING_URI"
SYSTEM_VARIABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Whether runs are tracked with MLflow, and the store that they are logged to.

    Attributes:
        enabled: Track runs; if false, every tracking call does nothing.
        uri: MLflow store, such as http://HOST:5000 or sqlite:////path/mlflow.db; None uses MLFLOW_TRACKING_URI if it is set,
            else a store in the run's folder.
        artifacts: Folder or URI (s3://..., gs://...) for the artifacts of an experiment that a database creates; None uses
            `mlflow-artifacts` beside the run's folder. A tracking server chooses its own place.
        experiment: Name of the MLflow experiment of the runs.
        register: Name in MLflow's model registry under which `train` adds its network as a new version; None registers none.
        system_metrics: Log the load of this machine's CPU, memory, disk, network and GPUs every 10 seconds, as does
            MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true; the GPUs need the package nvidia-ml-py.
    """

    enabled: bool = True
    uri: str | None = None
    artifacts: str | None = None
    experiment: str = "fieldshift"
    register: str | None = None
    system_metrics: bool = False

    def __post_init__(self) -> None:
        accept_fields(self, "tracking")
        if len(self.experiment) > LONGEST_NAME or not self.experiment.isprintable():
            raise UserError(
                f"tracking.experiment is {self.experiment[:60]!r}, but must be a name of 1 to {LONGEST_NAME} printable"
                " characters, such as 'fieldshift'."
            )
        if self.register is not None and not self.enabled:
            raise UserError("tracking.register needs a store, but tracking.enabled is false; leave out one of the two.")
        if self.register is not None and set(self.register) & set("/:.%\"'"):
            raise UserError(
                f"tracking.register is '{self.register}', but must be a name without / : . % and quotes, such as my-network."
            )
        if self.uri is not None:
            check_address(self.uri, "tracking.uri", "leave it out to use a store in the run's folder")

    @property
    def address(self) -> str | None:
        """The address of the store that was asked for: `uri`, else MLFLOW_TRACKING_URI; None uses the run's folder.

        Raises UserError where the variable has no such address.
        """
        if self.uri is not None:
            return self.uri
        named = os.environ.get(VARIABLE) or None
        if named is not None:
            check_address(named, VARIABLE, "unset it to use a store in the run's folder")
        return named

    @property
    def wants_system_metrics(self) -> bool:
        """Whether the load of the machine is logged: `system_metrics`, or MLflow's own variable."""
        return self.system_metrics or os.environ.get(SYSTEM_VARIABLE, "").lower() in {"true", "1"}


def check_address(uri: str, name: str, otherwise: str) -> None:
    """Raises UserError where `uri`, the value of `name`, is no address of a store, or contains a password.

    A bracket without its partner and a port over 65535 are no address.
    """
    if holds_password(uri):
        raise UserError(
            f"{name} holds a password, which would be written into config.yaml and MLflow; leave it out of"
            " the address and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for http, or the database's own"
            " file or variable (~/.pgpass, PGPASSWORD)."
        )
    if uri.split(":", 1)[0].split("+", 1)[0] not in SCHEMES:
        raise UserError(f"{name} is '{uri}', but must start with one of {', '.join(SCHEMES)} and a colon; {otherwise}.")
    try:
        parts = urlsplit(uri)
        has_host = parts.port is not None or bool(parts.hostname)
    except ValueError as error:
        raise UserError(f"{name} is '{uri}', which is not a valid address ({error}); {otherwise}.") from None
    if parts.scheme in {"http", "https"} and not has_host:
        raise UserError(f"{name} is '{uri}', but must name a server, such as http://HOST:5000; {otherwise}.")


def holds_password(uri: str) -> bool:
    """Whether an address contains a password: SCHEME://USER:PASSWORD@HOST, or a parameter ?password=..."""
    try:
        parts = urlsplit(uri)
        named = {name.lower() for name, _ in parse_qsl(parts.query)}
    except ValueError:
        return "@" in uri
    return bool(parts.password) or bool(named & {"password", "passwd", "pwd"})
