"""MLflow runs that summarise others: one per arm and reading over its seeds, one per number of frames, one per sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.experiment.labels import budgets, costs, in_percent, run_name, score_metric
from fieldshift.experiment.origin import NOTE_TAG, note_of
from fieldshift.experiment.session import Session
from fieldshift.readings import EQUAL_COMPUTE
from fieldshift.training import arm_named
from pipelines.pages import arms_view, frames_view, trials_view

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.comparison import Comparison

ARM, LENGTH = "arm", "length"


def arm_key(arm: str, reading: str) -> str:
    """The key of the run that sums up an arm."""
    return f"arm-{arm}-{reading}"


def record_arms(session: Session, rows: pd.DataFrame, summary: pd.DataFrame) -> None:
    """Records one run per arm and reading, with the report's numbers in percent: mean, interval and range over the seeds."""
    if not session.store.uri:
        return
    score_name = str(rows["score_name"].iloc[0])
    first = rows.drop_duplicates("arm").set_index("arm")
    for row in summary.to_dict("records"):
        arm, reading = str(row["arm"]), str(row["reading"])
        trial = first.loc[arm]
        labels = {
            "arm": arm,
            "form": str(trial["form"]),
            "T": str(trial["policy_frames"]),
            "frames": str(trial["frames"]),
            "reading": reading,
            "seeds": str(row["n"]),
            "epochs": f"{row['epochs']:g}",
            **({} if arm_named(arm).shift else {"temporal": "none"}),
            **budgets([reading]),
        }
        run = session.child(arm_key(arm, reading), labels, stage=ARM, name=f"{run_name(labels)} mean of {row['n']}")
        kind = "tta_" if row["judged"] == "averaged" else ""
        scores = {
            "mean": row["judged_mean"],
            "interval_low": row[f"{kind}low"],
            "interval_high": row[f"{kind}high"],
            "lowest_seed": min(row["judged_scores"]),
            "highest_seed": max(row["judged_scores"]),
        }
        run.log_metrics(
            finite({score_metric(name, score_name): in_percent(score) for name, score in scores.items()} | costs(row))
        )
        run.close("FINISHED")
    present = list(dict.fromkeys(summary["reading"]))
    reading = EQUAL_COMPUTE if EQUAL_COMPUTE in present else present[-1]
    shown = summary[summary["reading"] == reading]
    seeds, frames = int(shown["n"].max()), int(rows["policy_frames"].max())
    session.keep(arms_view(session.mark, reading, score_name, seeds=seeds, frames=frames))
    session.keep(trials_view(session.mark, score_name))


def record_study(session: Session, comparison: Comparison | None, files: Iterable[Path]) -> None:
    """Records a study's headline on its own run: the best arm and the methods with their differences, verdict and files."""
    if not session.store.uri:
        return
    for file in files:
        session.run.log_artifact(file)
    if comparison is None:
        return
    session.run.set_tags({NOTE_TAG: note_of(session.folder, comparison.verdict)})
    session.run.log_table(comparison.summary.drop(columns=["seeds", "scores", "judged_scores"]), "comparison")
    for reading, part in comparison.summary.groupby("reading", sort=False):
        short = str(reading).replace(", ", " ").replace(" ", "_")
        best = part.iloc[0]
        session.run.set_tags({f"best_arm.{short}": str(best["arm"])})
        numbers = {f"accuracy/{short}/best_percent": in_percent(best["judged_mean"])}
        for row in part[part["role"] == "das"].to_dict("records"):
            start = f"accuracy/{short}/{row['arm']}"
            numbers |= {f"{start}_percent": in_percent(row["judged_mean"])}
            for end in ("", "_low", "_high"):
                numbers[f"{start}_minus_best_2D{end}_points"] = in_percent(row[f"difference{end}"])
        session.run.log_metrics(finite(numbers))


def record_lengths(session: Session, rows: pd.DataFrame) -> None:
    """Records one run per number of frames, and one per sweep whose metrics have the number of frames as their step."""
    if not session.store.uri:
        return
    score_name = str(rows["score_name"].iloc[0])
    for arm, part in rows.groupby("arm", sort=False):
        form, counts = str(part["form"].iloc[0]), sorted({int(count) for count in part["frames"]})
        labels = {"arm": str(arm), "form": form, "reading": str(part["reading"].iloc[0])}
        labels |= budgets([labels["reading"]])
        line = session.child(f"sweep-{arm}", labels, stage=LENGTH, name=f"{run_name(labels)} against T")
        for count in counts:
            trials = part[part["frames"] == count]
            means: dict[str, Any] = {
                str(name): float(trials[name].astype(float).mean())
                for name in ("flops", "parameters", "epochs", "seconds", "device_seconds")
            }
            scores = [in_percent(score) for score in trials["score"].astype(float)]
            numbers = {
                score_metric("mean", score_name): sum(scores) / len(scores),
                score_metric("lowest_seed", score_name): min(scores),
                score_metric("highest_seed", score_name): max(scores),
                **costs(means),
            }
            own = {**labels, "T": str(count), "seeds": str(len(trials))}
            name = f"{run_name(own)} mean of {len(trials)}"
            run = session.child(f"length-{arm}-{count}", own, stage=LENGTH, name=name)
            run.log_metrics(finite({**numbers, "cost/T": count}))
            run.close("FINISHED")
            line.log_metrics(
                finite({f"against T/{name.rpartition('/')[2]}": value for name, value in numbers.items()}), count
            )
        line.close("FINISHED")
    session.keep(frames_view(session.mark, score_name))


def finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
