"""Affine matrices of the motions, and their composition.

Every matrix is the FORWARD map of the content, in pixels about the image centre ((W - 1) / 2, (H - 1) / 2), x to the
right, y down: content at the point p moves to `A p + b`, with the matrix written (A | b), shape (2, 3).
The arithmetic is elementwise because matrix products on a GPU may round to ten bits of mantissa (TF32).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fieldshift.errors import UserError, unknown_name

REFERENCES = ("centre", "first")


def _stack(*entries: Tensor) -> Tensor:
    """Stacks six entries, row by row, of one shape (...) -> (..., 2, 3)."""
    return torch.stack(entries, dim=-1).reshape(*entries[0].shape, 2, 3)


def identity_matrix(magnitude: Tensor, s: Tensor, size: tuple[int, int]) -> Float[Tensor, "*batch 2 3"]:  # noqa: ARG001
    """The identity leaves every point in place, whatever the magnitude."""
    zero = torch.zeros_like(magnitude * s)
    one = torch.ones_like(zero)
    return _stack(one, zero, zero, zero, one, zero)


def translate_x_matrix(magnitude: Tensor, s: Tensor, size: tuple[int, int]) -> Float[Tensor, "*batch 2 3"]:
    """Moves content right by magnitude * s * W pixels; the magnitude is a fraction of the width."""
    shift = magnitude * s * size[1]
    zero, one = torch.zeros_like(shift), torch.ones_like(shift)
    return _stack(one, zero, shift, zero, one, zero)


def translate_y_matrix(magnitude: Tensor, s: Tensor, size: tuple[int, int]) -> Float[Tensor, "*batch 2 3"]:
    """Moves content down by magnitude * s * H pixels; the magnitude is a fraction of the height."""
    shift = magnitude * s * size[0]
    zero, one = torch.zeros_like(shift), torch.ones_like(shift)
    return _stack(one, zero, zero, zero, one, shift)


def zoom_matrix(magnitude: Tensor, s: Tensor, size: tuple[int, int]) -> Float[Tensor, "*batch 2 3"]:  # noqa: ARG001
    """Scales content about the centre by the factor magnitude ** s, so that -s undoes s."""
    factor = magnitude**s
    zero = torch.zeros_like(factor)
    return _stack(factor, zero, zero, zero, factor, zero)


def rotate_matrix(magnitude: Tensor, s: Tensor, size: tuple[int, int]) -> Float[Tensor, "*batch 2 3"]:  # noqa: ARG001
    """Rotates content clockwise on the screen by magnitude * s degrees, on a square pixel grid."""
    angle = magnitude * s * (math.pi / 180)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    zero = torch.zeros_like(angle)
    return _stack(cosine, -sine, zero, sine, cosine, zero)


def shear_x_matrix(magnitude: Tensor, s: Tensor, size: tuple[int, int]) -> Float[Tensor, "*batch 2 3"]:  # noqa: ARG001
    """Shifts rows by tan(magnitude * s degrees) pixels per pixel: below the centre to the right for a positive angle."""
    slope = torch.tan(magnitude * s * (math.pi / 180))
    zero, one = torch.zeros_like(slope), torch.ones_like(slope)
    return _stack(one, slope, zero, zero, one, zero)


def shear_y_matrix(magnitude: Tensor, s: Tensor, size: tuple[int, int]) -> Float[Tensor, "*batch 2 3"]:  # noqa: ARG001
    """Shifts columns by tan(magnitude * s degrees) pixels per pixel: right of the centre down for a positive angle."""
    slope = torch.tan(magnitude * s * (math.pi / 180))
    zero, one = torch.zeros_like(slope), torch.ones_like(slope)
    return _stack(one, zero, zero, slope, one, zero)


def compose(*matrices: Float[Tensor, "*#batch 2 3"]) -> Float[Tensor, "*batch 2 3"]:
    """Composes matrices: the result applies the given ones in order, the first one first.

    Leading dimensions broadcast. Composing with an identity returns the other matrix bit for bit.
    """
    assert matrices, "compose needs at least one matrix"
    total = matrices[0]
    for matrix in matrices[1:]:
        linear = matrix[..., :, 0:1] * total[..., 0:1, :] + matrix[..., :, 1:2] * total[..., 1:2, :]
        total = torch.cat([linear[..., :2], linear[..., 2:] + matrix[..., :, 2:]], dim=-1)
    return total


def invert(matrix: Float[Tensor, "*batch 2 3"]) -> Float[Tensor, "*batch 2 3"]:
    """Inverts matrices: compose(matrix, invert(matrix)) is the identity up to rounding.

    A singular matrix gives infinities, which `warp` rejects; no motion of the registry is singular within its limits.
    """
    (a, b, tx), (c, d, ty) = matrix[..., 0, :].unbind(-1), matrix[..., 1, :].unbind(-1)
    determinant = a * d - b * c
    ia, ib, ic, id_ = d / determinant, -b / determinant, -c / determinant, a / determinant
    return _stack(ia, ib, -(ia * tx + ib * ty), ic, id_, -(ic * tx + id_ * ty))


def are_identities(matrices: Float[Tensor, "*batch 2 3"]) -> Bool[Tensor, "*batch"]:
    """True where a matrix is exactly the identity: such a warp needs no sampling."""
    identity = torch.eye(2, 3, dtype=matrices.dtype, device=matrices.device)
    return (matrices == identity).flatten(-2).all(-1)


def distances(frames: int, reference: str = "centre", symmetric: bool = False) -> Float[Tensor, " frames"]:
    """Signed distances s(t) in [-1, 1] of the frames from the unmoved reference frame, +-1 for the farthest.

    With d = t - reference, s = d / max|d|: for the centre (index T // 2) that is d / (T // 2), for "first" (index 0)
    d / (T - 1). symmetric=True gives |s|, out and back. T = 1 gives [0]. Returns float64 on the CPU, shape (T,).
    Departure [D]: a magnitude applies to the farthest frame, so it means the same at every T (METHOD.md 2).
    Raises UserError for frames < 1 and for an unknown reference.
    """
    if frames < 1:
        raise UserError(f"frames is {frames}, but a video needs at least 1 frame; give frames >= 1.")
    if reference not in REFERENCES:
        raise unknown_name("reference", reference, REFERENCES)
    index = frames // 2 if reference == "centre" else 0
    farthest = max(1, index, frames - 1 - index)
    s = [(frame - index) / farthest for frame in range(frames)]
    return torch.tensor([abs(each) for each in s] if symmetric else s, dtype=torch.float64, device="cpu")


def neighbour_distances(frames: int, reference: str = "centre", symmetric: bool = False) -> Float[Tensor, " 2"]:
    """The distances s of the frames after and before the reference frame, (2,), float64 on the CPU.

    Both are on the same side where a video about its centre is symmetric. With the reference "first", the first frame is
    treated as the middle of a video that continues on both sides with the same steps.
    """
    step = 1 / max(1, frames // 2 if reference == "centre" else frames - 1)
    back = step if symmetric and reference == "centre" else -step
    return torch.tensor([step, back], dtype=torch.float64, device="cpu")
