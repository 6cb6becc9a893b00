"""The supernet: the target network on the videos of the relaxed cell, ready for a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.networks import VideoNetwork
from fieldshift.networks.recomputation import is_recomputed
from fieldshift.search.cell import RelaxedCell
from fieldshift.search.folded_cell import FoldedCell
from fieldshift.search.space import Space
from fieldshift.training.frames import as_floats
from fieldshift.wording import counted

SAME_PRECISION: AbstractContextManager[Any] = nullcontext()  # a network runs in the precision of its parameters
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Supernet(nn.Module):
    """The target network itself, without a proxy, applied to the cell's output.

    Weights are the parameters of `network`, alpha is one of `cell`: different steps learn them. Dense tasks take the
    reference frame's output alone [D]: a mixture has no matrix by which the other frames' maps could be aligned, and
    averaging unaligned maps would favour small motions. Content of the other frames reaches the
    reference frame through the temporal modules.
    """

    def __init__(self, network: VideoNetwork, cell: RelaxedCell, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.cell = cell
        self.normalise = normalise
        self.reference = 0 if cell.space.reference == "first" else cell.frames // 2

    def video(
        self,
        images: Shaped[Tensor, "batch channels H W"],
        weights: Tensor | None = None,
        known: tuple[Tensor, ...] = (),
    ) -> Float[Tensor, "batch frames channels H W"]:
        """The network's input: images (uint8, or floats in [0, 1]) transformed by the cell, normalised."""
        return self.normalise(self.cell.video(as_floats(images), weights, known))

    def known_before(self, edge: int, images: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """The slabs that do not depend on the weights of an edge, for images in [0, 1]."""
        return tuple(self.cell.node_slabs(images, weights)[: self.cell.slabs_before(edge)])

    def forward(
        self,
        images: Shaped[Tensor, "batch channels H W"],
        weights: Tensor | None = None,
        known: tuple[Tensor, ...] = (),
        *,
        learns_cell: bool = True,
        autocast: AbstractContextManager[Any] = SAME_PRECISION,
    ) -> Tensor:
        """Fused logits (B, K), or for dense tasks the reference frame's (B, K, H, W).

        Without `learns_cell` there is no graph through the cell, which a step of the network does not need. The network runs
        within `autocast`; logits in half precision are converted to single precision.
        """
        with torch.set_grad_enabled(learns_cell and torch.is_grad_enabled()):
            video = self.video(images, weights, known)
        with autocast:
            return answer(self.network, video, self.reference)


class FoldedSupernet(nn.Module):
    """The target network in folded form, whose places move channels by the cell's mixtures.

    Dense tasks need no alignment: there is one map, in the image's own frame.
    """

    def __init__(self, network: VideoNetwork, cell: FoldedCell, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.cell = cell
        self.normalise = normalise
        cell.attach(network)

    def known_before(self, edge: int, images: Tensor, weights: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Empty: every place comes after layers of the network."""
        return ()

    def forward(
        self,
        images: Shaped[Tensor, "batch channels H W"],
        weights: Tensor | None = None,
        known: tuple[Tensor, ...] = (),  # noqa: ARG002 - the signature of supernets
        *,
        learns_cell: bool = True,
        autocast: AbstractContextManager[Any] = SAME_PRECISION,
    ) -> Tensor:
        """Logits (B, K), or for dense tasks (B, K, H, W), with these mixture weights at all places; as in `Supernet`."""
        with self.cell.shown(weights if weights is None or learns_cell else weights.detach(), learns_cell), autocast:
            return answer(self.network, self.normalise(as_floats(images)[:, None]), 0)


AnySupernet = Supernet | FoldedSupernet


def supernet_of(
    network: VideoNetwork, space: Space, frames: int, seed: int, normalise: Callable[[Tensor], Tensor]
) -> AnySupernet:
    """The supernet of a network in its form, with a cell of the space drawn from the seed."""
    if network.form == "folded":
        cell = FoldedCell(space, frames, seed, network.placements, network.stages)
        return FoldedSupernet(network, cell, normalise)
    if space.is_placed:
        raise UserError(
            f"The space {space.name} has a motion for each {space.per} and {counted(space.groups, 'group')} of channels, but a "
            "video has one motion for all; use the form folded, or another space."
        )
    return Supernet(network, RelaxedCell(space, frames, seed), normalise)


def check_search(network: VideoNetwork, space: Space, frames: int, order: str = "first") -> int:
    """Returns the number of edges that a search in the space decides for a network.

    Raises UserError if they are incompatible: the form, the channels, the space's motions or the order of the outer gradient.
    A folded network keeps a cell of the space.
    """
    check_recomputation(network, order)
    return len(supernet_of(network, space, frames, 0, lambda video: video).cell.edges)


def check_recomputation(network: VideoNetwork, order: str) -> None:
    """Raises UserError where a search cannot recompute activations, because their inputs have changed by the backward pass.

    A folded network's mixture lasts for one forward pass, and second order temporarily replaces the network's weights.
    """
    if is_recomputed(network) and (network.form == "folded" or order != "first"):
        what = "in folded form" if network.form == "folded" else f"with search.order {order}"
        raise UserError(f"A search {what} cannot recompute activations; leave out --architecture.recompute.")


def answer(network: VideoNetwork, video: Tensor, reference: int) -> Tensor:
    """A network's fused logits of a video, at least in single precision; for dense tasks those of the reference frame."""
    logits = network(video)
    logits = logits[0] if isinstance(logits, tuple) else logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits[:, reference] if network.task == "segmentation" else network.fuse(logits)


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluates with the batch's own statistics in BatchNorm, everything else in evaluation mode, and restores all state.

    Afterwards the network is unchanged bit for bit: modes and buffers [D: public code lets the buffers drift].
    """
    modes = {module: module.training for module in network.modules()}
    with restored_buffers(network):
        network.eval()
        for module in network.modules():
            if isinstance(module, BATCH_NORMS):
                module.training = True
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training


@contextmanager
def restored_buffers(network: nn.Module) -> Iterator[None]:
    """Restores every buffer, such as BatchNorm's running statistics, which change even without gradients."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
