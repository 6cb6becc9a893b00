"""Readers under mutated files: whatever the bytes, the outcome is a tensor as promised or one line to the user.

For more than the tests do: python tests/data/files/test_fuzz_readers.py --mutations 2000 --seed 1
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldshift.data import inspect_data, load_dataset
from fieldshift.data.files.mask_table import plain_table
from fieldshift.data.files.reading import Reader
from fieldshift.errors import UserError

MUTATIONS = 30
READER = Reader(size=(12, 14), channels=3, pixel_limit=10**6, fitting="pad", masks=plain_table(3))


def picture(mode: str = "RGB") -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((17, 13)).convert(mode)


def encoded(kind: str, mode: str = "RGB", **settings: object) -> bytes:
    file = io.BytesIO()
    picture(mode).save(file, kind, **settings)
    return file.getvalue()


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = 6, "a description"
    return tags.tobytes()


def arrays() -> bytes:
    file = io.BytesIO()
    images, classes = np.arange(100, dtype=np.uint8).reshape(4, 5, 5), np.array([0, 1, 0, 1])
    np.savez_compressed(file, train_images=images, train_labels=classes, test_images=images, test_labels=classes)
    return file.getvalue()


def labels() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(picture("L")) // 86).save(file, "PPM")
    return file.getvalue()


def read_image(path: Path) -> None:
    image = READER.image(path)
    assert image.shape == (3, 12, 14)
    assert image.dtype == torch.uint8


def read_mask(path: Path) -> None:
    picture().save(path.with_name("scene.png"))
    image, mask = READER.scene(path.with_name("scene.png"), path)
    assert image.shape[1:] == mask.shape == (12, 14)
    assert set(mask.unique().tolist()) <= {0, 1, 2, 255}


def read_arrays(path: Path) -> None:
    made = load_dataset(f"npz:{path}")
    images, classes = made.train.gather(torch.arange(len(made.train)))
    assert images.dtype == torch.uint8
    assert int(classes.max()) < len(made.classes) or made.task == "segmentation"
    inspect_data(f"npz:{path}")


def read_list(path: Path) -> None:
    root = path.parent / "scenes"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(3):
        picture().save(root / "JPEGImages" / f"s{number}.png")
        labels = np.arange(221, dtype=np.uint8).reshape(13, 17) % 3
        Image.fromarray(labels).save(root / "SegmentationClass" / f"s{number}.png")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(path.read_bytes())
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("s2\n")
    assert len(load_dataset(f"voc:{root}").train) >= 1


SUBJECTS: dict[str, tuple[Callable[[], bytes], Callable[[Path], None]]] = {
    "jpeg": (lambda: encoded("JPEG", exif=exif()), read_image),
    "cmyk": (lambda: encoded("JPEG", "CMYK"), read_image),
    "png": (lambda: encoded("PNG", exif=exif()), read_image),
    "palette": (lambda: encoded("PNG", "P", transparency=3), read_image),
    "gif": (lambda: encoded("GIF", save_all=True, append_images=[picture("L")]), read_image),
    "bmp": (lambda: encoded("BMP"), read_image),
    "tiff": (lambda: encoded("TIFF"), read_image),
    "webp": (lambda: encoded("WEBP", exif=exif()), read_image),
    "ppm": (lambda: encoded("PPM"), read_image),
    "mask": (labels, read_mask),
    "npz": (arrays, read_arrays),
    "list": (lambda: b"s0\ns1\n", read_list),
}


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """One to four random edits: bits, bytes, runs of zeros, cuts, repeats, insertions."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        if not data:
            break
        start = int(random.integers(0, len(data)))
        stop = min(len(data), start + int(random.integers(1, 24)))
        match int(random.integers(0, 7)):
            case 0:
                data[start] ^= 1 << int(random.integers(0, 8))
            case 1:
                data[start] = int(random.choice([0, 1, 127, 128, 254, 255]))
            case 2:
                data[start:stop] = bytes(stop - start)
            case 3:
                del data[start:]
            case 4:
                del data[start:stop]
            case 5:
                data[start:start] = data[start:stop]
            case _:
                data[start:start] = random.bytes(stop - start)
    return bytes(data)


def outcomes(name: str, folder: Path, seed: int, mutations: int) -> Counter[str]:
    make, read = SUBJECTS[name]
    content, random = make(), np.random.default_rng([seed, *name.encode()])
    counts: Counter[str] = Counter()
    lines: list[str] = []
    for _ in range(mutations):
        path = folder / f"{name}.bin"
        path.write_bytes(mutated(content, random))
        try:
            read(path)
            counts["read"] += 1
        except UserError as error:
            counts["refused"] += 1
            lines.append(str(error))
    assert [line for line in lines if len(line.splitlines()) != 1 or len(line) > 700] == []
    return counts


@pytest.mark.parametrize("name", SUBJECTS)
def test_mutated_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.bin"
    path.write_bytes(SUBJECTS[name][0]())
    if name != "gif":
        SUBJECTS[name][1](path)
    assert outcomes(name, tmp_path, seed=0, mutations=MUTATIONS)["refused"] > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=2000, help="in all, spread over the kinds of file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in SUBJECTS:
            counts = outcomes(name, Path(folder), arguments.seed, -(-arguments.mutations // len(SUBJECTS)))
            print(f"{name:8} {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
