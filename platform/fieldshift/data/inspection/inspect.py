"""Inspects a data set before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fieldshift.data.catalogue import collect, load_dataset
from fieldshift.data.collection import FileCollection, at_most, files_at_most
from fieldshift.data.copies import conflicting, report_conflicts
from fieldshift.data.dataset import statistics_of
from fieldshift.data.inspection.looking import PartLook, look_at_arrays, look_at_files
from fieldshift.data.inspection.report import DataReport
from fieldshift.data.leaks import almost_equal, stacked
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.names import is_digit_pairs
from fieldshift.data.problems import BadFileError, Findings
from fieldshift.data.split import IGNORE, Split, TensorSplit
from fieldshift.errors import UserError
from fieldshift.tasks import Task


def inspect_data(
    spec: str,
    *,
    task: Task | None = None,
    root: Path | str | None = None,
    seed: int = 0,
    limit: int | None = None,
    loading: LoadingConfig | None = None,
) -> DataReport:
    """Inspects the data that `spec` names (see `load_dataset`): reports its contents and all its problems.

    Every file is decoded once, or with `limit` only the first `limit` samples of train and of test. An unusable file is
    listed in the report with its problem and a remedy; UserError is raised only if there is nothing to inspect.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}, but must be at least 1 sample; leave it out to inspect all of them.")
    loading = replace(loading or LoadingConfig(), skip_unreadable=True)
    findings = Findings(skip=True, accepted=frozenset(loading.accept or ()), looking=True)
    if is_digit_pairs(spec):
        made = load_dataset(spec, task=task, seed=seed, train_limit=loading.train_limit, test_limit=loading.test_limit)
        parts: dict[str, Split] = {"train": made.train, "test": made.test}
        kind, classes, protocol, is_own = made.task, made.classes, made.protocol, False
    else:
        try:
            collection = collect(spec, loading, findings, seed=seed, root=root)
            if isinstance(collection, FileCollection) and collection.unsplit:
                raise UserError(collection.unsplit)
        except UserError as error:
            # There is nothing left to inspect: the samples left out give the reason.
            raise BadFileError(findings.problems[0]) if findings.problems else error from None
        kind, classes, protocol = collection.task, collection.classes, collection.protocol
        is_own = collection.is_own
        if task is not None and task != kind:
            raise UserError(f"{spec} is for {kind}, not for {task}; leave the task out or use other data.")
        if isinstance(collection, FileCollection):
            reader = collection.reader(loading)
            listings = (
                files_at_most(collection.train, loading.train_limit, seed),
                files_at_most(collection.test, loading.test_limit, seed),
            )
            train, test = (
                look_at_files(listing, reader, len(classes), loading.workers, findings, limit=limit)
                for listing in listings
            )
            return report_on(spec, kind, classes, {"train": train, "test": test}, findings, protocol, is_own=is_own)
        parts = {
            "train": at_most(collection.train, loading.train_limit, seed),
            "test": at_most(collection.test, loading.test_limit, seed),
        }
    looks = {}
    for name, split in parts.items():
        assert isinstance(split, TensorSplit)
        looks[name] = look_at_arrays(name, split, len(classes), limit=limit)
    return report_on(spec, kind, classes, looks, findings, protocol, is_own=is_own)


def report_on(
    spec: str,
    task: Task,
    classes: tuple[str, ...],
    looks: dict[str, PartLook],
    findings: Findings,
    protocol: str,
    *,
    is_own: bool,
) -> DataReport:
    train, test = looks["train"], looks["test"]
    first: dict[bytes, str] = {}
    for pixels, name in train.samples:
        first.setdefault(pixels, name)
    samples, labels = [*train.samples, *test.samples], [*train.labels, *test.labels]
    conflicts = conflicting([pixels for pixels, _ in samples], labels)
    if is_own:
        report_conflicts(conflicts, [name for _, name in samples], [classes[label] for label in labels], findings)
    equal = {name for pixels, name in test.samples if pixels in first}
    near = almost_equal(stacked(train.thumbs), stacked(test.thumbs))
    named = ((train.samples[kept][1], test.samples[held][1]) for kept, held in near)
    mean, std = statistics_of(train.levels if train.samples else train.levels + 1)
    amounts = train.amounts + test.amounts
    ignored = float(amounts[IGNORE] / amounts.sum().clamp(min=1)) if task == "segmentation" else 0.0
    return DataReport(
        name=spec,
        protocol=protocol,
        task=task,
        counts={"train": len(train.samples), "test": len(test.samples)},
        classes={name: (int(train.amounts[label]), int(test.amounts[label])) for label, name in enumerate(classes)},
        ignored=ignored,
        sizes=dict((train.sizes + test.sizes).most_common()),
        channels=len(train.levels),
        mean=mean,
        std=std,
        problems=tuple(findings.problems),
        notes=tuple(findings.notes),
        duplicates=tuple((first[pixels], name) for pixels, name in test.samples if pixels in first),
        near=tuple(pair for pair in named if pair[1] not in equal),
        repeated=len(train.samples) - len(first) - sum(second < len(train.samples) for _, second in conflicts),
        looked_at=(train.looked_at + test.looked_at, train.total + test.total),
    )
