"""Exported models against the network they came from: plain images in, the same logits out, at any batch size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.forms import Form
from fieldshift.motions import Edge, Policy, Step
from fieldshift.training import NetworkCard
from fieldshift.training.card_file import read_card
from fieldshift.training.export import PlainImageModel, export_network

SIZE = (18, 24)
MOVED = Policy.single("translate_x", 0.3, frames=3)
MIXED = Policy(
    inputs=1, nodes=2, frames=3, fill="mean",
    edges=(Edge(0, 1, (Step("rotate", 25.0),)), Edge(0, 2, (Step("zoom", 1.3),)), Edge(1, 2, (Step("shear_y", 8.0),))),
)  # fmt: skip
TURNED = Policy(inputs=1, nodes=1, frames=3, fill="border", edges=(Edge(0, 1, (Step("rotate", 40.0),)),))


def card_of(
    policy: Policy | None, *, task: str = "classification", temporal: str = "tsm", form: Form = "video"
) -> NetworkCard:
    return NetworkCard(
        data="none", task=task, classes=tuple("abcde"), channels=3, size=SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25),
        ignore_index=255 if task == "segmentation" else None,
        network="tiny-resnet" if task == "classification" else "tiny-resnet-fcn",
        temporal=temporal if policy is not None else "none",
        arm="none" if policy is None else "das" if form == "video" else "das-folded", form=form,
        policy=None if policy is None else json.loads(policy.to_json()),
    )  # fmt: skip


def trained_like(card: NetworkCard) -> torch.nn.Module:
    torch.manual_seed(0)
    network = card.build()
    for module in network.modules():  # batch statistics as after training, not the fresh 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def expected(card: NetworkCard, network: torch.nn.Module, images: Tensor, *, align: bool) -> Tensor:
    """What evaluation computes for these images."""
    plan = card.plan()
    assert card.form == "video" or plan.policy is None
    with torch.no_grad():
        video = images[:, None] if plan.policy is None else plan.policy.video(images)
        logits = network(plan.normalise(video))
        return network.fuse(logits, plan.alignment(logits.shape[-2:]) if align else None)


def ten_images() -> Tensor:
    return torch.rand(10, 3, *SIZE, generator=torch.Generator().manual_seed(4))


CASES = {
    "image": (card_of(None), False),
    "moved": (card_of(MOVED), False),
    "gated": (card_of(MOVED, temporal="gsf"), False),
    "mixed": (card_of(MIXED), False),
    "turned": (card_of(TURNED), False),
    "maps": (card_of(TURNED, task="segmentation"), True),
    "folded": (card_of(MIXED, form="folded"), False),
    "folded-gated": (card_of(TURNED, temporal="gsf", form="folded"), False),
    "folded-maps": (card_of(TURNED, task="segmentation", temporal="gsm", form="folded"), True),
    "maps-unaligned": (card_of(MOVED, task="segmentation"), False),
}


@pytest.mark.parametrize("name", CASES)
def test_the_plain_image_model_is_what_evaluation_computes(name: str) -> None:
    card, align = CASES[name]
    network, images = trained_like(card), ten_images()
    model = PlainImageModel(network, card, align=align).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected(card, network, images, align=align), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", ["torch", "onnx"])
@pytest.mark.parametrize("name", ["moved", "gated", "maps", "folded", "folded-maps"])
def test_exported_files_agree_at_batches_of_one_and_seven(name: str, form: str, tmp_path: Path) -> None:
    card, align = CASES[name]
    network, images = trained_like(card), ten_images()
    files = export_network(network, card, tmp_path, form, align=align)
    wanted = expected(card, network, images, align=align).numpy()
    if form == "torch":
        model = torch.export.load(files[0]).module()
        run = lambda part: model(part).detach().numpy()  # noqa: E731
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(files[0]), providers=["CPUExecutionProvider"])
        run = lambda part: session.run(None, {"images": part.numpy()})[0]  # noqa: E731
    tolerance = 1e-4 if card.form == "video" else 1e-5  # grid_sample places its points in single precision
    for size in (1, 7):
        found = np.concatenate([run(images[start : start + size]) for start in range(0, 10, size)])
        np.testing.assert_allclose(found, wanted, atol=tolerance, rtol=tolerance)
    readme = (tmp_path / "README.md").read_text()
    assert f"(batch, 3, {SIZE[0]}, {SIZE[1]})" in readme
    assert json.loads((tmp_path / "classes.json").read_text()) == list("abcde")


@pytest.mark.parametrize("name", ["moved", "folded"])
def test_a_program_runs_without_this_project(tmp_path: Path, name: str) -> None:
    card, _ = CASES[name]
    network, images = trained_like(card), ten_images()
    export_network(network, card, tmp_path, "torch")
    torch.save(images, tmp_path / "images.pt")
    program = (
        "import sys, torch\n"
        "model = torch.export.load('model.pt2').module()\n"
        "torch.save(model(torch.load('images.pt')).detach(), 'logits.pt')\n"
        "assert not [name for name in sys.modules if name.startswith('fieldshift')]\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=200)
    wanted = expected(card, network, images, align=False)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), wanted, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    coloured = Policy(inputs=1, nodes=1, frames=3, edges=(Edge(0, 1, (Step("solarize", 0.5),)),))
    with pytest.raises(UserError, match="solarize"):
        PlainImageModel(trained_like(card_of(MOVED)), card_of(coloured))
    network = trained_like(card_of(MOVED))
    for form in ("torch", "onnx"):
        with pytest.raises(UserError, match=rf"format {form} cannot hold .*solarize.* --format mlflow can\."):
            export_network(network, card_of(coloured), tmp_path / form, form)
        assert not (tmp_path / form).exists()
    assert export_network(network, card_of(coloured), tmp_path / "weights", "safetensors")[0].is_file()
    assert "align" not in read_card(tmp_path / "weights")  # a classifier has no maps
    with pytest.raises(UserError, match="onnx"):
        export_network(trained_like(card_of(MOVED)), card_of(MOVED), tmp_path, "onx")
