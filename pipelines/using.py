"""Using a trained network: its score on a test split, and its classes for pictures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say, table
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.run_folder import open_run_folder
from pipelines.placement import best_device

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EvaluationResult:
    """A trained network's score on a test split, in [0, 1], plain and with test-time averaging (None where not asked)."""

    score_name: str
    score: float
    score_averaged: float | None
    loss: float
    samples: int


def evaluate(
    *,
    run: str,
    data: str | None = None,
    average_copies: int = 0,
    align: bool = True,
    out: str | None = None,
    resume: bool = False,
    loading: LoadingConfig = LoadingConfig(),
) -> EvaluationResult:
    """Scores a trained network on the test split of its data set, or of another one with the same classes.

    Args:
        run: folder of `fieldshift train`, or of one trial of a comparison.
        data: data set; by default the one it was trained on.
        average_copies: augmented copies for test-time averaging; 0 leaves it out.
        align: fuse a segmenter's maps in the reference frame.
        out: folder for the result; by default runs/evaluate.
        resume: score again into a folder that holds this very evaluation.
        loading: how files are read; where nothing is given, as in training.
    """
    from fieldshift.training import evaluate_network, load_network, objective_for
    from pipelines.failure_cases import map_means, say_maps, write_failure_page, write_maps
    from pipelines.problem import load_data

    device = best_device()
    network, card = load_network(Path(run), device)
    if loading == LoadingConfig():
        loading = loading_of(Path(run)) if data is None else LoadingConfig(size=file_size(data, card.size))
    dataset = load_data(data or card.data, card.task, loading)
    if len(dataset.classes) != len(card.classes) or dataset.channels != card.channels:
        raise UserError(
            f"The network of {run} has {len(card.classes)} classes and reads {card.channels} channel(s), the data set "
            f"{data} has {len(dataset.classes)} and {dataset.channels}; give data with the same."
        )
    config = {
        "run": run,
        "data": data or card.data,
        "average_copies": average_copies,
        "align": align,
        "loading": loading,
    }
    folder = open_run_folder(out, "evaluate", config, resume=resume)
    objective = objective_for(card.task, len(card.classes), card.ignore_index)
    found = evaluate_network(
        network, dataset.test, plan=card.plan(), objective=objective, device=device, align=align, copies=average_copies,
        each_map=True,
    )  # fmt: skip
    result = EvaluationResult(objective.score_name, found.score, found.score_tta, found.loss, len(dataset.test))
    say(f"{result.score_name} {result.score:.2%} on {result.samples} test images of {data or card.data}")
    if result.score_averaged is not None:
        say(f"{result.score_name} with test-time averaging {result.score_averaged:.2%}")
    if found.maps:
        write_maps(folder.path, found.maps)
    page = write_failure_page(folder.path, Path(run), dataset, found.maps, score=found.score, align=align)
    say_maps(found.maps, page)
    folder.write_result({**asdict(result), **map_means(found.maps), "data": dataset.record()})
    say(f"  {folder.result_path}")
    return result


def predict(*, run: str, images: list[str] | None = None, top: int = 1, json: bool = False) -> list[dict[str, Any]]:
    """Prints the class and its probability for each picture.

    Args:
        run: folder of `fieldshift train`, or of one trial of a comparison.
        images: picture files; written without an option's name, after the options.
        top: how many classes to print for each picture, the likeliest first.
        json: print one JSON object a picture, its classes the likeliest first, instead of a table.
    """
    import torch

    from fieldshift.training import load_network

    device = best_device()
    network, card = load_network(Path(run), device)
    if card.task != "classification":
        raise UserError(f"{run} holds a network for {card.task}; predict names classes of whole pictures only.")
    if not 1 <= top <= len(card.classes):
        raise UserError(f"--top is {top}, but must be from 1 to the {len(card.classes)} classes.")
    if not images:
        raise UserError("There is no picture to predict; name one or more files after the options.")
    # Every file is read before the first prediction: a bad one stops the command before any work.
    pixels = [read_picture(Path(name), card.channels, card.size) for name in images]
    plan = card.plan()
    rows = []
    for name, picture in zip(images, pixels, strict=True):
        with torch.no_grad():
            logits = network.fuse(network(plan.evaluation_video(picture.unsqueeze(0).to(device))))
        likeliest = logits.softmax(-1)[0].topk(top)
        rows += [
            {"file": name, "class": card.classes[int(index)], "probability": float(value)}
            for value, index in zip(likeliest.values, likeliest.indices, strict=True)
        ]
    print_predictions(rows, top, as_json=json)
    return rows


predict.positional = "images"  # type: ignore[attr-defined]


def print_predictions(rows: list[dict[str, Any]], top: int, *, as_json: bool) -> None:
    if as_json:
        for start in range(0, len(rows), top):
            picture = rows[start : start + top]
            likeliest = [{"class": row["class"], "probability": row["probability"]} for row in picture]
            say(json.dumps({"file": picture[0]["file"], "classes": likeliest}))
        return
    from rich.table import Table

    shown = Table("file", "class", box=None, pad_edge=False)
    shown.add_column("probability", justify="right")
    for row in rows:
        shown.add_row(row["file"], row["class"], f"{row['probability']:.1%}")
    table(shown)


def read_picture(path: Path, channels: int, size: tuple[int, int]) -> Tensor:
    """A picture as uint8 (C, H, W), brought to the channels and size that the network was trained on."""
    from fieldshift.data import BadFileError
    from fieldshift.data.reading import Reader

    reader = Reader(size=size, channels=channels, pixel_limit=LoadingConfig().pixel_limit, fitting="crop", to_grey=True)
    try:
        return reader.image(path)
    except BadFileError as error:
        raise UserError(error.problem.line()) from None


def loading_of(run: Path) -> LoadingConfig:
    """How the data of a run were read, from the configuration in its folder or, for a trial, above it."""
    import yaml

    from pipelines.problem import loading_from_plain

    for folder in (run, *run.absolute().parents[:3]):
        file = folder / "config.yaml"
        if file.is_file():
            return loading_from_plain((yaml.safe_load(file.read_text()) or {}).get("loading") or {})
    return LoadingConfig()


def file_size(data: str, size: tuple[int, int]) -> tuple[int, int] | None:
    """The size that files are brought to for a network trained on `size`; arrays and built-in scenes have their own."""
    return (
        size
        if data.partition(":")[0] in {"folder", "voc", "imagenet", "tiny-imagenet", "voc2012", "cityscapes"}
        else None
    )
