"""Own scenes in Pascal VOC's layout: which images and masks belong together, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldshift.cache_folder import cache_folder
from fieldshift.data import BadFileError, DataSet, LoadingConfig, load_dataset
from fieldshift.data.problems import MeaninglessDataError
from fieldshift.errors import UserError

Draw = Callable[..., Image.Image]
GO_ON = LoadingConfig(skip_unreadable=True)


def load(root: Path, loading: LoadingConfig | None = None, **settings: int) -> DataSet:
    return load_dataset(f"voc:{root}", loading=loading, **settings)  # type: ignore[arg-type]


def test_scenes_are_those_of_the_lists(scene_folder: Path) -> None:
    made = load(scene_folder)
    assert (made.task, made.classes, made.ignore_index) == ("segmentation", ("sky", "road", "tree"), 255)
    assert (len(made.train), len(made.test), made.size, made.channels) == (4, 2, (16, 20), 3)
    images, masks = made.test.gather(torch.tensor([1]))
    stored = np.array(Image.open(scene_folder / "JPEGImages" / "s5.jpg"))
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), stored)
    assert np.array_equal(masks[0].numpy(), np.array(Image.open(scene_folder / "SegmentationClass" / "s5.png")))
    assert masks.dtype == torch.int64
    assert set(masks.unique().tolist()) == {0, 1, 2, 255}


def test_a_list_of_test_scenes_goes_before_val(scene_folder: Path) -> None:
    (scene_folder / "ImageSets" / "Segmentation" / "test.txt").write_text("s5\n")
    made = load(scene_folder)
    assert len(made.test) == 1
    assert "val.txt is not used" in made.protocol


def test_without_lists_a_seeded_share_is_set_apart(scene_folder: Path) -> None:
    shutil.rmtree(scene_folder / "ImageSets")
    (scene_folder / "SegmentationClass" / "s0.png").unlink()
    made = load(scene_folder)
    assert (len(made.train), len(made.test)) == (4, 1)
    assert made.digest == load(scene_folder).digest
    assert len({load(scene_folder, seed=seed).digest for seed in range(6)}) > 1


@pytest.mark.parametrize("change", ["fieldshift.data.files.reading.READING", "PIL.__version__"])
def test_what_an_earlier_version_read_is_not_taken_from_the_cache(
    change: str, scene_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("masks", "headers", "unusable")
    load(scene_folder, GO_ON)
    before = {kind: len(list(cache_folder().glob(f"{kind}-*"))) for kind in kinds}
    load(scene_folder, GO_ON)
    assert {kind: len(list(cache_folder().glob(f"{kind}-*"))) for kind in kinds} == before
    monkeypatch.setattr(change, "another")
    load(scene_folder, GO_ON)
    assert all(len(list(cache_folder().glob(f"{kind}-*"))) > before[kind] for kind in kinds)


def test_another_image_folder_serves_if_it_is_the_only_one(scene_folder: Path) -> None:
    (scene_folder / "JPEGImages").rename(scene_folder / "frames")
    assert len(load(scene_folder).train) == 4
    (scene_folder / "more").mkdir()
    with pytest.raises(
        UserError, match="frames, more beside SegmentationClass; rename the one with the images to JPEGImages"
    ):
        load(scene_folder)


def test_without_names_classes_are_counted_in_the_masks(scene_folder: Path) -> None:
    (scene_folder / "classes.txt").unlink()
    assert load(scene_folder).classes == ("0", "1", "2")


def test_images_of_many_sizes_keep_their_scale(scene_folder: Path, picture: Draw) -> None:
    picture(9, (12, 30)).save(scene_folder / "JPEGImages" / "s0.jpg")
    Image.fromarray(np.ones((30, 12), dtype=np.uint8)).save(scene_folder / "SegmentationClass" / "s0.png")
    made = load(scene_folder)
    assert made.size == (30, 20)
    mask = made.train.gather(torch.tensor([0]))[1][0]
    assert (mask[:, :12] == 1).all()
    assert (mask[:, 12:] == 255).all()


def wrong_size(root: Path) -> None:
    Image.new("L", (19, 16)).save(root / "SegmentationClass" / "s1.png")


def wrong_label(root: Path) -> None:
    Image.new("L", (20, 16), 3).save(root / "SegmentationClass" / "s1.png")


def no_mask(root: Path) -> None:
    (root / "SegmentationClass" / "s1.png").unlink()


def no_image(root: Path) -> None:
    (root / "JPEGImages" / "s1.jpg").unlink()


def colour_mask(root: Path) -> None:
    (root / "SegmentationClass" / "s1.png").unlink()
    Image.new("CMYK", (20, 16)).save(root / "SegmentationClass" / "s1.tif")


def cut_mask(root: Path) -> None:
    path = root / "SegmentationClass" / "s1.png"
    path.write_bytes(path.read_bytes()[:-40])


BROKEN = {
    wrong_size: "is 19 x 16 pixels, its image 20 x 16",
    wrong_label: "holds labels that no class has: 3",
    no_mask: "has no mask in SegmentationClass",
    no_image: "is listed but has no image",
    colour_mask: "has the mode CMYK",
    cut_mask: "cannot be decoded",
}


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda spoil: spoil.__name__)
def test_a_spoilt_scene_is_refused_or_left_out(spoil: Callable[[Path], None], scene_folder: Path) -> None:
    spoil(scene_folder)
    with pytest.raises((BadFileError, MeaninglessDataError), match=BROKEN[spoil]) as refusal:
        load(scene_folder)
    assert "s1" in str(refusal.value)
    made = load(scene_folder, GO_ON)
    assert (len(made.train), made.skipped) == (3, 1)
    assert made.train.gather(torch.arange(3))[0].shape == (3, 3, 16, 20)


def test_a_list_cannot_lead_out_of_the_folder(scene_folder: Path, tmp_path: Path, picture: Draw) -> None:
    picture(1).save(tmp_path / "secret.jpg")
    (scene_folder / "ImageSets" / "Segmentation" / "train.txt").write_text("../../secret\ns0\n")
    with pytest.raises(BadFileError, match="is listed but has no image"):
        load(scene_folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ImageSets/Segmentation/train.txt", b"s0\ns1\ns0\n", "names 's0' twice"),
        ("ImageSets/Segmentation/train.txt", b"s0\n\xff\xfe\n", "not UTF-8"),
        ("ImageSets/Segmentation/train.txt", b"\n", "no scene with a mask to train on"),
        ("classes.txt", b"sky\n", "names 1 class, but must name 2"),
        ("classes.txt", b"\xff", "not UTF-8"),
    ],
)
def test_lists_that_make_no_sense_are_refused(name: str, content: bytes, words: str, scene_folder: Path) -> None:
    (scene_folder / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        load(scene_folder)


def test_a_folder_without_masks_is_refused(image_folder: Path) -> None:
    with pytest.raises(UserError, match="no folder SegmentationClass"):
        load(image_folder)
