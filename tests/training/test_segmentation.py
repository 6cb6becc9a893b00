"""Scores of dense maps: every sample once under several workers, and an identity policy that changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from fieldshift.data import TensorSplit
from fieldshift.motions import Policy
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.training import Evaluation, FramePlan, evaluate_network, objective_for
from fieldshift.training.step import forward
from tests.two_processes import InTwo

CLASSES, IGNORE, SAMPLES = 4, 255, 33  # the last batch of 16 has one sample: one of two workers gets none of it
MOVED = Policy.single("translate_x", 0.2, frames=3)


def scenes() -> TensorSplit:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, CLASSES - 1, (SAMPLES, 4, 5), generator=generator, dtype=torch.uint8)  # one class never
    masks = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    images = (masks[:, None] * 70 + torch.randint(0, 40, (SAMPLES, 1, 16, 20), generator=generator)).to(torch.uint8)
    masks[torch.rand(masks.shape, generator=generator) < 0.1] = IGNORE
    return TensorSplit(images, torch.zeros(SAMPLES, dtype=torch.int64), masks)


def network_of(frames: int, temporal: str = "tsm", fusion: str = "mean-logits") -> VideoNetwork:
    torch.manual_seed(0)
    return video_network(
        "tiny-resnet-fcn", task="segmentation", temporal=temporal, frames=frames, num_classes=CLASSES, in_channels=1,
        fusion=fusion,
    ).eval()  # fmt: skip


def evaluated(network: VideoNetwork) -> Evaluation:
    plan = FramePlan(policy=MOVED, mean=(0.4,), std=(0.3,))
    objective = objective_for("segmentation", CLASSES, IGNORE)
    return evaluate_network(network, scenes(), plan=plan, objective=objective, batch=16, each_map=True)


def one_of_two(folder: Path) -> None:
    found = evaluated(network_of(3))
    plain = [[each.index, each.overlap, each.boundary, each.extra_components] for each in found.maps]
    torch.save({"score": found.score, "loss": found.loss, "maps": plain}, folder / f"{dist.get_rank()}.pt")


def test_two_workers_count_every_sample_once(in_two: InTwo, tmp_path: Path) -> None:
    in_two(one_of_two, tmp_path)
    whole = evaluated(network_of(3))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found["score"] == pytest.approx(whole.score, abs=1e-7)
        assert found["loss"] == pytest.approx(whole.loss, abs=1e-6)
        assert [row[0] for row in found["maps"]] == list(range(SAMPLES))
        for row, each in zip(found["maps"], whole.maps, strict=True):
            assert row[1:] == pytest.approx([each.overlap, each.boundary, each.extra_components])


def test_the_miou_is_that_of_counting_all_pixels_once() -> None:
    network, split = network_of(3), scenes()
    plan = FramePlan(policy=MOVED, mean=(0.4,), std=(0.3,))
    images, targets = split.gather(torch.arange(SAMPLES))
    with torch.no_grad():
        logits, _ = forward(network, network, plan.evaluation_video(images), plan)
    predicted, truth = logits.argmax(1).numpy(), targets.numpy()
    kept, overlaps = truth != IGNORE, []
    for label in range(CLASSES):
        union = ((predicted == label) | (truth == label)) & kept
        if union.any():  # a class that is nowhere counts nowhere
            overlaps.append(((predicted == label) & (truth == label) & kept).sum() / union.sum())
    loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE)
    found = evaluated(network)
    assert found.score == pytest.approx(float(np.mean(overlaps)), abs=1e-6)
    assert found.loss == pytest.approx(float(loss), abs=1e-6)


@pytest.mark.parametrize("frames", [1, 3, 4])
@pytest.mark.parametrize("fusion", ["mean-logits", "learned"])
def test_an_identity_policy_gives_exactly_the_2d_networks_map(fusion: str, frames: int) -> None:
    network = network_of(frames, "none", fusion)
    images, _ = scenes().gather(torch.arange(2))
    plan = FramePlan(policy=Policy.replicate(frames), mean=(0.4,), std=(0.3,))
    with torch.no_grad():
        video = plan.evaluation_video(images)
        fused, _ = forward(network, network, video, plan)
        plain = network.network(video.flatten(0, 1)).unflatten(0, (2, frames))[:, 0]
    assert torch.equal(fused, plain)
