"""Files that are not what they should be: each is either brought to a tensor rightly, or refused in one line."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fieldshift.data.files.headers import probe
from fieldshift.data.files.mask_table import table_of_map
from fieldshift.data.files.reading import Reader, load_mask, load_upright
from fieldshift.data.problems import BadFileError
from tests.data.files.mask_writing import save_with_exif

LIMIT = 1_000_000
Draw = Callable[..., Image.Image]


def read(path: Path, channels: int = 3, size: tuple[int, int] = (16, 20)) -> torch.Tensor:
    return Reader(size=size, channels=channels, pixel_limit=LIMIT, fitting="crop").image(path)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def write_empty(path: Path, picture: Draw) -> None:
    path.write_bytes(b"")


def write_text(path: Path, picture: Draw) -> None:
    path.write_text("<svg/> this is no picture")


def write_truncated(path: Path, picture: Draw) -> None:
    picture(0, (200, 160)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:900])


def write_truncated_png(path: Path, picture: Draw) -> None:
    picture(0, (200, 160)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-200])


def write_deep_grey(path: Path, picture: Draw) -> None:
    Image.fromarray(np.arange(320, dtype=np.uint16).reshape(16, 20) * 200).save(path, "PNG")


def write_float(path: Path, picture: Draw) -> None:
    Image.fromarray(np.ones((16, 20), dtype=np.float32)).save(path, "TIFF")


def write_png(path: Path, width: int, height: int, bits: int, rows: bytes) -> None:
    """A colour PNG from its parts, for what Pillow would not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_deep_colour(path: Path, picture: Draw) -> None:
    write_png(path, 20, 16, 16, b"".join(b"\0" + struct.pack(">60H", *range(0, 60000, 1000)) for _ in range(16)))


def write_deep_ppm(path: Path, picture: Draw) -> None:
    path.write_bytes(b"P6\n20 16\n4095\n" + struct.pack(">960H", *range(960)))


def write_deep_plain_ppm(path: Path, picture: Draw) -> None:
    path.write_text("P3\n20 16\n65535\n" + " ".join(map(str, range(960))))


def write_deep_jpeg_2000(path: Path, picture: Draw) -> None:
    file = io.BytesIO()
    picture(0).save(file, "JPEG2000")
    content = bytearray(file.getvalue())
    start = content.index(b"\xff\x4f\xff\x51") + 42
    content[start : start + 9 : 3] = bytes([15, 15, 15])
    path.write_bytes(content)


def write_animation(path: Path, picture: Draw) -> None:
    picture(0).save(path, "GIF", save_all=True, append_images=[picture(1), picture(2)])


def write_dot(path: Path, picture: Draw) -> None:
    picture(0, (1, 1)).save(path, "PNG")


def write_huge(path: Path, picture: Draw) -> None:
    Image.new("1", (2000, 2000)).save(path, "PNG")


def write_bomb(path: Path, picture: Draw) -> None:
    write_png(path, 50_000, 50_000, 8, b"few bytes")


def write_warned_of(path: Path, picture: Draw) -> None:
    write_png(path, 12_000, 10_000, 8, b"few bytes")


REFUSED = {
    write_empty: ("empty file", "0 bytes"),
    write_text: ("unreadable", "cannot be decoded"),
    write_truncated: ("unreadable", "truncated"),
    write_truncated_png: ("unreadable", "cannot be decoded"),
    write_deep_grey: ("deep pixels", "more than 8 bits"),
    write_float: ("deep pixels", "more than 8 bits"),
    write_deep_colour: ("deep pixels", "more than 8 bits"),
    write_deep_ppm: ("deep pixels", "more than 8 bits"),
    write_deep_plain_ppm: ("deep pixels", "more than 8 bits"),
    write_deep_jpeg_2000: ("deep pixels", "more than 8 bits"),
    write_animation: ("several frames", "3 frames"),
    write_dot: ("too small", "1 x 1 pixels"),
    write_huge: ("too large", "2000 x 2000"),
    write_bomb: ("too large", "over the limit"),
    write_warned_of: ("too large", "over the limit"),
}


@pytest.mark.parametrize("write", REFUSED, ids=lambda write: write.__name__)
@pytest.mark.parametrize("name", ["plain.png", "blåbär 猫.jpg", b"bad \xff name.png"])
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    write: Callable[[Path, Draw], None], name: str | bytes, tmp_path: Path, picture: Draw
) -> None:
    path = tmp_path / os.fsdecode(name)
    write(path, picture)
    kind, words = REFUSED[write]
    with pytest.raises(BadFileError) as refusal:
        read(path)
    line = str(refusal.value)
    assert refusal.value.problem.kind == kind
    assert refusal.value.problem.path == str(path)
    assert words in line
    assert len(line.splitlines()) == 1
    assert refusal.value.problem.remedy in line


def test_a_deep_file_of_silicon_graphics_is_refused(tmp_path: Path, picture: Draw) -> None:
    picture(0).save(tmp_path / "it.sgi", bpc=2)
    with pytest.raises(BadFileError, match="more than 8 bits"):
        read(tmp_path / "it.sgi")


@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
@pytest.mark.parametrize("largest", [3, 20, 255, 4095, 65535])
def test_numbers_of_a_mask_are_those_of_its_file_of_numbers(kind: str, largest: int, tmp_path: Path) -> None:
    numbers = np.arange(320).reshape(16, 20) % min(largest + 1, 200)
    values = numbers if kind in ("P2", "P5") else np.repeat(numbers[..., None], 3, 2)
    body = values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    if kind in ("P2", "P3"):
        body = " ".join(map(str, values.ravel().tolist())).encode()
    (tmp_path / "it.pnm").write_bytes(f"{kind}\n20 16\n{largest}\n".encode() + body)
    if kind in ("P3", "P6") and largest > 255:  # which Pillow reduces to 8 bits
        with pytest.raises(BadFileError, match="more than 8 bits"):
            load_mask(tmp_path / "it.pnm", LIMIT)
    else:
        assert np.array_equal(load_mask(tmp_path / "it.pnm", LIMIT).codes, numbers)


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="is missing"):
        read(tmp_path / "nothing.png")
    with pytest.raises(BadFileError):
        read(tmp_path)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_what_needs_no_guess_is_read_as_colour(mode: str, tmp_path: Path, picture: Draw) -> None:
    image = picture(3, mode=mode)
    image.save(tmp_path / "it.png")
    assert torch.equal(read(tmp_path / "it.png"), as_tensor(image))


def test_cmyk_is_read_as_colour(tmp_path: Path, picture: Draw) -> None:
    picture(3).convert("CMYK").save(tmp_path / "it.jpg", quality=95)
    difference = read(tmp_path / "it.jpg").int() - as_tensor(picture(3)).int()
    assert difference.abs().float().mean() < 6


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_transparent_is_laid_on_black(mode: str, tmp_path: Path) -> None:
    array = np.full((16, 20, 4), 200, dtype=np.uint8)
    array[:8, :, 3], array[8:, :, 3] = 0, 255
    image = Image.fromarray(array).convert("LA" if mode == "LA" else "RGBA")
    if mode == "P":
        image = image.quantize(8)
    image.save(tmp_path / "it.png")
    seen = read(tmp_path / "it.png")
    assert (seen[:, :8] == 0).all()
    assert (seen[:, 8:] == 200).all()


@pytest.mark.parametrize("kind", ["png", "png-last", "tif", "tif-lzw", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(orientation: int, mode: str, kind: str, tmp_path: Path, picture: Draw) -> None:
    upright = picture(5, (20, 16), mode)
    turns = {
        1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }  # fmt: skip
    stored = upright
    for turn in turns[orientation]:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    save_with_exif(stored, tmp_path / "it", exif, kind)
    (path,) = tmp_path.iterdir()
    assert torch.equal(read(path), as_tensor(upright))
    assert probe([str(path)], "classification", LIMIT) == ((16, 20), 3 if mode == "RGB" or kind == "webp" else 1)


def test_grey_is_kept_grey_and_colour_is_not_made_grey(tmp_path: Path, picture: Draw) -> None:
    picture(1, mode="L").save(tmp_path / "grey.png")
    picture(1).save(tmp_path / "colour.png")
    assert read(tmp_path / "grey.png", channels=1).shape == (1, 16, 20)
    with pytest.raises(BadFileError, match=r"or train with --loading.channels 3"):
        read(tmp_path / "colour.png", channels=1)


def test_pillow_formats_beyond_the_list_are_not_opened(tmp_path: Path, picture: Draw) -> None:
    picture(0).save(tmp_path / "it.png", "PCX")
    with pytest.raises(BadFileError, match="cannot be decoded"):
        read(tmp_path / "it.png")


@pytest.mark.parametrize("size", [(20, 16), (33, 21), (16, 50), (100, 17), (7, 9)])
@pytest.mark.parametrize("target", [(16, 16), (12, 20), (31, 8)])
def test_cropping_covers_the_target_and_keeps_the_aspect(
    size: tuple[int, int], target: tuple[int, int], tmp_path: Path, picture: Draw
) -> None:
    picture(2, size).save(tmp_path / "it.png")
    seen = read(tmp_path / "it.png", size=target)
    assert seen.shape == (3, *target)
    assert seen.float().std() > 5


@pytest.mark.parametrize("size", [(300, 260), (256, 256), (199, 401), (500, 333)])
def test_the_custom_for_imagenet_is_torchvisions(size: tuple[int, int], tmp_path: Path, picture: Draw) -> None:
    image = picture(4, size)
    image.save(tmp_path / "it.png")
    reader = Reader(size=(224, 224), channels=3, pixel_limit=LIMIT, fitting="crop", cover=0.875)
    published = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])
    assert torch.equal(reader.image(tmp_path / "it.png"), as_tensor(published(image)))


def test_scenes_are_scaled_with_their_masks_and_padding_is_ignored(tmp_path: Path, picture: Draw) -> None:
    picture(6, (40, 24)).save(tmp_path / "scene.png")
    labels = np.zeros((24, 40), dtype=np.uint8)
    labels[:, 20:] = 1
    Image.fromarray(labels).save(tmp_path / "mask.png")
    known = tuple(value if value in (0, 1, 255) else 254 for value in range(256))
    reader = Reader(size=(16, 20), channels=3, pixel_limit=LIMIT, fitting="pad", masks=table_of_map(known))
    image, mask = reader.scene(tmp_path / "scene.png", tmp_path / "mask.png")
    assert image.shape == (3, 16, 20)
    expected = torch.full((16, 20), 255, dtype=torch.uint8)
    expected[:12, :10], expected[:12, 10:] = 0, 1
    assert torch.equal(mask, expected)
    assert (image[:, 12:] == 0).all()
    small = Reader(size=(30, 50), channels=3, pixel_limit=LIMIT, fitting="pad", masks=table_of_map(known))
    image, mask = small.scene(tmp_path / "scene.png", tmp_path / "mask.png")
    assert torch.equal(image[:, :24, :40], as_tensor(picture(6, (40, 24))))
    assert torch.equal(mask[:24, :40], torch.from_numpy(labels))


def test_masks_are_numbers_not_colours(tmp_path: Path, picture: Draw) -> None:
    numbers = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mask = Image.fromarray(numbers)
    mask.putpalette([value % 256 for value in range(0, 768 * 3, 3)])
    assert mask.mode == "P"
    mask.save(tmp_path / "mask.png")
    assert np.array_equal(load_mask(tmp_path / "mask.png", LIMIT).codes, numbers)
    picture(0).convert("CMYK").save(tmp_path / "colour.tif")
    with pytest.raises(BadFileError, match="class numbers"):
        load_mask(tmp_path / "colour.tif", LIMIT)


def test_masks_of_another_size_or_with_unknown_labels_are_refused(tmp_path: Path, picture: Draw) -> None:
    picture(0, (20, 16)).save(tmp_path / "scene.png")
    known = tuple(value if value < 2 else 254 for value in range(256))
    reader = Reader(size=(16, 20), channels=3, pixel_limit=LIMIT, fitting="pad", masks=table_of_map(known))
    for size, words in (((20, 15), "the size of its image"), ((16, 20), "upright as the image's EXIF")):
        Image.new("L", size).save(tmp_path / "mask.png")
        with pytest.raises(BadFileError, match=words):
            reader.scene(tmp_path / "scene.png", tmp_path / "mask.png")
    Image.fromarray(np.full((16, 20), 7, dtype=np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(BadFileError, match="labels that no class has: 7; name them"):
        reader.scene(tmp_path / "scene.png", tmp_path / "mask.png")


def test_many_pictures_in_a_camera_file_are_its_first(tmp_path: Path, picture: Draw) -> None:
    picture(0).save(tmp_path / "it.mpo", "MPO", save_all=True, append_images=[picture(1)], quality=95)
    (tmp_path / "it.mpo").rename(tmp_path / "it.jpg")
    picture(0).save(tmp_path / "first.jpg", quality=95)
    first = load_upright(tmp_path / "first.jpg", 3, LIMIT)
    assert np.array_equal(load_upright(tmp_path / "it.jpg", 3, LIMIT), first)
