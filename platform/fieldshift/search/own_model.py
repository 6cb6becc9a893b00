"""A search with a model and images of your own, as objects: in this process, without a run folder, Ray or MLflow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fieldshift.data import DataSet, Split
from fieldshift.data.dataset import digest_of, grey_levels, names_of, statistics_of
from fieldshift.data.split import IGNORE
from fieldshift.errors import UserError
from fieldshift.folding import still
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.networks.foreign import check_answer
from fieldshift.search.config import SearchConfig
from fieldshift.search.loop import FoundPolicy, search
from fieldshift.search.space import Space, load_space
from fieldshift.tasks import Task
from fieldshift.tensor_cache import constant
from fieldshift.training.objectives import objective_for

READ_AT_ONCE = 256
DEFAULT_FRAMES = 3


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
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    resume: bool = False,
    progress: Callable[[str], None] = lambda _line: None,
) -> FoundPolicy:
    """Searches the motions that suit a copy of `model` best; `model` itself is unchanged.

    `model` maps images (N, C, H, W) to logits (N, K), or for a split with masks to (N, K, H, W). The search starts from
    its weights. `train` are the training images, half of which train the network and half alpha: `TensorSplit(images,
    labels)`, `read_dataset(dataset)`, or a `Split` of your own. Images are normalised by `mean` and `std` per
    channel, in units of [0, 1]; by default those of the images. `places`, `temporal`, `ratio` and `interleave` are those
    of `fold`, which then adds `.policy` of the result to the model; with `form="video"` it is a policy for `ImageToVideo`.
    `config` has the settings of the search, `frames` among them (3 by default). With `folder` the state is written after every
    pass and decision, and `resume` continues from there. `progress` is called with one line per pass and decision.
    Raises UserError for a model that does not return such logits, labels that these cannot have, and settings that do not
    fit.
    """
    motion_space = load_space(space) if isinstance(space, str) else space
    frames = config.frames or motion_space.frames or DEFAULT_FRAMES
    if form not in ("folded", "video"):
        raise UserError(f"form is '{form}', but must be folded or video.")
    if len(train) < 2:
        raise UserError(f"The split has {len(train)} images, but a search needs 2 or more, half of them for alpha.")
    if (mean is None) != (std is None):
        raise UserError("Only one of mean and std is given; give both, or neither for those of the images.")
    images, labels = train.gather(torch.arange(2))
    task: Task = "classification" if labels.ndim == 1 else "segmentation"
    classes = outputs_of(model, images, maps=labels.ndim > 1)
    levels, largest = read_through(train)
    if largest >= classes:
        raise UserError(f"The largest label is {largest}, but the model has {classes} outputs, for labels from 0.")
    own = statistics_of(levels) if mean is None or std is None else (tuple(mean), tuple(std))
    channels = int(images.shape[1])
    if not len(own[0]) == len(own[1]) == channels:
        raise UserError(
            f"mean and std have {len(own[0])} and {len(own[1])} values, but the images {channels} channels."
        )
    data = DataSet(
        name="own images",
        task=task,
        classes=names_of(classes),
        train=train,
        test=train.subset(torch.arange(0)),
        mean=own[0],
        std=own[1],
        size=(int(images.shape[2]), int(images.shape[3])),
        protocol="own images",
        digest=digest_of(levels, len(train), train.targets),
    )

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network: VideoNetwork = video_network(
            copy.deepcopy(model),
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

    def normalise(video: Tensor) -> Tensor:
        centre, spread = (constant(values, video.dtype, video.device).view(-1, 1, 1) for values in own)
        return (video - centre) / spread

    return search(
        network,
        data,
        motion_space,
        config,
        objective=objective_for(task, classes, data.ignore_index),
        normalise=normalise,
        device=device,
        seed=seed,
        folder=folder,
        resume=resume,
        progress=progress,
    )


def outputs_of(model: nn.Module, images: Tensor, *, maps: bool) -> int:
    """The number of classes whose logits a model returns. Raises UserError where it returns anything but logits."""
    name, copied = type(model).__name__, copy.deepcopy(model).cpu().eval()
    try:
        with torch.no_grad():
            answer = copied(images.cpu().float() / 255)
    except Exception as error:
        raise UserError(f"The network '{name}' cannot read images {tuple(images.shape)}: {error}") from error
    if not isinstance(answer, Tensor) or answer.ndim < 2:
        given = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
        raise UserError(
            f"The network '{name}' returns {given}, but must return logits as one tensor; wrap it in a module."
        )
    check_answer(copied, name, tuple(images.shape), int(answer.shape[1]), maps=maps)
    return int(answer.shape[1])


def read_through(train: Split) -> tuple[Tensor, int]:
    """The counts of the images' grey levels (C, 256), and the largest label that is not ignored."""
    levels, largest = None, 0
    for places in torch.arange(len(train)).split(READ_AT_ONCE):
        images, labels = train.gather(places)
        counted = grey_levels(images).cpu()
        levels = counted if levels is None else levels + counted
        counted_labels = labels[labels != IGNORE] if labels.ndim > 1 else labels
        if len(counted_labels) and int(counted_labels.min()) < 0:
            raise UserError(f"The smallest label is {int(counted_labels.min())}, but labels count from 0.")
        largest = max(largest, int(counted_labels.max()) if len(counted_labels) else 0)
    assert levels is not None
    return levels, largest
