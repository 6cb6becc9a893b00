"""Exports a trained network as one model of plain images, motions included, which runs without FieldShift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.data.collection import described
from fieldshift.errors import MissingFeatureError, UserError, unknown_name
from fieldshift.motions.exportable import ExportableVideo
from fieldshift.motions.grid_sampling import sample_grid
from fieldshift.motions.matrices import are_identities
from fieldshift.motions.sampling import Lookup
from fieldshift.networks import VideoNetwork, frame_validity
from fieldshift.networks.fusion import frame_positions
from fieldshift.training.card_file import EXPORT_FORMATS
from fieldshift.training.saved import NetworkCard, save_network

EXAMPLES = 2


class PlainImageModel(nn.Module):
    """Maps images (B, C, H, W), floats in [0, 1], to logits (B, K), or (B, K, H, W) for a segmenter.

    Motions, normalisation and fusion are included; the size is fixed, as `grid_sample` reads stored grids, and the batch size
    is free. Raises UserError for a policy with colour changes.
    """

    mean: Tensor
    std: Tensor
    back: Tensor
    valid: Tensor

    def __init__(self, network: VideoNetwork, card: NetworkCard, *, align: bool = True) -> None:
        super().__init__()
        plan = card.plan()
        policy = None if plan.policy is None or plan.as_images else plan.policy
        self.network = network
        self.video = None if policy is None else ExportableVideo(policy, card.size)
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 1, -1, 1, 1).clone())
        self.register_buffer("std", torch.tensor(card.std).view(1, 1, -1, 1, 1).clone())
        self.align = align and card.task == "segmentation" and policy is not None
        if self.align and policy is not None:
            forward, scale = policy.matrices(card.size), torch.tensor([2 / card.size[1], 2 / card.size[0]])
            self.still = are_identities(forward).tolist()
            self.register_buffer("back", (frame_positions(forward, card.size) * scale).contiguous())  # (T, H, W, 2)
            self.register_buffer("valid", frame_validity(forward, card.size)[:, None].clone())

    def forward(self, images: Float[Tensor, "batch channels H W"]) -> Tensor:
        video = images[:, None] if self.video is None else self.video(images)
        logits = self.network((video - self.mean) / self.std)
        if not self.align:
            return self.network.fuser.combine(logits)
        maps = Lookup("zeros", "bilinear")
        aligned = [
            logits[:, t] if self.still[t] else sample_grid(logits[:, t], self.back[t][None], maps)
            for t in range(logits.shape[1])
        ]
        return self.network.fuser.combine(torch.stack(aligned, dim=1), self.valid)


def export_network(network: VideoNetwork, card: NetworkCard, out: Path, form: str, *, align: bool = True) -> list[Path]:
    """Writes the model into the folder `out` with a README and `classes.json`, and returns the files.

    `torch` is a torch.export program (model.pt2), `onnx` a model for onnxruntime and others (model.onnx); both contain the
    motions. `safetensors` are the weights alone, with the card that describes the network.
    Raises UserError for another form, and MissingFeatureError where onnx is not installed.
    """
    if form not in EXPORT_FORMATS:
        raise unknown_name("format", form, EXPORT_FORMATS)
    if form == "safetensors":
        out.mkdir(parents=True, exist_ok=True)
        save_network(out, network.cpu().eval(), card, align=align if card.mapped else None)
        files = [out / "weights.safetensors"]
    else:
        model = exportable(network, card, form, align=align)
        out.mkdir(parents=True, exist_ok=True)
        images = torch.rand(EXAMPLES, card.channels, *card.size)
        with torch.no_grad():
            model(images)  # a folded network computes its motions for the size of its maps, which a tracer cannot
        files = [save_program(model, images, out) if form == "torch" else save_onnx(model, images, out)]
    classes, readme = out / "classes.json", out / "README.md"
    classes.write_text(json.dumps(list(card.classes), indent=2) + "\n")
    readme.write_text(readme_of(card, files[0].name, form))
    return [*files, classes, readme]


def exportable(network: VideoNetwork, card: NetworkCard, form: str, *, align: bool) -> PlainImageModel:
    """The network as one model; raises UserError, with a format that can hold it, for a policy that changes colours."""
    try:
        return PlainImageModel(network.cpu().eval(), card, align=align).eval()
    except UserError as error:
        raise UserError(f"A model of the format {form} cannot hold the policy: {error} --format mlflow can.") from None


def save_program(model: nn.Module, images: Tensor, out: Path) -> Path:
    path = out / "model.pt2"
    batch = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def save_onnx(model: nn.Module, images: Tensor, out: Path) -> Path:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingFeatureError("ONNX export needs onnx and onnxscript: pip install 'fieldshift[export]'.") from None
    path = out / "model.onnx"
    batch = torch.export.Dim("batch", min=1, max=4096)
    options: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "dynamo": True, "verbose": False}
    with torch.no_grad():
        torch.onnx.export(model, (images,), path, dynamic_shapes=({0: batch},), external_data=False, **options)
    return path


def readme_of(card: NetworkCard, file: str, form: str) -> str:
    """The README of an exported model, for users who have only the file."""
    height, width = card.size
    shape = "(batch, classes)" if card.task == "classification" else "(batch, classes, height, width)"
    frames = (
        f"the {card.frames} moved frames of the image are computed inside" if card.frames > 1 else "there are no frames"
    )
    if card.form == "folded":
        frames = "the motions move channels inside the network"
    runs = {
        "torch": 'import torch\nmodel = torch.export.load("model.pt2").module()\nlogits = model(images)',
        "onnx": 'import onnxruntime\nsession = onnxruntime.InferenceSession("model.onnx")\n'
        'logits = session.run(None, {"images": images})[0]  # images: a float32 numpy array',
        "safetensors": "from pathlib import Path\nfrom fieldshift.training import load_network\n"
        'network, card = load_network(Path("."))  # weights without a program: this format needs FieldShift',
    }[form]
    return "\n".join(
        [
            f"# {card.network} with {card.temporal}, {card.task}",
            "",
            f"`{file}` reads images as float32 (batch, {card.channels}, {height}, {width}) with values from 0 to 1, without",
            f"normalisation or motion: {frames}, and every channel is normalised inside with mean {rounded(card.mean)}",
            f"and standard deviation {rounded(card.std)}. It returns logits {shape}; softmax over the classes gives",
            f"probabilities. `classes.json` names the {len(card.classes)} classes in the order of the logits.",
            f"Images of another size, as in training: {described(card.reader())}.",
            f"Trained on {card.data}.",
            "",
            "```python",
            runs,
            "```",
            "",
        ]
    )


def rounded(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
