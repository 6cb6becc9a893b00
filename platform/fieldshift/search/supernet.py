"""The supernet: the target network on the videos of the relaxed cell, ready for a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fieldshift.networks import VideoNetwork
from fieldshift.search.cell import RelaxedCell
from fieldshift.search.folded_cell import FoldedCell
from fieldshift.training.frames import as_floats

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Supernet(nn.Module):
    """The target network, with no proxy, reading what the cell makes of images.

    `network` is a submodule and the cell is not: weights and alpha are learned by different steps. Dense tasks take the
    reference frame's answer alone [D]: a mixture has no matrix by which the other frames' maps could be moved back, and
    averaging maps that are not aligned would favour motions that move little. What the other frames see reaches the
    reference frame through the temporal modules.
    """

    cell: RelaxedCell

    def __init__(self, network: VideoNetwork, cell: RelaxedCell, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        object.__setattr__(self, "cell", cell)
        self.normalise = normalise
        self.reference = 0 if cell.space.reference == "first" else cell.frames // 2

    def video(
        self,
        images: Shaped[Tensor, "batch channels H W"],
        weights: Tensor | None = None,
        known: tuple[Tensor, ...] = (),
    ) -> Float[Tensor, "batch frames channels H W"]:
        """What the network reads: images (uint8, or floats in [0, 1]) through the cell, normalised."""
        return self.normalise(self.cell.video(as_floats(images), weights, known))

    def known_before(self, edge: int, images: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """What the weights of an edge do not change, for images in [0, 1]."""
        return tuple(self.cell.node_slabs(images, weights)[: self.cell.slabs_before(edge)])

    def forward(
        self,
        images: Shaped[Tensor, "batch channels H W"],
        weights: Tensor | None = None,
        known: tuple[Tensor, ...] = (),
        *,
        learns_cell: bool = True,
    ) -> Tensor:
        """Fused logits (B, K), or for dense tasks the reference frame's (B, K, H, W).

        Without `learns_cell` there is no graph through the cell: a step of the network needs none.
        """
        with torch.set_grad_enabled(learns_cell and torch.is_grad_enabled()):
            video = self.video(images, weights, known)
        return answer(self.network, video, self.reference)


class FoldedSupernet(nn.Module):
    """The target network in folded form, whose places move channels by the cell's mixtures.

    As in `Supernet`, the cell is no submodule. Dense tasks need no alignment: there is one map, in the image's own frame.
    """

    cell: FoldedCell

    def __init__(self, network: VideoNetwork, cell: FoldedCell, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        object.__setattr__(self, "cell", cell)
        self.normalise = normalise
        cell.attach(network)

    def known_before(self, edge: int, images: Tensor, weights: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Nothing: every place lies behind layers of the network."""
        return ()

    def forward(
        self,
        images: Shaped[Tensor, "batch channels H W"],
        weights: Tensor | None = None,
        known: tuple[Tensor, ...] = (),  # noqa: ARG002 - what a supernet takes
        *,
        learns_cell: bool = True,
    ) -> Tensor:
        """Logits (B, K), or for dense tasks (B, K, H, W), with these mixture weights at all places."""
        with self.cell.shown(weights if weights is None or learns_cell else weights.detach(), learns_cell):
            return answer(self.network, self.normalise(as_floats(images)[:, None]), 0)


AnySupernet = Supernet | FoldedSupernet


def answer(network: VideoNetwork, video: Tensor, reference: int) -> Tensor:
    """A network's fused logits of a video; for dense tasks those of the reference frame."""
    logits = network(video)
    logits = logits[0] if isinstance(logits, tuple) else logits
    return logits[:, reference] if network.task == "segmentation" else network.fuse(logits)


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluates with the batch's own statistics in BatchNorm, everything else in evaluation mode, all state put back.

    Afterwards the network is bit for bit what it was: modes and buffers [D: public code lets the buffers drift].
    """
    modes = {module: module.training for module in network.modules()}
    with kept_buffers(network):
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
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Puts every buffer back as it was, such as BatchNorm's running statistics, which move even without gradients."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
