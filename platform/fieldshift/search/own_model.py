"""A search with a model and images of your own, as objects: in this process, without a run folder, Ray or MLflow."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fieldshift.data import DataSet, Split
from fieldshift.data.dataset import digest_of, grey_levels, names_of, statistics_of
from fieldshift.data.split import IGNORE
from fieldshift.errors import UserError
from fieldshift.folding import still
from fieldshift.forms import check_form
from fieldshift.networks import video_network
from fieldshift.networks.foreign import answers, given_as, shape_of
from fieldshift.search.config import SearchConfig
from fieldshift.search.loop import FoundPolicy, search
from fieldshift.search.run import DEFAULT_FRAMES
from fieldshift.search.space import Space, load_space
from fieldshift.tasks import Task
from fieldshift.training.frames import FramePlan
from fieldshift.training.objectives import objective_for
from fieldshift.training.recipe import check_crop
from fieldshift.wording import counted

READ_AT_ONCE = 256
FEWEST_FRAMES = {"folded": 3, "video": 2}
"""Frames below which no motion could be told from another: the folded form needs one to either side of the reference."""


def find_policy(
    model: nn.Module,
    train: Split,
    *,
    space: str | Space = "affine-one",
    config: SearchConfig = SearchConfig(),
    form: str = "folded",
    places: str | None = None,
    temporal: str = "tsm",
    ratio: float | None = None,
    interleave: bool | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> FoundPolicy:
    """Searches the motions that suit a copy of `model` best; `model` itself is unchanged.

    `model` maps images (N, C, H, W) to logits (N, K), or for a split with masks to (N, K, H, W), in float32. The search starts
    from its weights, and trains the copy. `train` are the training images, half of which train the network and half alpha:
    `TensorSplit(images, labels)`, `read_dataset(dataset)`, or a `Split` of your own. Images are normalised by `mean` and
    `std` per channel, in units of [0, 1]; by default those of the images. `places`, `temporal`, `ratio` and `interleave` are
    those of `fold`, which then adds `.policy` of the result to the model; with `form="video"` it is a policy for
    `ImageToVideo`. `config` has the settings of the search, `frames` among them (3 by default). `device` is by default that
    of the model. With `folder` the state is written after every pass and decision, and `resume` continues from there.
    `progress` is called with one line per pass and decision; without it, warnings of the search are Python's.
    Raises UserError for a model that does not return such logits, labels that these cannot have, and settings that do not
    fit.
    """
    motion_space = load_space(space) if isinstance(space, str) else space
    frames = config.frames or motion_space.frames or DEFAULT_FRAMES
    check_given(model, train, form, frames, folder, resume)
    images, labels = train.gather(torch.arange(2))
    size = (int(images.shape[2]), int(images.shape[3]))
    check_crop("search", config.crop or 0, size)
    with torch.random.fork_rng([]):  # random layers of the model draw here, too
        classes = outputs_of(model, images, maps=labels.ndim > 1)
    levels, digest = read_through(train, classes)
    own_mean, own_std = normalisation(mean, std, levels)
    weights = digest_of(*(value for _, value in sorted(model.state_dict().items())))
    task: Task = "classification" if labels.ndim == 1 else "segmentation"
    data = DataSet(
        name="own images",
        task=task,
        classes=names_of(classes),
        train=train,
        test=train.subset(torch.arange(0)),
        mean=own_mean,
        std=own_std,
        size=size,
        protocol="own images",
        digest=digest_of(digest, weights, own_mean, own_std, places, ratio, interleave),
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = video_network(
            copy.deepcopy(model),
            task=task,
            temporal=temporal,
            num_classes=classes,
            in_channels=len(own_mean),
            ratio=ratio,
            interleave=interleave,
            places=places,
            frames=1 if form == "folded" else frames,
            motions=still(motion_space.groups) if form == "folded" else None,
        )
    return search(
        network,
        data,
        motion_space,
        config,
        objective=objective_for(task, classes, data.ignore_index),
        normalise=FramePlan(policy=None, mean=own_mean, std=own_std).normalise,
        device=device or next(model.parameters()).device,
        seed=seed,
        folder=None if folder is None else Path(folder),
        resume=resume,
        progress=progress or warn,
    )


def warn(line: str) -> None:
    """Gives the warnings among the lines of a search to Python's own."""
    if line.startswith("Warning: "):
        warnings.warn(line.removeprefix("Warning: "), stacklevel=2)


def check_given(model: Any, train: Any, form: str, frames: int, folder: str | Path | None, resume: bool) -> None:
    """Raises UserError for arguments of other kinds, and for those that make no search."""
    if not isinstance(model, nn.Module):
        raise UserError(f"The model is a {type(model).__name__}, but must be a torch.nn.Module.")
    if not isinstance(train, Split):
        raise UserError(
            f"The training images are a {type(train).__name__}, but must be a Split: TensorSplit(images, labels), or "
            "read_dataset(dataset) of fieldshift.data."
        )
    check_form(form)
    if frames < FEWEST_FRAMES[form]:
        raise UserError(
            f"The search uses {counted(frames, 'frame')}, but the form {form} needs {FEWEST_FRAMES[form]} or more."
        )
    if len(train) < 2:
        raise UserError(
            f"The split has {counted(len(train), 'image')}, but a search needs 2 or more, half of them for alpha."
        )
    if resume and folder is None:
        raise UserError("resume is given without the folder of the search to continue; give both.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            "No parameter of the model requires gradients, but a search trains a copy of it; unfreeze some."
        )


def outputs_of(model: nn.Module, images: Tensor, *, maps: bool) -> int:
    """The number of classes whose logits a model returns, 2 or more. Raises UserError where it returns anything but logits."""
    name, wanted = type(model).__name__, "masks, so (N, K, H, W)" if maps else "class numbers, so (N, K)"
    size, count = tuple(images.shape), 0
    for kind in {parameter.dtype for parameter in model.parameters()} - {torch.float32}:
        raise UserError(
            f"The model {name} has {kind} parameters and cannot read images {size} in float32; give model.float()."
        )
    for when, answer in answers(copy.deepcopy(model).cpu(), name, size).items():
        shape = shape_of(answer)
        count = shape[1] if len(shape) > 1 else 0
        if shape != (len(images), count, *(size[2:] if maps else ())):
            raise UserError(
                f"The model {name} returns {given_as(answer)} for images {size} in {when}, but the split has {wanted} logits "
                "in one tensor are needed; wrap the model in a module that returns these."
            )
    if count < 2:
        raise UserError(
            f"The model {name} has {counted(count, 'output')}, but must have one for each of 2 or more classes."
        )
    return count


def read_through(train: Split, classes: int) -> tuple[Tensor, str]:
    """The counts of the images' grey levels (C, 256), and a digest of all samples.

    Raises UserError for labels that the classes do not have, and where there is none.
    """
    levels, state, labelled = torch.zeros(1, 256, dtype=torch.int64), hashlib.sha256(), False
    for places in torch.arange(len(train)).split(READ_AT_ONCE):
        images, labels = train.gather(places)
        levels = levels + grey_levels(images).cpu()
        state.update(digest_of(images, labels).encode())
        counted_labels = labels[labels != IGNORE] if labels.ndim > 1 else labels
        if len(counted_labels):
            labelled = True
            least, most = int(counted_labels.min()), int(counted_labels.max())
            if least < 0:
                raise UserError(f"The smallest label is {least}, but labels count from 0.")
            if most >= classes:
                raise UserError(f"The largest label is {most}, but the model has {classes} outputs, for labels from 0.")
    if not labelled:
        raise UserError(f"No pixel of the masks is labelled (all are {IGNORE}); give masks with classes.")
    return levels, state.hexdigest()[:16]


def normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None, levels: Tensor
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The given mean and deviation per channel, or those of the images. Raises UserError where they do not fit."""
    if mean is None and std is None:
        return statistics_of(levels)
    if mean is None or std is None:
        raise UserError("Only one of mean and std is given; give both, or neither for those of the images.")
    if not (isinstance(mean, Sequence) and isinstance(std, Sequence) and len(mean) == len(std) == len(levels)):
        raise UserError(
            f"mean is {mean} and std is {std}, but each must be a list of {counted(len(levels), 'number')}, one per channel."
        )
    if not all(each > 0 for each in std):
        raise UserError(f"std is {tuple(std)}, but each must be above 0.")
    return tuple(map(float, mean)), tuple(map(float, std))
