"""Warps images under affine matrices; each output pixel is sampled once.

Convention
- A matrix (A | b), shape (2, 3), maps the CONTENT forward: content at p moves to A p + b.
- Points are in pixels about the image centre ((W - 1) / 2, (H - 1) / 2), x right, y down; pixel centres are whole
  numbers before centring. On the grid of torch's `grid_sample` this is `align_corners=False`.
- An output pixel q therefore reads the image at A^-1 (q - b), by bilinear interpolation or from the nearest pixel.
- Outside the image: "zeros" and constants apply from one pixel beyond the outermost pixel centres, blended in between;
  "border" repeats the outermost pixel; "reflection" mirrors at the outer edges of the outermost pixels, -1/2 and
  W - 1/2; "mean" is each image's own mean per channel, so that the images of a batch stay independent.
- compose(first, second) acts in reading order: first, then second.
- Labels are moved from the nearest pixel, halfway points to the even one, as `grid_sample` does.

Shape letters: B batch, M matrices, T frames, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from fieldshift.errors import UserError, unknown_name
from fieldshift.forms import Form
from fieldshift.motions.finite import is_number
from fieldshift.motions.grid_sampling import mix_by_grid
from fieldshift.motions.matrices import compose, invert
from fieldshift.motions.pixel_map import mix_by_pixel_map
from fieldshift.motions.sampling import Lookup, Mixture, nearest_pixels, normalised, source_points
from fieldshift.tensor_cache import are_fixed, constant
from fieldshift.wording import counted

__all__ = [
    "FILLS",
    "MODES",
    "Fill",
    "compose",
    "invert",
    "sampling_grid",
    "warp",
    "warp_frames",
    "warp_masks",
    "warp_mixture",
]

Fill = str | Sequence[float]
FILLS = ("zeros", "border", "reflection", "mean")
MODES = ("bilinear", "nearest")


def sampling_grid(matrices: Float[Tensor, "matrices 2 3"], size: tuple[int, int]) -> Float[Tensor, "matrices H W 2"]:
    """The point of the image that each output pixel reads, as (x, y) in [-1, 1] for `grid_sample(..., align_corners=False)`.

    Differentiable in the matrices; -1 and 1 are the outer edges of the outermost pixels.
    """
    return normalised(source_points(matrices, size))


def check_fill(fill: Fill) -> None:
    """Raises UserError unless the fill is one of FILLS or finite numbers, one per channel."""
    if isinstance(fill, str):
        if fill not in FILLS:
            raise unknown_name("fill", fill, FILLS)
        return
    if not isinstance(fill, Sequence) or not fill or not all(is_number(value) for value in fill):
        raise UserError(
            f"The fill is {fill!r}, but must be one of {', '.join(FILLS)} or one finite number per channel."
        )


def is_colour(fill: Sequence[float]) -> bool:
    """Whether values are a fill for images: one or more numbers within [0, 1], as pixels are."""
    return len(fill) > 0 and all(is_number(value) and 0 <= value <= 1 for value in fill)


def check_channels(fill: Fill, channels: int, what: str = "The fill", form: Form = "video") -> None:
    """Raises UserError, which begins with `what`, unless a fill of values has one, or one per channel.

    The folded form moves features, which have no colour: there a fill may have any number of values.
    """
    if isinstance(fill, str) or form == "folded" or len(fill) in (1, channels):
        return
    numbers = "1 value" if channels == 1 else f"1 or {channels} values"
    raise UserError(f"{what} has {counted(len(fill), 'value')} for {counted(channels, 'channel')}; give {numbers}.")


def padding_of(fill: Fill) -> str:
    """The padding mode of a fill: border and reflection as they are; zeros for the others, whose colour is added."""
    return "border" if fill == "border" else "reflection" if fill == "reflection" else "zeros"


def lookup_of(fill: Fill, mode: str) -> Lookup:
    """The settings of backends for a fill and an interpolation."""
    if isinstance(fill, str) and fill != "mean":
        return Lookup(fill, mode)
    return Lookup("zeros", mode, background=True)


def check_mode(mode: str) -> None:
    """Raises UserError unless the interpolation is one of MODES."""
    if mode not in MODES:
        raise unknown_name("interpolation", str(mode), MODES)


def warp(
    images: Float[Tensor, "batch channels H W"],
    matrices: Float[Tensor, "matrices 2 3"],
    *,
    fill: Fill = "zeros",
    mode: str = "bilinear",
) -> Float[Tensor, "batch matrices channels H W"]:
    """Moves every image by every matrix: (B, C, H, W) and (M, 2, 3) -> (B, M, C, H, W).

    Images are floats, usually in [0, 1]; matrices are forward maps (see Convention) on any device. Differentiable in
    both; gradients are computed only where required. Exact identities are copied, not sampled, if the matrices are on the CPU.
    Raises UserError for images that are not floats, an unknown fill or mode, or a wrong number of fill values, and
    ValueError for a matrix that is not finite and invertible.
    """
    return warp_mixture(images[:, None], matrices, tuple(((1.0, 0, m),) for m in range(len(matrices))), fill, mode)


def warp_frames(
    video: Float[Tensor, "batch frames channels H W"],
    matrices: Float[Tensor, "frames 2 3"],
    *,
    fill: Fill = "zeros",
    mode: str = "bilinear",
) -> Float[Tensor, "batch frames channels H W"]:
    """Moves every frame by its own matrix: (B, T, C, H, W) and (T, 2, 3) -> (B, T, C, H, W); otherwise as `warp`."""
    frames = video.shape[1]
    if len(matrices) != frames:
        raise ValueError(f"Expected one matrix per frame, {(frames, 2, 3)}, but received {tuple(matrices.shape)}.")
    return warp_mixture(video, matrices, tuple(((1.0, t, t),) for t in range(frames)), fill, mode)


def warp_mixture(
    video: Float[Tensor, "batch frames channels H W"],
    matrices: Float[Tensor, "matrices 2 3"],
    mixture: Mixture,
    fill: Fill = "zeros",
    mode: str = "bilinear",
) -> Float[Tensor, "batch mixed channels H W"]:
    """Computes every output frame as a weighted sum of input frames under matrices, in one sampling pass.

    `mixture` contains, per output frame, its terms (weight, index of the input frame, index of the matrix); the
    weights are fixed numbers. With fixed matrices on the CPU a sum costs no more passes than a single term. float16 and
    bfloat16 are sampled in float32. Otherwise as `warp`.
    """
    check_fill(fill)
    check_mode(mode)
    if not video.is_floating_point():
        raise UserError(f"Motions act on floats in [0, 1], but the images are {video.dtype}; convert them first.")
    _check_matrices(matrices)
    wide = video if video.dtype in (torch.float32, torch.float64) else video.float()
    lookup = lookup_of(fill, mode)
    outside = _outside(video, fill).to(wide.dtype).expand(*video.shape[:3]) if lookup.background else None
    mixed = mix_by_pixel_map if wide.device.type == "cpu" and are_fixed(matrices) else mix_by_grid
    return mixed(wide, matrices, mixture, lookup, outside).to(video.dtype)


def warp_masks(
    masks: Integer[Tensor, "batch H W"], matrices: Float[Tensor, "matrices 2 3"], outside: int = 255
) -> Integer[Tensor, "batch matrices H W"]:
    """Moves every label mask by every matrix, each pixel from its nearest one: (B, H, W) -> (B, M, H, W).

    The dtype stays; `outside` is the label of pixels that show no point of the image, and must fit the dtype.
    """
    _check_matrices(matrices)
    limits = torch.iinfo(masks.dtype)
    if not limits.min <= outside <= limits.max:
        raise UserError(
            f"The label outside is {outside}, but {masks.dtype} masks contain {limits.min} to {limits.max}; choose another."
        )
    pixels, inside = nearest_pixels(matrices.to(masks.device), (masks.shape[-2], masks.shape[-1]))
    moved = masks.flatten(1)[:, pixels]  # (B, M, H * W)
    return moved.masked_fill(~inside, outside).view(masks.shape[0], len(matrices), *masks.shape[1:])


def _check_matrices(matrices: Tensor) -> None:
    """Checks values on the CPU only: reading them from a GPU would wait for it."""
    if matrices.device.type != "cpu" or torch.compiler.is_compiling():
        return
    a, b, _, c, d, _ = matrices.detach().flatten(1).unbind(-1)
    if not torch.isfinite(matrices).all() or (a * d == b * c).any():
        raise ValueError("Every matrix of a warp must be finite and invertible, but one is not.")


def _outside(video: Tensor, fill: Fill) -> Tensor:
    """The colour outside, (B or 1, F or 1, C)."""
    if fill == "mean":
        return video.mean((-2, -1))
    channels = video.shape[2]
    check_channels(fill, channels)
    values = tuple(float(value) for value in fill)
    return constant(values, video.dtype, video.device).expand(channels)[None, None]
