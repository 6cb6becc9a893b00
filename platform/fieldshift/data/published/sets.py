"""Published data sets, from the files that their authors distribute (through torchvision where it reads them)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets

from fieldshift.data.collection import ArrayCollection, Collection, FileCollection
from fieldshift.data.files.listing import Listing, image_files, subfolders
from fieldshift.data.files.mask_table import UNKNOWN_LABEL, plain_table, table_of_map
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.names import COVERS
from fieldshift.data.own.npz import npz_collection
from fieldshift.data.problems import Findings
from fieldshift.data.split import IGNORE, TensorSplit
from fieldshift.errors import UserError, one_line
from fieldshift.tasks import Task

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table",
    "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv/monitor",
)  # fmt: skip
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set of the catalogue.

    collect: reads it from the data root; its location there is in `fieldshift.data.names`.
    """

    task: Task
    class_count: int
    size: str
    samples: str
    licence: str
    collect: Callable[[Path, LoadingConfig, Findings], Collection]


def from_torchvision(name: str, root: Path, kind: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    """Reads `kind` with torchvision below `root`. Raises UserError for any error."""
    try:
        return kind(str(root), *arguments, **settings)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{name} in {root} cannot be read ({one_line(error, 160)}); delete it and download it again."
        ) from error


def collect_cifar(name: str, kind: Any, folder: str) -> Callable[[Path, LoadingConfig, Findings], ArrayCollection]:
    def collect(root: Path, loading: LoadingConfig, findings: Findings) -> ArrayCollection:
        packed = root / f"{name}.npz"
        if not (root / folder).exists() and packed.exists() and not loading.download:
            found = npz_collection(str(packed), loading, findings, seed=0)
            named = CIFAR10_CLASSES if name == "cifar10" else found.classes
            return ArrayCollection(name=name, task="classification", classes=named, train=found.train,
                                   test=found.test, protocol=found.protocol)  # fmt: skip
        splits: dict[str, TensorSplit] = {}
        classes: tuple[str, ...] = ()
        for part in ("train", "test"):
            read = from_torchvision(name, root, kind, part == "train", download=loading.download)
            pixels = torch.from_numpy(np.ascontiguousarray(read.data.transpose(0, 3, 1, 2)))
            splits[part] = TensorSplit(pixels, torch.tensor(read.targets, dtype=torch.int64))
            classes = tuple(read.classes)
        return ArrayCollection(name=name, task="classification", classes=classes, train=splits["train"],
                               test=splits["test"], protocol="the published train and test images")  # fmt: skip

    return collect


def collect_fashion(root: Path, loading: LoadingConfig, findings: Findings) -> ArrayCollection:
    del findings
    splits = {}
    for part in ("train", "test"):
        read = from_torchvision(
            "fashion-mnist", root, datasets.FashionMNIST, part == "train", download=loading.download
        )
        splits[part] = TensorSplit(read.data[:, None].contiguous(), read.targets.long())
    return ArrayCollection(name="fashion-mnist", task="classification", classes=FASHION_CLASSES, train=splits["train"],
                           test=splits["test"], protocol="the published train and test images")  # fmt: skip


def collect_tiny_imagenet(root: Path, loading: LoadingConfig, findings: Findings) -> FileCollection:
    del loading
    root = (root / "tiny-imagenet-200").resolve()
    wnids = sorted(subfolders(root / "train", root, findings))
    label = {wnid: number for number, wnid in enumerate(wnids)}
    train, test = Listing([], []), Listing([], [])
    for wnid in wnids:
        found = list(image_files(root / "train" / wnid / "images", root, findings))
        train.images += found
        train.targets += [label[wnid]] * len(found)
    annotations = root / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise UserError(f"{annotations} is missing; unpack all of Tiny-ImageNet again.")
    class_of = {
        line.split("\t")[0]: line.split("\t")[1] for line in annotations.read_text().splitlines() if "\t" in line
    }
    for path in image_files(root / "val" / "images", root, findings):
        wnid = class_of.get(Path(path).name, "")
        if wnid not in label:
            findings.add("no label", path, "has no class in val_annotations.txt that train has", "unpack the set again")
            continue
        test.images.append(path)
        test.targets.append(label[wnid])
    words = root / "words.txt"
    lines = words.read_text(encoding="utf-8").splitlines() if words.is_file() else []
    names = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return FileCollection(
        name="tiny-imagenet", task="classification", classes=tuple(names.get(wnid, wnid) for wnid in wnids),
        train=train, test=test, protocol="the published train and val images", size=(64, 64), channels=3,
    )  # fmt: skip


def collect_imagenet(root: Path, loading: LoadingConfig, findings: Findings) -> FileCollection:
    del loading
    root = (root / "imagenet").resolve()
    found = {}
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise UserError(f"{root / part} is missing; sort ImageNet's images into train/WNID/ and val/WNID/.")
        found[part] = subfolders(root / part, root, findings)
    wnids = sorted(found["train"])
    if set(found["val"]) != set(wnids):
        odd = sorted(set(found["val"]) ^ set(wnids))
        hint = odd[0] if odd else "images without folders"
        raise UserError(f"{root} has other classes in val than in train ({hint}); sort val's images into val/WNID/.")
    names: dict[str, tuple[str, ...]] = {}
    if (root / "meta.bin").is_file():
        names = from_torchvision("imagenet", root, datasets.imagenet.load_meta_file)[0]
    parts = {}
    for part in ("train", "val"):
        images = {wnid: list(image_files(found[part][wnid][0], root, findings)) for wnid in wnids}
        parts[part] = Listing(
            [path for wnid in wnids for path in images[wnid]],
            [number for number, wnid in enumerate(wnids) for _ in images[wnid]],
        )
    return FileCollection(
        name="imagenet", task="classification", classes=tuple(", ".join(names.get(wnid, (wnid,))) for wnid in wnids),
        train=parts["train"], test=parts["val"], protocol="the published train and val images", size=(224, 224),
        channels=3, cover=COVERS["imagenet"], statistics=IMAGENET_STATISTICS,
    )  # fmt: skip


def collect_voc(root: Path, loading: LoadingConfig, findings: Findings) -> FileCollection:
    del findings
    parts = {}
    for part in ("train", "val"):
        read = from_torchvision(
            "voc2012", root, datasets.VOCSegmentation, "2012", part, download=loading.download and part == "train"
        )
        parts[part] = Listing(list(read.images), [0] * len(read.images), list(read.masks))
    # No image of the set is larger, so nothing is scaled and the scores are those of the original pixels.
    return FileCollection(
        name="voc2012", task="segmentation", classes=VOC_CLASSES, train=parts["train"], test=parts["val"],
        protocol="the published train and val scenes", size=(500, 500), channels=3,
        masks=plain_table(len(VOC_CLASSES)),
    )  # fmt: skip


def collect_cityscapes(root: Path, loading: LoadingConfig, findings: Findings) -> FileCollection:
    del loading, findings
    folder = root / "cityscapes"
    parts = {}
    for part in ("train", "val"):
        read = from_torchvision("cityscapes", folder, datasets.Cityscapes, part, "fine", "semantic")
        pairs = sorted(zip(read.images, (target[0] for target in read.targets), strict=True))
        parts[part] = Listing([image for image, _ in pairs], [0] * len(pairs), [mask for _, mask in pairs])
    return FileCollection(
        name="cityscapes", task="segmentation", classes=tuple(kind.name for kind in trained_kinds()),
        train=parts["train"], test=parts["val"], protocol="the published fine train and val scenes, 19 train ids",
        size=(1024, 2048), channels=3, masks=table_of_map(cityscapes_labels()),
    )  # fmt: skip


def trained_kinds() -> list[Any]:
    kinds = [kind for kind in datasets.Cityscapes.classes if 0 <= kind.train_id < IGNORE]
    return sorted(kinds, key=lambda kind: kind.train_id)


def cityscapes_labels() -> tuple[int, ...]:
    """Maps the ids in the *_labelIds.png files to the 19 train ids; all other kinds are ignored."""
    labels = [UNKNOWN_LABEL] * 256
    for kind in datasets.Cityscapes.classes:
        # The licence plate has the id -1, which a byte stores as 255.
        labels[kind.id % 256] = kind.train_id if 0 <= kind.train_id < IGNORE else IGNORE
    return tuple(labels)


PUBLISHED: dict[str, Published] = {
    "cifar10": Published(
        task="classification", class_count=10, size="32 x 32 RGB", samples="50,000 + 10,000",
        licence="none stated", collect=collect_cifar("cifar10", datasets.CIFAR10, "cifar-10-batches-py"),
    ),
    "cifar100": Published(
        task="classification", class_count=100, size="32 x 32 RGB", samples="50,000 + 10,000",
        licence="none stated", collect=collect_cifar("cifar100", datasets.CIFAR100, "cifar-100-python"),
    ),
    "fashion-mnist": Published(
        task="classification", class_count=10, size="28 x 28 grey", samples="60,000 + 10,000", licence="MIT",
        collect=collect_fashion,
    ),
    "tiny-imagenet": Published(
        task="classification", class_count=200, size="64 x 64 RGB", samples="100,000 + 10,000",
        licence="non-commercial research", collect=collect_tiny_imagenet,
    ),
    "imagenet": Published(
        task="classification", class_count=1000, size="224 x 224 RGB", samples="1,281,167 + 50,000",
        licence="non-commercial", collect=collect_imagenet,
    ),
    "voc2012": Published(
        task="segmentation", class_count=21, size="to 500 x 500 RGB", samples="1,464 + 1,449",
        licence="as each photograph's", collect=collect_voc,
    ),
    "cityscapes": Published(
        task="segmentation", class_count=19, size="1024 x 2048 RGB", samples="2,975 + 500",
        licence="non-commercial", collect=collect_cityscapes,
    ),
}  # fmt: skip
