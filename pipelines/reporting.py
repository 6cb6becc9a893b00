"""A study's report: one self-contained page with its tables, figures, conditions and caveats."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.experiment.dataset import constant_notes
from fieldshift.experiment.origin import command_of
from fieldshift.motions.policy_file import search_settings
from fieldshift.report import (
    Code,
    FigureBlock,
    Heading,
    Paragraph,
    Points,
    Section,
    Sheet,
    TableBlock,
    accuracy_bars,
    caveats,
    comparison_sheets,
    conditions_section,
    cost_sheets,
    decision_chart,
    field_sheet,
    frame_curve,
    frame_strip,
    headline,
    policy_graph,
    policy_sheet,
    search_history,
    sweep_sheet,
    write_report,
)
from fieldshift.report.blocks import Block
from fieldshift.report.claims import methods_of
from fieldshift.report.costs import DEVICE, WALL
from fieldshift.report.tables import SECONDS
from fieldshift.search import SearchConfig
from fieldshift.training.frames import as_floats
from fieldshift.training.recipe import Recipe
from fieldshift.wording import counted
from pipelines.builtin_data import notes_on
from pipelines.comparison import best_scores
from pipelines.fields import NARROW

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.data import DataSet
    from fieldshift.experiment.search_trial import SearchResult
    from fieldshift.experiment.session import Session
    from fieldshift.forms import Form
    from pipelines.comparison import Comparison
    from pipelines.fields import FieldResult
    from pipelines.study_plan import PreparedStudy
    from pipelines.studying import StudyResult
    from pipelines.sweeping import FrameSweep

EXAMPLES = 4


def write_study_report(session: Session, study: PreparedStudy, found: StudyResult) -> Path:
    """Writes report.html into the study's folder; stages that were not run are omitted."""
    experiment, dataset = study.experiment, study.dataset
    comparison, sweep, fields = found.comparison, found.frames, found.fields
    seeds, recipe = study.plan.comparison.seeds, study.plan.comparison.recipe
    network = f"{experiment.data}, {experiment.network} + {experiment.temporal}"
    where = f"{network}, T = {experiment.frames}"
    score = "accuracy" if dataset.task == "classification" else "mIoU"
    sections = [policy_section(dataset, found.firsts, found.searches, where)]
    if comparison is not None:
        sections.insert(0, comparison_section(comparison, score, where, len(seeds), notes_on(experiment.data)))
    if sweep is not None:
        sections.append(sweep_section(sweep, score, network, notes_on(experiment.data)))
    if fields is not None:
        trained = {} if comparison is None else comparison.trained
        sections.append(fields_section(fields, trained, where, network))
    sections.append(
        conditions_section(
            conditions={
                "data": f"{experiment.data} (digest {dataset.digest}): {len(dataset.train):,} training and "
                f"{len(dataset.test):,} test images, {dataset.size[0]} x {dataset.size[1]} px",
                "protocol": dataset.protocol,
                "network": f"{experiment.network}, temporal module {experiment.temporal}, "
                f"{counted(experiment.frames, 'frame')}",
                "recipe": recipe_words(recipe),
                "search": search_words(study.plan.search),
                "seeds": ", ".join(str(seed) for seed in seeds),
            },
            commands=[command_of(session.folder)],
            cautions=[
                *([] if comparison is None else caveats(comparison.summary, comparison.claims)),
                *notes_on(experiment.data),
                *(f"Found in the data: {line}." for line in dataset.findings),
                *(
                    []
                    if comparison is None
                    else constant_notes(dataset.most_frequent(), best_scores(comparison.summary))
                ),
                *failures(comparison, sweep),
            ],
        )
    )
    return write_report(session.path / "report.html", title="FieldShift study", subtitle=where, sections=sections)


def recipe_words(recipe: Recipe) -> str:
    """The settings of a training: the usual ones, and all others that differ from their defaults."""
    usual = {"epochs", "batch", "optimizer", "learning_rate", "schedule", "weight_decay"}
    first = (
        f"{recipe.epochs} epochs, batch {recipe.batch}, {recipe.optimizer} at {recipe.learning_rate:g}, {recipe.schedule}, "
        f"weight decay {recipe.weight_decay:g}"
    )
    return ", ".join([first, *changed(recipe, Recipe(), usual)])


def search_words(search: SearchConfig) -> str:
    """The settings of the searches: the usual ones, and all others that differ from their defaults."""
    first = f"{search.epochs} passes, batch {search.batch}, {search.order} order, {search.selection} selection"
    return ", ".join([first, *changed(search, SearchConfig(), {"epochs", "batch", "order", "selection"})])


def changed(settings: Recipe | SearchConfig, default: Recipe | SearchConfig, told: set[str]) -> list[str]:
    """The settings that differ from the default in words, without those told already."""
    usual = asdict(default)
    return [
        f"{name.replace('_', ' ')} {value:g}" if type(value) is float else f"{name.replace('_', ' ')} {value}".lower()
        for name, value in asdict(settings).items()
        if name not in told and value != usual[name]
    ]


def failures(*parts: Comparison | FrameSweep | None) -> list[str]:
    """A line for each trial that failed."""
    return [f"{key} failed: {why}" for part in parts if part is not None for key, why in part.failed.items()]


def comparison_section(comparison: Comparison, score: str, where: str, seeds: int, notes: list[str]) -> Section:
    sheets, methods = comparison_sheets(comparison.summary, score, notes), methods_of(comparison.summary)
    caption = "The answers; the end of this section gives the numbers."
    answered = [TableBlock(comparison.answers, caption=caption)] if comparison.answers.rows else []
    return Section(
        "Does it help?",
        [
            *answered,
            headline(comparison.summary, score),
            FigureBlock(
                accuracy_bars(comparison.summary, score_name=score),
                narrow=accuracy_bars(comparison.summary, score_name=score, narrow=True),
                caption=f"Test {score} of every arm: "
                + (f"mean over {seeds} seeds, 95 % interval (t), dots are seeds" if seeds > 1 else "one seed")
                + f". {where}.",
                alt=f"Bars of test {score} for every arm, a panel for every reading.",
            ),
            *(TableBlock(sheet, caption=f"{sheet.title}. {where}.", strong=methods) for sheet in sheets),
            *(
                TableBlock(sheet, caption=f"{sheet.title}.", strong=methods)
                for sheet in cost_sheets(comparison.summary)
            ),
            Heading("The answers with their numbers"),
            Paragraph(comparison.verdict),
        ],
    )


def policy_section(
    dataset: DataSet, found: dict[Form, SearchResult], searches: dict[tuple[Form, int], SearchResult], where: str
) -> Section:
    blocks: list[Block] = [
        Paragraph("The searches read only the training set, never the test set."),
        TableBlock(searches_sheet(searches), caption=f"Every search and its policy. {where}."),
    ]
    for form, result in found.items():
        seed = next(seed for each, seed in searches if each == form)
        blocks += [Heading(f"{form.capitalize()} form, seed {seed}"), *policy_blocks(dataset, result, where)]
    return Section("What was found", blocks)


def policy_blocks(dataset: DataSet, found: SearchResult, where: str) -> list[Block]:
    """One search: its policy in words and pictures, its history and its decisions."""
    import torch

    from fieldshift.motions import Policy

    blocks: list[Block] = [TableBlock(policy_sheet(found.policy), caption="The policy, edge by edge.")]
    if isinstance(found.policy, Policy):
        pictures, targets = dataset.train.gather(torch.arange(min(EXAMPLES, len(dataset.train))))
        named = dataset.task == "classification"
        labels = [f"class {dataset.classes[int(target)]}" for target in targets] if named else None
        blocks += [
            FigureBlock(
                policy_graph(found.policy),
                narrow=policy_graph(found.policy, narrow=True),
                caption="The policy as a graph: inputs are the image itself, a node is the mean of its incoming edges.",
                alt="Graph of the searched policy with a motion on every edge.",
            ),
            FigureBlock(
                frame_strip(found.policy, as_floats(pictures), labels),
                narrow=frame_strip(found.policy, as_floats(pictures), labels, narrow=True),
                caption="Training images as videos under the policy; hatched: outside of the moved image.",
                alt="Rows of frames: each image moved by the policy.",
            ),
        ]
    blocks.append(
        FigureBlock(
            search_history(records_of(found.history)),
            narrow=search_history(records_of(found.history), narrow=True),
            caption=f"The search: weights of the operations, entropy, losses. {where}.",
            alt="Curves of the search over its passes.",
        )
    )
    if found.decisions:
        settings = search_settings(found.policy.found)
        criterion = settings.get("criterion") if settings.get("selection") == "perturbation" else None
        blocks.append(
            FigureBlock(
                decision_chart(found.decisions, criterion=criterion),
                narrow=decision_chart(found.decisions, criterion=criterion, narrow=True),
                caption="Every decision of the selection: the cost of removing each candidate; the costliest one is kept. A "
                "decision may be chance where its margin is at most two standard errors.",
                alt="For each decision, a bar for every candidate.",
            )
        )
    return blocks


def searches_sheet(searches: dict[tuple[Form, int], SearchResult]) -> Sheet:
    """Every search with its form, seed, seconds on the device's clock and policy in words."""
    rows = tuple(
        (
            form,
            str(seed),
            f"{result.seconds if math.isnan(result.device_seconds) else result.device_seconds:.0f}",
            "; ".join(result.policy.describe()) or "no motion",
        )
        for (form, seed), result in searches.items()
    )
    unknown = any(math.isnan(result.device_seconds) for result in searches.values())
    columns = ("form", "seed", "seconds", "policy")
    align = ("left", "right", "right", "left")
    return Sheet(
        title="Searches", columns=columns, rows=rows, align=align, notes=(SECONDS[WALL if unknown else DEVICE],)
    )


def sweep_section(sweep: FrameSweep, score: str, where: str, notes: list[str]) -> Section:
    several = (
        "Mean over seeds with its 95 % interval (t); small dots are seeds. " if sweep.rows["seed"].nunique() > 1 else ""
    )
    return Section(
        "How many frames?",
        [
            Paragraph(
                "Magnitudes are those of the farthest frame, whatever T. das reads T frames; das-folded reads one, and T "
                "decides the step between neighbouring frames, magnitude / (T // 2)."
            ),
            FigureBlock(
                frame_curve(sweep.rows, score_name=score),
                narrow=frame_curve(sweep.rows, score_name=score, narrow=True),
                caption=f"Test {score} and the device's training seconds against the number of frames. {several}{where}.",
                alt=f"Curve of test {score} against the number of frames.",
            ),
            TableBlock(sweep_sheet(sweep.rows, score, notes), caption=f"The frame sweep. {where}."),
        ],
    )


def fields_section(fields: FieldResult, trained: Mapping[str, Path], where: str, network: str) -> Section:
    from fieldshift.run_folder import read_result

    assert fields.folder is not None
    result = read_result(fields.folder)
    notes = list(result["notes"])
    against = fields.figures.get("against-frames.png")
    averaged = fields.figures.get("all-frames.png")
    fused = (
        []
        if averaged is None
        else [
            FigureBlock(
                averaged,
                narrow=narrow_of(averaged),
                caption="The same units averaged over all frames, as in fusion: the union of the frames' fields is wide, with "
                "or without a temporal module.",
                alt="Maps of the mean absolute gradient of the mean over frames for every network.",
            )
        ]
    )
    sweep = (
        []
        if against is None
        else [
            FigureBlock(
                against,
                narrow=narrow_of(against),
                caption="Spread and area of the effective field of the reference frame's unit, and the share of the gradient "
                "that arrives through other frames, against the number of frames: one network per T, of the first arm of the "
                f"frame sweep. {network}.",
                alt="Curves of the field's spread, area and share through other frames against the number of frames.",
            )
        ]
    )
    return Section(
        "What does the network see?",
        [
            FigureBlock(
                fields.figures["png"],
                narrow=narrow_of(fields.figures["png"]),
                caption="Effective receptive fields of the reference frame's unit on a common scale: one network per arm, of "
                f"the comparison's first reading and seed; {'; '.join(notes)}.",
                alt="Maps of the mean absolute gradient for every network, with radial profiles.",
            ),
            *fused,
            *sweep,
            TableBlock(
                field_sheet(result["sheet"], notes=notes),
                caption=f"Receptive fields of the last feature map, by theory, reshaped and effective. {where}.",
            ),
            Points(
                [
                    "The theoretical side is that of the plain network. The reshaped areas are measured on the original "
                    "image. The area of the reference frame is what its unit sees through the frames that it reaches in "
                    "time; the area of all frames is the union over all frames, on which the fused output depends. In the "
                    "folded form both are the union over all combinations of moved and unmoved channels at every place.",
                    "An effective field is the mean absolute gradient of the centre unit, mapped back through the motions: of "
                    "the reference frame's unit, which shows the information that the network combines, and of the mean over "
                    "all frames, which is wide even without a temporal module.",
                    "The share through other frames is the part of the gradient's mass that reaches the reference frame's "
                    "unit from other frames, in folded form through moved channels: 0 for a 2D network and for frames that "
                    "never meet.",
                ]
            ),
            *([Code(again)] if (again := compare_command(fields, trained)) else []),
        ],
    )


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain dicts with text keys."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def narrow_of(figure: Path) -> Path | None:
    """The version of a figure for narrow screens; None in folders of earlier versions."""
    found = figure.with_name(f"{figure.stem}{NARROW}.png")
    return found if found.exists() else None


def compare_command(fields: FieldResult, trained: Mapping[str, Path]) -> str:
    """The command that compares the networks of these fields again, on a line for each; "" without trained networks."""
    folders = [trained[name] for name in fields.table["network"] if name in trained]
    if not folders:
        return ""
    return " \\\n  ".join(["fieldshift compare-fields --runs", *(shlex.quote(str(folder)) for folder in folders)])
