"""Fusion: combines logits per frame into one output; dense maps are first aligned to the image.

Convention, as for the motions: a frame's matrix is the FORWARD map of content in pixels about the image centre
((W - 1) / 2, (H - 1) / 2), x right and y down: the image's point p appears in the frame at A p + b. The frame's
output for p is therefore read at A p + b. B batch, T frames, K classes, H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fieldshift.errors import unknown_name
from fieldshift.networks.names import FUSIONS
from fieldshift.tensor_cache import TensorCache, are_fixed, constant, values_of


def frame_positions(matrices: Float[Tensor, "frames 2 3"], size: tuple[int, int]) -> Float[Tensor, "frames h w 2"]:
    """The position of each image pixel in each frame: (T, H, W, 2) pixel positions (x, y) about the centre."""
    height, width = size
    y = torch.arange(height, dtype=matrices.dtype, device=matrices.device) - (height - 1) / 2
    x = torch.arange(width, dtype=matrices.dtype, device=matrices.device) - (width - 1) / 2
    along, across, shift = matrices[:, None, None].unbind(-1)  # each (T, 1, 1, 2)
    # Not a matrix product, which autocast would round to half precision: an error of almost a pixel at the edge of a large map.
    return along * x[:, None] + (across * y[:, None, None] + shift)


def frame_validity(matrices: Float[Tensor, "frames 2 3"], size: tuple[int, int]) -> Float[Tensor, "frames h w"]:
    """1 where a frame shows the image's pixel with all neighbours that bilinear sampling reads, otherwise 0."""
    height, width = size
    limits = constant(((width - 1) / 2, (height - 1) / 2), matrices.dtype, matrices.device) + 1e-3
    return (frame_positions(matrices, size).abs() <= limits).all(-1).to(matrices.dtype)


def align(
    frame_maps: Float[Tensor, "batch frames classes h w"], matrices: Float[Tensor, "frames 2 3"]
) -> Float[Tensor, "batch frames classes h w"]:
    """Moves every frame's map back onto the image: bilinear, zeros outside the frame.

    A frame whose matrix is exactly the identity is returned unchanged, bit for bit; maps in half precision are sampled in
    single precision.
    """
    return _aligned(frame_maps, _positions_of(matrices, frame_maps))


@dataclass(frozen=True)
class _Positions:
    """Sampling positions for aligning frames: `grid` (T, H, W, 2), `valid` (T, 1, H, W), and which frames are not moved.

    In the maps' dtype, or in single precision for maps in half precision.
    """

    grid: Tensor
    valid: Tensor
    still: tuple[bool, ...]

    @property
    def nbytes(self) -> int:
        return self.grid.nbytes + self.valid.nbytes


_positions: TensorCache[_Positions] = TensorCache(256 * 2**20)


def _positions_of(matrices: Tensor, maps: Tensor) -> _Positions:
    """The positions for maps (B, T, K, H, W) of frames under matrices (T, 2, 3); cached where these are fixed."""
    size = (int(maps.shape[-2]), int(maps.shape[-1]))
    dtype = maps.dtype if maps.dtype in (torch.float32, torch.float64) else torch.float32

    def computed() -> _Positions:
        there = matrices.to(maps.device)
        scale = constant((2 / size[1], 2 / size[0]), matrices.dtype, maps.device)
        identity = torch.eye(2, 3, dtype=matrices.dtype, device=matrices.device)
        return _Positions(
            grid=(frame_positions(there, size) * scale).to(dtype),
            valid=frame_validity(there, size)[:, None].to(dtype),
            still=tuple(bool(torch.equal(matrix, identity)) for matrix in matrices),
        )

    return (
        _positions.get((*values_of(matrices), size, dtype, maps.device), computed)
        if are_fixed(matrices)
        else computed()
    )


def _aligned(frame_maps: Tensor, positions: _Positions) -> Tensor:
    batch, frames, classes, height, width = frame_maps.shape
    aligned = [
        frame_maps[:, t]
        if positions.still[t]
        else functional.grid_sample(
            # one grid for the whole batch
            frame_maps[:, t].reshape(1, batch * classes, height, width).to(positions.grid.dtype),
            positions.grid[t : t + 1],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        .view(batch, classes, height, width)
        .to(frame_maps.dtype)
        for t in range(frames)
    ]
    return torch.stack(aligned, dim=1)


class Fusion(nn.Module):
    """Fuses logits per frame into one: (B, T, K) -> (B, K), or (B, T, K, H, W) -> (B, K, H, W).

    "mean-logits" averages before softmax; "mean-probabilities" averages after it and returns the logarithm, so that
    the result is a valid input of cross entropy [D]; "learned" weights the frames by a softmax of T parameters
    that start equal [D]. With matrices (T, 2, 3) dense maps are aligned first and each pixel is averaged over the
    frames that show it; where none does the logits are 0.
    """

    def __init__(self, name: str, frames: int) -> None:
        super().__init__()
        if name not in FUSIONS:
            raise unknown_name("fusion", name, FUSIONS)
        self.name, self.frames = name, frames
        self.frame_logits = nn.Parameter(torch.zeros(frames)) if name == "learned" else None

    def forward(self, frame_logits: Tensor, matrices: Tensor | None = None) -> Tensor:
        valid: Tensor | None = None
        if matrices is not None:
            if frame_logits.ndim != 5:
                raise ValueError(
                    "Aligned fusion expected dense logits (B, T, K, H, W), received shape "
                    f"{tuple(frame_logits.shape)}; leave matrices out for class logits."
                )
            if matrices.shape != (frame_logits.shape[1], 2, 3):
                raise ValueError(
                    f"Aligned fusion expected matrices of shape {(frame_logits.shape[1], 2, 3)}, received "
                    f"{tuple(matrices.shape)}."
                )
            positions = _positions_of(matrices, frame_logits)
            valid, frame_logits = positions.valid.to(frame_logits.dtype), _aligned(frame_logits, positions)
        return self.combine(frame_logits, valid)

    def combine(self, frame_logits: Tensor, valid: Tensor | None = None) -> Tensor:
        """Fuses aligned logits, dense ones where `valid` (T, 1, H, W) is 1."""
        weights = self._weights(frame_logits)
        if self.name == "mean-probabilities":
            return _average(frame_logits.softmax(2), weights, valid).clamp_min(1e-12).log()
        return _average(frame_logits, weights, valid)

    def _weights(self, frame_logits: Tensor) -> Tensor | None:
        if self.frame_logits is None:
            return None
        return self.frame_logits.softmax(0).to(frame_logits.dtype).view(-1, *[1] * (frame_logits.ndim - 2))

    def extra_repr(self) -> str:
        return f"{self.name}, frames={self.frames}"


def _average(maps: Tensor, weights: Tensor | None, valid: Tensor | None) -> Tensor:
    """The mean over frames, weighted and restricted to valid pixels: (B, T, ...) -> (B, ...)."""
    anchor = maps[:, maps.shape[1] // 2]
    if valid is not None:
        anchor = anchor * valid[valid.shape[0] // 2]
    distances = maps - anchor[:, None]  # relative to one frame, so that the mean of equal frames is exactly that frame
    if weights is None and valid is None:
        return anchor + distances.mean(1)
    share = valid if weights is None else weights if valid is None else weights * valid
    assert share is not None
    total = (distances * share).sum(1)
    return anchor + (total if valid is None else total / share.sum(0).clamp_min(1e-6))
