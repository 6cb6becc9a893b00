"""VideoNetwork: a 2D network with temporal modules that reads the video of an image."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.forms import Form
from fieldshift.networks.frames import split_frames
from fieldshift.networks.fusion import Fusion
from fieldshift.networks.insertion import Placement
from fieldshift.networks.pretrained import WeightsReport
from fieldshift.networks.temporal import temporal_kind


class VideoNetwork(nn.Module):
    """A 2D network that reads T frames of one image, each with the same weights and with its neighbours' features.

    (B, T, C, H, W) -> logits per frame, (B, T, K) for classification or (B, T, K, H, W) for segmentation; `fuse`
    combines them. With T = 1 it is the plain 2D network, whatever the temporal module. In the folded form T is 1 too,
    and the temporal modules move channels inside that one frame.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        task: str,
        frames: int,
        temporal: str,
        num_classes: int,
        fusion: str,
        feature_layer: str,
        placements: Sequence[Placement],
        stages: Sequence[str] = (),
        form: Form = "video",
        weights_report: WeightsReport | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.name, self.task, self.frames, self.temporal = name, task, frames, temporal
        self.num_classes, self.fusion = num_classes, fusion
        self.feature_layer = f"network.{feature_layer}"
        self.placements, self.stages = tuple(placements), tuple(stages)
        self.form: Form = form
        self.weights_report = weights_report
        self.fuser = Fusion(fusion, frames)

    @property
    def image_channels(self) -> int:
        """Number of image channels that the network reads: those of its first convolution."""
        return next(
            module.in_channels
            for name, module in self.network.named_modules()
            if isinstance(module, nn.Conv2d) and "temporal" not in name.split(".")
        )

    @property
    def temporal_reach(self) -> int:
        """Number of frames that a frame's last features reach to a side (only backwards if causal): min(modules, T - 1)."""
        return min(len(self.placements), self.frames - 1)

    @property
    def frames_needed(self) -> int:
        """Number of frames to a side that a frame's output depends on: the reach plus what gates read beyond it."""
        return temporal_kind(self.temporal).depends_on * len(self.placements)

    @property
    def sees_later_frames(self) -> bool:
        """Whether a frame's features depend on later frames."""
        return self.form == "video" and self.frames > 1 and temporal_kind(self.temporal).ahead

    def forward(self, video: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits per frame of a video (B, T, C, H, W); ValueError with both shapes unless it has T frames.

        While a segmenter with an auxiliary head is training: (logits, logits of that head).
        """
        if self.training and getattr(self.network, "aux_classifier", None) is not None:
            logits, auxiliary = self.forward_with_auxiliary(video)
            assert auxiliary is not None
            return logits, auxiliary
        return split_frames(self.network(self._rows(video)), self.frames)

    def forward_with_auxiliary(self, video: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits per frame and those of the auxiliary head, None where the network has no such head."""
        both = getattr(self.network, "forward_with_auxiliary", None)
        if both is None:
            return split_frames(self.network(self._rows(video)), self.frames), None
        logits, auxiliary = both(self._rows(video))
        return (
            split_frames(logits, self.frames),
            None if auxiliary is None else split_frames(auxiliary, self.frames),
        )

    def fuse(self, frame_logits: Tensor, matrices: Float[Tensor, "frames 2 3"] | None = None) -> Tensor:
        """Combines the frames' logits: (B, T, K) -> (B, K), (B, T, K, H, W) -> (B, K, H, W).

        With the frames' forward matrices (T, 2, 3) dense maps are aligned to the image before they are averaged,
        each pixel over the frames that show it; without matrices, the maps are averaged as they are.
        """
        fused: Tensor = self.fuser(frame_logits, matrices)
        return fused

    def _rows(self, video: Tensor) -> Tensor:
        if video.ndim != 5 or video.shape[1] != self.frames:
            raise ValueError(
                f"{self.name} expected a video of shape (B, {self.frames}, C, H, W), received {tuple(video.shape)}."
            )
        return video.flatten(0, 1)  # (B * T, C, H, W)
