"""Masks that a segmenter predicts for pictures, as PNG files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say, table
from fieldshift.errors import UserError
from fieldshift.run_folder import check_writable
from pipelines.pictures import picture_batches

if TYPE_CHECKING:
    import torch

    from fieldshift.data.files.streaming import StreamedSplit
    from fieldshift.networks import VideoNetwork
    from fieldshift.training import NetworkCard

NAMED = 3


def check_masks(run: str, task: str, out: str | None, top: int, copies: int) -> None:
    """Raises UserError where `predict` has no folder for a segmenter's masks, a used one, or an idle option."""
    if task != "segmentation":
        if out is not None:
            raise UserError(f"--out is for the masks of a segmenter, but {run} holds a classifier; leave it out.")
        return
    if top != 1:
        raise UserError(f"--top is for classifiers, but {run} holds a segmenter; leave it out.")
    if copies:
        raise UserError(f"--tta_copies is for classifiers, but {run} holds a segmenter; leave it out.")
    if out is None:
        raise UserError(f"{run} holds a segmenter, whose masks are files; add --out FOLDER.")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {out} is {'not empty' if folder.is_dir() else 'a file'}; name a new folder.")
    check_writable(folder.absolute(), "a writable folder")


def write_masks(
    network: VideoNetwork,
    card: NetworkCard,
    pictures: StreamedSplit,
    folder: Path,
    *,
    batch: int,
    align: bool,
    device: torch.device,
    shown: bool,
) -> list[dict[str, Any]]:
    """Writes a mask per picture, upright and in its own size, and returns file, mask and shares of the classes in [0, 1].

    A mask is a PNG of class numbers, whose palette has the colours of the report. Maps are fused in the reference frame if
    `align`. `batch` pictures are predicted at once; `shown`: whether to report the progress.
    """
    import numpy as np
    import torch
    from PIL import Image

    from fieldshift.data.files.orientation import upright_size
    from fieldshift.data.files.pictures import mask_of_picture
    from fieldshift.data.files.reading import open_image
    from fieldshift.report.figures.maps import class_colours
    from fieldshift.training.step import forward

    store = pictures.store
    files = mask_files(store.images, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    palette = (255 * class_colours(len(card.classes))).round().astype(np.uint8)
    plan = card.plan()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as place:  # all masks, or none
        for pixels in picture_batches(pictures, batch, "predicting", shown=shown, device=device):
            with torch.no_grad():
                logits, _ = forward(network, network, plan.evaluation_video(pixels), plan if align else None)
            for found in logits.argmax(1).to(torch.uint8).cpu().numpy():
                name, file = store.images[len(rows)], files[len(rows)]
                with open_image(name, store.reader.pixel_limit) as opened:
                    size = upright_size(opened)
                labels = mask_of_picture(found, size, store.reader)
                mask = Image.fromarray(labels.astype(np.uint8))
                mask.putpalette(palette.tobytes())
                mask.save(Path(place) / file.name)
                shares = np.bincount(labels.reshape(-1), minlength=len(card.classes)) / labels.size
                order = np.argsort(-shares, kind="stable")
                held = {card.classes[label]: float(shares[label]) for label in order if shares[label]}
                rows.append({"file": name, "mask": str(file), "classes": held})
        folder.mkdir(exist_ok=True)
        for written in list(Path(place).iterdir()):
            written.replace(folder / written.name)
    return rows


def mask_files(images: Sequence[str], folder: Path) -> list[Path]:
    """The file of each picture's mask: its name as .png; of pictures of the same name the later ones are numbered."""
    taken: set[str] = set()
    files = []
    for name in images:
        stem, number = Path(name).stem, 1
        while (found := stem if number == 1 else f"{stem}-{number}").casefold() in taken:
            number += 1
        taken.add(found.casefold())
        files.append(folder / f"{found}.png")
    return files


def print_masks(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            say(json.dumps(row), whole=True)
        return
    cells = []
    for row in rows:
        shares = [f"{name} {share:.1%}" for name, share in row["classes"].items()]
        cells.append(
            (row["file"], Path(row["mask"]).name, ", ".join(shares[:NAMED]) + (", ..." if len(shares) > NAMED else ""))
        )
    table(("file", "mask", "classes"), cells)
    say(f"  {Path(rows[0]['mask']).parent}")
