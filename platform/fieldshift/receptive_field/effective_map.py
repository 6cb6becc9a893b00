"""A measured effective receptive field together with its measurement conditions.

Maps of different conditions are not comparable, and `check_comparable` rejects them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.forms import Form
from fieldshift.whole_file import whole_file

Of = Literal["reference frame", "all frames"]
"""The unit whose gradient a map shows: the reference frame's, or the mean of that unit over all frames."""

_MUST_AGREE = {
    "input_size": "input size",
    "layer": "layer",
    "unit": "unit",
    "trained": "training",
    "images": "number of images",
    "images_kind": "kind of images",
}
_ALL = "all_frames_"  # prefix of the arrays of the all-frames map in a saved file


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions reported with every effective receptive field."""

    network: str
    """The network's name."""
    layer: str
    """The layer whose unit got the gradient."""
    unit: tuple[int, int]
    """Row and column of the unit in the layer's map."""
    input_size: tuple[int, int]
    """The image's height and width, in pixels."""
    trained: bool
    """Whether the weights are trained."""
    images: int
    """Number of images that the map is averaged over."""
    images_kind: str
    """A description of the images."""
    frames: int = 1
    """The number of frames T that the network reads; 1 for a plain or folded one."""
    of: Of = "all frames"
    """The frames whose unit got the gradient; with T = 1 there is only one."""
    form: Form = "video"
    """The form of the network: folded if it moves channels inside one frame."""
    temporal: str = "none"
    """The temporal module."""
    policy: tuple[str, ...] = ()
    """Description of the policy, one line per edge; empty without one."""
    policy_digest: str = ""
    """The policy's digest; empty without one."""

    def lines(self) -> list[str]:
        """The conditions in two or three short lines, as printed in every figure."""
        height, width = self.input_size
        state = "trained" if self.trained else "not trained"
        moves = f"T = {self.frames}" if self.frames > 1 else "folded" if self.form == "folded" else ""
        video = f", {moves}, {self.temporal}" if moves else ""
        images = f"{self.images} image{'s' * (self.images != 1)} ({self.images_kind})"
        return [
            f"{self.network}{video}, {state}, layer {self.layer}, {self._unit_words}",
            f"input {height} x {width} px, {images}",
            *([f"policy {self.policy_digest}: {'; '.join(self.policy) or self._still}"] if self.policy_digest else []),
        ]

    @property
    def _unit_words(self) -> str:
        words = f"unit ({self.unit[0]}, {self.unit[1]})"
        if self.frames == 1:
            return words
        return f"{words} of the reference frame" if self.of == "reference frame" else f"mean of {words} over all frames"

    @property
    def _still(self) -> str:
        return "no motion" if self.form == "folded" else "replicate"

    def tags(self) -> dict[str, str]:
        """The conditions as tags of a tracked run, each under a separate name, so that runs can be filtered by them."""
        words = {"unit": f"{self.unit[0]}, {self.unit[1]}", "input_size": "{} x {}".format(*self.input_size)}
        words |= {"policy": "; ".join(self.policy) or "none"}
        plain = {key: words.get(key, str(value)) for key, value in asdict(self).items()}
        return {f"conditions.{key}": value for key, value in plain.items()}

    def to_json(self) -> dict[str, Any]:
        """The conditions as plain values; `from_json` restores them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Conditions:
        """Restores conditions from the plain values of `to_json`."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in plain.items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class EffectiveField:
    """The map of mean absolute gradients over the original image, with its measurement conditions.

    For a video network it is the map of the reference frame's unit, `other_frames` is the share that arrives through
    other frames, and `all_frames` is the map of the mean over frames: the latter is wide whenever the frames are moved, even
    if the network never connects them.
    """

    values: Float[Tensor, "height width"]
    """Mean |gradient| at every pixel, float64, on the CPU."""
    standard_error: Float[Tensor, "height width"] | None
    """Standard error over images of `values`; None for a single image."""
    mass: float
    """The sum of `values`."""
    mass_standard_error: float | None
    """Standard error over images of the mass; None for a single image."""
    conditions: Conditions
    theoretical_size: tuple[int, int] | None
    """Rows and columns of the plain network's theoretical field, in pixels, unclipped; None if it is unbounded."""
    theoretical_area: float | None
    """Pixels of the image inside the theoretical field, reshaped by the policy if any; None as above."""
    position: tuple[float, float] | None = None
    """Row and column of the unit on the image, the centre of its field in an unmoved frame; None as above."""
    notes: tuple[str, ...] = ()
    """Warnings for the reader, such as a field larger than the image."""
    other_frames: float | None = None
    """Share of the gradient's mass, 0 to 1, that reaches the reference frame's unit through other frames, or in a folded
    network through moved channels (`fieldshift.receptive_field.arrivals`); None if the unit belongs to no frame."""
    other_frames_error: float | None = None
    """Standard error over images of `other_frames`; None for a single image."""
    all_frames: EffectiveField | None = None
    """The map of the mean of the unit over all frames; None if there is one frame."""

    def save(self, path: str | Path) -> Path:
        """Writes the map with its conditions as one .npz file; `load` reads it back."""
        path = Path(path)
        arrays = self._arrays() if self.all_frames is None else {**self._arrays(), **self.all_frames._arrays(_ALL)}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> EffectiveField:
        """Loads the field from a file written by `save`; a missing or invalid file raises UserError."""
        try:
            with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                found = cls._of_arrays(file)
                averaged = cls._of_arrays(file, _ALL) if f"{_ALL}values" in file.files else None
            return replace(found, all_frames=averaged)
        except (OSError, EOFError, BadZipFile, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"'{path}' is not a saved receptive field ({error}); give a file written by save."
            ) from error

    def _arrays(self, prefix: str = "") -> dict[str, np.ndarray]:
        left_out = ("values", "standard_error", "conditions", "all_frames")
        described = {key: value for key, value in vars(self).items() if key not in left_out}
        described["conditions"] = self.conditions.to_json()
        arrays = {"values": self.values.numpy(), "described": np.array(json.dumps(described))}
        if self.standard_error is not None:
            arrays["standard_error"] = self.standard_error.numpy()
        return {f"{prefix}{key}": array for key, array in arrays.items()}

    @classmethod
    def _of_arrays(cls, file: Mapping[str, np.ndarray], prefix: str = "") -> EffectiveField:
        described = json.loads(str(file[f"{prefix}described"]))
        error, size, position = f"{prefix}standard_error", described["theoretical_size"], described.get("position")
        return cls(
            values=torch.from_numpy(file[f"{prefix}values"]),
            standard_error=torch.from_numpy(file[error]) if error in file else None,
            mass=described["mass"],
            mass_standard_error=described["mass_standard_error"],
            conditions=Conditions.from_json(described["conditions"]),
            theoretical_size=None if size is None else (size[0], size[1]),
            theoretical_area=described["theoretical_area"],
            position=None if position is None else (position[0], position[1]),
            notes=tuple(described["notes"]),
            other_frames=described.get("other_frames"),
            other_frames_error=described.get("other_frames_error"),
        )


def check_comparable(fields: Sequence[EffectiveField], compared: Collection[str] = ()) -> None:
    """Raises UserError, which names the difference, unless all maps were measured under the same conditions.

    Input size, layer, unit, whether it is the reference frame's or the mean over all, training, and number and kind of
    images must agree; the network, its form, its temporal module, the frames and the policy may differ, since they are
    what is compared. compared: further names of `Conditions` that may differ, such as "trained" for a network before and
    after training.
    """
    if not fields:
        raise UserError("There is no receptive field to compare; give at least one.")
    first = fields[0].conditions
    videos = [field.conditions for field in fields if field.conditions.frames > 1]
    for other_video in videos[1:]:
        if other_video.of != videos[0].of:
            raise UserError(
                f"These receptive fields cannot be compared: the unit is of the {videos[0].of} for {videos[0].network} and "
                f"of the {other_video.of} for {other_video.network}; use the same for both."
            )
    for other in fields[1:]:
        for name, words in _MUST_AGREE.items():
            if name in compared:
                continue
            left, right = getattr(first, name), getattr(other.conditions, name)
            if left != right:
                raise UserError(
                    f"These receptive fields cannot be compared: the {words} is {left!r} for {first.network} and "
                    f"{right!r} for {other.conditions.network}; measure both under the same conditions."
                )
