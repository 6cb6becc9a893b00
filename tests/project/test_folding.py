"""fieldshift.fold: motions in networks that others wrote, for training in a loop of one's own."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from fieldshift import Policy, UserError, fold
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.networks.folded import FoldedTSM
from fieldshift.networks.insertion import Inserted

MOVED = Policy.single("translate_x", 0.4, frames=3)
TURNED = Policy.single("rotate", 40.0, frames=3, fill="border")


def timm_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=5)
    return model


def images(count: int = 2, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


PLACES = {  # name: modules of tsm, its first place, first place of the gates, channels there
    "resnet18": (8, "layer1.0.conv1", "layer1.0.conv2", 64),
    "resnet26": (8, "layer1.0.conv1", "layer1.0.conv3", 64),
    "convnext_atto": (12, "stages.0.blocks.0.conv_dw", "stages.0.blocks.0.drop_path", 40),
}


@pytest.mark.parametrize("name", PLACES)
def test_timms_residual_blocks_are_the_default_places(name: str) -> None:
    count, before, after, channels = PLACES[name]
    placements = fold(timm_model(name), MOVED)
    gated = fold(timm_model(name), MOVED, temporal="gsf")
    assert len(placements) == len(gated) == count
    assert (placements[0].path, placements[0].before, placements[0].channels) == (before, True, channels)
    assert (gated[0].path, gated[0].before) == (after, False)


@pytest.mark.parametrize(("temporal", "interleave"), [("tsm", None), ("gsm", True)])
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_a_folded_timm_network_trains_and_is_saved_and_loaded(
    name: str, temporal: str, interleave: bool | None
) -> None:
    """Interleaved, as the branches of these networks start at zero: a gate that starts there changes little in one step."""
    model = timm_model(name)
    plain = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fold(model, TURNED, temporal=temporal, interleave=interleave)
    for key, tensor in model.state_dict().items():
        if ".temporal." not in key:
            assert torch.equal(tensor, plain[key.replace(".wrapped", "")])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = nn.functional.cross_entropy(model(images()), torch.tensor([0, 1]))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    model.eval()
    with torch.no_grad():
        expected = model(images())
    other = timm_model(name)
    fold(other, TURNED, temporal=temporal, interleave=interleave)
    other.load_state_dict(model.state_dict())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    whole = torch.load(file, weights_only=False)
    with torch.no_grad():
        for again in (other.eval(), whole, copy.deepcopy(model)):
            assert torch.equal(again(images()), expected)
    assert not torch.equal(expected, unfolded(name, model)(images()))


def unfolded(name: str, model: nn.Module) -> nn.Module:
    """The 2D network with the same weights."""
    plain = timm_model(name).eval()
    weights = model.state_dict()
    plain.load_state_dict({key.replace(".wrapped", ""): weights[key] for key in weights if ".temporal." not in key})
    return plain


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_folding_the_identity_changes_no_bit(name: str) -> None:
    model = timm_model(name).eval()
    expected = model(images())
    fold(model, Policy.replicate(3))
    assert torch.equal(model(images()), expected)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_an_exported_timm_network_runs_without_this_project(name: str, tmp_path: Path) -> None:
    model = timm_model(name).eval()
    fold(model, TURNED)
    pictures = images(7)
    with torch.no_grad():
        expected = model(pictures).numpy()
        batch = torch.export.Dim("batch", min=1, max=64)
        options = {"dynamo": True, "verbose": False, "external_data": False, "input_names": ["images"]}
        torch.onnx.export(model, (pictures[:2],), tmp_path / "model.onnx", dynamic_shapes=({0: batch},), **options)
    np.save(tmp_path / "images.npy", pictures.numpy())
    program = (
        "import sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])\n"
        "images = numpy.load('images.npy')\n"
        "run = lambda part: session.run(None, {'images': part})[0]\n"
        "numpy.save('all.npy', run(images)), numpy.save('one.npy', run(images[:1]))\n"
        "assert not [name for name in sys.modules if name.startswith(('fieldshift', 'torch'))]\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=200)
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), expected[:1], atol=1e-5, rtol=1e-5)


def test_a_detector_trains_and_detects() -> None:
    torch.manual_seed(0)
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96
    )
    placements = fold(model, TURNED)
    assert len(placements) > 5
    assert all(placement.path.startswith("backbone.body.") for placement in placements)
    pictures = [torch.rand(3, 64, 80), torch.rand(3, 72, 64)]
    targets = [{"boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([1])}] * 2
    losses = model.train()(pictures, targets)
    sum(losses.values()).backward()
    moved = [module for module in model.modules() if isinstance(module, Inserted)]
    assert all(next(each.wrapped.parameters()).grad is not None for each in moved[-3:])
    other = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96
    )
    fold(other, TURNED)
    other.load_state_dict(model.state_dict())
    file = io.BytesIO()
    torch.save(model.eval(), file)
    file.seek(0)
    with torch.no_grad():
        expected = model(pictures)
        for again in (other.eval(), torch.load(file, weights_only=False)):
            for ours, theirs in zip(again(pictures), expected, strict=True):
                assert torch.equal(ours["boxes"], theirs["boxes"])
                assert torch.equal(ours["scores"], theirs["scores"])


def own() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 1))


def test_a_network_of_ones_own_takes_motions_at_named_places() -> None:
    model = own()
    expected = MOVED.video(model[:2](images()))  # the features as the neighbouring frames show them
    placements = fold(model, MOVED, places="2", ratio=0.25)
    assert [placement.path for placement in placements] == ["2"]
    moved = model[2].temporal(model[:2](images()))
    for channels, frame in ((slice(0, 2), 2), (slice(2, 4), 0), (slice(4, 8), 1)):
        torch.testing.assert_close(moved[:, channels], expected[:, frame, channels], atol=1e-6, rtol=0)


def test_a_policy_of_several_motions_puts_each_at_its_place() -> None:
    model = own()
    motions = (PlacedMotion(("2",), (MOVED,)), PlacedMotion(("3",), (TURNED.with_frames(3),)))
    with pytest.raises(UserError, match="differ in frames, reference, fill"):
        PlacedPolicy(motions=motions)
    policies = {"2": MOVED, "3": Policy.single("rotate", 40.0, frames=3)}
    policy = PlacedPolicy(motions=tuple(PlacedMotion((place,), (each,)) for place, each in policies.items()))
    fold(model, policy, places="2,3")
    found = {module.path: module.temporal.motion.policies for module in model if isinstance(module, Inserted)}
    assert found == {place: (each,) for place, each in policies.items()}


@pytest.mark.parametrize("temporal", ["gsm", "gsf"])
def test_what_is_inserted_takes_over_precision_and_mode(temporal: str) -> None:
    model = own().double().eval()
    fold(model, MOVED, places="2", temporal=temporal)
    assert not any(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert model(images().double()).dtype == torch.float64
    with torch.device("meta"):
        there = own().train()
    fold(there, MOVED, places="2", temporal=temporal)
    assert {parameter.device.type for parameter in there.parameters()} == {"meta"}
    assert all(module.training for module in there.modules())


def lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls lazy layers new
        return nn.Sequential(nn.LazyConv2d(8, 3), nn.Conv2d(8, 8, 3))


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated
        script: nn.Module = torch.jit.script(own())
    return script


def folded_once(places: str | None) -> nn.Module:
    model = timm_model("resnet18") if places is None else own()
    fold(model, MOVED, places=places)
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fold(own(), MOVED), "No residual block of a known family in Sequential"),
        (lambda: fold(own(), MOVED, places="7"), "places='7' matches no module"),
        (lambda: fold(own(), MOVED, places="2", temporal="conv3d"), "'conv3d' has no folded form"),
        (lambda: fold(own(), MOVED, places="2", temporal="none"), "'none' has no folded form"),
        (lambda: fold(own(), MOVED, places="2", temporal="tms"), "Did you mean 'tsm'"),
        (lambda: fold(own(), MOVED.with_frames(2), places="2"), "the folded form needs a frame to either side"),
        (lambda: fold(own(), Policy.single("contrast", 0.5, frames=3), places="2"), r"changes colours \(contrast\)"),
        (lambda: fold(folded_once("2"), MOVED, places="2"), "'2' already has a temporal module"),
        (lambda: fold(folded_once("2"), MOVED, places="2.wrapped"), "'2' already has a temporal module"),
        (lambda: fold(folded_once(None), MOVED), "'layer1.0.conv1' already has a temporal module"),
        (lambda: fold(folded_once(None), MOVED, places="layer1"), "'layer1.0.conv1' already has a temporal module"),
        (lambda: fold(None, MOVED), r"is a NoneType, but must be a torch\.nn\.Module"),
        (lambda: fold(own(), "policy.json", "2"), r"read a file by Policy\.load\('policy\.json'\)"),
        (lambda: fold(own(), own(), "2"), "The policy is a Sequential, but must be a Policy"),
        (lambda: fold(own(), MOVED, places=["2", "3"]), "one text, a shell pattern .*, such as '2,3'"),
        (lambda: fold(own(), MOVED, places=2), "places is 2, but must be one text"),
        (lambda: fold(own(), MOVED, places="2", ratio="1/8"), "ratio is '1/8', but must be a number or None"),
        (lambda: fold(own(), MOVED, places="2", temporal=3), "temporal is 3, but must be text"),
        (lambda: fold(nn.Sequential(nn.Conv1d(3, 8, 3)), MOVED), "Sequential has no Conv2d"),
        (lambda: fold(scripted(), MOVED, places="2"), "RecursiveScriptModule of torch.jit, .*; give the eager model"),
        (lambda: fold(lazy(), MOVED, places="1"), r"'0\.weight' of Sequential has no size yet, .*run the model once"),
        (lambda: fold(timm_model("mobilenetv3_small_050"), MOVED), "Of timm's networks only ResNets and ConvNeXts"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_what_has_a_policy_is_given_in_place_of_it() -> None:
    class Found:
        policy = MOVED

    model = own()
    other = copy.deepcopy(model)
    assert fold(model, Found(), places="2") == fold(other, MOVED, places="2")
    assert torch.equal(model.eval()(images()), other.eval()(images()))


def test_a_refused_network_is_left_as_it_was() -> None:
    model = own()
    before = repr(model)
    policy = PlacedPolicy(motions=(PlacedMotion(("2", "3"), (MOVED, MOVED, MOVED)),))
    with pytest.raises(UserError, match="groups = 3 does not divide"):
        fold(model, policy, places="2,3")
    assert repr(model) == before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("build", [
    lambda model: fold(model, MOVED, temporal="gsm"),
    lambda model: video_network(model, temporal="gsm", frames=3, num_classes=5),
])  # fmt: skip
def test_gsm_in_a_given_network_starts_as_that_network_to_the_last_bit(build: Callable[[nn.Module], object]) -> None:
    """Its weights may be trained, so channels are not interleaved unless asked for."""
    model = timm_model("resnet18").eval()
    expected = model(images())
    built = build(model)
    if isinstance(built, VideoNetwork):
        found = built.eval()(images()[:, None].expand(-1, 3, -1, -1, -1))
        torch.testing.assert_close(found, expected[:, None].expand(-1, 3, -1))
    else:
        assert torch.equal(model.eval()(images()), expected)


def test_a_folded_network_shows_its_motion() -> None:
    shown = repr(folded_once("2"))
    assert "motion='edge 0->1: translate_x by 0.4 of the width at the outer frames'" in shown


def test_other_places_can_take_another_motion() -> None:
    model = folded_once("2")
    fold(model, TURNED, places="3")
    assert sum(isinstance(module, FoldedTSM) for module in model.modules()) == 2
    assert model(images()).shape == (2, 8, 64, 64)
