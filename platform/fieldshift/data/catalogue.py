"""The catalogue: every data set by name, and own data by path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fieldshift.data.cache import data_root
from fieldshift.data.collection import Collection
from fieldshift.data.dataset import DataSet
from fieldshift.data.files.mask_decoding import RunMasks
from fieldshift.data.identity import Identity
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.names import AXES, DOWNLOADED, PLACES, check_data_name, is_digit_pairs
from fieldshift.data.own.folder import folder_collection
from fieldshift.data.own.npz import npz_collection
from fieldshift.data.own.scenes import scene_collection
from fieldshift.data.problems import Findings
from fieldshift.data.published.digit_pairs import digit_pairs
from fieldshift.data.published.sets import PUBLISHED
from fieldshift.errors import UserError
from fieldshift.tasks import Task, check_task

OWN: dict[str, Callable[..., Collection]] = {
    "folder": folder_collection,
    "npz": npz_collection,
    "voc": scene_collection,
}
MASKED = ("npz", "voc")


@dataclass(frozen=True, kw_only=True)
class CatalogueRow:
    """A row of the catalogue: a data set's description, and whether it is on this machine.

    task: "both" for sets for classification and segmentation. looked_in: the files or folders below the data root that
    show it is present; none for built-in sets. downloads: whether torchvision can download it.
    """

    name: str
    task: str
    classes: int
    size: str
    samples: str
    licence: str
    present: bool
    looked_in: tuple[str, ...]
    downloads: bool


def catalogue(root: Path | str | None = None) -> list[CatalogueRow]:
    """One row per named data set; published ones are searched for below `root` (see `load_dataset`)."""
    rows = [
        CatalogueRow(
            name=f"digit-pairs-{axis}", task="both", classes=10, size="40 x 40 grey",
            samples="2,000 + 2,000", licence="CC BY 4.0", present=True,
            looked_in=(), downloads=False,
        )
        for axis in AXES
    ]  # fmt: skip
    base = data_root(root)
    for name, published in PUBLISHED.items():
        rows.append(
            CatalogueRow(
                name=name,
                task=published.task,
                classes=published.class_count,
                size=published.size,
                samples=published.samples,
                licence=published.licence,
                looked_in=PLACES[name],
                present=any((base / place).exists() for place in PLACES[name]),
                downloads=name in DOWNLOADED,
            )
        )
    return rows


def load_dataset(  # noqa: PLR0913 - one parameter per choice
    spec: str,
    *,
    task: Task | None = None,
    seed: int = 0,
    root: Path | str | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    loading: LoadingConfig | None = None,
    like: Identity | None = None,
    whole: bool | None = None,
) -> DataSet:
    """Loads the data set that `spec` names: a name of the catalogue, or folder:PATH, npz:PATH or voc:PATH for own data.

    `task` is "classification" or "segmentation"; by default the data set's own (digit pairs: classification). `seed` draws the
    scenes of the digit pairs, a test share where own data name none, and limited parts. Published sets are searched for below
    `root`, else FIELDSHIFT_DATA, else `datasets` in the cache folder. `train_limit` and `test_limit` keep that many samples in
    the proportions of the classes (digit pairs: generate that many scenes). `like`: an earlier identity of own data
    (`DataSet.identity`); where parts are drawn, every sample stays in its earlier part, and new ones are left out and counted,
    and numbers in masks keep their meaning. `whole`: None for the data of `like`; for others, whether all samples are tested
    (those of train too) where parts would be drawn. In others, samples that only have names of `like` are new unless most
    contents are known. Raises UserError for unknown names, missing files, a task the set does not have, and (BadFileError) the
    first unusable file, unless loading.skip_unreadable.
    """
    loading = loading or LoadingConfig()
    check_task(task)
    if is_digit_pairs(spec):
        check_data_name(spec, loading)
        made, axis = task or "classification", spec.removeprefix("digit-pairs-")
        return digit_pairs(axis, task=made, seed=seed, train_limit=train_limit, test_limit=test_limit)
    findings = Findings(skip=loading.skip_unreadable, accepted=frozenset(loading.accept or ()))
    collection = collect(spec, loading, findings, seed=seed, root=root, of_run=masks_of_run(like, own=whole is None))
    if task is not None and task != collection.task:
        raise UserError(f"{spec} is for {collection.task}, not for {task}; leave the task out or use other data.")
    return collection.load(
        loading, findings, seed=seed, train_limit=train_limit, test_limit=test_limit, like=like, whole=whole
    )


def masks_of_run(like: Identity | None, *, own: bool) -> RunMasks | None:
    """The meaning of the numbers in masks for the run that recorded its data; None without one."""
    if like is None or like.masks is None:
        return None
    names = frozenset(name for _, part in like.parts for name in part.names)
    return RunMasks(like.masks, like.classes, names if own else None)


def collect(
    spec: str,
    loading: LoadingConfig,
    findings: Findings,
    *,
    seed: int,
    root: Path | str | None = None,
    of_run: RunMasks | None = None,
) -> Collection:
    """The contents of `spec` (other than digit pairs), not yet decoded; problems are added to `findings`.

    of_run: what the numbers in masks mean for an earlier run.
    """
    check_data_name(spec, loading, root)
    kind, colon, path = spec.partition(":")
    if colon:
        meaning = {"of_run": of_run} if kind in MASKED else {}
        return OWN[kind](path, loading, findings, seed=seed, **meaning)
    return PUBLISHED[spec].collect(data_root(root), loading, findings)
