"""Workers, trials and jobs on a Ray cluster, or in this process: callables and plain values in, plain values out."""

from fieldshift.cluster.config import ClusterConfig
from fieldshift.cluster.connect import check_fits, connect, has_ray
from fieldshift.cluster.context import RunStoppedError, WorkerContext
from fieldshift.cluster.jobs import JobOutcome, submit
from fieldshift.cluster.train import WorkerFailedError, run_workers
from fieldshift.cluster.trials import TrialResult
from fieldshift.cluster.tune import run_trials
from fieldshift.cluster.tuning import Tuning, tune_trials

__all__ = [
    "ClusterConfig",
    "JobOutcome",
    "RunStoppedError",
    "TrialResult",
    "Tuning",
    "WorkerContext",
    "WorkerFailedError",
    "check_fits",
    "connect",
    "has_ray",
    "run_trials",
    "run_workers",
    "submit",
    "tune_trials",
]
