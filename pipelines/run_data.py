"""The data that a finished run is used on: its own, read as in its training, or other data with the same classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshift.data import DataSet, LoadingConfig, LoadingOverrides, changes, with_classes
from fieldshift.errors import UserError, reason_of
from fieldshift.experiment.data_record import FILE, DataRecord, digest_without_record, read_record, run_folder_of
from fieldshift.experiment.dataset import load_data, loading_from_plain
from fieldshift.run_folder import CONFIG, read_config
from fieldshift.training.card_file import ALIGN, read_card
from fieldshift.wording import counted, is_or_are

if TYPE_CHECKING:
    from fieldshift.training import NetworkCard

# Kinds and names of data whose images are files, which are brought to the network's size; arrays have their own.
OF_FILES = {"folder", "voc", "imagenet", "tiny-imagenet", "voc2012", "cityscapes"}
LIMITS = ("test_share", "train_limit", "test_limit", "test_parts")


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The data set, its loading settings, and one line per note on it."""

    dataset: DataSet
    loading: LoadingConfig
    notes: tuple[str, ...]


def loading_of(run: Path) -> LoadingConfig | None:
    """The loading settings of a run, from the configuration in its folder or, for a trial, in the run's; None without one."""
    file = run_folder_of(run) / CONFIG
    if not file.is_file():
        return None
    loading = read_config(file)[1].get("loading") or {}
    try:
        return loading_from_plain(loading)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} has no usable loading ({reason_of(error)}); restore it, or delete it.") from None


def align_of(run: Path, given: bool | None) -> bool:
    """Whether the maps of a run's network are fused in the reference frame: as given, else as in its training.

    Comparisons, and runs of versions without the option, align.
    """
    if given is not None:
        return given
    file, card = run_folder_of(run) / CONFIG, run / "network.json"
    align = read_card(run).get(ALIGN) if card.is_file() else None  # of an exported network
    if align is not None:
        file = card
    else:
        align = read_config(file)[1].get("align", True) if file.is_file() else True
    if not isinstance(align, bool):
        raise UserError(f"{file} has the align '{align}', but must have true or false; restore it, or give --align.")
    return align


def load_as_in_run(run: Path, card: NetworkCard, given: LoadingOverrides, data: str | None = None) -> RunData:
    """The data of a run, or `data`: read as in the run's training except for the given options, with the same class numbers.

    Of the run's own data the parts stay those of the training, file by file, whatever the folder has gained or lost. Of new
    data without a test part all images are tested, unless a share is asked for.
    Raises UserError where the classes have other names, or an option would do nothing.
    """
    spec = data or card.data
    own = same_data(spec, card.data)
    notes = []
    kept = loading_of(run)
    if kept is None:
        notes.append(f"{run} has no config.yaml: how its data were read is unknown, and defaults are taken.")
        kept = LoadingConfig()
    record = read_record(run)
    if own and ":" in spec:
        check_split_stays(run, kept, given, record)
    if not own:
        kept = replace(kept, size=None, channels=None, download=False, train_limit=None, test_limit=None)
    loading = given.over(kept)
    read = loading
    if spec.partition(":")[0] in OF_FILES:
        read = replace(loading, size=loading.size or card.size, channels=loading.channels or card.channels)
    whole = None if own or record is None else given.test_share is None  # without a record, a moved folder looks new
    dataset = load_data(spec, card.task, read, like=None if record is None else record.identity, whole=whole)
    if dataset.recognised and given.test_share not in (None, kept.test_share):
        raise UserError(
            f"--loading.test_share is {given.test_share}, but {spec} has the images that {run} was trained with, and is used "
            f"with their split (test_share {kept.test_share}); leave it out."
        )
    if dataset.channels != card.channels:
        raise UserError(
            f"The network of {run} reads {counted(card.channels, 'channel')}, but {spec} has {dataset.channels}; give data "
            "with the same."
        )
    partly = any(getattr(loading, name) != getattr(kept, name) for name in LIMITS)
    notes += notes_on(run, card, record, dataset, own=own, partly=partly)
    return RunData(dataset=with_classes(dataset, card.classes), loading=loading, notes=tuple(notes))


def check_split_stays(run: Path, kept: LoadingConfig, given: LoadingOverrides, record: DataRecord | None) -> None:
    """Raises UserError for an option that would change the split of own data, so that training images would be tested.

    Of limited test images the record has no others, which may be training images.
    """
    most, asked = kept.test_limit, given.test_limit
    known = 0 if record is None or record.identity is None else len(record.identity.test.contents)
    if most is not None and asked is not None and asked > most <= known:
        raise UserError(
            f"--loading.test_limit is {asked}, but {run} was trained with test_limit {most}, and only these images are known "
            f"to be test images; give {most} or fewer."
        )
    for name in ("test_share", "train_limit", "train_parts", "classes_on_top"):
        asked = getattr(given, name)
        if asked is not None and asked != getattr(kept, name):
            raise UserError(
                f"--loading.{name} is {asked}, but {run} is used with the split of its training ({name} "
                f"{getattr(kept, name)}); leave it out, or train again."
            )


def same_data(spec: str, other: str) -> bool:
    """Returns whether two names of data refer to the same path."""
    if spec == other:
        return True
    (kind, colon, path), (other_kind, _, other_path) = spec.partition(":"), other.partition(":")
    if not colon or kind != other_kind:
        return False
    return Path(path).expanduser().resolve() == Path(other_path).expanduser().resolve()


def notes_on(
    run: Path, card: NetworkCard, record: DataRecord | None, dataset: DataSet, *, own: bool, partly: bool
) -> list[str]:
    """Notes on the data that matter for the score."""
    notes = []
    if tuple(dataset.size) != tuple(card.size):
        notes.append(
            f"The images are {dataset.size[0]} x {dataset.size[1]} px; the network was trained on {card.size[0]} x "
            f"{card.size[1]} px."
        )
    if record is None:
        digest = digest_without_record(run_folder_of(run), dataset)
        if own and digest != dataset.digest:
            notes.append(
                f"{run} has no {FILE} (an earlier version of FieldShift made it): whether {dataset.name} has changed since "
                "its training is unknown."
            )
        return notes
    if record.identity is None or dataset.identity is None:
        if own and not partly and not dataset.from_files and record.digest != dataset.digest:
            notes.append(f"{dataset.name} has changed since the training (its digest differs).")
        return notes
    if own and (what := changes(record.identity, dataset.identity, partly=partly)):
        notes.append(f"{dataset.name} has changed since the training: {what}.")
    if dataset.left_out:
        notes.append(
            f"{counted(dataset.left_out, 'image')} of {dataset.name} skipped, in neither part of the training's split."
        )
    trained_on = sum(record.identity.trained_on(dataset.identity.test.contents))
    if trained_on:
        notes.append(
            f"{trained_on:,} of the {len(dataset.test):,} test images {is_or_are(trained_on)} among those that the network "
            "was trained on, so the score is too good."
        )
    elif not own and (named := len(set(record.identity.train.names) & set(dataset.identity.test.names) - {""})):
        notes.append(
            f"The names of {named:,} of the {len(dataset.test):,} test images are those of images that the network was trained "
            "on, their contents are not."
        )
    return notes


def different_data(folders: Sequence[Path]) -> list[str]:
    """A line for every run that was not trained on the data of the first one, though they have one name."""
    first = read_record(folders[0])
    notes = []
    for folder in folders[1:]:
        other = read_record(folder)
        if first is None or other is None or first.digest == other.digest:
            continue
        what = None if first.identity is None or other.identity is None else changes(first.identity, other.identity)
        notes.append(
            f"{folder} was trained on other data than {folders[0]} under the name {first.name}: "
            f"{what or 'the digest differs'}. The images are those of {folders[0]}."
        )
    return notes
