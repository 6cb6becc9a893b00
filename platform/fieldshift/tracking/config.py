"""Configuration of experiment tracking."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from fieldshift.errors import UserError

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Whether runs are tracked with MLflow, and the store that they are logged to.

    Attributes:
        enabled: Track runs; if false, every tracking call does nothing.
        uri: MLflow store, such as http://HOST:5000 or sqlite:////path/mlflow.db; None uses a store in the run's folder.
        experiment: Name of the MLflow experiment of the runs.
    """

    enabled: bool = True
    uri: str | None = None
    experiment: str = "fieldshift"

    def __post_init__(self) -> None:
        if not self.experiment.strip():
            raise UserError("tracking.experiment is empty, but must be a name such as 'fieldshift'.")
        if self.uri is not None and self.uri.split(":", 1)[0].split("+", 1)[0] not in SCHEMES:
            raise UserError(
                f"tracking.uri is '{self.uri}', but must start with one of {', '.join(SCHEMES)} and a colon;"
                " leave it out to use a store in the run's folder."
            )
        if self.uri is not None and holds_password(self.uri):
            raise UserError(
                "tracking.uri holds a password, which would be written into config.yaml and MLflow; leave it out of"
                " the address and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for http, or the database's own"
                " file or variable (~/.pgpass, PGPASSWORD)."
            )


def holds_password(uri: str) -> bool:
    """Whether an address contains a password: SCHEME://USER:PASSWORD@HOST, or a parameter ?password=..."""
    try:
        parts = urlsplit(uri)
        named = {name.lower() for name, _ in parse_qsl(parts.query)}
    except ValueError:
        return "@" in uri
    return bool(parts.password) or bool(named & {"password", "passwd", "pwd"})
