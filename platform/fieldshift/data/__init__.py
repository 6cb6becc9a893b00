"""Data sets: the catalogue, own data, splits and batches, and the 2D augmentation arms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldshift.deferral import load_on_use

if TYPE_CHECKING:
    from fieldshift.data.augmentation.arms import Augmentation, known_augmentations
    from fieldshift.data.augmentation.basic import BasicAugmentation
    from fieldshift.data.batching import Batch, batch_count, batches, epoch_order
    from fieldshift.data.catalogue import CatalogueRow, catalogue, load_dataset
    from fieldshift.data.class_names import with_classes
    from fieldshift.data.dataset import DataSet
    from fieldshift.data.identity import Identity, changes
    from fieldshift.data.inspection.inspect import inspect_data
    from fieldshift.data.inspection.report import DataReport
    from fieldshift.data.loading import LoadingConfig, LoadingOverrides
    from fieldshift.data.names import known_datasets
    from fieldshift.data.partition import halves, holdout, write_parts
    from fieldshift.data.problems import BadFileError, Problem
    from fieldshift.data.split import IGNORE, Split, TensorSplit
    from fieldshift.data.torch_dataset import read_dataset

__all__ = [
    "IGNORE",
    "Augmentation",
    "BadFileError",
    "BasicAugmentation",
    "Batch",
    "CatalogueRow",
    "DataReport",
    "DataSet",
    "Identity",
    "LoadingConfig",
    "LoadingOverrides",
    "Problem",
    "Split",
    "TensorSplit",
    "batch_count",
    "batches",
    "catalogue",
    "changes",
    "epoch_order",
    "halves",
    "holdout",
    "inspect_data",
    "known_augmentations",
    "known_datasets",
    "load_dataset",
    "read_dataset",
    "with_classes",
    "write_parts",
]

load_on_use(__name__)
