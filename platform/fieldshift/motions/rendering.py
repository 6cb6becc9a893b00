"""Renders videos: a policy's graph is compiled so that geometry is composed as matrices and pixels are sampled last.

Warps are linear and compose, so a node's value is a weighted sum of *paths*, each a base (the image, or the video
of a colour change) under one matrix per frame. Equal paths are merged, and their weights are exact fractions, so that a
frame that no path moves equals the image, bit for bit.
Shape letters: B batch, T frames, P paths, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from fieldshift.motions.colour import COLOURS, colour
from fieldshift.motions.graph import Edge, Graph, Step
from fieldshift.motions.matrices import compose, identity_matrix
from fieldshift.motions.pixel_map import count_taps
from fieldshift.motions.registry import motion
from fieldshift.motions.sampling import Mixture
from fieldshift.motions.warp import Fill, lookup_of, warp_frames, warp_mixture

IMAGE = 0
_SAME = 1e-9  # pixels: far below the resolution of sampling, far above the rounding of float64


@dataclass(frozen=True)
class Path:
    """A term of a node's value: frame t of base number `base`, moved by matrices[t]; (T, 2, 3), float64."""

    weight: Fraction
    base: int
    matrices: Tensor


@dataclass(frozen=True)
class Blend:
    """A sum of paths as one sampling pass: distinct matrices (M, 2, 3), and each frame's terms for `warp_mixture`."""

    matrices: Tensor
    mixture: Mixture


@dataclass(frozen=True)
class RenderPlan:
    """The passes for a graph at one image size: blend and recolour for each colour step in turn, then blend the output.

    Bases are numbered in that order, the image is 0. `paths` are those of the output.
    """

    colourings: tuple[tuple[Blend, Step], ...]
    output: Blend
    paths: tuple[Path, ...]

    @property
    def is_geometric(self) -> bool:
        """Whether no colour step is on a path to the output."""
        return not self.colourings


@lru_cache(maxsize=256)
def render_plan(graph: Graph, size: tuple[int, int]) -> RenderPlan:
    """Compiles the passes of a graph for images of the size (H, W); nodes that do not lead to the output are skipped."""
    s = graph.distances
    still = identity_matrix(torch.zeros((), dtype=torch.float64), s, size)
    known = {i: [Path(Fraction(1), IMAGE, still)] for i in range(graph.inputs)}
    colourings: list[tuple[Blend, Step]] = []

    def along(edge: Edge) -> list[Path]:
        paths = value(edge.source)
        for step in edge.steps:
            if step.is_colour:
                colourings.append((blend(merged(paths)), step))
                paths = [Path(Fraction(1), len(colourings), still)]
            else:
                move = motion(step.op).matrix(torch.tensor(step.magnitude, dtype=torch.float64), s, size)
                paths = [replace(path, matrices=compose(path.matrices, move)) for path in paths]
        return paths

    def value(node: int) -> list[Path]:
        if node not in known:
            arriving = [along(edge) for edge in graph.edges if edge.target == node]
            share = Fraction(1, len(arriving))
            known[node] = merged([replace(path, weight=path.weight * share) for part in arriving for path in part])
        return known[node]

    paths = value(graph.inputs + graph.nodes - 1)
    return RenderPlan(tuple(colourings), blend(paths), tuple(paths))


def merged(paths: Sequence[Path]) -> list[Path]:
    """Adds up equal paths, in the order of their first appearance."""
    distinct: list[Path] = []
    for path in paths:
        for i, other in enumerate(distinct):
            if other.base == path.base and torch.allclose(other.matrices, path.matrices, rtol=0.0, atol=_SAME):
                distinct[i] = replace(other, weight=other.weight + path.weight)
                break
        else:
            distinct.append(path)
    return distinct


def blend(paths: Sequence[Path]) -> Blend:
    """Combines paths into one pass over a video of all bases: frame 0 is the image, then T frames per coloured base."""
    frames = len(paths[0].matrices)
    numbers: dict[tuple[float, ...], int] = {}
    distinct: list[Tensor] = []
    mixture = []
    for t in range(frames):
        terms: dict[tuple[int, int], Fraction] = {}
        for path in paths:
            matrix = path.matrices[t]
            key = tuple(matrix.flatten().tolist())
            if key not in numbers:
                numbers[key] = len(distinct)
                distinct.append(matrix)
            source = 0 if path.base == IMAGE else 1 + (path.base - 1) * frames + t
            terms[source, numbers[key]] = terms.get((source, numbers[key]), Fraction(0)) + path.weight
        mixture.append(tuple((float(weight), source, m) for (source, m), weight in terms.items()))
    return Blend(torch.stack(distinct), tuple(mixture))


def render(
    graph: Graph, images: Float[Tensor, "batch channels H W"], fill: Fill, mode: str
) -> Float[Tensor, "batch frames channels H W"]:
    """The output node's video of images (B, C, H, W), floats in [0, 1]: (B, T, C, H, W)."""
    plan = render_plan(graph, (images.shape[-2], images.shape[-1]))
    bases = images[:, None]
    for part, step in plan.colourings:
        video = warp_mixture(bases, part.matrices, part.mixture, fill, mode)
        bases = torch.cat([bases, recoloured(video, step.op, step.magnitude, graph.distances)], dim=1)
    return warp_mixture(bases, plan.output.matrices, plan.output.mixture, fill, mode)


def apply_steps(
    video: Float[Tensor, "batch frames channels H W"],
    steps: Sequence[str],
    magnitudes: Float[Tensor, " steps"],
    distances: Float[Tensor, " frames"],
    *,
    fill: Fill,
    background: Float[Tensor, "batch 1 channels 1 1"],
) -> Float[Tensor, "batch frames channels H W"]:
    """The video after motions and colour changes, by name, in order: motions are composed up to each colour change.

    Differentiable in the magnitudes, one per step. The background is added around the image, whose fill is applied to the
    difference.
    """
    size, pending = (int(video.shape[-2]), int(video.shape[-1])), list[Tensor]()

    def moved(video: Tensor) -> Tensor:
        if not pending:
            return video
        return warp_frames(video - background, compose(*pending).to(video.dtype), fill=fill) + background

    for name, magnitude in zip(steps, magnitudes, strict=False):
        if name in COLOURS:
            video, pending = recoloured(moved(video), name, magnitude, distances), []
        else:
            pending.append(motion(name).matrix(magnitude, distances, size))
    return moved(video)


def recoloured(video: Tensor, name: str, magnitude: float | Tensor, distances: Tensor) -> Tensor:
    """The video with a colour change whose strength grows with the frames' distances (T,)."""
    return colour(name).apply(video, (magnitude * distances).to(device=video.device, dtype=video.dtype))


@lru_cache(maxsize=256)
def taps_of(graph: Graph, size: tuple[int, int], fill: Fill, mode: str) -> int:
    """Number of pixels weighted and added per channel of one image's video; a colour change counts one per pixel."""
    plan = render_plan(graph, size)
    lookup = lookup_of(fill, mode)
    parts = (*(part for part, _ in plan.colourings), plan.output)
    count = sum(count_taps(part.matrices, part.mixture, size, lookup) for part in parts)
    return count + len(plan.colourings) * graph.frames * size[0] * size[1]
