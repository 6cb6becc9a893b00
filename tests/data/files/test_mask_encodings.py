"""A table of mask encodings: every way to store the same classes reads as the same classes, or is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fieldshift.data import IGNORE, DataSet, LoadingConfig, load_dataset
from fieldshift.data.files.formats import endings
from fieldshift.data.files.orientation import TURNS
from fieldshift.errors import UserError
from tests.data.files.mask_writing import (
    Numbers,
    save_with_exif,
    write_colours,
    write_palette,
    write_png,
    write_quantised,
    write_scenes,
)

Write = Callable[[Path, Numbers], None]
COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 64), 255: (224, 224, 192)}
COLOUR_FILES = {
    "classes.txt": "0 0 0 sky\n128 0 0 wide road\n0 128 64 tree\n",
    "label_colors.txt": "\ufeff0 0 0\tsky\n128 0 0\twide road\n0 128 64\ttree\n",
    "class_dict.csv": "name,r,g,b\nsky,0,0,0\nwide road,128,0,0\ntree,0,128,64\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nsky:0,0,0::\nwide road:128,0,0::\ntree:0,128,64::\n",
    "labels.txt": "sky 0 0 0\nwide road 128 0 0\ntree 0 128 64\n",
}


def numbers(classes: int = 3, ignored: int | None = None) -> list[Numbers]:
    """Masks (12, 10) of six scenes that hold all classes, the value `ignored` in a corner where there is one."""
    drawn = []
    for seed in range(6):
        mask = np.random.default_rng(seed).integers(0, classes, (12, 10))
        mask[0, :classes] = np.arange(classes)
        if ignored is not None:
            mask[-1, -2:] = ignored
        drawn.append(mask)
    return drawn


def saved(kind: type | None = None, mode: str | None = None, scale: int = 1, suffix: str = ".png") -> Write:
    def write(path: Path, found: Numbers) -> None:
        image = Image.fromarray((found * scale).astype(kind or np.uint8))
        (image if mode is None else image.convert(mode)).save(path.with_suffix(suffix), quality=90)

    return write


def lossless(path: Path, found: Numbers) -> None:
    described = Image.Exif()
    described[0x010E] = "a chunk before the pixels"
    Image.fromarray(found.astype(np.uint8)).save(path.with_suffix(".webp"), lossless=True, exif=described)


def lossless_colours(path: Path, found: Numbers) -> None:
    write_colours(path, found, COLOURS)
    Image.open(path).convert("RGBA").save(path.with_suffix(".webp"), lossless=True)
    path.unlink()


def tiff(compression: str) -> Write:
    return lambda path, found: Image.fromarray(found.astype(np.uint8)).save(
        path.with_suffix(".tif"), compression=compression
    )


def scaled(*values: int) -> Write:
    """Class k as values[k]; 255 stays what is ignored."""

    def write(path: Path, found: Numbers) -> None:
        table = np.arange(256)
        table[: len(values)] = values
        Image.fromarray(table[found].astype(np.uint8)).save(path)

    return write


def png(bits: int) -> Write:
    return lambda path, found: write_png(path, found, bits)


def whole_range(path: Path, found: Numbers) -> None:
    write_png(path, np.where(found == 255, 65535, found), 16)


def black_and_white(path: Path, found: Numbers) -> None:
    """Blocks of white on black, as JPEG."""
    Image.fromarray((found * 255).astype(np.uint8)).resize((80, 96), 0).save(path.with_suffix(".jpg"), quality=90)


def instances(path: Path, found: Numbers) -> None:
    write_png(path, found * 1000 + np.arange(found.size).reshape(found.shape), 16)


def coloured(path: Path, found: Numbers) -> None:
    write_colours(path, found, COLOURS)


def quantised(path: Path, found: Numbers) -> None:
    write_quantised(path, found, COLOURS)


def shown(*colours: tuple[int, int, int]) -> Write:
    """Class numbers in a palette of `colours`, filled with black."""

    def write(path: Path, found: Numbers) -> None:
        image = Image.fromarray(found.astype(np.uint8))
        image.putpalette([value for colour in colours for value in colour] + [0] * 3 * (256 - len(colours)))
        image.save(path)

    return write


@dataclass(frozen=True)
class Encoding:
    """How masks are written; read as the class numbers, or as `classes` named so; or words of the refusal."""

    write: Write
    classes: int = 3
    ignored: int | None = None
    names: str = ""
    found: tuple[str, ...] = ()
    refused: str = ""
    words: str = ""


NAMES = "sky\nroad\ntree\n"
ENCODINGS = {
    "palette": Encoding(write_palette, ignored=255, words="palette, class numbers, 255 ignored"),
    "palette of the classes": Encoding(
        shown(*COLOURS.values()), ignored=255, names=COLOUR_FILES["classes.txt"], words="palette, class numbers, 255 ignored"
    ),
    "palette of grey, classes with colours": Encoding(
        shown(*((grey,) * 3 for grey in range(256))), ignored=255, names=COLOUR_FILES["classes.txt"],
        words="palette, class numbers, 255 ignored",
    ),
    "palette of white, classes with colours": Encoding(
        shown((255, 255, 255)), names=COLOUR_FILES["classes.txt"], refused=r"no class has: \(255, 255, 255\)"
    ),
    "colours of a palette": Encoding(
        quantised, names=COLOUR_FILES["classes.txt"], words="palette, by the colours of the class file"
    ),
    "colours of a palette, unnamed": Encoding(
        quantised, ignored=255, names=COLOUR_FILES["classes.txt"], refused=r"no class has: \(224, 224, 192\).*name them"
    ),
    "colours of a palette, another order of the classes": Encoding(
        shown(COLOURS[1], COLOURS[2], COLOURS[0]), names="128 0 0 a\n0 128 64 b\n0 0 1 c\n",
        refused=r"no class has: \(0, 0, 0\)",
    ),
    "colours of a palette without colours": Encoding(
        quantised, refused=r"give the number \d two colours \(.* in .*s\d.png, .*\), so .*; write label_colors.txt"
    ),
    "colours of a palette, named alone": Encoding(quantised, names=NAMES, refused="two colours"),
    "grey of 1 bit": Encoding(png(1), classes=2, words="grey of 1 bit(s), class numbers"),
    "grey of 2 bits": Encoding(png(2), words="grey of 2 bit(s)"),
    "grey of 4 bits": Encoding(png(4), classes=9, words="grey of 4 bit(s)"),
    "grey of 8 bits": Encoding(png(8), ignored=255, words="grey of 8 bit(s), class numbers, 255 ignored"),
    "grey of 16 bits": Encoding(png(16), ignored=255, words="grey of 16 bit(s)"),
    "grey of 16 bits, 65535": Encoding(whole_range, ignored=255, words="grey of 16 bit(s)"),
    "TIFF of 32 bits": Encoding(saved(np.int32, suffix=".tif"), words="grey of 32 bit(s)"),
    "TIFF of 16 bits": Encoding(saved(np.uint16, suffix=".tiff"), words="grey of 16 bit(s)"),
    "BMP": Encoding(saved(suffix=".bmp"), ignored=255),
    "grey as RGB": Encoding(saved(mode="RGB"), ignored=255, words="grey in RGB, class numbers"),
    "grey as RGBA": Encoding(saved(mode="RGBA"), words="grey in RGB, class numbers"),
    "bools": Encoding(saved(bool), classes=2, words="grey of 1 bit(s)"),
    "0 and 255": Encoding(saved(scale=255), classes=2, found=("0", "255"), words="0 is class 0, 255 is class 255"),
    "0 and 255, named": Encoding(
        saved(scale=255), classes=2, names="ground\nobject\n", words="0 is class ground, 255 is class object"
    ),
    "0 and 255 as RGB": Encoding(saved(mode="RGB", scale=255), classes=2, found=("0", "255")),
    "0 and 65535": Encoding(saved(np.uint16, scale=65535), classes=2, found=("0", "65535")),
    "0 and 255 of 16 bits": Encoding(saved(np.uint16, scale=255), classes=2, found=("0", "255")),
    "black-and-white JPEG": Encoding(black_and_white, classes=2, found=("0", "255"), words="black-and-white JPEG"),
    "steps": Encoding(saved(scale=100), found=("0", "100", "200"), words="100 is class 100"),
    "steps, ignored": Encoding(scaled(0, 50, 100), ignored=255, found=("0", "50", "100"), words="255 ignored"),
    "steps, named": Encoding(scaled(0, 100, 200), ignored=255, names=NAMES, words="100 is class road"),
    "whole range, named": Encoding(scaled(0, 127, 255), names=NAMES, words="127 is class road"),
    "whole range, rounded up": Encoding(scaled(0, 128, 255), names=NAMES, words="128 is class road"),
    "values, named": Encoding(scaled(0, 7, 33), ignored=255, names="name,value\nsky,0\nroad,7\ntree,33\n"),
    **{f"RGB by {name}": Encoding(coloured, names=text, words="RGB, by the colours") for name, text in COLOUR_FILES.items()},
    "JPEG": Encoding(saved(scale=50, suffix=".jpg"), refused="is a JPEG, which changes class numbers"),
    "JPEG of small numbers": Encoding(saved(suffix=".jpg"), refused="is a JPEG, which changes class numbers"),
    "lossless WebP": Encoding(lossless, ignored=255, words="grey in RGB, class numbers"),
    "lossless WebP of colours": Encoding(lossless_colours, names=COLOUR_FILES["classes.txt"], words="RGB, by the colours"),
    "lossy WebP": Encoding(saved(suffix=".webp"), refused="is stored as WEBP and not known to be lossless.*save masks as PNG"),
    "lossy WebP of black and white": Encoding(saved(scale=255, suffix=".webp"), classes=2, refused="is stored as WEBP and not"),
    **{f"lossy {ending}": Encoding(saved(suffix=ending), refused="is stored as AVIF and not known to be lossless")
       for ending in endings() if ending == ".avif"},  # older versions of Pillow have none
    "JPEG 2000": Encoding(saved(suffix=".jp2"), refused="is stored as JPEG2000 and not known to be lossless"),
    "TIFF with JPEG inside": Encoding(tiff("jpeg"), refused="is stored as TIFF and not known to be lossless"),
    "TIFF without loss": Encoding(tiff("tiff_lzw"), words="grey of 8 bit(s), class numbers"),
    "floats": Encoding(saved(np.float32, suffix=".tif"), refused="holds floating-point numbers; save it as whole numbers"),
    "RGB without colours": Encoding(coloured, refused="no file names the colours; write label_colors.txt"),
    "whole range, unnamed": Encoding(scaled(0, 128, 255), refused="255 may be a class or mean ignored; write classes.txt"),
    "numbers from 1": Encoding(scaled(1, 2, 3), refused="of class number 0; .*--loading.accept empty-class"),
    "numbers from 1, named": Encoding(scaled(1, 2, 3), names=NAMES, refused="no class has: 3.*--loading.accept unnamed"),
    "a gap": Encoding(scaled(0, 1, 3), refused="of class number 2"),
    "instances": Encoding(scaled(*range(0, 45, 5)), classes=9, names=NAMES, refused="holds labels that no class has"),
    "many numbers": Encoding(instances, refused="number the classes from 0"),
    "one class": Encoding(png(8), classes=1, refused="hold 1 class"),
}  # fmt: skip


def load(root: Path, **settings: object) -> DataSet:
    return load_dataset(f"voc:{root}", loading=LoadingConfig(**settings))  # type: ignore[arg-type]


def all_masks(made: DataSet) -> list[torch.Tensor]:
    """The masks of train and test, in the order of the scenes' names."""
    found = {}
    for split in (made.train, made.test):
        masks = split.gather(torch.arange(len(split)))[1]
        found |= {split.files(place)[0]: masks[place] for place in range(len(split))}  # type: ignore[attr-defined]
    return [found[path] for path in sorted(found)]


@pytest.mark.parametrize("name", ENCODINGS)
def test_an_encoding_is_read_as_the_table_says_or_refused(name: str, tmp_path: Path) -> None:
    encoding = ENCODINGS[name]
    drawn = numbers(encoding.classes, encoding.ignored)
    write_scenes(tmp_path, encoding.write, drawn, (96, 80) if encoding.write is black_and_white else None)
    if encoding.names:
        (tmp_path / (name.removeprefix("RGB by ") if encoding.write is coloured else "classes.txt")).write_text(
            encoding.names, encoding="utf-8"
        )
    if encoding.refused:
        with pytest.raises(UserError, match=encoding.refused) as refusal:
            load(tmp_path)
        assert len(str(refusal.value).splitlines()) == 1
        return
    made = load(tmp_path)
    for mask, expected in zip(all_masks(made), drawn, strict=True):
        if encoding.write is black_and_white:
            expected = expected.repeat(8, 0).repeat(8, 1)
        assert mask.tolist() == expected.tolist()
    if encoding.found:
        assert made.classes == encoding.found
    elif not encoding.names:
        assert made.classes == tuple(str(number) for number in range(encoding.classes))
    assert encoding.words in made.reading()
    assert made.findings == ()


def test_palettes_in_another_order_than_the_class_file_are_read_by_colour(tmp_path: Path) -> None:
    drawn = numbers(ignored=255)
    write_scenes(tmp_path, shown(COLOURS[2], COLOURS[0], COLOURS[1]), drawn)
    (tmp_path / "classes.txt").write_text(COLOUR_FILES["classes.txt"])
    made = load(tmp_path)
    expected = np.array([2, 0, 1, *[255] * 253])
    assert [mask.tolist() for mask in all_masks(made)] == [expected[mask].tolist() for mask in drawn]
    assert made.classes == ("sky", "wide road", "tree")


def test_masks_of_several_depths_mean_the_same_classes(tmp_path: Path) -> None:
    drawn = numbers(2)
    write_scenes(tmp_path, saved(scale=255), drawn)
    write_png(tmp_path / "SegmentationClass" / "s1.png", drawn[1], 1)  # as a program that makes PNG small leaves it
    assert [mask.tolist() for mask in all_masks(load(tmp_path))] == [mask.tolist() for mask in drawn]


@pytest.mark.parametrize("kind", ["png", "png-last", "tif", "tif-lzw", "webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_mask_is_turned_with_its_image_unless_it_lies_upright(orientation: int, kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = numbers()
    write_scenes(tmp_path, png(8), upright)
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    shapes = []
    for place, found in enumerate(upright):
        pixels = np.random.default_rng(place).integers(0, 256, (*found.shape, 3), dtype=np.uint8)
        turned = np.stack([TURNS[undo](pixels[..., channel]) for channel in range(3)], -1)
        image = Image.fromarray(np.ascontiguousarray(turned))
        (tmp_path / "JPEGImages" / f"s{place}.png").unlink()
        save_with_exif(image, tmp_path / "JPEGImages" / f"s{place}", exif, kind)
        again = ImageOps.exif_transpose(Image.open(next((tmp_path / "JPEGImages").glob(f"s{place}.*"))))
        assert np.array_equal(np.asarray(again), pixels)  # Pillow turns it to where it was
        shapes.append(image.size)
    if orientation in (2, 3, 4):
        with pytest.raises(UserError, match="their sizes do not show whether the mask is turned too"):
            load(tmp_path)
    else:
        made = load(tmp_path)
        assert [mask.tolist() for mask in all_masks(made)] == [mask.tolist() for mask in upright]
        assert made.size == (12, 10)
        assert not any("turned mask" in line for line in made.findings)
        assert any(line.startswith("turned: ") for line in made.findings) == (orientation != 1)
    for place, found in enumerate(upright):  # now as they lie in the image's file, without EXIF of their own
        write_png(tmp_path / "SegmentationClass" / f"s{place}.png", np.ascontiguousarray(TURNS[undo](found)), 8)
    if orientation in (1, 5, 6, 7, 8):
        made = load(tmp_path)
        assert [mask.tolist() for mask in all_masks(made)] == [mask.tolist() for mask in upright]
        assert any("turned mask" in line for line in made.findings) == (orientation != 1)
    for place, found in enumerate(upright):  # and with their own EXIF, which decides
        stored = Image.fromarray(np.ascontiguousarray(TURNS[undo](found)).astype(np.uint8))
        (tmp_path / "SegmentationClass" / f"s{place}.png").unlink()
        save_with_exif(stored, tmp_path / "SegmentationClass" / f"s{place}", exif, kind)
    assert [mask.tolist() for mask in all_masks(load(tmp_path))] == [mask.tolist() for mask in upright]


def test_what_makes_scores_meaningless_stops_unless_it_is_accepted(tmp_path: Path) -> None:
    write_scenes(tmp_path, png(8), numbers(3))
    names = tmp_path / "classes.txt"
    names.write_text("sky\nroad\ntree\nsea\n")
    with pytest.raises(UserError, match="names sea, of which no training mask has a pixel"):
        load(tmp_path)
    made = load(tmp_path, accept=["empty-class"])
    assert [line.partition(":")[0] for line in made.findings] == ["empty-class"]
    names.write_text("sky\nroad\n")
    with pytest.raises(UserError, match=r"holds labels that no class has: 2 \(so do 5 more of 6\)"):
        load(tmp_path)
    made = load(tmp_path, accept=["unnamed-label"])
    for mask, expected in zip(all_masks(made), numbers(3), strict=True):
        assert mask.tolist() == np.where(expected == 2, IGNORE, expected).tolist()
    mostly = [np.where(np.arange(120).reshape(12, 10) > 30, IGNORE, mask) for mask in numbers(2)]
    write_scenes(tmp_path, png(8), mostly)
    with pytest.raises(UserError, match="ignores 74 % of the pixels of its train masks; check what 255 means"):
        load(tmp_path)
    assert load(tmp_path, accept=["ignored-pixels"]).classes == ("sky", "road")
    with pytest.raises(UserError, match="Unknown kind of finding in loading.accept 'everything'"):
        LoadingConfig(accept=["everything"])


def test_arrays_are_decoded_as_files_are(tmp_path: Path) -> None:
    masks = np.stack(numbers(2)) * 255
    images = np.random.default_rng(0).integers(0, 256, masks.shape, dtype=np.uint8)
    np.savez(tmp_path / "a.npz", train_images=images[:4], train_labels=masks[:4].astype(np.uint8),
             test_images=images[4:], test_labels=masks[4:].astype(np.uint8))  # fmt: skip
    made = load_dataset(f"npz:{tmp_path / 'a.npz'}")
    assert made.train.gather(torch.arange(4))[1].tolist() == (masks[:4] // 255).tolist()
    assert "255 is class 1" in made.reading()
    np.savez(tmp_path / "b.npz", train_images=images[:4], train_labels=np.stack(numbers(2))[:4] * 2 + 1)
    with pytest.raises(UserError, match="of class number 0, 2"):
        load_dataset(f"npz:{tmp_path / 'b.npz'}")
