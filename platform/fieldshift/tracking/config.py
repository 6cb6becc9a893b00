"""Where a run's parameters, metrics and figures are kept."""

from __future__ import annotations

from dataclasses import dataclass

from fieldshift.errors import UserError

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Whether runs are tracked with MLflow, and where.

    Attributes:
        enabled: Track runs; off, every tracking call does nothing.
        uri: MLflow store, such as http://HOST:5000 or sqlite:////path/mlflow.db; None keeps it in the run's own folder.
        experiment: Name of the MLflow experiment that the runs belong to.
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
                " leave it out to keep the store in the run's folder."
            )
