"""Node values: the sampling points of the operations of a cell's edges, and the fused mixture of a node."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fieldshift.motions import COLOURS, compose, motion
from fieldshift.motions.matrices import are_identities, invert
from fieldshift.motions.rendering import apply_steps
from fieldshift.search.mixture import Mixing, from_slab, mix_warps, to_slab, video_to_slab
from fieldshift.search.slabs import TapCache
from fieldshift.search.space import Operation
from fieldshift.tensor_cache import constant, index

Pairs = list[tuple[int, int]]
Moving = tuple[tuple[tuple[int, ...], ...], ...]
BYTES_PER_TAP = 48  # rows and shares of four neighbours, and their order for the transposed gather
CACHE_BYTES = 2**31  # limit for one cell's taps


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The sampling points of every operation of every edge for images of one size. E edges, O operations, F distinct frames.

    `distances` are the frames' s; `magnitudes` (E, O, S) in their steps' units; `inverses` map output pixels to the points
    they are read from; `still` marks frames that an operation does not move; `coloured` operations that change colours.
    """

    size: tuple[int, int]
    distances: Float[Tensor, " frames"]
    magnitudes: Float[Tensor, "edges operations steps"]
    inverses: Float[Tensor, "edges operations frames 2 3"]
    still: Bool[Tensor, "edges operations frames"]
    still_on_host: list[list[list[bool]]]
    coloured: tuple[bool, ...]
    learned: bool
    cache: TapCache = field(default_factory=lambda: TapCache(CACHE_BYTES), compare=False)

    def mixing(self, fill: str, moving: Moving, pairs: Hashable) -> Mixing:
        """The mixture of a node's (edge, operation) pairs; taps that never change are cached if there is memory for them."""
        height, width = self.size
        count = sum(len(columns) for of_source in moving for columns in of_source)
        cache = None if self.learned else self.cache.of((pairs, fill), count * height * width * BYTES_PER_TAP)
        return Mixing(self.size, fill, len(self.distances), moving, self.learned, cache)


def geometry_of(
    operations: Sequence[Operation],
    magnitudes: Float[Tensor, "edges operations steps"],
    distances: Float[Tensor, " frames"],
    size: tuple[int, int],
    *,
    learned: bool = False,
) -> Geometry:
    """Computes the geometry of all operations; differentiable in the magnitudes if they require a gradient.

    `learned` magnitudes change at every step: their values are then not read, which would make the CPU wait for the device.
    """
    s = constant(tuple(distances.tolist()), distances.dtype, magnitudes.device)
    forward = forward_matrices(operations, magnitudes, s, size)
    if learned:
        still_on_host = [[[o.is_identity or d == 0 for d in distances.tolist()] for o in operations]] * len(magnitudes)
        flat = tuple(float(frame) for edge in still_on_host for frames in edge for frame in frames)
        still = constant(flat, torch.bool, magnitudes.device).view(forward.shape[:3])
    else:
        still = are_identities(forward)
        still_on_host = still.tolist()
    return Geometry(
        size=size,
        distances=s,
        magnitudes=magnitudes,
        inverses=invert(forward).float(),
        still=still,
        still_on_host=still_on_host,
        coloured=tuple(any(step in COLOURS for step in operation.steps) for operation in operations),
        learned=magnitudes.requires_grad,
    )


def forward_matrices(
    operations: Sequence[Operation],
    magnitudes: Float[Tensor, "edges operations steps"],
    distances: Float[Tensor, " frames"],
    size: tuple[int, int],
) -> Float[Tensor, "edges operations frames 2 3"]:
    """The forward matrices of every operation of every edge for images of the size (H, W), without colour changes."""
    identity = torch.eye(2, 3, dtype=distances.dtype, device=distances.device)
    columns = []
    for o, operation in enumerate(operations):
        moves = [
            motion(step).matrix(magnitudes[:, o, k, None], distances, size)
            for k, step in enumerate(operation.steps)
            if step not in COLOURS
        ]
        columns.append(compose(*moves) if moves else identity.expand(len(magnitudes), len(distances), 2, 3))
    return torch.stack(columns, dim=1)


def node_value(
    by_slab: dict[int, Pairs],
    slabs: Sequence[Float[Tensor, "_ Hp Wp D"]],
    weights: Float[Tensor, "edges operations"],
    *,
    geometry: Geometry,
    operations: Sequence[Operation],
    fill: str,
    background: Float[Tensor, "batch channels 1 1"],
    dark: bool,
) -> Float[Tensor, "frames Hp Wp D"]:
    """The slab of one node: the sum over (edge, operation) pairs of their weight times the operation on the slab they leave.

    `by_slab` lists the pairs that leave each slab; `weights` are already divided by the number of incoming edges. Slabs
    are differences to `background`: where a perturbed edge changes the total weight from 1, the background is scaled too,
    unless it is `dark`, zero.
    """
    frames = len(geometry.distances)
    sources, chosen, stills, inverses, moving, index_of_pairs = [], [], [], [], [], []
    for number, pairs in sorted(by_slab.items()):
        plain = [pair for pair in pairs if not geometry.coloured[pair[1]]]
        at = tuple(index(tuple(pair[side] for pair in plain), weights.device) for side in (0, 1))
        index_of_pairs.append((number, *plain))
        sources.append(slabs[number])
        chosen.append(weights[at])
        stills.append((chosen[-1][:, None] * geometry.still[at]).sum(0))
        inverses.append(geometry.inverses[at].to(weights.dtype))
        still = geometry.still_on_host
        moving.append(tuple(tuple(n for n, (e, o) in enumerate(plain) if not still[e][o][f]) for f in range(frames)))
    mixing = geometry.mixing(fill, tuple(moving), tuple(index_of_pairs))
    node = mix_warps(sources, chosen, stills, inverses, mixing)
    for number, pairs in sorted(by_slab.items()):
        for e, o in pairs:
            if geometry.coloured[o]:
                # Colour changes are not linear: recomputed in the backward pass, so that only one is in memory at a time.
                coloured = partial(_coloured, steps=operations[o].steps, geometry=geometry, fill=fill)
                given = (slabs[number], background, weights[e, o], geometry.magnitudes[e, o])
                node = node + checkpoint(coloured, *given, use_reentrant=False)
    if not dark:
        total = torch.stack([weights[pair] for pairs in by_slab.values() for pair in pairs]).sum()
        # On a device it is always added, as reading the total would make the CPU wait.
        if total.requires_grad or not total.is_cpu or abs(float(total) - 1) > 1e-6:
            node = node + to_slab(((total - 1) * background).expand(-1, -1, *geometry.size))
    return node


def _coloured(
    slab: Tensor,
    background: Tensor,
    weight: Tensor,
    magnitudes: Tensor,
    *,
    steps: Sequence[str],
    geometry: Geometry,
    fill: str,
) -> Tensor:
    """The weighted slab of an operation with colour changes."""
    video = from_slab(slab, len(background)).expand(-1, len(geometry.distances), -1, -1, -1) + background[:, None]
    changed = apply_steps(video, steps, magnitudes, geometry.distances, fill=fill, background=background[:, None])
    return weight * video_to_slab(changed - background[:, None])
