"""Node values: the sampling points of the options of a cell's edges, and the fused mixture of a node."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fieldshift.kept import index
from fieldshift.motions import COLOURS, compose, operation, warp_frames
from fieldshift.motions.matrices import are_identities, invert
from fieldshift.search.mixture import BORDER, Mixing, from_slab, mix_warps, to_slab
from fieldshift.search.space import Option
from fieldshift.search.taps import KeptTaps

Pairs = list[tuple[int, int]]
Moving = tuple[tuple[tuple[int, ...], ...], ...]
BYTES_A_TAP = 48  # rows and shares of four neighbours, and their order for the transposed gather
KEPT_BYTES = 2**31  # limit for one cell's taps


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The sampling points of every option of every edge for images of one size. E edges, O options, F distinct frames.

    `distances` are the frames' s; `magnitudes` (E, O, S) in their ops' units; `inverses` map output pixels to the points
    they are read from; `still` marks frames that an option does not move; `coloured` options that change colours.
    """

    size: tuple[int, int]
    distances: Float[Tensor, " frames"]
    magnitudes: Float[Tensor, "edges options steps"]
    inverses: Float[Tensor, "edges options frames 2 3"]
    still: Bool[Tensor, "edges options frames"]
    still_on_host: list[list[list[bool]]]
    coloured: tuple[bool, ...]
    learned: bool
    kept: KeptTaps = field(default_factory=lambda: KeptTaps(KEPT_BYTES), compare=False)

    def mixing(self, fill: str, moving: Moving, pairs: Hashable) -> Mixing:
        """The mixture of a node's (edge, option) pairs; taps that never change are cached if there is memory for them."""
        height, width = self.size
        count = sum(len(columns) for of_source in moving for columns in of_source)
        kept = None if self.learned else self.kept.of((pairs, fill), count * height * width * BYTES_A_TAP)
        return Mixing(self.size, fill, len(self.distances), moving, self.learned, kept)


def geometry_of(
    options: Sequence[Option],
    magnitudes: Float[Tensor, "edges options steps"],
    distances: Float[Tensor, " frames"],
    size: tuple[int, int],
) -> Geometry:
    """Computes the geometry of all options; differentiable in the magnitudes if they require a gradient."""
    s = distances.to(magnitudes.device)
    forward = forward_matrices(options, magnitudes, s, size)
    still = are_identities(forward.detach())
    return Geometry(
        size=size,
        distances=s,
        magnitudes=magnitudes,
        inverses=invert(forward).float(),
        still=still,
        still_on_host=still.tolist(),
        coloured=tuple(any(op in COLOURS for op in option.ops) for option in options),
        learned=magnitudes.requires_grad,
    )


def forward_matrices(
    options: Sequence[Option],
    magnitudes: Float[Tensor, "edges options steps"],
    distances: Float[Tensor, " frames"],
    size: tuple[int, int],
) -> Float[Tensor, "edges options frames 2 3"]:
    """The forward matrices of every option of every edge for images of the size (H, W), without colour operations."""
    identity = torch.eye(2, 3, dtype=distances.dtype, device=distances.device)
    columns = []
    for o, option in enumerate(options):
        moves = [
            operation(op).matrix(magnitudes[:, o, k, None], distances, size)  # type: ignore[union-attr]
            for k, op in enumerate(option.ops)
            if op not in COLOURS
        ]
        columns.append(compose(*moves) if moves else identity.expand(len(magnitudes), len(distances), 2, 3))
    return torch.stack(columns, dim=1)


def node_value(
    by_slab: dict[int, Pairs],
    slabs: Sequence[Float[Tensor, "_ Hp Wp D"]],
    weights: Float[Tensor, "edges options"],
    *,
    geometry: Geometry,
    options: Sequence[Option],
    fill: str,
    background: Float[Tensor, "batch channels 1 1"],
    dark: bool,
) -> Float[Tensor, "frames Hp Wp D"]:
    """The slab of one node: the sum over (edge, option) pairs of their weight times the option of the slab they leave.

    `by_slab` lists the pairs that leave each slab; `weights` are already divided by the number of incoming edges. Slabs
    are differences to `background`: where a perturbed edge changes the total weight from 1, the background is scaled too,
    unless it is `dark`, zero.
    """
    frames = len(geometry.distances)
    sources, chosen, stills, inverses, moving, index_of_pairs = [], [], [], [], [], []
    for place, pairs in sorted(by_slab.items()):
        plain = [pair for pair in pairs if not geometry.coloured[pair[1]]]
        at = tuple(index(tuple(pair[side] for pair in plain), weights.device) for side in (0, 1))
        index_of_pairs.append((place, *plain))
        sources.append(slabs[place])
        chosen.append(weights[at])
        stills.append((chosen[-1][:, None] * geometry.still[at]).sum(0))
        inverses.append(geometry.inverses[at].to(weights.dtype))
        still = geometry.still_on_host
        moving.append(tuple(tuple(n for n, (e, o) in enumerate(plain) if not still[e][o][f]) for f in range(frames)))
    mixing = geometry.mixing(fill, tuple(moving), tuple(index_of_pairs))
    node = mix_warps(sources, chosen, stills, inverses, mixing)
    for place, pairs in sorted(by_slab.items()):
        for e, o in pairs:
            if geometry.coloured[o]:
                # Colour operations are not linear: recomputed in the backward pass, so that only one is in memory at a time.
                coloured = partial(_coloured, geometry=geometry, fill=fill, background=background)
                given = (slabs[place], weights[e, o], geometry.magnitudes[e, o], options[o].ops)
                node = node + checkpoint(coloured, *given, use_reentrant=False)
    if not dark:
        total = torch.stack([weights[pair] for pairs in by_slab.values() for pair in pairs]).sum()
        if (
            total.requires_grad or not total.is_cpu or abs(float(total) - 1) > 1e-6
        ):  # a GPU always adds, to avoid a sync
            node = node + to_slab(((total - 1) * background).expand(-1, -1, *geometry.size))
    return node


def _coloured(
    slab: Tensor,
    weight: Tensor,
    magnitudes: Tensor,
    ops: tuple[str, ...],
    *,
    geometry: Geometry,
    fill: str,
    background: Tensor,
) -> Tensor:
    """The weighted slab of an option with colour operations: geometry is composed up to each, as in a policy."""
    batch, frames = len(background), len(geometry.distances)
    video = from_slab(slab, batch).expand(-1, frames, -1, -1, -1) + background[:, None]
    pending: list[Tensor] = []

    def moved(video: Tensor) -> Tensor:
        if not pending:
            return video
        shifted = warp_frames(video - background[:, None], compose(*pending).to(video.dtype), fill=fill)
        return shifted + background[:, None]

    for op, magnitude in zip(ops, magnitudes, strict=False):
        if op in COLOURS:
            video, pending = moved(video), []
            video = COLOURS[op].apply(video, (magnitude * geometry.distances).to(video.dtype))
        else:
            pending.append(operation(op).matrix(magnitude, geometry.distances, geometry.size))  # type: ignore[union-attr]
    difference = moved(video) - background[:, None]
    flat = difference.transpose(0, 1).flatten(1, 2)
    return weight * F.pad(flat.permute(0, 2, 3, 1), BORDER)
