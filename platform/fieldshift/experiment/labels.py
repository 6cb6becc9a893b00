"""The labels of runs in MLflow, to find, filter and group them by: the same on every run, as parameters and as tags."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fieldshift.readings import EQUAL_COMPUTE, EQUAL_EPOCHS, READINGS, SEARCH_INCLUDED

if TYPE_CHECKING:
    from fieldshift.experiment.trial import Trial
    from fieldshift.folding import AnyPolicy
    from fieldshift.training import NetworkCard

BUDGET_LABELS = {EQUAL_EPOCHS: "equal_epochs", EQUAL_COMPUTE: "equal_compute", SEARCH_INCLUDED: "search_included"}
"""The label of each reading; a video's run belongs to several readings."""

DIGITS_OF_PERCENT = 5
"""Decimal places of a percentage that a float32 score has."""

Labels = dict[str, str]


def budgets(readings: Iterable[str]) -> Labels:
    """The labels that tell for each reading whether a run belongs to it."""
    held = set(readings)
    return {BUDGET_LABELS[reading]: str(reading in held).lower() for reading in READINGS}


def card_labels(card: NetworkCard) -> Labels:
    """The labels of a network: its arm, its input, and its motions.

    T is the number of frames of the motions; in the folded form, which reads one frame, it decides the step.
    """
    return {
        "arm": card.arm,
        "form": card.form,
        "T": str(card.policy_frames),
        "frames": str(card.frames),
        "network": card.network,
        "temporal": card.temporal,
        "data": card.data,
        "task": card.task,
        **policy_labels(card.motions),
    }


def policy_labels(policy: AnyPolicy | None) -> Labels:
    """The digest of a policy, and the space that it was found in where a search found it; "none" without one."""
    if policy is None:
        return {"policy": "none"}
    found: Mapping[str, Any] = getattr(policy, "found", None) or {}
    return {"policy": policy.digest(), **({"space": str(found["space"])} if "space" in found else {})}


def trial_labels(trial: Trial, readings: Iterable[str]) -> Labels:
    """The labels of one training run that is shown in these readings."""
    from fieldshift.training import NetworkCard

    return {
        **card_labels(NetworkCard.from_plain(trial.card)),
        "seed": str(trial.seed),
        "reading": trial.reading,
        "epochs": str(trial.recipe["epochs"]),
        **budgets(readings),
    }


def run_name(labels: Mapping[str, str]) -> str:
    """A run's name, which starts with what differs: "das T3 s0 equal-compute"."""
    is_search = labels["arm"] == "search"
    parts = [
        labels["arm"],
        labels["form"] if is_search else "",
        f"T{labels['T']}" if "T" in labels else "",
        f"s{labels['seed']}" if "seed" in labels else "",
    ]
    return " ".join([*filter(None, parts), labels.get("reading", "").replace(", ", "-").replace(" ", "-")]).strip()


def colour(labels: Mapping[str, str]) -> dict[str, str]:
    """The tag that gives runs their colour in MLflow's charts; no tag for other runs than those of arms and searches.

    All runs of an arm have one colour, those of joined arms a darker one; searches differ by their seed, folded ones are
    darker.
    """
    from fieldshift.training.arms import ARMS

    base, joined, _ = labels.get("arm", "").partition("+")
    if base == "search":
        place, is_dark = int(labels["seed"]), labels["form"] == "folded"
    elif base in ARMS:
        place, is_dark = list(ARMS).index(base), bool(joined)
    else:
        return {}
    hue = place * 0.618 % 1  # neighbours far apart
    shares = colorsys.hls_to_rgb(hue, 0.33 if is_dark else 0.5, 0.65)
    return {"mlflow.runColor": "#" + "".join(f"{round(255 * share):02x}" for share in shares)}


def sectioned(metrics: Mapping[str, float], section: str) -> dict[str, float]:
    """Metrics of which each has a section: one without gets `section`."""
    return {name if "/" in name else f"{section}/{name}": value for name, value in metrics.items()}


def score_metric(kind: str, score_name: str) -> str:
    """The name of a test score in MLflow, in percent; its section is that of accuracies, which is the first."""
    return f"accuracy/{kind}_percent" if score_name == "accuracy" else f"accuracy/{kind}_{score_name}_percent"


def in_percent(score: float) -> float:
    """A score of [0, 1], or a difference, in percent without the rounding error of a float32: 14.5 for 0.145."""
    return round(100 * float(score), DIGITS_OF_PERCENT)


def costs(row: Mapping[Any, Any]) -> dict[str, float]:
    """The costs of an arm, in the sections of MLflow's charts."""
    found = {
        "cost/MFLOP_per_image": row["flops"] / 1e6,
        "cost/parameters": row["parameters"],
        "cost/epochs": row["epochs"],
        "cost/training_s": row["seconds"],
        "cost/search_s": row.get("search_seconds"),
        "cost/device_s": row.get("device_seconds"),
    }
    return {name: float(value) for name, value in found.items() if value is not None and not math.isnan(value)}
