"""Compares the theory with the gradient probe on random networks of every layer of torch.nn.

`python -m fieldshift.receptive_field.testing 500` prints the numbers of agreeing and unbounded networks, and of unknown ones
by operation. A wrong field raises an AssertionError that shows the network and the seed.
"""

from __future__ import annotations

import collections
import random
import sys
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.receptive_field.probe import probe
from fieldshift.receptive_field.theory import LayerField, theory
from fieldshift.receptive_field.torch_layers import Shape, draw, layers, output_of

CHANNELS = 4
_DRAWS = 40
_PADS = ("reflect", "replicate", "circular")
_LARGEST = 80


class Residual(nn.Module):
    """Adds its input to a layer's output, or concatenates both."""

    def __init__(self, layer: nn.Module, *, beside: bool) -> None:
        super().__init__()
        self.layer, self.beside = layer, beside

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.layer(features)
        return torch.cat([features, changed], dim=1) if self.beside else features + changed


def random_network(seed: int, side: int = 30) -> tuple[nn.Module, torch.Size]:
    """One to four random layers of torch.nn on an image of 4 channels, some of them residual, and the image's shape.

    The first layer runs through all of `layers()` as the seed increases.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    names = layers()
    shape: Shape = (1, CHANNELS, side, side + 2)
    image, parts = torch.Size(shape), list[nn.Module]()
    for number in range(rng.choice([1, 2, 3, 4])):
        name = names[seed % len(names)] if number == 0 else rng.choice(names)
        layer = draw(rng, name, shape)
        if layer is None:
            continue
        made = tuple(output_of(layer, shape).shape)
        if made == shape and rng.random() < 0.3:
            layer = Residual(layer, beside=rng.random() < 0.5)
            made = tuple(output_of(layer, shape).shape)
        if len(made) == 4 and not (2 <= made[-1] <= _LARGEST and 2 <= made[-2] <= _LARGEST and made[0] == 1):
            continue
        parts.append(layer)
        shape = made
        if len(made) != 4:
            break
    return nn.Sequential(*parts).eval(), image


def check_network(seed: int) -> str:
    """Compares theory and gradients on the seed's random network: 'agreed', 'unbounded', 'unknown by OPERATION' or a reason.

    Networks that end in 'no map' are not compared, nor those whose units are all 'at a border' that repeats the image.

    Every unit's box inside the image must equal that of the gradients; where gradients show less, as behind a
    maximum, changed pixels must show the rest. Raises AssertionError otherwise.
    """
    network, shape = random_network(seed)
    named = nn.Sequential(network)
    field = theory(named, torch.zeros(shape, dtype=torch.float64), ["0"])[0]
    if field.unknown_by:
        return f"unknown by {field.unknown_by}"
    if len(output_of(network, tuple(shape)).shape) != 4:
        return "no map"
    if field.map_size is None and not field.unbounded:
        raise AssertionError(f"seed {seed}: a map without a field: {field}\n{network}")
    output = output_of(network, tuple(shape)).shape
    units = {(output[2] // 2, output[3] // 2), (max(output[2] // 2 - 1, 0), output[3] // 2 - 1)}
    compared = False
    for unit in units:
        theoretical = _theoretical_box(field, unit, shape)
        at_border = theoretical is not None and _borders(network) and _at_border(field, unit, shape)
        if field.unbounded or (theoretical is not None and not at_border):
            _compare(network, named, shape, unit, theoretical, field, seed)
            compared = True
    if not compared:
        return "at a border"
    return "unbounded" if field.unbounded else "agreed"


def check_many(seeds: Iterable[int]) -> collections.Counter[str]:
    """Counts the outcomes of the random networks of these seeds."""
    return collections.Counter(check_network(seed) for seed in seeds)


Box = tuple[int, int, int, int]


def _theoretical_box(field: LayerField, unit: tuple[int, int], shape: Shape) -> Box | None:
    """The unit's theoretical box within the image, None if it sees nothing of it or windows have no position."""
    if not field.rows or not field.columns:
        return None
    top, left, bottom, right = field.box(*unit)
    box = max(top, 0), max(left, 0), min(bottom, shape[2] - 1), min(right, shape[3] - 1)
    return box if box[0] <= box[2] and box[1] <= box[3] else None


def _borders(network: nn.Module) -> bool:
    """Whether values outside the image are copies of inner ones instead of zero."""
    kinds = ("Reflection", "Replication", "Circular")
    return any(
        getattr(part, "padding_mode", "") in _PADS or type(part).__name__.startswith(kinds)
        for part in network.modules()
    )


def _at_border(field: LayerField, unit: tuple[int, int], shape: Shape) -> bool:
    top, left, bottom, right = field.box(*unit)
    return top < 0 or left < 0 or bottom >= shape[2] or right >= shape[3]


def _compare(
    network: nn.Module,
    named: nn.Module,
    shape: Shape,
    unit: tuple[int, int],
    theoretical: Box | None,
    field: LayerField,
    seed: int,
) -> None:
    seen: Box | None = None
    for draw_number in range(_DRAWS + 1):
        shown = _by_gradient(named, shape, unit) if draw_number == 0 else _by_change(network, shape, unit, draw_number)
        seen = _around(seen, shown)
        if seen is not None and (
            (field.unbounded and _whole(seen, shape)) or (seen == theoretical and not field.unbounded)
        ):
            return
        if seen is not None and not field.unbounded and _around(seen, theoretical) != theoretical:
            break
    what = f"unbounded by {field.unbounded_by} and {theoretical}" if field.unbounded else theoretical
    raise AssertionError(f"seed {seed}: unit {unit} sees {seen}, the theory says {what}, on {tuple(shape)}\n{network}")


def _whole(box: Box, shape: Shape) -> bool:
    """Whether a box covers the whole image along an axis, except for what strides omit at its end."""
    return box[2] - box[0] + 1 >= shape[2] - 4 or box[3] - box[1] + 1 >= shape[3] - 4


def _around(first: Box | None, second: Box | None) -> Box | None:
    if first is None or second is None:
        return first or second
    return min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3])


def _by_gradient(named: nn.Module, shape: Shape, unit: tuple[int, int]) -> Box | None:
    try:
        return probe(named, torch.zeros(shape, dtype=torch.float64), "0", unit).box
    except (UserError, RuntimeError):  # no gradient at all, or a layer without a positive copy
        return None


def _by_change(network: nn.Module, shape: Shape, unit: tuple[int, int], seed: int) -> Box | None:
    """The rows and columns of the image whose change affects the unit, for one draw of pixels."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(shape, generator=generator, dtype=torch.float64)
    other = image + 3 * torch.randn(shape, generator=generator, dtype=torch.float64)

    def at_unit(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            values: Tensor = network(pixels)[..., unit[0], unit[1]]
        return values

    first = at_unit(image)
    found: list[list[int]] = []
    for dim in (2, 3):
        changed = []
        for line in range(shape[dim]):
            pixels = image.clone()
            pixels.select(dim, line).copy_(other.select(dim, line))
            if not torch.equal(at_unit(pixels), first):
                changed.append(line)
        found.append(changed)
    rows, columns = found
    return (rows[0], columns[0], rows[-1], columns[-1]) if rows and columns else None


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for ending, count in check_many(range(number)).most_common():
        print(f"{count:5d} {ending}")
