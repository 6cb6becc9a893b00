"""Settings of a network other than its name, temporal module and frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fieldshift.errors import UserError, unknown_name
from fieldshift.networks.names import FUSIONS, check_weights_name, is_foreign, known_temporal, takes_interleave
from fieldshift.settings import accept_fields

SMALL_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Settings for building a network.

    Attributes:
        ratio: share of channels that the temporal module moves, in (0, 1]; None uses the module's default.
        fusion: how the frames' logits are combined: mean-logits, mean-probabilities or learned.
        weights: pretrained 2D weights: a torchvision name such as DEFAULT, or a .pth or .safetensors file.
        small_images: a 3x3 stem without pooling; None uses it for images of at most 64 px (tiny-resnet and
            networks without default places: never).
        auxiliary: add a segmenter's auxiliary head.
        interleave: channel interleave of gsm and gsf; None turns it on from scratch and off with pretrained weights.
        places: shell pattern of module names to insert temporal modules at, instead of every residual block.
        dilated: dilate the kernels of the last stage in the networks of all arms, so that motion adds to a larger field.
        recompute: recompute each stage's activations in the backward pass instead of storing them; not with recipe.compile.
    """

    ratio: float | None = None
    fusion: str = "mean-logits"
    weights: str | None = None
    small_images: bool | None = None
    auxiliary: bool = False
    interleave: bool | None = None
    places: str | None = None
    dilated: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        accept_fields(self, "architecture")
        if self.fusion not in FUSIONS:
            raise unknown_name("fusion", self.fusion, FUSIONS)
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UserError(f"architecture.ratio is {self.ratio}, but must be above 0 and at most 1.")

    def anywhere(self) -> NetworkConfig:
        """The same settings with the full path of a weights file: workers run in other folders."""
        if self.weights is None or not Path(self.weights).is_file():
            return self
        return replace(self, weights=str(Path(self.weights).absolute()))

    def check_names(self, network: str, temporal: str) -> None:
        """Raises UserError for an unknown temporal module or weights, and for settings that they do not have."""
        self.check_temporal(temporal)
        if self.weights is not None:
            check_weights_name(self.weights, network)

    def check_temporal(self, temporal: str) -> None:
        """Raises UserError for an unknown temporal module, and for settings that it does not have."""
        if temporal not in known_temporal():
            raise unknown_name("temporal module", temporal, known_temporal())
        if temporal == "none" and (self.ratio is not None or self.places is not None):
            raise UserError(
                "--temporal none inserts nothing; leave out --architecture.ratio and --architecture.places."
            )
        if self.interleave is not None and not takes_interleave(temporal):
            raise UserError(f"--temporal {temporal} has no interleave; leave out --architecture.interleave.")

    def takes_small_images(self, name: str, size: tuple[int, int]) -> bool:
        """Whether the network `name` gets the stem for small images, for images of `size` (H, W)."""
        if self.small_images is not None:
            return self.small_images
        return max(size) <= SMALL_SIDE and not name.startswith("tiny-") and not is_foreign(name)
