"""Under which conditions an effective receptive field was measured; maps of different conditions are not comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fieldshift.errors import UserError

if TYPE_CHECKING:
    from fieldshift.receptive_field.effective import EffectiveField

_MUST_AGREE = {
    "input_size": "input size",
    "layer": "layer",
    "unit": "unit",
    "trained": "training",
    "images": "number of images",
    "images_kind": "kind of images",
}


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What has to be said with every effective receptive field."""

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
    """How many images the map is a mean over."""
    images_kind: str
    """Which images they are, in words."""
    frames: int = 1
    """The number of frames T; 1 for a plain network."""
    temporal: str = "none"
    """The temporal module."""
    policy: tuple[str, ...] = ()
    """The policy in words, one line an edge; empty without one."""
    policy_digest: str = ""
    """The policy's digest; empty without one."""

    def lines(self) -> list[str]:
        """The conditions in two or three short lines, as every figure prints them."""
        height, width = self.input_size
        state = "trained" if self.trained else "not trained"
        video = f", T = {self.frames}, {self.temporal}" if self.frames > 1 else ""
        images = f"{self.images} image{'s' * (self.images != 1)} ({self.images_kind})"
        return [
            f"{self.network}{video}, {state}, layer {self.layer}, unit ({self.unit[0]}, {self.unit[1]})",
            f"input {height} x {width} px, {images}",
            *([f"policy {self.policy_digest}: {'; '.join(self.policy) or 'replicate'}"] if self.policy_digest else []),
        ]

    def to_json(self) -> dict[str, Any]:
        """The conditions as plain values; `from_json` gives them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Conditions:
        """Conditions from the plain values of `to_json`."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in plain.items()}
        return cls(**values)


def check_comparable(fields: Sequence[EffectiveField]) -> None:
    """Raises UserError, naming what differs, unless all maps were measured under the same conditions.

    Input size, layer, unit, training, number and kind of images must agree; the network, its temporal module, the
    frames and the policy may differ, since they are what is compared.
    """
    if not fields:
        raise UserError("There is no receptive field to compare; give at least one.")
    first = fields[0].conditions
    for other in fields[1:]:
        for name, words in _MUST_AGREE.items():
            left, right = getattr(first, name), getattr(other.conditions, name)
            if left != right:
                raise UserError(
                    f"These receptive fields cannot be compared: the {words} is {left!r} for {first.network} and "
                    f"{right!r} for {other.conditions.network}; measure both under the same conditions."
                )
