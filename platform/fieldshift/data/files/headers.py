"""Headers of picture files: the size and channels of a set, and the conversions applied before use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fieldshift.data.cache import cached_arrays
from fieldshift.data.files.content import FileContents
from fieldshift.data.files.mask_files import depth_of
from fieldshift.data.files.orientation import orientation_of, upright_size
from fieldshift.data.files.reading import Reader, open_image, reading_digest
from fieldshift.data.problems import BadFileError, Findings, Problem
from fieldshift.errors import UserError
from fieldshift.tasks import Task
from fieldshift.wording import counted

PROBED = 256
LARGEST_CROP = 224
LARGEST_SCENE = 1024
MOST_FILES = 10_000  # reading more headers would delay the start for too long
CONVERSIONS = {
    "P": "is a palette image and is read as RGB",
    "CMYK": "is CMYK and is read as RGB, so its colours may differ",
    "YCbCr": "is YCbCr and is read as RGB",
    "LAB": "is LAB and is read as RGB",
}


def conversions(path: str, reader: Reader) -> tuple[Problem, ...]:
    """The conversions of the image at `path` before use, as notes. Raises BadFileError."""
    notes = []
    with open_image(path, reader.pixel_limit) as image:
        if image.mode in CONVERSIONS:
            notes.append(Problem("converted", path, CONVERSIONS[image.mode], "save it as RGB if this is not intended"))
        elif image.mode in ("L", "1") and reader.channels == 3:
            notes.append(Problem("converted", path, "is grey and is read as RGB", "no action needed if intended"))
        if image.mode in ("L", "1") and (bits := depth_of(image)) < 8:
            notes.append(
                Problem(
                    "few bits",
                    path,
                    f"has {counted(bits, 'bit')} per pixel, scaled to 0 .. 255",
                    "no action needed if intended",
                )
            )
        if image.has_transparency_data:
            notes.append(
                Problem(
                    "transparent",
                    path,
                    "has transparency and is composited on black",
                    "flatten it if this is not intended",
                )
            )
        turn = orientation_of(image)
        if turn != 1:
            notes.append(
                Problem("turned", path, f"is turned upright (EXIF orientation {turn})", "no action needed if intended")
            )
    return tuple(notes)


def note_headers(paths: Sequence[str], reader: Reader, contents: FileContents, findings: Findings) -> None:
    """Notes the conversions of the images at `paths` (the first 10,000), and headers that cannot be read.

    The results are cached as long as no file changes.
    """
    chosen = paths[:MOST_FILES]
    state = list(zip(chosen, contents.of(chosen), strict=True))

    def look_at(path: str) -> list[tuple[bool, list[str]]]:
        try:
            return [(True, [note.kind, note.path, note.what, note.remedy]) for note in conversions(path, reader)]
        except BadFileError as error:
            return [(False, [error.problem.kind, error.problem.path, error.problem.what, error.problem.remedy])]

    def look() -> dict[str, NDArray[np.generic]]:
        with ThreadPoolExecutor(max(1, contents.workers), thread_name_prefix="fieldshift-headers") as pool:
            rows = [row for found in pool.map(look_at, chosen) for row in found]
        return {"rows": np.frombuffer(json.dumps(rows).encode("utf-8", "surrogatepass"), dtype=np.uint8)}

    stored = cached_arrays(f"headers-{reading_digest(reader.channels, reader.pixel_limit, state)}", look)["rows"]
    for is_note, texts in json.loads(stored.tobytes().decode("utf-8", "surrogatepass")):
        if is_note:
            findings.notes.append(Problem(*texts))
        else:
            findings.keep(Problem(*texts))


def probe(paths: Sequence[str], task: Task, pixel_limit: int) -> tuple[tuple[int, int], int]:
    """(H, W) and number of channels for the images at `paths`, from the headers of up to 256 of them.

    Images of a single size keep it (unless a side is above 1,024 px, or above 256 px for classification). Otherwise, for
    classification: a square of the median shorter side, at most 224 px; for segmentation: a size that contains all
    images read, scaled to at most 1,024 px. Channels are 1 only where every image read is grey.
    """
    chosen = np.random.Generator(np.random.PCG64(0)).permutation(len(paths))[:PROBED]
    sizes: list[tuple[int, int]] = []
    grey = True
    refusal: BadFileError | None = None
    for place in sorted(chosen.tolist()):
        try:
            with open_image(paths[place], pixel_limit) as image:
                width, height = upright_size(image)
                sizes.append((height, width))
                grey = grey and image.mode in ("L", "1")
        except BadFileError as error:
            refusal = error
    if not sizes:
        raise refusal or UserError("There is no image; give a folder with images.")
    channels = 1 if grey else 3
    largest = LARGEST_SCENE if task == "segmentation" else 256
    if len(set(sizes)) == 1 and max(sizes[0]) <= largest:
        return sizes[0], channels
    if task == "segmentation":
        height, width = (max(side) for side in zip(*sizes, strict=True))
        scale = min(1.0, LARGEST_SCENE / max(height, width))
        return (round(height * scale), round(width * scale)), channels
    side = min(LARGEST_CROP, int(median(min(size) for size in sizes)))
    return (side, side), channels
