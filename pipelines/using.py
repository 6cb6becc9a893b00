"""Use of a trained network: its score on a test split, and its classes for images."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import progress, say, table
from fieldshift.data import LoadingConfig, LoadingOverrides
from fieldshift.errors import UserError
from fieldshift.experiment.alignment import check_run_alignment
from fieldshift.experiment.placement import best_device
from fieldshift.forms import Form
from fieldshift.run_folder import check_folder, held_run_folder
from fieldshift.wording import is_or_are
from pipelines.options import check_copies, check_data_of, check_run
from pipelines.pictures import picture_batches, picture_files, readable_pictures
from pipelines.segmenting import check_masks, print_masks, write_masks

if TYPE_CHECKING:
    from torch import Tensor

    from fieldshift.data.files.reading import Reader
    from fieldshift.networks import VideoNetwork
    from fieldshift.training import FramePlan


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
    form: Form | None = None,
    data: str | None = None,
    tta_copies: int = 0,
    align: bool | None = None,
    out: str | None = None,
    resume: bool = False,
    loading: LoadingOverrides = LoadingOverrides(),
) -> EvaluationResult:
    """Scores a trained network on the test split of its data set, or of another one with the same classes.

    Args:
        run: folder of `fieldshift train`, or of one trial of a comparison.
        form: the form that the run's network must have (video or folded), else an error; by default any.
        data: data set; by default the one it was trained on.
        tta_copies: augmented copies for test-time augmentation (TTA) of an arm with a 2D augmentation; 0 turns it off.
        align: fuse a segmenter's maps in the reference frame; by default as in the run's training.
        out: folder for the result; by default runs/evaluate.
        resume: score again into a folder that holds the same evaluation.
        loading: loading options that differ from training.
    """
    described = check_run(run, form)
    check_copies(tta_copies)
    check_data_of(run, described["data"], data, loading)
    check_folder(out, "evaluate", {"run": run}, resume)

    from fieldshift.experiment.cards import note_no_maps, note_one_view
    from fieldshift.experiment.dataset import constant_notes, say_reading
    from fieldshift.training import evaluate_network, load_network, objective_for, scored_at_once
    from fieldshift.training.map_table import map_means, write_maps
    from pipelines.failure_cases import say_maps, write_failure_page
    from pipelines.run_data import align_of, load_as_in_run

    device = best_device()
    network, card = load_network(Path(run), device)
    aligned = align_of(Path(run), align)
    check_run_alignment(card, align=aligned)
    found_data = load_as_in_run(Path(run), card, loading, data)
    dataset = found_data.dataset
    say_reading(dataset)
    config = {
        "run": run,
        "data": data or card.data,
        "average_copies": tta_copies,
        "align": aligned,
        "loading": found_data.loading,
    }
    with held_run_folder(out, "evaluate", config, resume=resume) as folder:
        for line in found_data.notes:
            say(line)
        note_one_view(card, tta_copies)
        note_no_maps(card, align)
        objective = objective_for(card.task, len(card.classes), card.ignore_index)
        with progress("scoring", len(dataset.test)) as bar:
            found = evaluate_network(
                network,
                dataset.test,
                plan=card.plan(),
                objective=objective,
                batch=scored_at_once(card.frames, dataset.size, mapped=card.mapped),
                device=device,
                align=aligned,
                copies=tta_copies,
                each_map=True,
                scored=bar.advance,
            )
        result = EvaluationResult(objective.score_name, found.score, found.score_tta, found.loss, len(dataset.test))
        say(f"{result.score_name} {result.score:.2%} on {result.samples} test images of {data or card.data}")
        if result.score_averaged is not None:
            say(f"{result.score_name} with test-time averaging {result.score_averaged:.2%}")
        for note in constant_notes(dataset.most_frequent(), {"this network": result.score}):
            say(f"note: {note}")
        if found.maps:
            write_maps(folder.path, found.maps, dataset.test)
        folder.write_result(
            {**asdict(result), **map_means(found.maps), "data": {**dataset.record(), "notes": found_data.notes}}
        )
        page = write_failure_page(folder.path, Path(run), dataset, found.maps, score=found.score, align=aligned)
        say_maps(found.maps, page)
        say(f"  {folder.result_path}")
        return result


def predict(
    *,
    run: str,
    form: Form | None = None,
    images: list[str] | None = None,
    top: int = 1,
    tta_copies: int = 0,
    json: bool = False,
    out: str | None = None,
) -> list[dict[str, Any]]:
    """Prints the class of each image and its probability; of a segmenter, writes the mask of each image.

    Args:
        run: folder of `fieldshift train`, or of one trial of a comparison.
        form: the form that the run's network must have (video or folded), else an error; by default any.
        images: image files, or folders of them, written after the options without an option's name.
        top: number of classes to print for each image, the most likely first.
        tta_copies: augmented copies for test-time augmentation (TTA) of an arm with a 2D augmentation; 0 turns it off.
        json: print one JSON object per image, its classes sorted by probability, instead of a table; with trained_on where the
            run records its training images. Of a segmenter: the mask's file, and the share of each class.
        out: new folder for the masks of a segmenter: PNG files of class numbers, in the size of their images.
    """
    described = check_run(run, form)
    check_copies(tta_copies)
    check_masks(run, described["task"], out, top, tta_copies)
    if not 1 <= top <= len(described["classes"]):
        raise UserError(f"--top is {top}, but must be from 1 to the {len(described['classes'])} classes.")
    if not images:
        raise UserError("There is no image to predict; name files, or folders of them, after the options.")
    files = picture_files(images)

    import torch

    from fieldshift.data.files.content import content_hash
    from fieldshift.experiment.cards import note_one_view
    from fieldshift.experiment.data_record import read_record
    from fieldshift.training import load_network, scored_at_once
    from pipelines.run_data import align_of, loading_of

    device = best_device()
    network, card = load_network(Path(run), device)
    # Every file is read before the first prediction: a bad one stops the command before any work.
    read = loading_of(Path(run)) or LoadingConfig()
    reader = card.reader(read.pixel_limit)
    batch = scored_at_once(card.frames, card.size, mapped=card.mapped)
    pictures = readable_pictures(files, reader, read, batch, shown=not json)
    if out is not None:
        masked = write_masks(
            network,
            card,
            pictures,
            Path(out),
            batch=batch,
            align=align_of(Path(run), None),
            device=device,
            shown=not json,
        )
        print_masks(masked, as_json=json)
        return masked
    record = read_record(Path(run))
    learned = None
    if record is not None and record.identity is not None:
        learned = record.identity.trained_on(content_hash(name) for name in files)
    if not json:
        note_one_view(card, tta_copies)
    plan = card.plan()
    rows: list[dict[str, Any]] = []
    for pixels in picture_batches(pictures, batch, "predicting", shown=not json, device=device):
        with torch.no_grad():
            logits = averaged_logits(network, plan, pixels, tta_copies)
        likeliest = logits.softmax(-1).topk(top)
        found: list[dict[str, Any]] = []
        for values, indices in zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True):
            place = (len(rows) + len(found)) // top
            found += [
                {"file": files[place], "class": card.classes[index], "probability": value}
                | ({} if learned is None else {"trained_on": learned[place]})
                for value, index in zip(values, indices, strict=True)
            ]
        rows += found
        if json:
            print_lines(found, top)
    if json:
        return rows
    print_predictions(rows, top)
    if changed := conversions(reader, files):
        say(f"Images are {changed}.")
    return rows


predict.positional = "images"  # type: ignore[attr-defined]


def averaged_logits(network: VideoNetwork, plan: FramePlan, pixels: Tensor, copies: int) -> Tensor:
    """The logits of pictures (B, C, H, W), averaged over their views; a picture's own do not depend on the others."""
    import torch

    if plan.views_for(copies) == 1:
        return network.fuse(network(plan.evaluation_video(pixels)))
    of_pictures = [plan.views(picture[None], copies) for picture in pixels]
    views = [torch.cat(same) for same in zip(*of_pictures, strict=True)]
    return torch.stack([network.fuse(network(video)) for video in views]).mean(0)


def conversions(reader: Reader, files: list[str]) -> str:
    """The changes to images of another size or in colour, in words; empty where none is changed."""
    from fieldshift.data.files.reading import open_image

    height, width = reader.size
    sizes, bands = set(), set()
    for name in files:
        with open_image(name, reader.pixel_limit) as picture:
            sizes.add(picture.size)
            bands.add(len(picture.getbands()))
    covered = f"{height} x {width} pixels" + f" / {reader.cover}" * (reader.cover != 1)
    changed = bool(sizes - {(width, height)}) or reader.cover != 1
    scaled = f"scaled to cover {covered}, cropped at the centre" * changed
    grey = "converted to grey" * (reader.channels == 1 and max(bands) >= 3)
    return ", ".join(filter(None, (scaled, grey)))


def print_lines(rows: list[dict[str, Any]], top: int) -> None:
    """One JSON object per image."""
    for start in range(0, len(rows), top):
        picture = rows[start : start + top]
        likeliest = [{"class": row["class"], "probability": row["probability"]} for row in picture]
        learned = {key: picture[0][key] for key in ("trained_on",) if key in picture[0]}
        say(json.dumps({"file": picture[0]["file"], "classes": likeliest, **learned}), whole=True)


def print_predictions(rows: list[dict[str, Any]], top: int) -> None:
    cells = [(row["file"], row["class"], f"{row['probability']:.1%}") for row in rows]
    table(("file", "class", "probability"), cells, right={"probability"})
    if learned := sum(row.get("trained_on", False) for row in rows[::top]):
        say(
            f"{learned} of these {len(rows) // top} images {is_or_are(learned)} among those that the network was trained on."
        )
