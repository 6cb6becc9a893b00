"""MLflow records of receptive fields: their numbers on the runs of networks, and the networks' scores on theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldshift.experiment.session import Session

_UNITS = {"px^2": "px2", "px²": "px2", "degrees": "deg", "%": "percent", "Gaussian": "gaussian"}


def field_key(name: str) -> str:
    """The key of the run of a map."""
    return f"receptive-field-{name}"


def field_metrics(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a field in MLflow: "effective, reference frame: sigma along, px" becomes field/sigma_along_px."""
    return {
        f"field/{slug(name)}": float(value)
        for name, value in numbers.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def slug(words: str) -> str:
    """A measure's name as MLflow takes it, with its unit at the end."""
    for said in ("effective, ", "effective: ", "reference frame: ", ", reference frame"):
        words = words.replace(said, "")
    for written, short in _UNITS.items():
        words = words.replace(written, f" {short} ")
    return "_".join("".join(letter if letter.isalnum() and letter.isascii() else " " for letter in words).split())


def record_on_trials(
    session: Session, sheet: Mapping[Any, Mapping[Any, Any]], rows: Iterable[Mapping[Any, Any]]
) -> None:
    """Records the field of a study's trained arm on the runs of its network and of its arm, and their scores on the map's run.

    sheet: the numbers of each map by the arm's name. rows: the comparison's; the first of an arm is the one that was looked
    at.
    """
    from fieldshift.experiment.training_runs import final_metrics
    from pipelines.summing import arm_key

    if not session.store.uri:
        return
    seen: dict[str, Mapping[Any, Any]] = {}
    readings: dict[str, list[str]] = {}
    for row in rows:
        seen.setdefault(row["arm"], row)
        readings.setdefault(row["arm"], []).append(row["reading"])
    compared = session.part("compare")
    for arm, numbers in sheet.items():
        if arm not in seen:
            continue
        keys = [Path(seen[arm]["folder"]).name, *(arm_key(arm, each) for each in dict.fromkeys(readings[arm]))]
        for key in keys:
            run = compared.known(key)
            run.log_metrics(field_metrics(numbers))
            run.close("FINISHED")
        scores = {name: value for name, value in final_metrics(seen[arm]).items() if name.startswith("accuracy/")}
        run = session.part("receptive-field").known(field_key(arm))
        run.log_params({"seed": str(seen[arm]["seed"])})
        run.log_metrics(scores)
        run.close("FINISHED")
