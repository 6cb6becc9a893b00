"""The relaxed cell: a directed acyclic graph over videos in which every edge is a mixture of its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fieldshift.kept import constant, index
from fieldshift.motions import COLOURS, Policy, distances
from fieldshift.motions.warp import padding_of
from fieldshift.search.choices import Choices
from fieldshift.search.derivation import build_policy
from fieldshift.search.mixture import from_slab, to_slab
from fieldshift.search.nodes import Geometry, Pairs, geometry_of, node_value
from fieldshift.search.space import Space


class RelaxedCell(Choices):
    """The cell of a space: an edge's value is the weighted sum of its options, a node's value the mean of its edges.

    Departures [D]: a node is the mean of its edges, not their sum. While edges are undecided, a chain of motions is
    resampled at each node; a decided cell is rendered by its `Policy`, which samples once, as everywhere else.
    """

    def __init__(self, space: Space, frames: int, seed: int) -> None:
        super().__init__(space, frames, seed, space.edges)
        values = distances(frames, space.reference, space.symmetric)
        self._distinct, back = torch.unique(values, return_inverse=True)
        self._back = tuple(back.tolist())
        self._geometries: dict[tuple[int, int], Geometry] = {}

    def video(
        self,
        images: Float[Tensor, "batch channels H W"],
        weights: Float[Tensor, "edges options"] | None = None,
        known: Sequence[Tensor] = (),
    ) -> Float[Tensor, "batch frames channels H W"]:
        """The output node's video of images in [0, 1], differentiable in the weights (and in learned magnitudes).

        `weights` default to `self.weights()`; a decided cell without other weights uses its policy's single sampling.
        `known` are the slabs of the first nodes from `node_slabs`, if they have not changed.
        """
        if weights is None and self.is_decided:
            policy = self.to_policy({})
            assert isinstance(policy, Policy)
            return policy.video(images)
        slabs = self.node_slabs(images, self.weights() if weights is None else weights, known)
        video = from_slab(slabs[-1], len(images)) + self._background(images)[:, None]
        return video[:, index(self._back, video.device)] if len(self._distinct) < self.frames else video

    def node_slabs(
        self,
        images: Float[Tensor, "batch channels H W"],
        weights: Float[Tensor, "edges options"],
        known: Sequence[Tensor] = (),
    ) -> list[Tensor]:
        """The slabs (see `mixture`) of the image and of every intermediate node, minus the background."""
        background = self._background(images)
        slabs = list(known) or [to_slab(images - background)]
        geometry = self._geometry((int(images.shape[-2]), int(images.shape[-1])))
        fill = padding_of(self.space.fill)
        first = self.space.inputs
        live = self.live_options(weights)
        for node in range(first + len(slabs) - 1, first + self.space.nodes):
            incoming = [e for e, (_, target) in enumerate(self.edges) if target == node and self.kept[e]]
            by_slab: dict[int, Pairs] = {}
            for e in incoming:
                by_slab.setdefault(max(0, self.edges[e][0] - first + 1), []).extend((e, o) for o in live[e])
            if not incoming:  # no path to the output starts from a node without edges
                slabs.append(torch.zeros_like(slabs[0]))
                continue
            share = weights / len(incoming)
            slabs.append(
                node_value(
                    by_slab,
                    slabs,
                    share,
                    geometry=geometry,
                    options=self.options,
                    fill=fill,
                    background=background,
                    dark=self.space.fill != "mean" and (isinstance(self.space.fill, str) or not any(self.space.fill)),
                )
            )
        return slabs

    def flops(self, size: tuple[int, int], channels: int) -> int:
        """Floating-point operations per image of the mixtures of all options: four taps per sampled pixel and option.

        Content that does not move is added once per edge and frame; a colour op counts as the sampling of its option.
        """
        still = self._geometry(size).still_on_host  # (E, O, F)
        moving = sum(not each for options in still for frames in options for each in frames)
        moving += sum(op in COLOURS for option in self.options for op in option.ops) * len(self.edges)
        return 2 * size[0] * size[1] * channels * (4 * moving + len(self.edges) * len(self._distinct))

    def slabs_before(self, edge: int) -> int:
        """Number of slabs, including the image's, that do not depend on this edge."""
        return self.edges[edge][1] - self.space.inputs + 1

    def policy_of(
        self, choices: Sequence[int], kept: Sequence[bool], magnitudes: Tensor, found: dict[str, Any]
    ) -> Policy:
        """The policy of one option per edge, with magnitudes (E, O, S)."""
        return build_policy(self.space, self.frames, choices, kept, magnitudes=magnitudes, found=found)

    def _background(self, images: Tensor) -> Float[Tensor, "batch channels 1 1"]:
        """The background outside each image; slabs contain the difference to it."""
        fill, shape = self.space.fill, (*images.shape[:2], 1, 1)
        if fill == "mean":
            return images.mean((-2, -1), keepdim=True)
        values = (0.0,) if isinstance(fill, str) else fill
        return constant(values, images.dtype, images.device).view(1, -1, 1, 1).expand(shape)

    def _geometry(self, size: tuple[int, int]) -> Geometry:
        if size not in self._geometries or self.magnitudes.are_learned:
            self._geometries[size] = geometry_of(self.options, self.magnitudes(), self._distinct, size)
        return self._geometries[size]
