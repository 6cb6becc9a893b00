"""Long videos in bounded memory: read in chunks of any length, with the same output as in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.networks.frames import split_frames
from fieldshift.networks.gate import GSM
from fieldshift.networks.shift import TSM, Carried
from fieldshift.networks.temporal import TemporalConv
from fieldshift.networks.video import VideoNetwork


class Stream:
    """A video network with state: each call takes the next frames, (B, t, C, H, W), and returns their logits.

    Every causal shift stores the channels that its next frame needs, C // 8 of one frame, so memory and work per
    frame do not grow with the video. Logits are those of the whole video, (B, t, K) or (B, t, K, H, W), for any t.
    The network itself is unchanged between calls. Raises UserError where frames depend on later ones; ValueError where the
    batch size changes within a video (`restart` begins another).
    """

    def __init__(self, network: VideoNetwork) -> None:
        if network.sees_later_frames:
            raise UserError(
                f"A network with temporal='{network.temporal}' needs later frames and cannot be streamed; "
                "use temporal='tsm-causal' (or 'none'), or `predict_in_chunks`."
            )
        check_evaluating(network)
        self.network = network
        self._shifts = [module for module in network.modules() if isinstance(module, TSM)]
        self._last: list[Tensor | None] = [None] * len(self._shifts)
        self._batch: int | None = None

    def restart(self) -> None:
        """Forgets the video so far."""
        self._last = [None] * len(self._shifts)
        self._batch = None

    def __call__(self, chunk: Float[Tensor, "batch frames channels height width"]) -> Tensor:
        batch, frames = chunk.shape[:2]
        if self._batch is not None and batch != self._batch:
            raise ValueError(
                f"The stream expected chunks of {self._batch} videos, received shape {tuple(chunk.shape)}."
            )
        self._batch = batch
        for shift, last in zip(self._shifts, self._last, strict=True):
            shift.carried = Carried(frames=frames, last=last)
        try:
            with torch.no_grad():
                logits = split_frames(self.network.network(chunk.flatten(0, 1)), frames)
            self._last = [shift.carried.last if shift.carried else None for shift in self._shifts]
        finally:
            for shift in self._shifts:
                shift.carried = None
        return logits


def predict_in_chunks(
    network: VideoNetwork, video: Float[Tensor, "batch frames channels height width"], chunk: int
) -> Tensor:
    """The logits per frame of a video of any length, `chunk` frames at a time: equal to one pass over the whole video.

    A causal network carries its shifted channels from chunk to chunk (`Stream`). Where a frame sees later ones, each
    chunk is read with as many frames on either side as its output depends on, which are then dropped: memory is that of
    chunk + 2 * `frames_needed` frames, whatever the video's length. A video of a single frame is read as one without
    neighbours, in which no module moves anything. Raises UserError in training mode and for chunks below 1 frame.
    """
    if chunk < 1:
        raise UserError(f"The value of `chunk` is {chunk}, but must be at least 1 frame.")
    if not network.sees_later_frames and video.shape[1] > 1:
        stream = Stream(network)
        return torch.cat([stream(part) for part in torch.split(video, chunk, dim=1)], dim=1)
    check_evaluating(network)
    frames, margin = video.shape[1], network.frames_needed
    parts = []
    for start in range(0, frames, chunk):
        first, last = max(0, start - margin), min(frames, start + chunk + margin)
        with of_length(network, last - first), torch.no_grad():
            logits = split_frames(network.network(video[:, first:last].flatten(0, 1)), last - first)
        parts.append(logits[:, start - first : start - first + min(chunk, frames - start)])
    return torch.cat(parts, dim=1)


@contextmanager
def of_length(network: VideoNetwork, frames: int) -> Iterator[None]:
    """Within the block, every temporal module of the network reads videos of this many frames."""
    modules = [module for module in network.modules() if isinstance(module, (TSM, GSM, TemporalConv))]
    before = [module.frames for module in modules]
    try:
        for module in modules:
            module.frames = frames
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.frames = own


def check_evaluating(network: VideoNetwork) -> None:
    """Raises UserError in training mode, in which chunks cannot equal the whole video."""
    if network.training:
        raise UserError("A network in training mode cannot be streamed, as BatchNorm mixes frames; call eval() first.")
