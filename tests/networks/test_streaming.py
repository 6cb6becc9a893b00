"""Causal networks in chunks, activation checkpointing and export: the same numbers by another way."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18

from fieldshift.errors import UserError
from fieldshift.networks import TEMPORAL, Stream, VideoNetwork, predict_in_chunks, recompute_stages, video_network

FRAMES = 7


@pytest.fixture(scope="module")
def causal() -> VideoNetwork:
    torch.manual_seed(0)
    return video_network("tiny-resnet", temporal="tsm-causal", frames=FRAMES, num_classes=5).eval()


@pytest.mark.parametrize("chunk", range(1, FRAMES + 1))
def test_chunks_equal_the_whole_video(causal: VideoNetwork, chunk: int) -> None:
    video = torch.rand(2, FRAMES, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(predict_in_chunks(causal, video, chunk), causal(video), rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_stream_of_single_frames_equals_the_whole_video(task: str) -> None:
    name = "tiny-resnet" if task == "classification" else "tiny-resnet-fcn"
    network = video_network(name, task=task, temporal="tsm-causal", frames=FRAMES, num_classes=5).eval()
    video = torch.rand(2, FRAMES, 3, 24, 24)
    stream = Stream(network)
    logits = torch.cat([stream(video[:, t : t + 1]) for t in range(FRAMES)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(video), rtol=0, atol=1e-6)
    stream.restart()
    with torch.no_grad():
        torch.testing.assert_close(stream(video), network(video), rtol=0, atol=1e-6)


def test_a_stream_leaves_the_network_alone_and_keeps_one_frame(causal: VideoNetwork) -> None:
    video = torch.rand(1, FRAMES, 3, 24, 24)
    before = causal(video)
    stream = Stream(causal)
    stream(video[:, :3])
    assert torch.equal(causal(video), before)
    with pytest.raises(ValueError, match="chunks of 1 videos"):
        stream(torch.rand(2, 1, 3, 24, 24))


def open_gates(network: VideoNetwork) -> None:
    """Weights that let every module mix its frames strongly."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.4)


@pytest.mark.parametrize("chunk", [1, 4, 40])
@pytest.mark.parametrize("temporal", TEMPORAL)
def test_any_network_in_chunks_equals_the_whole_video(temporal: str, chunk: int) -> None:
    torch.manual_seed(1)
    network = video_network("tiny-resnet", temporal=temporal, frames=17, num_classes=5).double().eval()
    open_gates(network)
    lengths: list[int] = []
    hook = network.get_submodule("network.conv1").register_forward_hook(
        lambda _m, rows, _o: lengths.append(len(rows[0]))
    )
    video = 3 * torch.randn(1, 17, 3, 12, 12, dtype=torch.float64)
    logits = predict_in_chunks(network, video, chunk)
    hook.remove()
    with torch.no_grad():
        torch.testing.assert_close(logits, network(video), rtol=0, atol=1e-10)
    assert max(lengths) <= min(17, chunk + 2 * network.frames_needed)


def test_fewer_frames_than_needed_do_not_give_the_whole_videos_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    network = video_network("tiny-resnet", temporal="gsf", frames=17, num_classes=5).double().eval()
    open_gates(network)
    video = 3 * torch.randn(1, 17, 3, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        whole = network(video)
    monkeypatch.setattr(VideoNetwork, "frames_needed", 2)
    assert (predict_in_chunks(network, video, 4) - whole).abs().max() > 1e-6


def test_what_cannot_be_streamed_says_so(causal: VideoNetwork) -> None:
    with pytest.raises(UserError, match="tsm-causal"):
        Stream(video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=5).eval())
    with pytest.raises(UserError, match="eval"):
        Stream(video_network("tiny-resnet", temporal="tsm-causal", frames=3, num_classes=5))
    with pytest.raises(UserError, match="eval"):
        predict_in_chunks(video_network("tiny-resnet", frames=3, num_classes=5), torch.rand(1, 3, 3, 24, 24), 1)
    with pytest.raises(UserError, match="at least 1"):
        predict_in_chunks(causal, torch.rand(1, 2, 3, 24, 24), 0)


@pytest.mark.parametrize("temporal", TEMPORAL)
def test_recomputed_activations_change_no_number(temporal: str) -> None:
    torch.manual_seed(0)
    kept = video_network("tiny-resnet", temporal=temporal, frames=2, num_classes=5).double()
    recomputed = copy.deepcopy(kept)
    recompute_stages(recomputed, ["network.blocks.0", "network.blocks.1"])
    video = torch.rand(2, 2, 3, 16, 16, dtype=torch.float64)

    def gradients(network: VideoNetwork) -> list[Tensor]:
        network.fuse(network(video)).square().sum().backward()
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    torch.testing.assert_close(gradients(recomputed), gradients(kept), rtol=0, atol=1e-12)
    assert list(recomputed.state_dict()) == list(kept.state_dict())
    for mine, theirs in zip(recomputed.buffers(), kept.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_recomputation_keeps_fewer_activations() -> None:
    kept_bytes = []
    for recompute in (False, True):
        network = video_network("tiny-resnet", frames=2, num_classes=5, recompute=recompute)
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.rand(2, 2, 3, 32, 32))
        kept_bytes.append(sum(sizes))
    assert kept_bytes[1] < 0.75 * kept_bytes[0]


STAGES = {
    "blocks": lambda: resnet18().layer2,
    "plain chain": lambda: nn.Sequential(
        *(
            make()
            for _ in range(3)
            for make in (lambda: nn.Conv2d(64, 64, 3, padding=1), lambda: nn.BatchNorm2d(64), nn.ReLU)
        )
    ),
    "stem of mobilenet_v2": lambda: mobilenet_v2().features[0],
}


@pytest.mark.parametrize("kind", STAGES)
def test_a_recomputed_stage_keeps_fewer_maps(kind: str) -> None:
    def kept_bytes(stage: nn.Module) -> int:
        weights = {parameter.untyped_storage().data_ptr() for parameter in stage.parameters()}
        kept: dict[int, Tensor] = {}  # by the memory they lie in, so that none counts twice

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            stage(torch.rand(2, 3 if "stem" in kind else 64, 16, 16))
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    whole = nn.Sequential(STAGES[kind]())
    recomputed = copy.deepcopy(whole)
    recompute_stages(recomputed, ["0"])
    assert kept_bytes(recomputed) < 0.5 * kept_bytes(whole)


@pytest.mark.parametrize("temporal", TEMPORAL)
def test_the_exported_program_gives_the_same_numbers_for_any_batch(temporal: str) -> None:
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal=temporal, frames=3, num_classes=5).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (torch.rand(2, 3, 3, 16, 16),), dynamic_shapes=({0: batch},))
    video = torch.rand(5, 3, 3, 16, 16)
    torch.testing.assert_close(program.module()(video), network(video), rtol=1e-5, atol=1e-6)
    assert not any("slice_scatter" in str(node.target) or "copy_" in str(node.target) for node in program.graph.nodes)
