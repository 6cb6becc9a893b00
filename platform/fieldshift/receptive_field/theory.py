"""The theoretical receptive field of every layer of any network: size, stride, offset and reach in time."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.networks import GSF, GSM
from fieldshift.receptive_field.calls import FRAME_AXIS, Field, UntraceableError
from fieldshift.receptive_field.spans import Span
from fieldshift.receptive_field.tracing import run_traced

Interval: TypeAlias = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class LayerField:
    """What the units of one layer see of the input."""

    name: str
    """The module's dotted name; empty for the whole network."""
    kind: str
    """The module's class."""
    size: tuple[int, int] | None
    """Rows and columns of the field in pixels, through windows only; None where only a global operation is left."""
    stride: tuple[float, float] | None
    """Pixels from one unit to the next, down and right; None where the output is no map."""
    start: tuple[int, int] | None
    """First row and column that the unit (0, 0) sees, negative inside the padding."""
    map_size: tuple[int, int] | None
    """Rows and columns of the layer's output; None where the output is no map."""
    unbounded_by: str = ""
    """The operation that let a unit see the whole image as well (global pooling, attention); empty when none did."""
    temporal_reach: int = 0
    """Frames to either side that a frame of this layer sees."""
    frames_seen: tuple[Interval, ...] = ((0, 0),)
    """First and last input frame that each frame of this layer sees."""
    rows: tuple[Interval, ...] = ()
    """First and last image row that each row of the map sees, continued outside the image."""
    columns: tuple[Interval, ...] = ()
    """First and last image column that each column of the map sees."""
    method: str = "trace"
    """'trace', or 'probe' where the network could not be traced and gradients were looked at instead."""
    note: str = ""
    """What to know about this number; empty when there is nothing."""

    @property
    def unbounded(self) -> bool:
        """Whether some path lets a unit see the whole image."""
        return bool(self.unbounded_by)

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """The field of unit (row, column): top, left, bottom, right in pixels, included, not clipped to the image."""
        if self.map_size is None or not self.rows or not self.columns:
            raise UserError(f"Layer '{self.name}' has no map of units with a bounded field; choose a layer before it.")
        height, width = self.map_size
        if not (0 <= row < height and 0 <= column < width):
            raise outside_map((row, column), (height, width), self.name)
        return self.rows[row][0], self.columns[column][0], self.rows[row][1], self.columns[column][1]

    def centre_unit(self) -> tuple[int, int]:
        """The unit (height // 2, width // 2) of the map."""
        if self.map_size is None:
            raise UserError(f"The output of layer '{self.name}' is no map of units; choose a layer before it.")
        return self.map_size[0] // 2, self.map_size[1] // 2

    def to_json(self) -> dict[str, Any]:
        """The field as plain values, without the interval of every single unit."""
        left_out = {"rows", "columns"}
        plain: dict[str, Any] = {key: value for key, value in vars(self).items() if key not in left_out}
        for key in ("size", "stride", "start", "map_size"):
            plain[key] = None if plain[key] is None else list(plain[key])
        plain["frames_seen"] = [list(interval) for interval in self.frames_seen]
        return {**plain, "unbounded": self.unbounded}


def outside_map(unit: tuple[int, int], map_size: tuple[int, int], layer: str) -> UserError:
    """The error for a unit (row, column) that a layer's map does not have."""
    return UserError(
        f"Unit {unit} is outside the map of layer '{layer}'; allowed are rows 0 to {map_size[0] - 1} and columns 0 to "
        f"{map_size[1] - 1}."
    )


def theory(
    module: nn.Module,
    example_input: Tensor | int | tuple[int, int],
    layers: Sequence[str] | None = None,
    *,
    count_gates: bool = False,
) -> list[LayerField]:
    """The theoretical receptive field of every named layer, in the order in which the layers finish.

    example_input: a tensor (B, C, H, W), or (B, T, C, H, W) for a video network, or the image's size (one side or
    (H, W)) in pixels. The size of a field does not depend on it (padding is continued outside the image) except after
    adaptive pooling and resizing. layers: the names wanted, all by default.
    Longest path over residual and parallel branches (Araujo et al., Distill 2019). Global pooling, attention over the
    whole map and statistics over the map make a layer unbounded; `size` is then what is seen beside them, as in a
    squeeze-and-excitation network. Gated temporal modules (GSM, GSF) count as reading one frame to either side at the
    same place; count_gates=True follows the gates' own 3 x 3 x 3 windows as well.
    A network with an operation that cannot be followed is probed instead (its last map or the layers asked for), and
    `note` names the operation. Raises UserError for a layer that does not exist and for an input that does not fit.
    """
    example = example_like(module, example_input)
    check_layers(module, layers)
    gated: tuple[type[nn.Module], ...] = () if count_gates else (GSM, GSF)
    try:
        found = _traced(module, example, gated)
    except UntraceableError as error:
        from fieldshift.receptive_field.probe import probe_layers

        return probe_layers(module, example, layers, note=f"{error} cannot be followed; gradients were probed instead")
    if layers is None:
        return list(found.values())
    missing = [name for name in layers if name not in found]
    if missing:
        raise UserError(f"Layer '{missing[0]}' gives no tensor that depends on the image; choose another layer.")
    return [found[name] for name in layers]


def gates_note(module: nn.Module) -> str:
    """What the theory leaves out of a network with gated temporal modules, in words; empty for others."""
    gates = [part for part in module.modules() if isinstance(part, GSM)]
    fused = [part for part in gates if isinstance(part, GSF)]
    if not gates:
        return ""
    mean = " and the mean of the whole map" if fused else ""
    return f"the theory leaves out what the gates of {type((fused or gates)[0]).__name__} look at: 3 x 3 places around{mean}"


def feature_extractor(fields: Iterable[LayerField], layer: str | None = None) -> LayerField:
    """The field of the whole feature extractor: of the last layer that is a map and sees through windows.

    layer: takes this layer instead of the last one. Raises UserError where there is none.
    """
    maps = [field for field in fields if field.map_size is not None and field.size is not None and field.name]
    if layer is not None:
        maps = [field for field in maps if field.name == layer]
    if not maps:
        raise UserError(
            "No layer gives a map with a bounded receptive field; name a layer before the global operation."
        )
    return maps[-1]


def check_layers(module: nn.Module, layers: Iterable[str] | None) -> None:
    """Raises UserError with the nearest names for the first layer that the network does not have."""
    names = [name for name, _ in module.named_modules(remove_duplicate=False)]
    for layer in layers or ():
        if layer not in names:
            nearest = difflib.get_close_matches(layer, names, n=3, cutoff=0.3)
            hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
            raise UserError(f"Unknown layer '{layer}'.{hint} The network has {len(names) - 1} named layers.")


def example_like(module: nn.Module, example_input: Tensor | int | tuple[int, int]) -> Tensor:
    """An input for the network: the tensor itself, or a blank one of the size, with its first layer's channels."""
    if isinstance(example_input, Tensor):
        if example_input.dim() not in (4, 5):
            raise UserError(
                f"The example input has shape {tuple(example_input.shape)}; expected (B, C, H, W) or (B, T, C, H, W)."
            )
        return example_input[:1].detach()
    size = (example_input, example_input) if isinstance(example_input, int) else tuple(example_input)
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"The image size is {size}, but must be one or two positive numbers of pixels, such as 224.")
    channels = next((part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)), 3)
    first = next(itertools.chain(module.parameters(), module.buffers()), torch.zeros(()))
    dtype = first.dtype if first.is_floating_point() else torch.float32
    frames = video_frames(module)
    shape = (1, channels, *size) if frames is None else (1, frames, channels, *size)
    return torch.zeros(shape, device=first.device, dtype=dtype)


def detached(layer: str) -> UserError:
    """The error for a layer whose output carries no gradient back to the image."""
    return UserError(
        f"The gradient of layer '{layer}' is zero at every pixel: its output is detached from the image (detach, "
        "no_grad, or an operation without a gradient before it); choose an earlier layer."
    )


def video_frames(module: nn.Module) -> int | None:
    """The number of frames T of a video network, None for a network of images."""
    frames = getattr(module, "frames", None)
    return frames if isinstance(frames, int) and hasattr(module, "temporal") else None


def _traced(module: nn.Module, example: Tensor, gated: tuple[type[nn.Module], ...]) -> dict[str, LayerField]:
    axes = {"y": example.dim() - 2, "x": example.dim() - 1}
    if example.dim() == 5:
        axes[FRAME_AXIS] = 1
    frames = example.shape[1] if example.dim() == 5 else 1
    kinds = {name: type(part).__name__ for name, part in module.named_modules(remove_duplicate=False)}
    found: dict[str, LayerField] = {}

    def seen(name: str, output: Tensor, field: Field) -> None:
        found.pop(name, None)
        found[name] = _layer_field(name, kinds[name], tuple(output.shape), field, frames)

    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    stand_ins = {name: tensor.detach().to("meta") for name, tensor in tensors}
    try:
        run_traced(module, example.to("meta"), axes, seen, gated=gated, stand_ins=stand_ins)
    except Exception:
        found.clear()
        try:
            run_traced(module, example, axes, seen, gated=gated)
        except (UntraceableError, UserError):
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            shape, reason = tuple(example.shape), str(error).splitlines()[0]
            raise UserError(f"The network cannot run on an input of shape {shape}: {reason}") from error
    return found


def _layer_field(name: str, kind: str, shape: tuple[int, ...], field: Field, frames: int) -> LayerField:
    y, x = field["y"], field["x"]
    low_high = [_along(span, shape) for span in (y, x)]
    bounded = all(bool(np.isfinite(low).all()) for low, _ in low_high)
    is_map = len(y.dims) == 1 and len(x.dims) == 1 and y.dims != x.dims and len(shape) >= 3
    seen = _frames_seen(field.get(FRAME_AXIS), shape, frames)
    size = tuple(_centre_size(span, *pair) for span, pair in zip((y, x), low_high, strict=True)) if bounded else None
    steps = (y.step, x.step)
    stride = (float(steps[0]), float(steps[1])) if is_map and bounded and steps[0] and steps[1] else None
    rows, columns = ([(int(a), int(b)) for a, b in zip(*pair, strict=True)] if bounded else [] for pair in low_high)
    return LayerField(
        name=name,
        kind=kind,
        size=None if size is None else (size[0], size[1]),
        stride=stride,
        start=(rows[0][0], columns[0][0]) if rows and columns else None,
        map_size=(shape[min(y.dims)], shape[min(x.dims)]) if is_map else None,
        unbounded_by=y.unbounded_by or x.unbounded_by,
        temporal_reach=max(max(min(t, frames - 1) - a, b - t) for t, (a, b) in enumerate(seen))
        if len(seen) == frames
        else frames - 1,
        frames_seen=seen,
        rows=tuple(rows) if is_map else (),
        columns=tuple(columns) if is_map else (),
    )


def _along(span: Span, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """First and last position seen by every unit along the span's first dimension, over all else."""
    if not span.dims:
        return span.low.min(keepdims=True).reshape(-1), span.high.max(keepdims=True).reshape(-1)
    dim = min(span.dims)
    others = tuple(d for d in range(span.rank) if d != dim)
    length = shape[dim]
    low, high = span.low.min(axis=others), span.high.max(axis=others)
    return np.broadcast_to(low, (length,)), np.broadcast_to(high, (length,))


def _centre_size(span: Span, low: np.ndarray, high: np.ndarray) -> int:
    """The largest field among the units around the centre that show every phase of an upsampled map."""
    first = max(min(len(low) // 2, len(low) - span.period), 0)
    sizes = (high - low + 1)[first : first + span.period]
    return int(sizes.max())


def _frames_seen(span: Span | None, shape: tuple[int, ...], frames: int) -> tuple[Interval, ...]:
    if span is None or frames == 1:
        return ((0, 0),) * frames
    low, high = _along(span, shape)
    if len(low) != frames or len(span.dims) != 1:
        return ((int(low.min()), int(high.max())),)
    return tuple((int(a), int(b)) for a, b in zip(low, high, strict=True))
