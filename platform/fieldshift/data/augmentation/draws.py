"""Random draws of each 2D arm: the same numbers, in the same order, as torchvision's transform.

A batch under one seed therefore equals torchvision's transform applied to its images one by one under that seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fieldshift.data.augmentation.colours import COLOURS
from fieldshift.data.augmentation.kernels import Op, Placement

Size = tuple[int, int]
BLOCK = 512
UNIT = 2**24
SMALLEST = torch.iinfo(torch.int64).min


class BlockGenerator:
    """The numbers of `torch.randint(n, ())` and `torch.rand(())` after `torch.manual_seed(seed)`, drawn in blocks.

    A number from a block costs a fiftieth of a call of torch. Each such call takes 32 bits of torch's CPU generator, and a
    whole number of 64 bits takes two of them, the upper half first.
    """

    def __init__(self, seed: int) -> None:
        self.source = torch.Generator().manual_seed(seed)
        self.block = torch.empty(BLOCK, dtype=torch.int64)
        self.waiting: Iterator[int] = iter(())

    def draw(self) -> int:
        for number in self.waiting:
            return number
        pairs = self.block.random_(SMALLEST, None, generator=self.source).numpy().view(np.uint64)
        self.waiting = iter(np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1).ravel().tolist())
        return next(self.waiting)

    def below(self, count: int) -> int:
        return self.draw() % count

    def unit(self) -> float:
        return self.draw() % UNIT / UNIT


class TorchGenerator:
    """Torch's own generator, for draws that are interleaved with other draws from it."""

    def below(self, count: int) -> int:
        return int(torch.randint(count, ()))

    def unit(self) -> float:
        return float(torch.rand(()))


Space = dict[str, tuple[Callable[[int, int, int], Tensor | None], bool]]


def draw_randaugment(transform: Any, size: Size, generator: BlockGenerator) -> list[Op]:
    """`num_ops` ops at one magnitude (Cubuk et al. 2020, arXiv 1909.13719)."""
    space, levels = ops_of(transform), transform.num_magnitude_bins
    return [draw_op(space, levels, size, generator, fixed=transform.magnitude) for _ in range(transform.num_ops)]


def draw_trivialaugment(transform: Any, size: Size, generator: BlockGenerator) -> list[Op]:
    """One op at a random magnitude (Mueller and Hutter 2021, arXiv 2103.10158)."""
    levels = transform.num_magnitude_bins
    return [draw_op(ops_of(transform), levels, size, generator, bins=levels)]


def draw_autoaugment(transform: Any, size: Size, generator: BlockGenerator) -> list[Op]:
    """One of the published sub-policies, each of its two ops with its probability (Cubuk et al. 2019, 1805.09501)."""
    space = ops_of(transform)
    policies = transform._policies
    chosen = []
    for name, probability, level in policies[generator.below(len(policies))]:
        # Torch compares in single precision.
        if generator.unit() > np.float32(probability):
            continue
        spread, signed = space[name]
        magnitudes = table(spread, 10, size)
        magnitude = 0.0 if magnitudes is None else magnitudes[cast(int, level)]
        if magnitudes is not None and signed and generator.unit() <= 0.5:
            magnitude *= -1
        chosen.append(Op(name, magnitude))
    return chosen


@dataclass(frozen=True)
class Mixture:
    """AugMix for one image: the weight of the image itself, and of each chain of ops."""

    own: float
    shares: tuple[float, ...]
    chains: tuple[list[Op], ...]


def draw_augmix(transform: Any, size: Size, colour_only: bool) -> Mixture:
    """Chains of ops and their mixing weights (Hendrycks et al. 2020, arXiv 1912.02781)."""
    space = ops_of(transform)
    if colour_only:
        space = {name: entry for name, entry in space.items() if name in COLOURS}
    generator = TorchGenerator()
    one = torch.tensor(transform.alpha)
    own, rest = torch._sample_dirichlet(one.expand(1, 2))[0]
    shares = torch._sample_dirichlet(one.expand(1, transform.mixture_width))[0] * rest
    chains = []
    for _ in range(transform.mixture_width):
        depth = transform.chain_depth
        if depth <= 0:
            depth = int(torch.randint(1, 4, (1,)))
        chains.append([draw_op(space, 10, size, generator, bins=transform.severity) for _ in range(depth)])
    return Mixture(float(own), tuple(shares.tolist()), tuple(chains))


def draw_affine(transform: Any, size: Size, generator: BlockGenerator, count: int) -> list[Placement]:
    """`count` placements, each with its parameters uniform in their ranges; `transform` has all four of them."""
    height, width = size
    assert transform.translate is not None
    assert transform.scale is not None
    assert transform.shear is not None
    reach_x, reach_y = transform.translate[0] * width, transform.translate[1] * height
    ranges = [
        transform.degrees, (-reach_x, reach_x), (-reach_y, reach_y), transform.scale, transform.shear[:2],
        transform.shear[2:],
    ]  # fmt: skip
    low, high = np.array(ranges, dtype=np.float32).T
    units = np.array([generator.unit() for _ in range(count * len(ranges))]).reshape(count, len(ranges))
    # In single precision with one rounding at the end, like torch's `uniform_`.
    values = (low.astype(np.float64) + units * (high - low).astype(np.float64)).astype(np.float32).astype(np.float64)
    values[:, 1:3] = np.rint(values[:, 1:3])
    return [
        Placement(angle, (x, y), scale, (shear_x, shear_y)) for angle, x, y, scale, shear_x, shear_y in values.tolist()
    ]


def ops_of(transform: Any) -> Space:
    return cast(Space, transform._AUGMENTATION_SPACE)


def draw_op(
    space: Space,
    levels: int,
    size: Size,
    generator: BlockGenerator | TorchGenerator,
    *,
    fixed: int = 0,
    bins: int | None = None,
) -> Op:
    """An op of `space` at the level `fixed`, or at one of the first `bins` levels, of its table of magnitudes."""
    names = tuple(space)
    name = names[generator.below(len(names))]
    spread, signed = space[name]
    magnitudes = table(spread, levels, size)
    if magnitudes is None:
        return Op(name)
    magnitude = magnitudes[fixed if bins is None else generator.below(bins)]
    if signed and generator.unit() <= 0.5:
        magnitude *= -1
    return Op(name, magnitude)


@cache
def table(spread: Callable[[int, int, int], Tensor | None], levels: int, size: Size) -> tuple[float, ...] | None:
    values = spread(levels, *size)
    return None if values is None else tuple(float(value) for value in values)
