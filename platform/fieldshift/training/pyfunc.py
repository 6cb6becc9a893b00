"""A trained network as an MLflow model: saved without pickle, loaded with `mlflow.pyfunc.load_model` in any process.

The model holds `weights.safetensors` and `network.json`; this module is its loader. It takes images as files or arrays, and
runs on a GPU where there is one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fieldshift import __version__
from fieldshift.data.files.pictures import fitted_picture, mask_of_picture, open_picture
from fieldshift.data.files.reading import Reader
from fieldshift.errors import UserError
from fieldshift.training.card_file import WEIGHTS
from fieldshift.training.saved import load_network

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "image"
SERVING = "serving.json"
BATCH = 64
Given = str | Path | np.ndarray


def save_pyfunc(run: Path, folder: Path, *, align: bool = True) -> None:
    """Saves the trained network of a run folder as an MLflow model in `folder`, which must not exist or be empty.

    The signature takes a column `image` of file names or uint8 arrays (H, W) or (H, W, C) of any size. It returns one row
    per image: `class` and `probability` for a classifier; `mask`, class numbers (H, W) of the image's own size, for a
    segmenter, fused in the reference frame if `align`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow's, of its own types and of a missing input example
        _save(run, folder, align)


def _save(run: Path, folder: Path, align: bool) -> None:
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema, TensorSpec

    _, card = load_network(run)
    outputs: list[ColSpec | TensorSpec] = (
        [ColSpec(AnyType(), "mask")]
        if card.task == "segmentation"
        else [ColSpec(DataType.string, "class"), ColSpec(DataType.double, "probability")]
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as place:
        data = Path(place) / "network"  # the model has a folder of this name
        data.mkdir()
        for name in (WEIGHTS, "network.json"):
            shutil.copyfile(run / name, data / name)
        (data / SERVING).write_text(json.dumps({"align": align}))
        save_model(
            folder,
            loader_module=__name__,
            data_path=data,
            signature=ModelSignature(Schema([ColSpec(AnyType(), COLUMN)]), Schema(outputs)),
            pip_requirements=[
                f"fieldshift=={__version__}",
                *(f"{name}=={version(name)}" for name in ("torch", "torchvision")),
            ],
            metadata={"arm": card.arm, "form": card.form, "network": card.network, "data": card.data},
        )


class ServedNetwork:
    """A trained network behind `predict`, as MLflow calls it."""

    def __init__(self, folder: Path) -> None:
        self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self.network, self.card = load_network(folder, self.device)
        self.plan = self.card.plan()
        self.reader = self.card.reader()
        self.align = bool(json.loads((folder / SERVING).read_text())["align"])

    @torch.no_grad()
    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """One row per image of a DataFrame with the column `image`, of a list of file names and arrays, or of one uint8 array
        (N, H, W, C). Raises UserError, which names the image, for anything else."""
        import pandas as pd

        images = list(images_of(model_input))
        read, sizes = [], []
        for number, image in enumerate(images):
            picture = picture_of(image, number, self.reader)
            read.append(fitted_picture(picture, self.reader))
            sizes.append(picture.size)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(read), BATCH):
            batch = torch.stack(read[start : start + BATCH]).to(self.device)
            logits, _ = self._forward(batch)
            if self.card.task == "segmentation":
                masks = logits.argmax(1).to(torch.uint8).cpu().numpy()
                rows += [
                    {"mask": mask_of_picture(mask, size, self.reader)}
                    for mask, size in zip(masks, sizes[start : start + BATCH], strict=True)
                ]
                continue
            best = logits.softmax(1).max(1)
            rows += [
                {"class": self.card.classes[int(index)], "probability": float(value)}
                for value, index in zip(best.values, best.indices, strict=True)
            ]
        columns = ["mask"] if self.card.task == "segmentation" else ["class", "probability"]
        return pd.DataFrame(rows, columns=columns)

    def _forward(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        from fieldshift.training.step import forward

        return forward(self.network, self.network, self.plan.evaluation_video(batch), self.plan if self.align else None)


def _load_pyfunc(path: str) -> ServedNetwork:
    """Loads the model; MLflow calls this by its name."""
    return ServedNetwork(Path(path))


def images_of(model_input: Any) -> Iterator[Given]:
    """The images of what `predict` was given: file names or arrays, one by one."""
    if hasattr(model_input, "columns"):
        if list(model_input.columns) != [COLUMN]:
            raise UserError(
                f"The model reads one column '{COLUMN}', but got {', '.join(map(str, model_input.columns))}."
            )
        yield from listed(model_input[COLUMN])
    elif isinstance(model_input, dict):
        if list(model_input) != [COLUMN]:
            raise UserError(f"The model reads '{COLUMN}', but got {', '.join(map(str, model_input)) or 'nothing'}.")
        yield from listed(model_input[COLUMN])
    elif isinstance(model_input, (str, Path)):
        yield model_input
    elif isinstance(model_input, (Sequence, np.ndarray)):
        yield from model_input
    else:
        raise UserError(f"The model reads file names or uint8 arrays, but got a {type(model_input).__name__}.")


def listed(images: Iterable[Any]) -> Iterator[Given]:
    """The images of a column, with those of a list of file names one by one: MLflow makes {"image": [names]} a single cell."""
    for image in images:
        if isinstance(image, list) and image and all(isinstance(name, (str, Path)) for name in image):
            yield from image
        else:
            yield image


def picture_of(image: Any, number: int, reader: Reader) -> Image.Image:
    """One image as a picture of its own size, with the channels of the training. Raises UserError, which names it."""
    if isinstance(image, (str, Path)):
        return open_picture(image, reader)
    pixels = np.asarray(image)
    if pixels.dtype.kind in "iu" and pixels.size and pixels.min() >= 0 and pixels.max() <= 255:
        pixels = pixels.astype(np.uint8)  # of JSON
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or (pixels.ndim == 3 and pixels.shape[2] not in {1, 3}):
        raise UserError(
            f"Image {number} is {pixels.dtype} {pixels.shape}, but must be a file name or a uint8 array (H, W), (H, W, 1) or "
            "(H, W, 3) of values from 0 to 255."
        )
    if min(pixels.shape[:2]) < 2:
        raise UserError(f"Image {number} is {pixels.shape[0]} x {pixels.shape[1]} px, but must be at least 2 x 2 px.")
    plane = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    return plane.convert("L" if reader.channels == 1 else "RGB")
