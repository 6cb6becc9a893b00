"""MLflow tracking: parameters, metrics, figures and tables of a run, logged from any number of processes."""

from fieldshift.tracking.config import TrackingConfig
from fieldshift.tracking.replay import replay
from fieldshift.tracking.run import Run
from fieldshift.tracking.server import serve, serving
from fieldshift.tracking.store import Store, open_store

__all__ = ["Run", "Store", "TrackingConfig", "open_store", "replay", "serve", "serving"]
