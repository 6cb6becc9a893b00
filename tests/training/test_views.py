"""Test-time averaging: which arms have it, and how many views of its frames fit into the passes of the others."""

from __future__ import annotations

import inspect

import pytest
import torch

from fieldshift.data import DataSet, TensorSplit
from fieldshift.motions import Policy
from fieldshift.training import ARMS, arm_named, evaluate_network, network_card, objective_for

JOINED = ("das+affine", "das-folded+affine", "replicate+randaugment")


def toy() -> DataSet:
    split = TensorSplit(torch.randint(0, 256, (6, 1, 12, 12), dtype=torch.uint8), torch.arange(6) % 2)
    return DataSet(
        name="toy", task="classification", classes=("a", "b"), train=split, test=split, mean=(0.5,), std=(0.2,),
        size=(12, 12), protocol="toy", digest="toy",
    )  # fmt: skip


# Views that are averaged, by copies and then by frames of the network; 1 is no averaging.
VIEWS = {0: {1: 1, 3: 1}, 1: {1: 2, 3: 1}, 4: {1: 5, 3: 1}, 5: {1: 6, 3: 2}, 7: {1: 8, 3: 2}, 8: {1: 9, 3: 3}}


@pytest.mark.parametrize("copies", VIEWS)
@pytest.mark.parametrize("name", [*ARMS, *JOINED])
def test_every_arm_that_is_averaged_takes_the_views_that_fit(name: str, copies: int) -> None:
    arm, dataset = arm_named(name), toy()
    policy = None if arm.frames == "image" else Policy.single("translate_x", 0.3, frames=3)
    card = network_card(dataset, "toy", arm, network="tiny-resnet", temporal="tsm", policy=policy)
    network, plan = card.build(), card.plan()
    frames = []
    network.register_forward_pre_hook(lambda _module, inputs: frames.append(inputs[0].shape[1]))
    found = evaluate_network(
        network, dataset.test, plan=plan, objective=objective_for("classification", 2), copies=copies
    )
    averages = arm.augmentation != "none" or arm.frames == "searched-as-images"
    views = VIEWS[copies][plan.frames] if averages else 1
    assert plan.views_for(copies) == views
    averaged = frames[1:]  # the first pass is the plain score's
    assert averaged == ([plan.frames] * views if views > 1 else [])
    assert (found.score_tta is not None) == (views > 1)


def test_the_defaults_give_every_averaged_arm_nine_passes() -> None:
    import pipelines
    from fieldshift.experiment import Experiment

    for command in (pipelines.compare, pipelines.study):
        options = inspect.signature(command).parameters
        views = VIEWS[options["tta_copies"].default]
        assert {frames * views[frames] for frames in (1, Experiment().frames)} == {9}


def test_the_first_view_is_the_plain_image_and_no_two_are_alike() -> None:
    images = torch.randint(0, 256, (2, 1, 12, 12), dtype=torch.uint8)
    for name in ("affine", "policy-2d", "das+affine"):
        arm = arm_named(name)
        policy = None if arm.frames == "image" else Policy.single("translate_x", 0.4, frames=3)
        card = network_card(toy(), "toy", arm, network="tiny-resnet", temporal="tsm", policy=policy)
        plan = card.plan()
        views = plan.views(images, 8)
        plain = plan.evaluation_video(images)
        assert sum(torch.equal(view, plain) for view in views) == 1
        assert len({tuple(view.flatten().tolist()) for view in views}) == len(views)
