"""A data set, networks, trainings and searches small enough to run on the stand-in device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fieldshift.data import BasicAugmentation, DataSet, TensorSplit
from fieldshift.folding import still
from fieldshift.motions import Policy
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.search import SearchConfig, Space, load_space, search
from fieldshift.training import FramePlan, Recipe, evaluate_network, objective_for, train_network
from tests.other_device import waits

CHAIN = [("rotate", 20.0), ("zoom", 1.3)]
Run = Callable[..., Any]


def network_of(task: str, temporal: str, frames: int = 3, channels: int = 3, **options: Any) -> VideoNetwork:
    torch.manual_seed(0)
    name = "tiny-resnet" if task == "classification" else "tiny-resnet-fcn"
    return video_network(
        name, task=task, temporal=temporal, frames=frames, num_classes=2, in_channels=channels, **options
    )


def folded_of(task: str, temporal: str, motions: Any, channels: int = 3) -> VideoNetwork:
    return network_of(task, temporal, 1, channels, motions=motions)


def data_of(task: str) -> DataSet:
    """Noise with a bright column; the class says on which side of the picture it is."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(16) % 2
    pixels = torch.randint(0, 60, (16, 1, 12, 12), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(16), 0, :, torch.randint(1, 5, (16,), generator=generator) + 6 * classes] = 255
    dense = task == "segmentation"
    split = TensorSplit(pixels, classes, (pixels[:, 0] == 255).to(torch.uint8) if dense else None)
    return DataSet(
        name="toy", task=task, classes=("left", "right"), train=split, test=split, mean=(0.2,), std=(0.3,),
        size=(12, 12), protocol="toy", digest="toy",
    )  # type: ignore[arg-type]  # fmt: skip


def a_network_is_trained(task: str, frames: int, device: str, **settings: Any) -> list[float]:
    data, objective = data_of(task), objective_for(task, 2, 255 if task == "segmentation" else None)
    recipe = Recipe(epochs=2, channels_last=False, **{"batch": 4, **settings})
    plan = FramePlan(
        policy=Policy.chain(CHAIN, frames=frames, fill="mean"), mean=data.mean, std=data.std,
        basic=BasicAugmentation(flip=recipe.flip, crop=recipe.crop, scale=recipe.scale),
    )  # fmt: skip
    network = network_of(task, "gsf", frames, 1)
    counts: list[int] = []

    def report(row: dict[str, float], step: int) -> None:
        counts.append(waits.total())

    trained = train_network(
        network, data.train, plan=plan, recipe=recipe, objective=objective, seed=0, device=device, report=report
    )
    scored = evaluate_network(network, data.test, plan=plan, objective=objective, batch=8, device=device)
    return [trained.history[-1]["train/loss"], scored.score, scored.loss, counts[1] - counts[0]]


def motions_are_searched(
    space: str | Space, task: str, settings: dict[str, Any], device: str
) -> tuple[list[float], str, dict[str, int], list[dict[str, int]]]:
    data, objective = data_of(task), objective_for(task, 2, 255 if task == "segmentation" else None)
    config = SearchConfig(epochs=2, channels_last=False, **{"batch": 8, "frames": 3, **settings})
    network = network_of(task, "tsm", config.frames, 1)
    normalise = FramePlan(policy=None, mean=data.mean, std=data.std).normalise
    motion_space = load_space(space) if isinstance(space, str) else space
    of_a_pass, of_tuning = [], []

    def report(row: dict[str, float], step: int) -> None:
        if "train/loss" in row:
            (of_a_pass if step <= config.epochs else of_tuning).append(dict(waits))
        waits.clear()

    found = search(
        network, data, motion_space, config, objective=objective, normalise=normalise, device=device, report=report
    )
    losses = [value for row in found.history for name, value in row.items() if name.endswith("loss")]
    return losses, str(found.policy.edges), of_a_pass[1], of_tuning


def motions_are_searched_in_one_frame(
    settings: dict[str, Any], device: str, learned: bool = False
) -> tuple[list[float], str, dict[str, int]]:
    data, objective = data_of("classification"), objective_for("classification", 2)
    config = SearchConfig(epochs=2, frames=3, channels_last=False, **{"batch": 8, **settings})
    magnitudes = (
        {"magnitudes": "learned", "grid": {}} if learned else {"grid": {"translate_x": (0.3,), "rotate": (30.0,)}}
    )
    space = load_space("affine-place").with_changes(
        candidates=(("identity",), ("translate_x",), ("rotate",)), **magnitudes
    )
    normalise = FramePlan(policy=None, mean=data.mean, std=data.std).normalise
    of_a_pass: list[dict[str, int]] = []

    def report(row: dict[str, float], step: int) -> None:
        of_a_pass.append(dict(waits))
        waits.clear()

    network = folded_of("classification", "tsm", still(1), 1)
    found = search(network, data, space, config, objective=objective, normalise=normalise, device=device, report=report)
    losses = [value for row in found.history for name, value in row.items() if name.endswith("loss")]
    return losses, "\n".join(found.policy.describe()), of_a_pass[1]
