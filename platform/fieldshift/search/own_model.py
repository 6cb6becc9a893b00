"""A search with a model and images of your own, as objects: in this process, without a run folder, Ray or MLflow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fieldshift.data import DataSet, Split
from fieldshift.data.dataset import digest_of, names_of, statistics_of
from fieldshift.errors import UserError, reason_of
from fieldshift.folding import still
from fieldshift.forms import check_form
from fieldshift.networks import video_network
from fieldshift.networks.foreign import answers, copied, given_as, shape_of
from fieldshift.networks.given import check_network
from fieldshift.paths import given_path, obstacle
from fieldshift.search.config import SearchConfig
from fieldshift.search.explain import close_decisions
from fieldshift.search.loop import FoundPolicy, search
from fieldshift.search.own_data import given_statistics, read_through
from fieldshift.search.run import DEFAULT_FRAMES, POLICY_FILE, STATE_FILE
from fieldshift.search.space import Space, load_space
from fieldshift.settings import LARGEST_SEED, accepted, shown
from fieldshift.tasks import Task
from fieldshift.training.distributed import world_size
from fieldshift.training.frames import FramePlan
from fieldshift.training.objectives import objective_for
from fieldshift.training.recipe import check_crop
from fieldshift.wording import counted

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
    mean: Iterable[float] | None = None,
    std: Iterable[float] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> FoundPolicy:
    """Searches the motions that suit a copy of `model` best; `model` itself is unchanged.

    `model` maps images (N, C, H, W) to logits (N, K), or for a split with masks to (N, K, H, W), in float32. The search
    starts from its weights, and trains the copy. `train` are the training images, half of which train the network and half
    alpha: `TensorSplit(images, labels)`, with masks `TensorSplit(images, zeros, masks)`, `read_dataset(dataset)`, or a
    `Split` of your own. Images are normalised by `mean` and `std` per channel, in units of [0, 1], given as any iterable of
    numbers; by default those of the images. `places`, `temporal`, `ratio` and `interleave` are those of `fold`, which then
    adds the result to the model; with `form="video"` it is for `ImageToVideo`. `config` has the settings of the search,
    `frames` among them (3 by default). `device` is by default that of the model. With `folder` the state is written after
    every pass and decision, and `resume` continues from there; without `resume`, a folder that holds a search is refused.
    `progress` is called with one line per pass and decision, and with warnings, which begin with "Warning: "; without it,
    these are Python's. They name classes without an image, outputs of a softmax, and decisions that may be chance.
    Raises UserError for a model that does not return such logits, labels that these cannot have, and settings that do not
    fit.
    """
    said, seed = progress or warn, accepted("seed", int, seed)
    config = accepted("config", SearchConfig, config)
    check_given(train, accepted("form", str, form), seed, progress)
    given_space = accepted("space", str | Space, space)
    motion_space = load_space(given_space) if isinstance(given_space, str) else given_space
    frames = check_settings(config, motion_space, form)
    path = folder_of(accepted("folder", str | None, folder), accepted("resume", bool, resume))
    check_model(model)
    where = device_of(device, model)
    images, labels = train.gather(torch.arange(2))
    channels, size = int(images.shape[1]), (int(images.shape[2]), int(images.shape[3]))
    statistics = given_statistics(mean, std, channels)
    check_crop("search", config.crop or 0, size)
    task: Task = "classification" if labels.ndim == 1 else "segmentation"
    with torch.random.fork_rng([]):  # random layers of the model draw here, too
        twin = copy_of(model)
        classes = outputs_of(twin, images, maps=task == "segmentation")
        check_step(twin, len(train), images.shape[1:], config)
        if are_probabilities(twin, images):
            said(
                f"Warning: the outputs of {type(model).__name__} sum to 1, as after a softmax; leave it out: logits are needed."
            )
        torch.manual_seed(seed)
        network = video_network(
            copy_of(model),
            task=task,
            temporal=temporal,
            num_classes=classes,
            in_channels=channels,
            ratio=ratio,
            interleave=interleave,
            places=places,
            frames=1 if form == "folded" else frames,
            motions=still(motion_space.groups) if form == "folded" else None,
        )
    contents = read_through(train, classes)
    own_mean, own_std = statistics or statistics_of(contents.levels)
    weights = digest_of(*(value for _, value in sorted(model.state_dict().items())))
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
        digest=digest_of(contents.digest, weights, own_mean, own_std, places, ratio, interleave),
    )
    for line in contents.warnings:
        said(line)
    if resume and path is not None and not (path / STATE_FILE).exists():
        said(f"Warning: there is nothing to resume in {path}: the search starts anew.")
    found = search(
        network,
        data,
        motion_space,
        config,
        objective=objective_for(task, classes, data.ignore_index),
        normalise=FramePlan(policy=None, mean=own_mean, std=own_std).normalise,
        device=where,
        seed=seed,
        folder=path,
        resume=resume,
        progress=said,
    )
    for line in close_decisions(found.policy):
        said(f"Warning: {line}.")
    return found


def warn(line: str) -> None:
    """Gives the warnings among the lines of a search to Python's own."""
    if line.startswith("Warning: "):
        warnings.warn(line.removeprefix("Warning: "), stacklevel=2)


def check_given(train: object, form: str, seed: int, progress: object) -> None:
    """Raises UserError for images that are no split or too few, an unknown form, and a seed or progress of another kind."""
    if not isinstance(train, Split):
        raise UserError(
            f"The training images are a {type(train).__name__}, but must be a Split: TensorSplit(images, labels), or "
            "read_dataset(dataset) of fieldshift.data."
        )
    if len(train) < 2:
        raise UserError(
            f"The split has {counted(len(train), 'image')}, but a search needs 2 or more, half of them for alpha."
        )
    check_form(form)
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"seed is {seed}, but must be from 0 to {LARGEST_SEED}; give one in that range.")
    if progress is not None and not callable(progress):
        raise UserError(f"progress is {shown(progress)}, but must be a function of one line, such as print.")


def check_settings(config: SearchConfig, space: Space, form: str) -> int:
    """The number of frames. Raises UserError for settings that do not fit the space, the form or the workers."""
    frames = config.frames or space.frames or DEFAULT_FRAMES
    if frames < FEWEST_FRAMES[form]:
        raise UserError(
            f"The search uses {counted(frames, 'frame')}, but the form {form} needs {FEWEST_FRAMES[form]} or more."
        )
    config.check(world_size())
    space.check_kept(config.edges_per_node)
    return frames


def folder_of(folder: str | Path | None, resume: bool) -> Path | None:
    """The folder of the search. Raises UserError where it cannot be written, or holds a search that is not resumed."""
    if folder is None:
        if resume:
            raise UserError("resume is given without the folder of the search to continue; give both.")
        return None
    path = given_path(folder)
    if found := obstacle(path):
        raise UserError(f"The folder {path} cannot be written ({found}); give a writable folder.")
    if not resume and any((path / name).exists() for name in (STATE_FILE, POLICY_FILE)):
        raise UserError(
            f"The folder {path} already holds a search; give resume=True to continue it, or another folder."
        )
    return path


def device_of(device: Any, model: nn.Module) -> torch.device:
    """The given device, or that of the model. Raises UserError for one that torch does not know or cannot use here."""
    given = next(model.parameters()).device if device is None else device
    try:
        found = torch.empty(0, device=given).device
    except Exception as error:
        raise UserError(
            f"device is {shown(given)}, but must be one that torch can use here, such as 'cpu' ({reason_of(error)})."
        ) from error
    if found.type == "meta":
        raise UserError("device is meta, which has no values; give one that computes, such as 'cpu'.")
    return found


def check_model(model: nn.Module) -> None:
    """Raises UserError for a model that cannot be searched with, whatever the images are."""
    name = type(model).__name__
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise UserError(
            f"The model is a {name} around the model itself, and would name its modules otherwise; give model.module."
        )
    check_network(model)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            "No parameter of the model requires gradients, but a search trains a copy of it; unfreeze some."
        )
    for key, tensor in tensors:
        if tensor.is_meta:
            raise UserError(f"'{key}' of the model {name} is on the device meta and has no values; load its weights.")
        if tensor.isnan().any() or (
            tensor.requires_grad and tensor.isinf().any()
        ):  # masks of attention may be infinite
            raise UserError(f"'{key}' of the model {name} has values that are not finite; load its weights again.")


def copy_of(model: nn.Module) -> nn.Module:
    """A copy of the model, to be trained. Raises UserError where it cannot be copied."""
    return copied(
        model,
        f"The model {type(model).__name__} cannot be copied; remove what it keeps of a forward pass, and use weight_norm of "
        "torch.nn.utils.parametrizations, not of torch.nn.utils",
    )


def outputs_of(model: nn.Module, images: Tensor, *, maps: bool) -> int:
    """The number of classes whose logits a model returns, 2 or more. Raises UserError where it returns anything but logits."""
    name, wanted = type(model).__name__, "masks, so (N, K, H, W)" if maps else "class numbers, so (N, K)"
    size, count = tuple(images.shape), 0
    for kind in {parameter.dtype for parameter in model.parameters()} - {torch.float32}:
        raise UserError(
            f"The model {name} has {kind} parameters and cannot read images {size} in float32; give model.float()."
        )
    for when, answer in answers(model, name, size).items():
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


def check_step(model: nn.Module, images: int, size: Sequence[int], config: SearchConfig) -> None:
    """Raises UserError where the steps of a search have one image (C, H, W) and the model cannot learn from a single one."""
    used = min(images, config.subset or images)
    if min(config.batch, used // 2) > 1:
        return
    try:
        answers(model, type(model).__name__, (1, *size))
    except UserError as error:
        raise UserError(
            f"A step has 1 image (half of {counted(used, 'image')}, search.batch is {config.batch}), which is too few: "
            f"{error} Give more images, or a larger batch."
        ) from error


def are_probabilities(model: nn.Module, images: Tensor) -> bool:
    """Whether the outputs of a model, which is left in evaluation mode, are those of a softmax: none below 0, and 1 in all."""
    with torch.no_grad(), suppress(Exception):  # what cannot be run here is left to the search
        outputs = model.cpu().eval()(images.cpu() / 255)
        return bool((outputs >= 0).all()) and torch.allclose(outputs.sum(1), torch.ones(()), atol=1e-4)
    return False
