"""The folded form: a policy's motions as movements of channels inside a 2D network of one frame.

`fold` inserts them into any network with convolutions; `motions_of` passes them to `video_network`. This module connects
motions and networks: a policy defines how a neighbouring frame moves, a module moves channels (`fieldshift.networks.folded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.motions.placed import PlacedPolicy, WithPolicy, policy_of
from fieldshift.motions.sampling import pixels_read, source_points
from fieldshift.motions.warp import padding_of
from fieldshift.networks import compiled
from fieldshift.networks.cells import Cells
from fieldshift.networks.folded import FoldedModule, Motion
from fieldshift.networks.given import check_network, check_options
from fieldshift.networks.insertion import Inserted, MotionsAt, Placement, insert
from fieldshift.networks.movement import Movement, Taps, row_counts
from fieldshift.networks.temporal import temporal_kind
from fieldshift.networks.video import VideoNetwork
from fieldshift.tensor_cache import TensorCache, index, is_traced
from fieldshift.wording import counted

AnyPolicy = Policy | PlacedPolicy
CACHE_BYTES = 512 * 2**20
LEAST_SHARE = 1e-9  # a tap with a smaller share is the rounding error of a whole number of cells

_movements: TensorCache[Movement] = TensorCache(CACHE_BYTES)


@dataclass(frozen=True)
class SampledTaps:
    """Taps with the inputs to their weights: the share of the pixel that each tap reads, and its warp."""

    taps: Taps
    shares: Tensor
    warps: Tensor

    @property
    def nbytes(self) -> int:
        return self.taps.nbytes + self.shares.nbytes + self.warps.nbytes


def sampled_taps(
    matrices: Tensor,
    blocks: Sequence[int],
    count: int,
    size: tuple[int, int],
    fill: str,
    mode: str,
    *,
    fixed: bool = True,
) -> SampledTaps:
    """The taps of warps by forward matrices (M, 2, 3), warp m within block `blocks[m]` of `count`.

    `fill` is zeros, border or reflection. The shares (N,) are differentiable in the matrices. Taps without a share are left
    out, except on a device for matrices that are not `fixed`: learning their number at every step would make the CPU wait.
    """
    area = size[0] * size[1]
    pixels, inside, shares = pixels_read(source_points(matrices, size), fill, mode)  # each (M, P, 4 or 1)
    block = index(tuple(blocks), matrices.device).view(-1, 1, 1)
    own = torch.arange(area, device=matrices.device)[None, :, None]
    numbers = torch.arange(len(matrices), device=matrices.device).view(-1, 1, 1).expand_as(pixels)
    receivers, rows = (block * area + own).expand_as(pixels).flatten(), (block * area + pixels).flatten()
    shares, warps = (shares * inside).flatten(), numbers.flatten()
    if fixed or matrices.is_cpu:
        read = shares.detach() > LEAST_SHARE
        receivers, rows, shares, warps = receivers[read], rows[read], shares[read], warps[read]
    order = torch.argsort(receivers, stable=True)
    taps_per_row = row_counts(receivers, count * area)
    return SampledTaps(
        taps=Taps(rows[order].int(), (taps_per_row.cumsum(0) - taps_per_row).int(), receivers[order].int()),
        shares=shares[order],
        warps=warps[order],
    )


@dataclass(frozen=True)
class PolicyMotion:
    """The motion at one insertion point: a policy per group of channels (all with one fill and interpolation)."""

    policies: tuple[Policy, ...]

    @property
    def groups(self) -> int:
        return len(self.policies)

    def __post_init__(self) -> None:
        compiled.register(self.name, self)

    def __reduce__(self) -> tuple[type[PolicyMotion], tuple[tuple[Policy, ...]]]:
        return PolicyMotion, (self.policies,)  # is registered in the process that reads it

    @cached_property
    def name(self) -> str:
        """The key of the movements in their cache, and the name of the motion in compiled networks."""
        return repr([policy.transform for policy in self.policies])

    def __str__(self) -> str:
        return "; ".join(line for policy in self.policies for line in policy.describe())

    def __call__(self, size: tuple[int, int], like: Tensor, cells: Cells | None = None) -> Movement:
        """The movement of a map (B, C, H, W) of that size, computed once per size, device and precision.

        A fraction of the side is one of the map's side, or with `cells` of the image's.

        Raises UserError where it is first requested while the network is being traced.
        """
        device = torch.device("cpu") if like.is_meta else like.device
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        key = (self.name, size, cells, dtype, device)
        if is_traced() and key not in _movements:
            raise UserError(
                f"The motions for maps of {size[0]} x {size[1]} have not been computed; run the network once on images of each "
                "size before it is exported or transformed."
            )
        return _movements.get(key, lambda: self._computed(size, dtype, device, cells))

    def _computed(
        self, size: tuple[int, int], dtype: torch.dtype, device: torch.device, cells: Cells | None
    ) -> Movement:
        matrices, blocks, weights = [], [], []
        for group, policy in enumerate(self.policies):
            shares, sides = policy.neighbours(cells.image if cells else size)  # (P,), (P, 2, 2, 3)
            sides = cells.matrices(sides) if cells else sides
            for side in (0, 1):
                matrices.append(sides[:, side])
                weights.append(shares)
                blocks += [side * self.groups + group] * len(shares)
        first = self.policies[0]
        fill = padding_of(first.fill)
        found = sampled_taps(torch.cat(matrices), blocks, 2 * self.groups, size, fill, first.interpolation)
        weighted = found.shares * torch.cat(weights)[found.warps]
        area = 2 * self.groups * size[0] * size[1]
        still = len(found.taps.rows) == area and bool((weighted == 1).all())
        rows = torch.arange(area, dtype=torch.int32)
        movement = Movement(
            size=size,
            blocks=2 * self.groups,
            taps=found.taps.to(device),
            weights=weighted.to(device=device, dtype=dtype),
            fill_mean=first.fill == "mean",
            is_identity=still and torch.equal(found.taps.rows, rows),
        )
        _ = movement.padded  # a tracer cannot work it out
        return movement


def check_folds(policy: AnyPolicy) -> None:
    """Raises UserError for a policy without a folded form: one with fewer than 3 frames or with colour changes."""
    if policy.frames < 3:
        raise UserError(
            f"The policy has {counted(policy.frames, 'frame')}, but the folded form needs a frame to either side of the "
            "reference; use 3 frames or more, or the form video."
        )
    colours = sorted({step.op for each in policy.parts for edge in each.edges for step in edge.steps if step.is_colour})
    if colours:
        raise UserError(
            f"The policy changes colours ({', '.join(colours)}), but the folded form moves features; remove "
            "these operations, or use the form video."
        )


def motions_of(policy: AnyPolicy) -> MotionsAt:
    """The motions of a policy for the insertion points of a network, as `video_network` and `insert` accept them.

    Raises UserError for a policy that has no folded form; the result raises it for places that do not match the policy.
    """
    check_folds(policy)
    if isinstance(policy, Policy):
        return lambda placements: [PolicyMotion((policy,)) for _ in placements]
    return lambda placements: [
        PolicyMotion(policies) for policies in policy.at([placement.path for placement in placements])
    ]


def still(groups: int) -> MotionsAt:
    """Motions that leave every channel in place, in that number of groups: the start of a search."""
    motion: Motion = PolicyMotion((Policy.replicate(3),) * groups)
    return lambda placements: [motion for _ in placements]


def move_by(network: VideoNetwork, motions: MotionsAt) -> None:
    """Replaces the motions of a folded network; raises UserError where they do not match it."""
    inserted = {module.path: module.temporal for module in network.modules() if isinstance(module, Inserted)}
    for placement, motion in zip(network.placements, motions(network.placements), strict=True):
        temporal = inserted[placement.path]
        assert isinstance(temporal, FoldedModule), "only a folded network has motions inside"
        temporal.take(motion)


def fold(
    model: nn.Module,
    policy: AnyPolicy | WithPolicy,
    places: str | None = None,
    *,
    temporal: str = "tsm",
    ratio: float | None = None,
    interleave: bool | None = None,
) -> list[Placement]:
    """Inserts the motions of a policy into a network with convolutions, in place, and returns the insertion points.

    The network then moves some of its channels, at each insertion point, as the neighbouring frames of the policy's video
    would show them; its inputs, outputs and parameters are unchanged. `policy` is a policy, or what `find_policy` returns.
    `places` is a shell pattern of module names ("layer3.*.conv1", several comma-separated); None selects every residual
    block of the known families: torchvision's ResNets, RegNets, MobileNets, EfficientNets and ConvNeXts, timm's ResNets and
    ConvNeXts. `temporal` is tsm (no parameters), gsm or gsf; `ratio` is the share of channels that move (1/8 each way for
    tsm, 1/4 gated for gsm and gsf). `interleave` is the channel interleave of gsm and gsf, which permutes the channels of
    trained weights: by default off, so that gsm starts as the network itself. Load plain 2D weights first: modules at the
    insertion points get `.wrapped` in their names. The weights do not contain the motions: keep the policy with them.
    Run the network once on an image before exporting it, without `strict=True`.
    Raises UserError for a policy with fewer than 3 frames or with colour changes, a temporal module without a folded
    form, places that the network or the policy does not have, and a network that is no eager module with a Conv2d or whose
    lazy layers have not run. Source: METHOD.md 5, folded form [D].
    """
    found = policy_of(policy)
    check_network(model)
    check_options(places, temporal=temporal, ratio=ratio, interleave=interleave)
    kind = temporal_kind(temporal)
    if interleave is None and kind.takes_interleave:
        interleave = False
    return insert(
        model,
        kind,
        frames=1,
        ratio=ratio,
        interleave=interleave,
        places=places,
        motions=motions_of(found),
    )
