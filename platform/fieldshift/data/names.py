"""The names and locations of data sets, available without importing torch."""

from __future__ import annotations

from pathlib import Path

from fieldshift.data.loading import LoadingConfig
from fieldshift.errors import UserError, unknown_name
from fieldshift.paths import given_path
from fieldshift.tasks import Task

AXES = ("left", "top")
OWN_KINDS = ("folder", "npz", "voc")
PLACES = {
    "cifar10": ("cifar-10-batches-py", "cifar10.npz"),
    "cifar100": ("cifar-100-python", "cifar100.npz"),
    "fashion-mnist": ("FashionMNIST/raw",),
    "tiny-imagenet": ("tiny-imagenet-200",),
    "imagenet": ("imagenet/train",),
    "voc2012": ("VOCdevkit/VOC2012",),
    "cityscapes": ("cityscapes/leftImg8bit",),
}
"""Published data sets, and the files or folders below the data root that show each is present."""
SCENES = ("voc", "voc2012", "cityscapes")
"""Kinds and names of data with masks."""
DOWNLOADED = ("cifar10", "cifar100", "fashion-mnist", "voc2012")
"""The sets that torchvision can download."""
COVERS = {"imagenet": 0.875}
"""The share of an image's shorter side that is kept (`Reader.cover`), for sets where it is not all."""


def known_datasets() -> list[str]:
    """The names that `load_dataset` takes, in addition to folder:PATH, npz:PATH and voc:PATH."""
    return [*(f"digit-pairs-{axis}" for axis in AXES), *PLACES]


def is_digit_pairs(spec: str) -> bool:
    """Whether `spec` names the built-in scenes."""
    return spec in {f"digit-pairs-{axis}" for axis in AXES}


def task_of(spec: str) -> Task | None:
    """The only task of a data set, as far as its name tells; None for those of both tasks, for npz files and unknown names."""
    kind = spec.partition(":")[0]
    if kind in SCENES:
        return "segmentation"
    return "classification" if kind == "folder" or kind in PLACES else None


def check_data_name(spec: str, loading: LoadingConfig, root: Path | str | None = None) -> None:
    """Raises UserError where `spec` names no data set or a missing one, or `loading` does not apply to it."""
    kind, colon, path = spec.partition(":")
    if colon:
        if kind not in OWN_KINDS:
            raise unknown_name("kind of data", kind, [f"{name}:PATH" for name in OWN_KINDS])
        if not path:
            raise UserError(f"'{spec}' names no path; give {kind}:PATH.")
        if loading.download:
            raise UserError(f"loading.download does not apply to {spec}; leave it out.")
        check_parts_apply(spec, kind, loading)
        (existing_file if kind == "npz" else existing_folder)(path)
        return
    check_parts_apply(spec, "", loading)
    if is_digit_pairs(spec):
        if loading.size is not None or loading.channels is not None:
            raise UserError(f"loading.size and loading.channels do not apply to {spec}; leave them out.")
        return
    if spec not in PLACES:
        if Path(spec).exists():
            kind = "npz" if Path(spec).is_file() else "folder"
            raise UserError(f"--data is '{spec}', which is a path; did you mean {kind}:{spec}?")
        raise unknown_name("data set", spec, [*known_datasets(), *(f"{name}:PATH" for name in OWN_KINDS)])
    check_published(spec, loading, root)


def check_parts_apply(spec: str, kind: str, loading: LoadingConfig) -> None:
    """Raises UserError for layout settings that do not apply to this data set."""
    parts = ("folder", "voc")
    for setting, kinds in (("train_parts", parts), ("test_parts", parts), ("classes_on_top", ("folder",))):
        if getattr(loading, setting) and kind not in kinds:
            raise UserError(f"loading.{setting} does not apply to {spec}; leave it out.")


def check_published(name: str, loading: LoadingConfig, root: Path | str | None) -> None:
    """Raises UserError where a published data set is missing and cannot be downloaded as requested."""
    from fieldshift.data.cache import data_root

    base = data_root(root)
    if loading.download and name not in DOWNLOADED:
        raise UserError(f"{name} cannot be downloaded by torchvision; put it below {base} yourself.")
    if not loading.download and not any((base / place).exists() for place in PLACES[name]):
        places = " or ".join(str(base / place) for place in PLACES[name])
        fetch = "set loading.download, " if name in DOWNLOADED else ""
        raise UserError(f"{name} is not at {places}; {fetch}put it there, or give its folder as root.")


def existing_folder(path: str | Path, kind: str = "data") -> Path:
    """`path` as an absolute folder with links resolved. Raises UserError if it is not a readable folder."""
    folder = given_path(path)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else f"does not exist{looked_in(folder)}"
        raise UserError(f"The {kind} folder '{path}' {found}; give the path of an existing folder.")
    return folder.resolve()


def existing_file(path: str | Path) -> Path:
    """The npz file at `path`. Raises UserError if it does not exist."""
    file = given_path(path)
    if not file.is_file():
        raise UserError(f"The npz file '{path}' does not exist{looked_in(file)}; give the path of an existing file.")
    return file


def looked_in(path: Path) -> str:
    """The folder that a relative path was looked for in, in words: runs keep the path, and may be used from elsewhere."""
    return "" if path.is_absolute() else f" in {Path.cwd()}"
