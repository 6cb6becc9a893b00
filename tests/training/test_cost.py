"""Operations that are counted, against the operations that torch runs and the pixels that a motion reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fieldshift.data import TensorSplit
from fieldshift.folding import motions_of
from fieldshift.motions import Edge, Policy, Step, pixel_map
from fieldshift.motions.pixel_map import pixel_map_of
from fieldshift.motions.rendering import render_plan, taps_of
from fieldshift.motions.sampling import Lookup
from fieldshift.motions.warp import Fill
from fieldshift.networks import video_network
from fieldshift.training import FramePlan, Recipe, images_per_epoch, network_cost, objective_for, train_network
from fieldshift.training import loop as training_loop
from fieldshift.training.loop import TrainedNetwork

SIZE = (20, 20)


EACH = {"mul": 1, "add": 1, "sub": 1, "lerp": 3}  # operations per number of the output


class Elementwise(TorchDispatchMode):
    """Adds up what runs of multiplications and additions outside of convolutions and matrix products, inside some modules."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.inside = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").partition(".")[0].rstrip("_")
        if self.inside and name in EACH:
            self.total += EACH[name] * out.numel()
        if self.inside and "batch_norm" in name:
            self.total += 2 * out[0].numel()
        if self.inside and name == "mean":
            self.total += args[0].numel()
        return out


def gates_run(network: nn.Module, video: Tensor) -> int:
    """Elementwise operations that the temporal modules of a network run on a video of one image."""
    counter = Elementwise()
    hooks = []
    for name, module in network.named_modules():
        if name.endswith(".temporal"):
            hooks.append(module.register_forward_pre_hook(lambda *_: setattr(counter, "inside", True)))
            hooks.append(module.register_forward_hook(lambda *_: setattr(counter, "inside", False)))
    assert hooks
    with torch.no_grad(), counter:
        network.eval()(video)
    for hook in hooks:
        hook.remove()
    return counter.total


@pytest.mark.parametrize("temporal", ["tsm", "gsm", "gsf", "conv3d"])
@pytest.mark.parametrize("frames", [1, 3])
def test_what_gates_multiply_and_add_is_counted(temporal: str, frames: int) -> None:
    plain = network_cost(
        video_network("tiny-resnet", temporal="none", frames=1, num_classes=3, in_channels=1), 1, 1, SIZE
    )
    network = video_network("tiny-resnet", temporal=temporal, frames=frames, num_classes=3, in_channels=1)
    counted = network_cost(network, frames, 1, SIZE).flops
    if frames == 1 or temporal == "tsm":  # which only moves numbers; without neighbours nothing is done at all
        assert counted == frames * plain.flops
        return
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as torchs:
        network.eval()(torch.zeros(1, frames, 1, *SIZE))
    run = gates_run(network, torch.rand(1, frames, 1, *SIZE)) if temporal != "conv3d" else 0
    assert (run > 0) == (temporal != "conv3d")  # a convolution over time is a matrix product
    assert counted - torchs.get_total_flops() == pytest.approx(run, rel=0.02)


@pytest.mark.parametrize("temporal", ["gsm", "gsf"])
def test_a_folded_gate_is_counted_beside_its_motion(temporal: str) -> None:
    def cost(policy: Policy) -> int:
        network = video_network(
            "tiny-resnet", temporal=temporal, frames=1, num_classes=3, in_channels=1, motions=motions_of(policy)
        )
        return network_cost(network, 1, 1, SIZE).flops

    video = video_network("tiny-resnet", temporal=temporal, frames=3, num_classes=3, in_channels=1)
    still = cost(Policy.replicate(3))
    # One frame of three; the weights of GSF look at the means of three frames in either form.
    assert 3 * still == pytest.approx(network_cost(video, 3, 1, SIZE).flops, rel=2e-3)
    assert cost(Policy.single("rotate", 30.0, frames=3)) > still


@pytest.mark.parametrize(
    "policy",
    [
        Policy.replicate(3), Policy.single("translate_x", 0.4, frames=3), Policy.single("rotate", -30.0, frames=5),
        Policy.chain([("zoom", 1.5), ("translate_y", 0.2)], frames=3),
    ],
    ids=["still", "whole pixels and parts", "five frames", "chain"],
)  # fmt: skip
def test_a_videos_motions_cost_two_operations_per_pixel_that_is_read(policy: Policy) -> None:
    """Every picture with a single bright pixel becomes a video; how many pixels are bright then is how many were read."""
    height, width = 9, 7
    impulses = torch.eye(height * width).view(-1, 1, height, width)
    videos = policy.video(impulses)
    moved = [t for t in range(policy.frames) if not torch.equal(videos[:, t], impulses)]
    read = int((videos[:, moved] != 0).sum())
    assert policy.flops((height, width), 1) == 2 * read
    assert policy.flops((height, width), 3) == 6 * read
    network = video_network("tiny-resnet", temporal="tsm", frames=policy.frames, num_classes=3, in_channels=1)
    costs = [network_cost(network, policy.frames, 1, SIZE, each).flops for each in (None, policy)]
    assert costs[1] - costs[0] == policy.flops(SIZE, 1)


@pytest.mark.parametrize("fill", ["zeros", "mean", "reflection", (0.5,)], ids=str)
def test_taps_are_counted_without_a_map_and_once(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of a large image takes seconds and a gigabyte; the number is what the map of a small one has."""
    edges = tuple(Edge(source, 2, (Step(op, 0.3),)) for source, op in ((0, "translate_x"), (1, "brightness")))
    policy = Policy(inputs=2, nodes=1, edges=edges, frames=4, fill=fill)
    recipe, size = render_plan(policy.graph, (9, 7)), (9, 7)
    lookup = Lookup("zeros", "bilinear", background=True) if fill in ("mean", (0.5,)) else Lookup(str(fill), "bilinear")
    parts = [(recipe.colourings[0][0], 1), (recipe.output, 1 + policy.frames)]
    maps = [pixel_map_of(part.matrices, part.mixture, bases, size, lookup) for part, bases in parts]
    read = sum(len(tile.taps) for each in maps for tile in each.tiles)
    monkeypatch.setattr(pixel_map, "cut", None)
    taps_of.cache_clear()
    assert policy.flops(size, 1) == 2 * (read + policy.frames * 9 * 7)
    monkeypatch.setattr(pixel_map, "taps_read", None)
    assert policy.flops(size, 3) == 6 * (read + policy.frames * 9 * 7)


def test_an_epoch_learns_from_whole_batches() -> None:
    assert [images_per_epoch(*pair) for pair in ((2000, 64), (64, 64), (40, 64), (65, 64))] == [1984, 64, 40, 64]


def test_device_seconds_are_those_of_the_steps_and_go_on_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr(training_loop, "device_clock", lambda _device: float(next(ticks)))

    def train(epochs: int, *, stop: bool = False, resume: bool = False) -> float:
        def report(_row: dict[str, float], epoch: int) -> None:
            next(ticks)  # what evaluation takes is not training's
            if stop and epoch == 2:
                raise KeyboardInterrupt

        done = train_network(
            video_network("tiny-resnet", temporal="none", frames=1, num_classes=2, in_channels=1),
            TensorSplit(torch.zeros(8, 1, 12, 12, dtype=torch.uint8), torch.arange(8) % 2),
            plan=FramePlan(policy=None), recipe=Recipe(epochs=epochs, batch=8),
            objective=objective_for("classification", 2), seed=0, checkpoint=tmp_path / "checkpoint.pt", resume=resume,
            report=report,
        )  # fmt: skip
        return done.device_seconds

    with pytest.raises(KeyboardInterrupt):
        train(5, stop=True)
    assert train(5, resume=True) == 5.0


def test_the_usual_device_seconds_leave_out_what_a_first_epoch_pays_once() -> None:
    network = video_network("tiny-resnet", temporal="none", frames=1, num_classes=2, in_channels=1)

    def usual(*rows: dict[str, float]) -> float:
        return TrainedNetwork(network=network, history=list(rows)).usual_device_seconds

    assert usual({"device_seconds": 9.0}, {"device_seconds": 2.0}, {"device_seconds": 2.5}) == 2.5
    assert usual({"device_seconds": 9.0}) == 9.0
    assert usual({"device_seconds": 9.0}, {"device_seconds": 2.0}) == 5.5
    unknown = {"train/loss": 1.0}
    known = [{"device_seconds": float(seconds)} for seconds in (9, 2, 3)]
    for place in range(4):  # wherever it stands, which decides where a median by order finds it
        assert math.isnan(usual(*known[:place], unknown, *known[place:]))
    assert math.isnan(usual(unknown))
