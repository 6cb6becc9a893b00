"""Trial results, their files on disk, and the execution of trials in this process."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fieldshift.cluster.context import Metrics, RunStoppedError
from fieldshift.cluster.reports import failure_text
from fieldshift.cluster.train import WorkerFunction, run_here
from fieldshift.errors import UserError
from fieldshift.run_folder import is_implied, moved_path
from fieldshift.seals import SealError, values_digest
from fieldshift.whole_file import write_whole

Trial = dict[str, Any]
OnTrialReport = Callable[[Trial, Metrics], object]

LATER = frozenset({"data"})  # not recorded by older versions
FOLDER = "folder"
"""Where a trial writes: the one entry that is no setting."""
_KEY = re.compile(r"[A-Za-z0-9._=+-]{1,120}")


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The result of one trial.

    Attributes:
        trial: The trial, with its "key".
        value: The function's return value; None after an error, or when the trial was stopped early.
        error: The error as one line, or None.
        seconds: Wall-clock time of the trial itself, without starting its process (including it when the trial ended early).
        metrics: Its last report.
        stopped: Whether a scheduler ended the trial early.
        kept: Whether it was read from an earlier run instead of run again.
        folders: The folders of the run that it left in the storage of the cluster.
    """

    trial: Trial
    value: dict[str, Any] | None
    error: str | None
    seconds: float
    metrics: Metrics = field(default_factory=dict)
    stopped: bool = False
    kept: bool = False
    folders: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return str(self.trial["key"])

    def at(self, trial: Mapping[str, Any]) -> TrialResult:
        """This result with its paths in the folder of `trial`, since that of the run may have been moved."""
        before, now = (each.get(FOLDER) for each in (self.trial, trial))
        if before is None or now is None:
            return self
        places = Path(before).parent, Path(now).parent  # of all trials, as a sample's folder has a longer name
        value = None if self.value is None else {name: moved_path(each, *places) for name, each in self.value.items()}
        return replace(self, trial={**self.trial, FOLDER: now}, value=value)


OnDone = Callable[[TrialResult], None]


def checked_keys(trials: Sequence[Trial]) -> list[str]:
    """The trials' keys; raises ValueError when one is missing, occurs twice, or cannot name a file."""
    keys = [str(trial.get("key", "")) for trial in trials]
    for key in keys:
        if not _KEY.fullmatch(key):
            raise ValueError(f"A trial's key is '{key}', but must be 1 to 120 letters, digits, dots, - _ + or =.")
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"Keys of trials must be unique, but these occur more than once: {', '.join(twice)}.")
    return keys


SEAL = "sha256"


class TrialFolder:
    """The values of finished trials, one JSON file per trial, each written atomically."""

    def __init__(self, storage: Path) -> None:
        self.path = storage.resolve() / "trials"
        self.path.mkdir(parents=True, exist_ok=True)

    def keep(self, result: TrialResult) -> None:
        """Writes the result of a trial; a failed trial leaves no file and is run again."""
        if result.error is not None:
            return
        record = {
            "trial": result.trial,
            "value": result.value,
            "seconds": result.seconds,
            "metrics": result.metrics,
            "stopped": result.stopped,
        }
        record = json.loads(json.dumps(record))
        write_whole(self._file(result.key), json.dumps({**record, SEAL: values_digest(record)}, indent=1))

    def kept(self, trial: Trial, any_configuration: bool = False) -> TrialResult | None:
        """The result of the trial from an earlier run, or None.

        Raises:
            UserError: The file under the trial's key belongs to another configuration, or cannot be read.
        """
        source = self._file(str(trial["key"]))
        if not source.is_file():
            return None
        try:
            record = json.loads(source.read_text())
            if record.pop(SEAL, None) not in (None, values_digest(record)):
                raise SealError("its content differs from what was written")
            result = TrialResult(error=None, kept=True, **record)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{source} is not a finished trial ({error}); delete it to run the trial again.") from error
        if any_configuration:
            return result
        result = result.at(trial)
        if not agrees(result.trial, json.loads(json.dumps(trial))):
            raise UserError(
                f"{source} belongs to another configuration; give another --out, or leave out --resume to start again."
            )
        return result

    def all(self) -> list[TrialResult]:
        """All trials that an earlier run finished, by key."""
        return [
            result
            for source in sorted(self.path.glob("*.json"))
            if (result := self.kept({"key": source.stem}, any_configuration=True)) is not None
        ]

    def forget(self, trial: Trial) -> None:
        """Removes the earlier result under the trial's key."""
        self._file(str(trial["key"])).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.path / f"{key}.json"


def agrees(recorded: Trial, asked: Trial) -> bool:
    """Whether a stored trial matches the requested one; values not recorded by older versions match as `is_implied`."""
    known = {
        name: value
        for name, value in asked.items()
        if name in recorded or not (name in LATER or is_implied(name, value))
    }
    return known.keys() == recorded.keys() and all(
        agrees(recorded[name], value)
        if isinstance(value, dict) and isinstance(recorded[name], dict)
        else recorded[name] == value
        for name, value in known.items()
    )


def split_kept(
    trials: Sequence[Trial], folder: TrialFolder, resume: bool
) -> tuple[dict[str, TrialResult], list[Trial]]:
    """The trials finished by an earlier run, by key, and those still to run; without `resume` all are to run."""
    finished: dict[str, TrialResult] = {}
    missing: list[Trial] = []
    for trial in trials:
        earlier = folder.kept(trial) if resume else None
        if earlier is not None and earlier.value is not None:
            finished[earlier.key] = earlier
        else:
            folder.forget(trial)
            missing.append(trial)
    return finished, missing


def run_trial_here(
    function: WorkerFunction, trial: Trial, *, device: str, on_report: Callable[[Trial, Metrics], bool]
) -> TrialResult:
    """Runs one trial in this process; its error is recorded, Ctrl-C is not. `on_report` returns whether it should stop."""
    last: Metrics = {}

    def forward(metrics: Metrics) -> bool:
        last.clear()
        last.update(metrics)
        return on_report(trial, metrics)

    start = time.monotonic()
    value: dict[str, Any] | None = None
    error: str | None = None
    try:
        value = run_here(function, trial, device=device, on_report=forward)
    except RunStoppedError:
        pass
    except Exception as failure:
        error = failure_text(failure)
    return TrialResult(
        trial=trial,
        value=value,
        error=error,
        seconds=time.monotonic() - start,
        metrics=last,
        stopped=value is None and error is None,
    )
