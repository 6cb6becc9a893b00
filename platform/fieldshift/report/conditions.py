"""Conditions of a study: versions, machine, data, network, seeds and the commands to repeat it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fieldshift.report.blocks import Code, Definitions, Heading, KeyNumber, KeyNumbers, Points, Section
from fieldshift.report.claims import methods_of, outcomes
from fieldshift.report.tables import interval
from fieldshift.report.verdict import percent, points_of
from fieldshift.run_folder import code_commit, versions

PACKAGES = ("fieldshift", "torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "scipy", "pandas", "matplotlib")


def hardware() -> str:
    """The machine in one line: the GPUs visible to torch, the processor, and the cores available to this process."""
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    counted = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ", ".join([*(counted or ["no GPU"]), _processor(), f"{cores} CPU cores"])


def conditions_section(
    *,
    conditions: Mapping[str, str],
    commands: Sequence[str],
    cautions: Sequence[str],
) -> Section:
    """The section with the conditions of the numbers and their limitations.

    conditions are names with values in the given order (data, protocol, network, recipe, seeds, ...); commands repeat
    the study; cautions are whole sentences, those of `caveats` and others. Machine, commit and versions are
    those of this process.
    """
    found = {"python": platform.python_version(), **versions(*PACKAGES)}
    items = [
        *((name[:1].upper() + name[1:], value) for name, value in conditions.items()),
        ("Hardware", hardware()),
        *((("Commit", commit),) if (commit := code_commit()) else ()),
        ("Versions", ", ".join(f"{name} {version}" for name, version in found.items())),
    ]
    return Section(
        "Conditions and caveats",
        [
            Definitions(items),
            Heading("Commands to repeat the study"),
            Code("\n".join(commands)),
            Heading("Limitations"),
            Points(list(cautions)),
        ],
    )


def headline(summary: pd.DataFrame, score_name: str = "accuracy") -> KeyNumbers:
    """The headline numbers of the last reading (equal compute if it was run): methods, best baseline, differences."""
    reading = list(dict.fromkeys(summary["reading"]))[-1]
    part = summary[summary["reading"] == reading]
    rows = {str(row["arm"]): row for row in part.to_dict("records")}
    methods = methods_of(part)
    numbers = [_judged_number(rows[method], f"{method}, test {score_name}") for method in methods]
    for row in rows.values():
        if row["is_reference"]:
            averaged = ", test-time averaging" if row["judged"] == "averaged" else ""
            score = float(row["tta_mean" if averaged else "mean"])
            words = f"best 2D arm{averaged}, at {reading}"
            numbers.append(KeyNumber(f"{percent(score)} %", str(row["arm"]), words))
    for method in methods:
        found = outcomes(part, method)
        for duel in found[found["is_reference"]].to_dict("records"):
            span = interval(duel["low"], duel["high"], signed=True)
            sure = f"95 % interval {span}: {method} {duel['outcome']}" if span != "-" else "no interval"
            numbers.append(KeyNumber(points_of(duel["difference"]), f"points, {method}, paired difference", sure))
    for method in methods:
        spent = _time(3600 * float(rows[method]["device_hours"]))
        numbers.append(KeyNumber(spent, "device time of one run", f"{method}, training and search"))
    return KeyNumbers(numbers)


def _judged_number(row: Mapping[Any, Any], label: str) -> KeyNumber:
    kind = "tta_" if row["judged"] == "averaged" else ""
    span = interval(float(row[f"{kind}low"]), float(row[f"{kind}high"]))
    sure = f"95 % interval {span}, {int(row['n'])} seeds" if span != "-" else "1 run, no interval"
    return KeyNumber(f"{percent(float(row[f'{kind}mean']))} %", label, f"{sure}{', averaged' if kind else ''}")


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
