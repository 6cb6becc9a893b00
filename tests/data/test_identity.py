"""Samples known again: the digest follows whatever changes them, changes have names, and a split stays as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldshift.data import DataSet, Identity, LoadingConfig, changes, load_dataset
from fieldshift.data.identity import PartIdentity
from fieldshift.errors import UserError

Draw = Callable[..., Image.Image]
Change = Callable[[Path], object]


def load(root: Path, like: Identity | None = None, **settings: object) -> DataSet:
    kind = "npz" if root.suffix == ".npz" else "voc" if (root / "SegmentationClass").exists() else "folder"
    return load_dataset(f"{kind}:{root}", loading=LoadingConfig(workers=0, **settings), like=like)  # type: ignore[arg-type]


def identity(root: Path, **settings: object) -> Identity:
    found = load(root, **settings).identity
    assert found is not None
    return found


def repaint(path: Path, value: int = 2) -> None:
    """One pixel changed, and the file as long and as old as before."""
    with Image.open(path) as opened:
        opened.load()
        image = opened.copy()
    before, raw = path.stat(), bytearray(path.read_bytes())
    if path.suffix == ".png":  # stored without compression, so that the length stays
        image.putpixel((3, 5), value)
        image.save(path, compress_level=0)
    else:
        raw[-3] ^= 1
        path.write_bytes(raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def uncompressed(root: Path) -> None:
    for path in root.rglob("*.png"):
        with Image.open(path) as opened:
            opened.load()
            opened.save(path, compress_level=0)


IN_FOLDER: dict[str, tuple[Change, str]] = {
    "nothing": (lambda root: None, ""),
    "times": (lambda root: os.utime(root / "train/cat/0.png", (1, 1)), ""),
    "content": (lambda root: repaint(root / "train/cat/0.png", 7), "1 with another content (train/cat/0.png)"),
    "label": (lambda root: (root / "train/cat/0.png").rename(root / "train/dog/9.png"), "1 relabelled (train/cat/0.png)"),
    "name": (lambda root: (root / "train/cat/0.png").rename(root / "train/cat/9.png"), "1 renamed (train/cat/0.png)"),
    "part": (
        lambda root: (root / "train/cat/0.png").rename(root / "test/cat/9.png"),
        "1 in the other part (train/cat/0.png)",
    ),
    "fewer": (lambda root: (root / "test/dog/1.png").unlink(), "1 gone (test/dog/1.png)"),
    "more": (lambda root: Image.new("RGB", (20, 16)).save(root / "test/dog/7.png"), "1 new (test/dog/7.png)"),
    "class names": (
        lambda root: [(root / part / "cat").rename(root / part / "ape") for part in ("train", "test")],
        "6 relabelled (train/cat/0.png first), classes ape, dog instead of cat, dog",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_FOLDER)
def test_of_a_folder_every_change_is_in_the_digest_and_has_a_name(name: str, image_folder: Path) -> None:
    change, words = IN_FOLDER[name]
    uncompressed(image_folder)
    before, sizes = load(image_folder), [path.stat().st_size for path in sorted(image_folder.rglob("*.png"))]
    change(image_folder)
    after = load(image_folder)
    assert before.identity is not None
    assert after.identity is not None
    assert changes(before.identity, after.identity) == words
    assert (before.digest == after.digest) == (words == "")
    if name == "content":
        assert sizes == [path.stat().st_size for path in sorted(image_folder.rglob("*.png"))]


IN_SCENES: dict[str, tuple[Change, str]] = {
    "mask": (lambda root: repaint(root / "SegmentationClass/s4.png"), "1 with another mask (JPEGImages/s4.jpg)"),
    "image": (lambda root: repaint(root / "JPEGImages/s0.jpg"), "1 with another content (JPEGImages/s0.jpg)"),
    "class order": (
        lambda root: (root / "classes.txt").write_text("road\nsky\ntree\n"),
        "classes road, sky, tree instead of sky, road, tree",
    ),
    "list": (
        lambda root: (root / "ImageSets/Segmentation/train.txt").write_text("s0\ns1\n"),
        "2 gone (JPEGImages/s2.jpg first)",
    ),
}


@pytest.mark.parametrize("name", IN_SCENES)
def test_of_scenes_masks_and_class_names_are_in_the_digest(name: str, scene_folder: Path) -> None:
    change, words = IN_SCENES[name]
    uncompressed(scene_folder)
    before, sizes = load(scene_folder), (scene_folder / "SegmentationClass/s4.png").stat().st_size
    change(scene_folder)
    after = load(scene_folder)
    assert before.identity is not None
    assert after.identity is not None
    assert before.digest != after.digest
    assert (scene_folder / "SegmentationClass/s4.png").stat().st_size == sizes
    if name == "class order":
        assert changes(before.identity, after.identity).endswith(words)
    else:
        assert changes(before.identity, after.identity) == words


def test_of_arrays_labels_and_pixels_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.npz"
    arrays = {f"{part}_images": rng.integers(0, 256, (8, 6, 6), dtype=np.uint8) for part in ("train", "test")}
    arrays |= {f"{part}_labels": np.arange(8) % 2 for part in ("train", "test")}
    np.savez(path, **arrays)
    before = identity(path)
    arrays["train_labels"][2] = 1
    np.savez(path, **arrays)
    assert changes(before, identity(path)) == "1 relabelled"
    arrays["train_labels"][2] = 0
    arrays["test_images"][0, 0, 0] += 1
    np.savez(path, **arrays)
    assert changes(before, identity(path)) == "1 gone, 1 new"


def test_only_the_samples_count_and_not_how_large_a_file_may_be(image_folder: Path) -> None:
    assert load(image_folder).digest == load(image_folder, pixel_limit=10**6).digest
    assert load(image_folder).digest != load(image_folder, size=(8, 8)).digest


def test_an_identity_is_the_same_when_written_and_read(image_folder: Path, scene_folder: Path) -> None:
    for root in (image_folder, scene_folder):
        found = identity(root)
        assert Identity.from_plain(found.to_plain()) == found
    empty = PartIdentity(names=(), labels=(), contents=())
    assert PartIdentity.from_plain(empty.to_plain()) == empty


@pytest.fixture
def drawn(tmp_path: Path, picture: Draw) -> Path:
    """Two classes of twelve pictures, no test part."""
    for number in range(24):
        folder = tmp_path / "drawn" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number:02}.png")
    return tmp_path / "drawn"


def test_a_folder_that_grew_and_shrank_keeps_its_split(drawn: Path, picture: Draw) -> None:
    before = identity(drawn)
    tested, learned = set(before.test.contents), set(before.train.contents)
    gone = drawn / before.test.names[0]
    moved = drawn / before.train.names[0]
    gone.unlink()
    moved.rename(moved.with_name("renamed.png"))
    picture(7).convert("L").save(drawn / before.train.names[1])  # another content under the name
    for number in range(100, 140):
        picture(number).save(drawn / "cat" / f"{number}.png")
    anew = identity(drawn)
    assert set(anew.test.contents) & learned  # without the split of before, images are tested that were trained on
    now = load(drawn, before)
    assert now.identity is not None
    assert set(now.identity.test.contents) == tested - {before.test.contents[0]}
    assert set(now.identity.train.names) == set(before.train.names) - {before.train.names[0]} | {
        f"{moved.parent.name}/renamed.png"
    }
    assert now.left_out == 40
    images, _ = now.test.gather(torch.arange(len(now.test)))
    assert len(images) == len(tested) - 1


def test_a_split_that_is_gone_is_refused_and_other_data_have_their_own(
    drawn: Path, picture: Draw, tmp_path: Path
) -> None:
    before = identity(drawn)
    other = tmp_path / "other"
    for number in range(200, 220):
        (other / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        picture(number).save(other / "ab"[number % 2] / f"{number}.png")
    assert load(other, before).digest == load(other).digest
    for name in before.test.names:
        (drawn / name).unlink()
    with pytest.raises(Exception, match="none of the images of the run's test part"):
        load(drawn, before)


@pytest.mark.parametrize("kind", ["folder", "npz", "voc"])
def test_new_data_without_a_test_part_are_tested_whole(kind: str, drawn: Path, picture: Draw, tmp_path: Path) -> None:
    before, root = identity(drawn), tmp_path / "new"
    if kind == "npz":
        root = tmp_path / "new.npz"
        images = np.stack([np.array(picture(number)) for number in range(300, 310)])
        np.savez(root, train_images=images, train_labels=np.arange(10) % 2)
    for number in range(300, 310) if kind != "npz" else ():
        folder = root / ("JPEGImages" if kind == "voc" else "ab"[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number}.png")
        if kind == "voc":
            (root / "SegmentationClass").mkdir(exist_ok=True)
            Image.fromarray(np.eye(*picture(number).size[::-1], dtype=np.uint8)).save(
                root / "SegmentationClass" / f"{number}.png"
            )
    loading = LoadingConfig(workers=0)
    for like in (before, None):
        made = load_dataset(f"{kind}:{root}", loading=loading, like=like, whole=True)
        assert made.identity is not None
        assert (len(made.test), len(set(made.identity.test.contents)), made.leaked, made.left_out) == (10, 10, None, 0)
        assert "none is kept for training; " in made.protocol
        assert "10 to test" in made.protocol
        assert "share" not in made.protocol + "".join(made.findings)
    assert len(load_dataset(f"{kind}:{root}", loading=loading, whole=True, test_limit=4).test) == 4
    few = load_dataset(f"{kind}:{root}", loading=loading, like=before, whole=False)
    assert (len(few.train), len(few.test)) == (8, 2)
    known = load_dataset(f"{kind}:{root}", loading=loading, like=load(root).identity, whole=True)
    assert known.digest == load(root).digest
    assert known.leaked == 0


@pytest.mark.parametrize("known", [0, 1, 10, 13, 24])
def test_names_in_another_folder_count_only_where_most_contents_are_known(
    known: int, drawn: Path, picture: Draw, tmp_path: Path
) -> None:
    before, moved = identity(drawn), tmp_path / "moved"
    names = [*before.test.names, *before.train.names]  # the first ones keep their contents
    for number, name in enumerate(names):
        (moved / name).parent.mkdir(parents=True, exist_ok=True)
        if number < known:
            (moved / name).write_bytes((drawn / name).read_bytes())
        else:
            picture(500 + number).save(moved / name)
    made = load_dataset(f"folder:{moved}", loading=LoadingConfig(workers=0), like=before, whole=True)
    assert made.identity is not None
    assert set(made.identity.test.names) == set(names if known <= 12 else before.test.names)


@pytest.mark.parametrize("known", [0, 1, 20, 30])
def test_arrays_elsewhere_are_tested_whole_unless_most_are_known(known: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 5, 5, 3), dtype=np.uint8)
    for name, first in (("before", 0), ("elsewhere", 40 - known)):
        np.savez(tmp_path / f"{name}.npz", train_images=pixels[first : first + 40], train_labels=np.arange(40) % 2)
    before = identity(tmp_path / "before.npz")
    made = load_dataset(f"npz:{tmp_path / 'elsewhere.npz'}", loading=LoadingConfig(workers=0), like=before, whole=True)
    assert made.identity is not None
    tested = set(made.identity.test.contents)
    if known <= 20:
        assert len(tested) == 40
    else:
        assert tested <= set(before.test.contents)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_images_that_cannot_be_split_can_be_tested(share: float, drawn: Path, picture: Draw, tmp_path: Path) -> None:
    root, settings = tmp_path / "few", LoadingConfig(workers=0, test_share=share)
    for number, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        picture(600 + number).save(root / name / "0.png")
    with pytest.raises(UserError, match="cannot be split with a test share"):
        load_dataset(f"folder:{root}", loading=settings)
    made = load_dataset(f"folder:{root}", loading=settings, like=identity(drawn), whole=True)
    assert made.identity is not None
    assert made.identity.test.names == ("a/0.png", "b/0.png")


@pytest.mark.parametrize("limits", [{"train_limit": 8}, {"test_limit": 2}])
def test_limited_parts_stay_too(limits: dict[str, int], drawn: Path, image_folder: Path, picture: Draw) -> None:
    for root, part in ((drawn, "."), (image_folder, "test")):
        made = load_dataset(f"folder:{root}", loading=LoadingConfig(workers=0), **limits)  # type: ignore[arg-type]
        assert made.identity is not None
        for number in range(300, 330):
            picture(number).save(root / part / "dog" / f"{number}.png")
        now = load_dataset(f"folder:{root}", loading=LoadingConfig(workers=0), like=made.identity, **limits)  # type: ignore[arg-type]
        assert now.identity is not None
        assert set(now.identity.test.contents) == set(made.identity.test.contents)
        assert now.left_out == 0  # of limited parts, nothing tells what is new from what was not used


def test_arrays_keep_their_split_whatever_is_put_before_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 5, 5, 3), dtype=np.uint8), np.arange(40) % 2
    images[2] = images[0]  # one image twice
    path = tmp_path / "a.npz"
    np.savez(path, train_images=images, train_labels=labels)
    before = load(path)
    assert before.identity is not None
    assert load(path, before.identity).digest == before.digest
    more = rng.integers(0, 256, (9, 5, 5, 3), dtype=np.uint8)
    np.savez(path, train_images=np.concatenate([more, images]), train_labels=np.concatenate([labels[:9], labels]))
    now = load(path, before.identity)
    assert now.identity is not None
    assert now.left_out == 9
    assert set(now.identity.test.contents) == set(before.identity.test.contents) - set(before.identity.train.contents)
    assert set(now.identity.train.contents) == set(before.identity.train.contents)


def test_scenes_without_lists_keep_their_split(scene_folder: Path, picture: Draw) -> None:
    for name in ("train", "val"):
        (scene_folder / "ImageSets/Segmentation" / f"{name}.txt").unlink()
    before = identity(scene_folder)
    for number in range(10, 20):
        picture(number).save(scene_folder / "JPEGImages" / f"a{number}.jpg")
        Image.fromarray(np.full((16, 20), number % 3, np.uint8)).save(scene_folder / f"SegmentationClass/a{number}.png")
    now = load(scene_folder, before)
    assert now.identity == before
    assert now.left_out == 10
