"""The saved views of a study on MLflow's pages: its arms, frame counts, receptive fields, searches and trials."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fieldshift.experiment.labels import score_metric
from fieldshift.tracking.store import RUN_TAG
from fieldshift.tracking.views import Chart, Section, View, bars, height_of_images, images, lines, parallel, points
from fieldshift.wording import counted

PAGES = ("arms", "frames", "fields", "search", "trials")
MOST_CANDIDATES = 12
MAPS = "field/map"


def page_key(mark: str, page: str) -> str:
    """The key of a page of the run with this mark; keys sort the pages, arms first."""
    return f"fieldshift-{mark}-{PAGES.index(page) + 1}-{page}"


def runs_of(mark: str, stage: str) -> str:
    """The filter of a run's parts of one stage."""
    return f"tags.`{RUN_TAG}` = '{mark}' and tags.`stage` = '{stage}'"


def columns(params: Sequence[str], metrics: Sequence[str]) -> list[str]:
    return [*(f"params.`{name}`" for name in params), *(f"metrics.`{name}`" for name in metrics)]


def arms_view(mark: str, reading: str, score_name: str, *, seeds: int, frames: int) -> View:
    """Accuracy by arm at one reading: means over the seeds, sorted, with the range and what they cost."""
    mean, low, high = (score_metric(kind, score_name) for kind in ("mean", "lowest_seed", "highest_seed"))
    interval = [score_metric(kind, score_name) for kind in ("interval_low", "interval_high")]
    return View(
        key=page_key(mark, "arms"),
        name=f"arms: {score_name} by arm",
        runs=f"{runs_of(mark, 'arm')} and tags.`reading` = '{reading}'",
        order=f"metrics.`{mean}`",
        columns=columns(("arm", "form", "T", "seeds"), (mean, *interval)),
        sections=(
            Section(
                name=f"{score_name} by arm, {reading}, T = {frames}, {counted(seeds, 'seed')}",
                columns=1,
                height=420,
                charts=(
                    bars(f"mean test {score_name}, percent", mean, runs=100),
                    bars("lowest seed, mean, highest seed, percent", low, mean, high, runs=100),
                ),
            ),
            Section(
                name="What it costs",
                columns=2,
                charts=(
                    points(f"{score_name} against operations", "cost/MFLOP_per_image", mean),
                    bars("MFLOP per image", "cost/MFLOP_per_image", runs=100),
                    bars("passes over the training images", "cost/epochs", runs=100),
                    bars("device seconds of training", "cost/device_s", runs=100),
                ),
            ),
            *folded("accuracy", "cost", "field"),
        ),
    )


def frames_view(mark: str, score_name: str) -> View:
    """Score and cost against the number of frames, or the step that it decides."""
    mean = score_metric("mean", score_name)
    against = [f"against T/{name}" for name in (mean.rpartition("/")[2], "MFLOP_per_image", "device_s")]
    return View(
        key=page_key(mark, "frames"),
        name=f"frames: {score_name} and cost against T",
        runs=runs_of(mark, "length"),
        order="attributes.`Created`",
        ascending=True,
        columns=columns(("arm", "form", "T", "reading", "seeds"), (mean, "cost/MFLOP_per_image", "cost/device_s")),
        sections=(
            Section(
                name="Against T (the axis's step is T)",
                columns=2,
                charts=(
                    lines(f"mean test {score_name} against T, percent", against[0]),
                    lines("MFLOP per image against T", against[1]),
                    lines("device seconds of training against T", against[2]),
                ),
            ),
            Section(
                name="By length",
                charts=(
                    bars(f"mean test {score_name}, percent", mean),
                    points(f"{score_name} against T", "cost/T", mean),
                ),
            ),
            *folded("accuracy", "against T", "cost"),
        ),
    )


def fields_view(mark: str, score_name: str, metrics: Collection[str], *, count: int) -> View:
    """The `count` receptive-field maps of a run side by side on one scale, and their numbers."""
    judged = score_metric("judged", score_name)
    wanted = (
        "field/sigma_along_px", "field/sigma_across_px", "field/anisotropy", "field/share_through_other_frames",
        "field/side_at_50_percent_px",
    )  # fmt: skip
    numbers = [name for name in wanted if name in metrics]
    return View(
        key=page_key(mark, "fields"),
        name="fields: receptive fields side by side",
        runs=runs_of(mark, "receptive-field"),
        order="attributes.`Created`",
        ascending=True,
        columns=columns(("arm", "form", "T"), (judged, *numbers)),
        table=False,  # each map and bar has its run's name, and the maps need the width
        sections=(
            Section(
                name="Effective fields on one scale",
                columns=1,
                height=height_of_images(count),
                charts=(images("effective field", MAPS),),
            ),
            Section(name="Their numbers", charts=[bars(name.removeprefix("field/"), name) for name in numbers]),
            Section(
                name="Field and score",
                charts=[
                    points(f"{score_name} against {name.removeprefix('field/')}", name, judged) for name in numbers[:2]
                ],
            ),
            *folded("accuracy", "field"),
        ),
    )


def search_view(mark: str, metrics: Collection[str]) -> View:
    """The searches: the mixture's weights over the passes, its entropy, and the harm of each removal.

    Where there are too many edges for a saved view, those after the third have no section of their own.
    """
    edges = sorted({name.split("/")[1] for name in metrics if name.startswith("alpha/")})
    sections: list[Section] = []
    for edge in edges:
        alphas, harms = (
            sorted(name for name in metrics if name.startswith(f"{kind}/{edge}/")) for kind in ("alpha", "harm")
        )
        charts: list[Chart] = []
        if len(harms) > 1:
            charts.append(parallel(f"harm of removing a candidate, {edge}", (), harms[:MOST_CANDIDATES]))
        charts += [lines(name.removeprefix("alpha/"), name) for name in alphas[:MOST_CANDIDATES]]
        sections.append(Section(name=f"Edge {edge}: harm when removed, and alpha by pass", columns=2, charts=charts))
    shown = ("search/entropy", "search/identity_share", "train/loss", "val/loss")
    general = [lines(name, name) for name in shown if name in metrics]
    margins = [
        bars(f"margin of the choice, {name.removeprefix('margin/')}", name)
        for name in sorted(metrics)
        if name.startswith("margin/")
    ]
    opened = (Section(name="The searches", columns=2, charts=(*general, *margins[:4])), *sections[:3])
    others = [f"{kind}/{edge}" for edge in edges for kind in ("alpha", "harm")]
    few = View(
        key=page_key(mark, "search"),
        name="search: alpha, entropy, harms",
        runs=runs_of(mark, "search"),
        order="tags.`mlflow.runName`",
        ascending=True,
        columns=columns(("form", "seed", "policy", "motions"), ("search/entropy",)),
        sections=(*opened, *folded("search", "train", "val", "margin")),
    )
    whole = replace(few, sections=(*opened, *folded("search", "train", "val", *others, "margin")))
    return whole if whole.fits else few


def trials_view(mark: str, score_name: str) -> View:
    """The table of all training runs of a comparison, the best first: the score and what differs; names have the budget."""
    judged = score_metric("judged", score_name)
    return View(
        key=page_key(mark, "trials"),
        name=f"trials: the table of runs, by {score_name}",
        runs=runs_of(mark, "compare"),
        order=f"metrics.`{judged}`",
        columns=columns(("arm", "form", "T", "seed"), (judged,)),
    )


def folded(*prefixes: str) -> tuple[Section, ...]:
    """Sections for the charts that MLflow adds for all other metrics; closed, below what the page is for."""
    return tuple(Section(name=prefix, folded=True) for prefix in prefixes)
