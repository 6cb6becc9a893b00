"""Torch datasets read into memory: the samples as they are, and mistakes by the number of the sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset
from torchvision.datasets import FakeData
from torchvision.transforms.functional import to_tensor

from fieldshift.data import read_dataset
from fieldshift.errors import UserError

GREY = np.arange(30, dtype=np.uint8).reshape(5, 6)


def test_pictures_of_torchvisions_datasets() -> None:
    dataset = FakeData(size=7, image_size=(3, 6, 9), num_classes=4)
    split = read_dataset(dataset)
    assert split.images.shape == (7, 3, 6, 9)
    for place in range(7):
        picture, label = dataset[place]
        assert np.array_equal(split.images[place].permute(1, 2, 0).numpy(), np.asarray(picture))
        assert int(split.targets[place]) == int(label)


@pytest.mark.parametrize("label", [3, np.int64(3), torch.tensor(3), True])
def test_labels_of_every_kind(label: Any) -> None:
    split = read_dataset([(torch.zeros(1, 5, 6, dtype=torch.uint8), label)] * 2)
    assert split.targets.tolist() == [int(label)] * 2
    assert split.masks is None


@pytest.mark.parametrize(
    "mask", [Image.fromarray(GREY), torch.from_numpy(GREY).long(), GREY], ids=["PIL", "tensor", "array"]
)
def test_masks_of_every_kind(mask: Any) -> None:
    split = read_dataset([(Image.fromarray(GREY), mask)] * 3)
    assert split.images.shape == (3, 1, 5, 6)
    images, masks = split.gather(torch.tensor([2]))
    assert np.array_equal(masks[0].numpy(), GREY)
    assert np.array_equal(images[0, 0].numpy(), GREY)


class Streaming(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter(())


class Broken:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> Any:
        if place == 1:
            raise OSError("cannot identify image file 'b.png'")
        return PICTURE, 0


PICTURE = Image.fromarray(GREY)
MISTAKES: dict[str, tuple[Any, str]] = {
    "nothing": ([], "no sample"),
    "stream": (Streaming(), "Streaming has no length or cannot be indexed"),
    "unreadable": (Broken(), r"Sample 1 .* cannot be read \(cannot identify image file 'b.png'\)"),
    "floats": ([(to_tensor(GREY), 0)], r"sample 0 is torch\.float32 \(1, 5, 6\).*such as ToTensor"),
    "array": ([(GREY, 0)], "sample 0 is a ndarray"),
    "channels last": ([(torch.zeros(5, 6, 3, dtype=torch.uint8), 0)], r"sample 0 is torch\.uint8 \(5, 6, 3\)"),
    "palette": ([(PICTURE.convert("P"), 0)], r"has the mode P, .*\.convert\('RGB'\)"),
    "sixteen bits": ([(Image.new("I;16", (6, 5)), 0)], "has the mode I;16"),
    "sizes": ([(PICTURE, 0), (Image.fromarray(GREY.T), 0)], "sample 1 is 6 x 5 pixels, that of sample 0 5 x 6; resize"),
    "grey and colour": ([(PICTURE, 0), (PICTURE.convert("RGB"), 0)], "sample 1 has 3 channels, that of sample 0 1"),
    "name": ([(PICTURE, "cat")], "target of sample 0 is a str"),
    "boxes": ([(PICTURE, {"boxes": []})], "target of sample 0 is a dict"),
    "no label": ([(PICTURE, None)], "target of sample 0 is a NoneType"),
    "share": ([(PICTURE, 0.5)], r"target of sample 0 is torch\.float32"),
    "colours": ([(PICTURE, Image.new("RGB", (6, 5)))], r"target of sample 0 is torch\.uint8 \(3, 5, 6\)"),
    "small mask": (
        [(PICTURE, torch.zeros(4, 4, dtype=torch.int64))],
        r"sample 0 is \(4, 4\).*size of the images \(5 x 6\)",
    ),
    "labels and masks": ([(PICTURE, 0), (PICTURE, PICTURE)], r"target of sample 1 is \(5, 6\)"),
    "no target": ([PICTURE], r"Sample 0 of the dataset is a Image, but must be \(image, target\)"),
    "three values": ([(PICTURE, 0, "a.png")], "Sample 0 of the dataset is 3 values"),
    "large numbers": ([(PICTURE, torch.full((5, 6), 300))], "above 255"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str) -> None:
    dataset, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=words):
        read_dataset(dataset)
