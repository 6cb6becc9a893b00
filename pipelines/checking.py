"""A user's own data: its contents and problems, and a study with settings that fit it."""

from __future__ import annotations

import json as plain_json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fieldshift.console import say
from fieldshift.data import DataReport, LoadingConfig
from fieldshift.data.names import check_data_name
from fieldshift.data.problems import ACCEPTABLE, MeaninglessDataError
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.dataset import load_data
from fieldshift.run_folder import check_writable
from fieldshift.tasks import check_task
from fieldshift.whole_file import write_whole
from fieldshift.wording import counted, yaml_line
from pipelines.study_plan import STUDY_ARMS, STUDY_FRAMES, STUDY_STEPS

if TYPE_CHECKING:
    from fieldshift.data import DataSet
    from fieldshift.tasks import Task
    from pipelines.suggesting import Suggestion

FEW_TESTS = 100
SUGGESTED_SEEDS = 3
FEW_ARMS = ["none", "das"]


def check(
    *,
    data: str,
    task: str | None = None,
    limit: int | None = None,
    json: bool = False,
    loading: LoadingConfig = LoadingConfig(),
) -> DataReport:
    """Inspects a data set: counts, sizes, class balance, unreadable files, samples in both train and test.

    Exits with status 1 where something has to be corrected.

    Args:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        limit: inspect only this number of samples, from the start of train and of test.
        json: print all findings as one JSON object.
        loading: settings of reading data.
    """
    check_task(task)
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}, but must be at least 1.")
    check_data_name(data, loading, loading.root)

    from fieldshift.data import inspect_data

    report = inspect_data(data, task=cast("Task | None", task), root=loading.root, limit=limit, loading=loading)
    if json:
        say(plain_json.dumps(report.to_dict()), whole=True)
        return report
    for line in report.lines():
        say(line)
    stopping = sorted({problem.kind for problem in report.problems} & set(ACCEPTABLE))
    if any(problem.kind not in ACCEPTABLE for problem in report.problems) and not loading.skip_unreadable:
        say("Training stops at such a file; repair it, or give --loading.skip_unreadable to skip it.")
    if stopping:
        say(
            f"Training stops at {', '.join(stopping)}; correct it, or give --loading.accept {' '.join(stopping)} to continue "
            "anyway."
        )
    return report


def init(
    *,
    data: str,
    task: str | None = None,
    network: str | None = None,
    out: str = "study.yaml",
    limit: int | None = None,
    force: bool = False,
    loading: LoadingConfig = LoadingConfig(),
) -> Path:
    """Inspects a data set and writes a commented study.yaml with settings that suit it and this machine.

    Args:
        data: data set: a name, or folder:PATH, npz:PATH, voc:PATH.
        task: classification or segmentation; by default the data set's own.
        network: network name; by default one that suits the images and this machine.
        out: the file to write.
        limit: inspect only this number of samples, from the start of train and of test.
        force: overwrite an existing file.
        loading: settings of reading data.
    """
    path = Path(out)
    if path.exists() and not force:
        raise UserError(f"--out {out} exists already; give another name, or --force to overwrite it.")
    if path.suffix not in {".yaml", ".yml"}:
        raise UserError(f"--out is '{out}', but settings are written as .yaml.")
    check_writable(path.absolute().parent, "a file elsewhere")
    if network is not None:
        Experiment(data=data, task=task, network=network, loading=loading).check_names()
    report = check(data=data, task=task, limit=limit, loading=loading)
    for problem in report.problems:
        if problem.kind in ACCEPTABLE:
            raise MeaninglessDataError(problem)

    from pipelines.estimating import Workload, roughly, training_speed
    from pipelines.suggesting import size_for, suggest, video_card

    skips = loading.skip_unreadable or any(problem.kind not in ACCEPTABLE for problem in report.problems)
    loading = replace(loading, skip_unreadable=skips)
    dataset = load_data(data, report.task, loading)
    if loading.size is None and dataset.from_files and size_for(dataset) != dataset.size:
        say(f"there is no GPU, so the scenes are resized to {' x '.join(map(str, size_for(dataset)))} pixels")
        loading = replace(loading, size=size_for(dataset))
        dataset = load_data(data, report.task, loading)
    chosen = suggest(dataset, network)
    speed = training_speed(dataset, video_card(dataset, chosen.network, chosen.frames), chosen.batch)
    text = study_yaml(data, report, dataset, loading, chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    if len(dataset.test) < FEW_TESTS:
        share = f": each one counts for {100 / len(dataset.test):.1f} percentage points"
        say(f"{len(dataset.test)} test images are few{share if dataset.task == 'classification' else ''}.")
    say()
    whole, short = (
        Workload(
            arms=arms, seeds=seeds, searches=seeds, frames=chosen.frames, epochs=chosen.epochs,
            search_epochs=chosen.search_epochs, counts={"video": STUDY_FRAMES, "folded": STUDY_STEPS},
            trials_at_once=chosen.trials_at_once,
        ).seconds(len(dataset.train), speed)
        for arms, seeds in ((STUDY_ARMS, SUGGESTED_SEEDS), (FEW_ARMS, 1))
    )  # fmt: skip
    rate = f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
    say(
        f"{chosen.network} trains at {rate} videos per second on this machine: this study takes about {roughly(whole)}; "
        f"with --arms {' '.join(FEW_ARMS)} --seeds 1 about {roughly(short)}."
    )
    say(f"The settings are in {path}. Check them, then run: fieldshift study --config {shlex.quote(str(path))}")
    return path


def study_yaml(data: str, report: DataReport, dataset: DataSet, loading: LoadingConfig, chosen: Suggestion) -> str:
    """The settings as commented YAML, with the reason for each."""
    from pipelines.suggesting import STEPS_A_PASS

    height, width = dataset.size
    channels = {1: "grey", 3: "RGB"}.get(dataset.channels, f"{dataset.channels}-channel")
    memory = f"a video takes about {chosen.an_image / 2**20:.1f} MiB of {chosen.free / 2**30:.1f} GiB that were free"
    few = len(dataset.train) // STEPS_A_PASS < 2 * chosen.batch
    why = f"so that few images make {STEPS_A_PASS} steps per pass" if few else memory
    problems = (
        f"{counted(len(report.problems), 'file')} cannot be used: `fieldshift check` names them"
        if report.problems
        else ""
    )
    lines = [
        f"# {report.name}: {len(dataset.train)} train and {len(dataset.test)} test samples, "
        f"{len(report.classes)} classes, {height} x {width} {channels}.",
        "# Run it: fieldshift study --config THIS_FILE. Options that follow --config on the command line override this file.",
        f"data: {yaml_line(data)}",
        f"task: {report.task}",
        "",
        f"network: {chosen.network}  # `fieldshift describe --network NAME` shows the cost of a network",
        f"temporal: {chosen.temporal}  # tsm adds no FLOPs; gsf learns what to shift",
        f"frames: {chosen.frames}  # as a video, an image costs this many times the 2D network; folded, the cost is the same",
        "space: affine-one  # which motions are searched; affine-cell and others are in search_spaces/",
        *(
            [
                "# On street scenes `form: folded` with `space: affine-stage` and `temporal: gsf` was best (docs/results.md)."
            ]
            if report.task == "segmentation"
            else []
        ),
        f"seeds: {SUGGESTED_SEEDS}  # every arm is trained this often; fewer make intervals wide",
        "",
        "recipe:",
        f"  epochs: {chosen.epochs}",
        f"  batch: {chosen.batch}  # {why}",
        "  flip: 0.0  # 0.5 for pictures that mean the same mirrored; wrong for letters, digits, left and right",
        f"  crop: {chosen.crop}  # random crop: shifts by up to this many pixels",
        f"  scale: {1.25 if report.task == 'segmentation' else 1.0}  # largest random scaling, both ways",
        "",
        "search:",
        f"  epochs: {chosen.search_epochs}  # one half of the training set teaches the network, the other the motions",
        f"  batch: {chosen.batch}",
        "",
        "loading:",
        *(
            [f"  size: [{height}, {width}]  # images are brought to this height and width"]
            if dataset.from_files
            else []
        ),
        *(f"  {name}: {yaml_line(value)}" for name, value in changed(loading).items()),
        f"  skip_unreadable: {'true' if loading.skip_unreadable else 'false'}{f'  # {problems}' if problems else ''}",
        "",
        "cluster:",
        f"  trials_at_once: {chosen.trials_at_once}  # searches or trainings side by side, each on one core, and a GPU if any",
    ]
    if report.duplicates:
        lines.insert(2, f"# {counted(len(report.duplicates), 'test sample')} also in train: scores would be too good.")
    return "\n".join(lines) + "\n"


def changed(loading: LoadingConfig) -> dict[str, object]:
    """The settings of reading that someone gave, apart from those that are written with a reason."""
    usual, given = asdict(LoadingConfig()), asdict(loading)
    return {
        name: value
        for name, value in given.items()
        if value != usual[name] and name not in {"size", "skip_unreadable", "download"}
    }
