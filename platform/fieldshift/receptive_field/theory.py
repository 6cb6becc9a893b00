"""The theoretical receptive field of every layer of any network: size, stride, offset and temporal reach."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.forms import Form
from fieldshift.networks import GSF, GSM
from fieldshift.networks.twin import twin
from fieldshift.receptive_field.calls import FRAME_AXIS, Field
from fieldshift.receptive_field.examples import check_layers, check_unit, example_like, first_line, initialised
from fieldshift.receptive_field.passages import Boxes, Passage, PassageLog, moved_note
from fieldshift.receptive_field.spans import Span, apart_by
from fieldshift.receptive_field.tracing import run_traced

Interval: TypeAlias = tuple[int, int]

_IN_CHANNELS = "a mixture of rows or columns of which the channels hold a part"
_NOTHING: Interval = (0, -1)
_DECIDED = "a value of the network decided what ran; for other images another part may run"


@dataclass(frozen=True, kw_only=True)
class LayerField:
    """The receptive field of the units of one layer."""

    name: str
    """The module's dotted name; empty for the whole network."""
    kind: str
    """The module's class."""
    size: tuple[int, int] | None
    """Rows and columns of the field in pixels, through windows only; None if it is unknown or entirely global."""
    stride: tuple[float, float] | None
    """Pixels from one unit to the next, down and right in the map; None if the output is not a map."""
    start: tuple[int, int] | None
    """First row and column that the unit (0, 0) sees, negative inside the padding."""
    map_size: tuple[int, int] | None
    """Rows and columns of the layer's output; None if the output is not a map."""
    unbounded_by: str = ""
    """The operation that also lets a unit see the whole image (global pooling, attention); empty if there is none."""
    unknown_by: str = ""
    """The operation without a rule from which the field is unknown; empty if all is known."""
    temporal_reach: int | None = 0
    """Number of frames to either side that a frame of this layer sees; None if unknown."""
    frames_seen: tuple[Interval, ...] = ((0, 0),)
    """First and last input frame that each frame of this layer sees; empty if unknown."""
    transposed: bool = False
    """Whether the map's rows run along the image's columns, as after `x.transpose(2, 3)`."""
    rows: tuple[Interval, ...] = ()
    """First and last image row that each row of the map sees (transposed: each column), continued outside the image;
    first > last: none."""
    columns: tuple[Interval, ...] = ()
    """First and last image column that each column of the map sees (transposed: each row)."""
    note: str = ""
    """A note about this field; empty if there is none."""
    form: Form = "video"
    """The form of the network: folded if channels move in it, even behind this layer."""
    moved: tuple[tuple[Passage, Boxes], ...] = ()
    """In a folded network the passages before this layer, with the boxes of its units in the maps there (`reshaped`)."""

    @property
    def unbounded(self) -> bool:
        """Whether some path lets a unit see the whole image."""
        return bool(self.unbounded_by)

    @property
    def method(self) -> str:
        """The method of computation: 'trace', or 'unknown' if an operation has no rule."""
        return "unknown" if self.unknown_by else "trace"

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """The field of unit (row, column): top, left, bottom, right in pixels, included, not clipped to the image."""
        if self.map_size is None or not self.rows or not self.columns:
            why = f": {self.unknown_by} has no rule" if self.unknown_by else ""
            raise UserError(
                f"Layer '{self.name}' has no map of units with a known, bounded field{why}; choose a layer before it."
            )
        check_unit((row, column), self.map_size, self.name)
        y, x = self.along(row, column)
        (top, bottom), (left, right) = self.rows[y], self.columns[x]
        return top, left, bottom, right

    def along(self, row: int, column: int) -> tuple[int, int]:
        """The place of unit (row, column) along the image's rows and along its columns."""
        return (column, row) if self.transposed else (row, column)

    def centre_unit(self) -> tuple[int, int]:
        """The unit (height // 2, width // 2) of the map."""
        if self.map_size is None:
            raise UserError(f"The output of layer '{self.name}' is not a map of units; choose a layer before it.")
        return self.map_size[0] // 2, self.map_size[1] // 2

    def to_json(self) -> dict[str, Any]:
        """The field as plain values, without the interval of every single unit."""
        left_out = {"rows", "columns", "moved"}
        plain: dict[str, Any] = {key: value for key, value in vars(self).items() if key not in left_out}
        for key in ("size", "stride", "start", "map_size"):
            plain[key] = None if plain[key] is None else list(plain[key])
        plain["frames_seen"] = [list(interval) for interval in self.frames_seen]
        moved_at = [passage.place for passage, _ in self.moved]
        return {**plain, "unbounded": self.unbounded, "method": self.method, "moved_at": moved_at}


def theory(
    module: nn.Module,
    example_input: Tensor | int | tuple[int, int],
    layers: Sequence[str] | None = None,
    *,
    count_gates: bool = False,
) -> list[LayerField]:
    """Computes the theoretical receptive field of every named layer, in the order in which the layers finish.

    example_input: a tensor (B, C, H, W), or (B, T, C, H, W) for a video network, or the image's size (one side or
    (H, W)) in pixels. The size of a field does not depend on it (padding is continued outside the image) except after
    adaptive pooling and resizing. layers: the names to return, all by default.
    Longest path over residual and parallel branches (Araujo et al., Distill 2019). Global pooling, attention over the
    whole map and statistics over the map make a layer unbounded; `size` then excludes them, as in a
    squeeze-and-excitation network. Gated temporal modules (GSM, GSF) count as reading one frame to either side at the
    same place; count_gates=True follows the gates' own 3 x 3 x 3 windows as well.
    From an operation without a rule on, the field is unknown and `unknown_by` names the operation (a gradient then gives
    a lower bound). The network is traced in evaluation mode, without dropout and with BatchNorm's
    running statistics; lazy modules are initialised on a copy. Raises UserError for an unknown layer and for an
    input that does not fit.
    """
    module = initialised(module, example_input)
    example = example_like(module, example_input)
    check_layers(module, layers)
    gated: tuple[type[nn.Module], ...] = () if count_gates else (GSM, GSF)
    found = _traced(module, example, gated)
    if layers is None:
        return list(found.values())
    missing = [name for name in layers if name not in found]
    if missing:
        raise UserError(f"Layer '{missing[0]}' has no output that depends on the image; choose another layer.")
    return [found[name] for name in layers]


def unknown_note(fields: Iterable[LayerField]) -> str:
    """Names the layer and the operation from which the theory is unknown; empty if all is known."""
    first = next((field for field in fields if field.unknown_by), None)
    if first is None:
        return ""
    return f"unknown from layer '{first.name}' on: {first.unknown_by} has no rule"


def gates_note(module: nn.Module) -> str:
    """Describes what the theory omits of a network with gated temporal modules; empty for others."""
    gates = [part for part in module.modules() if isinstance(part, GSM)]
    fused = [part for part in gates if isinstance(part, GSF)]
    if not gates:
        return ""
    mean = " and the mean of the whole map" if fused else ""
    return f"the theory omits what the gates of {type((fused or gates)[0]).__name__} read: 3 x 3 positions around{mean}"


def feature_extractor(fields: Iterable[LayerField], layer: str | None = None) -> LayerField:
    """The field of the whole feature extractor: of the last layer that is a map with a bounded field.

    layer: uses this layer instead of the last one. Raises UserError if there is none.
    """
    maps = [field for field in fields if field.map_size is not None and field.size is not None and field.name]
    if layer is not None:
        maps = [field for field in maps if field.name == layer]
    if not maps:
        raise UserError("No layer has a map with a bounded receptive field; name a layer before the global operation.")
    return maps[-1]


def _traced(module: nn.Module, example: Tensor, gated: tuple[type[nn.Module], ...]) -> dict[str, LayerField]:
    axes = {"y": example.dim() - 2, "x": example.dim() - 1}
    if example.dim() == 5:
        axes[FRAME_AXIS] = 1
    frames = example.shape[1] if example.dim() == 5 else 1
    kinds = {name: type(part).__name__ for name, part in module.named_modules(remove_duplicate=False)}
    found: dict[str, LayerField] = {}

    passages: PassageLog

    def seen(name: str, output: Tensor, field: Field, decided: bool) -> None:
        found.pop(name, None)
        found[name] = _layer_field(
            name, kinds[name], tuple(output.shape), field, frames, passages, _DECIDED if decided else ""
        )

    on_meta = any(tensor.is_meta for tensor in itertools.chain(module.parameters(), module.buffers()))
    with contextlib.suppress(Exception):
        copied = twin(module)
        passages = PassageLog(copied)
        run_traced(copied, example.to("meta"), axes, seen, passages=passages, gated=gated)
        if on_meta or not any(field.unknown_by for field in found.values()):
            return found
    found.clear()
    passages = PassageLog(module)
    try:
        run_traced(module, example, axes, seen, passages=passages, gated=gated)
    except UserError:
        raise
    except Exception as error:  # any error of the user's network
        raise UserError(
            f"The network cannot run on an input of shape {tuple(example.shape)}: {first_line(error)}"
        ) from error
    return found


def _layer_field(
    name: str, kind: str, shape: tuple[int, ...], field: Field, frames: int, passages: PassageLog, note: str = ""
) -> LayerField:
    y, x = field["y"], field["x"]
    unknown = next((span.unknown_by for span in field.values() if span.unknown_by), "")
    if y.dims < x.dims or x.dims < y.dims:
        unknown = unknown or (_IN_CHANNELS if y.dims and x.dims else "")
    dims = _map_dims(y, x)
    is_map = dims is not None and len(shape) >= 3
    low_high = [_along(span, shape, dim) for span, dim in zip((y, x), dims or _first_dims(y, x), strict=True)]
    bounded = not unknown and all(bool(np.isfinite(low).any()) for low, _ in low_high)
    seen = () if unknown else _frames_seen(field.get(FRAME_AXIS), shape, frames)
    size = tuple(_centre_size(span, *pair) for span, pair in zip((y, x), low_high, strict=True)) if bounded else None
    steps = [
        None if dims is None else apart_by(span, dim) or span.step
        for span, dim in zip((y, x), dims or (0, 0), strict=True)
    ]
    transposed = dims is not None and dims[0] > dims[1]
    down, right = reversed(steps) if transposed else steps
    stride = (float(down), float(right)) if is_map and bounded and down and right else None
    rows, columns = (_intervals(*pair) if bounded else [] for pair in low_high)
    sees_first = bool(rows and columns) and rows[0] != _NOTHING and columns[0] != _NOTHING
    moved = passages.seen(field, (shape[dims[0]], shape[dims[1]]), dims) if is_map and dims is not None else ()
    return LayerField(
        name=name,
        kind=kind,
        size=None if size is None else (size[0], size[1]),
        stride=stride,
        start=(rows[0][0], columns[0][0]) if sees_first else None,
        map_size=(shape[min(dims)], shape[max(dims)]) if is_map and dims is not None else None,
        unbounded_by=y.unbounded_by or x.unbounded_by,
        unknown_by=unknown,
        temporal_reach=None if unknown else _reach(seen, frames),
        frames_seen=seen,
        transposed=transposed,
        rows=tuple(rows) if is_map else (),
        columns=tuple(columns) if is_map else (),
        note="; ".join(filter(None, [note, moved_note(passages.before(field))])),
        form=passages.form,
        moved=moved,
    )


def _reach(seen: tuple[Interval, ...], frames: int) -> int:
    if len(seen) != frames:
        return frames - 1
    return max(max(min(t, frames - 1) - a, b - t) for t, (a, b) in enumerate(seen))


def _intervals(low: np.ndarray, high: np.ndarray) -> list[Interval]:
    """First and last position as whole numbers, for units that see any."""
    return [(int(a), int(b)) if a <= b else _NOTHING for a, b in zip(low, high, strict=True)]


def _map_dims(y: Span, x: Span) -> tuple[int, int] | None:
    """The dimensions of a map's rows and columns: one each, or the last two if channels contain part of them."""
    if len(y.dims) == len(x.dims) == 1 and y.dims != x.dims:
        return min(y.dims), min(x.dims)
    last = (y.rank - 2, y.rank - 1)
    return last if last[0] in y.dims - x.dims and last[1] in x.dims - y.dims else None


def _first_dims(*spans: Span) -> list[int | None]:
    return [min(span.dims) if span.dims else None for span in spans]


def _along(span: Span, shape: tuple[int, ...], dim: int | None) -> tuple[np.ndarray, np.ndarray]:
    """First and last position seen by every unit along a dimension, over all others; by all units if it is None."""
    if dim is None:
        return span.low.min(keepdims=True).reshape(-1), span.high.max(keepdims=True).reshape(-1)
    others = tuple(d for d in range(span.rank) if d != dim)
    length = shape[dim]
    low, high = span.low.min(axis=others), span.high.max(axis=others)
    return np.broadcast_to(low, (length,)), np.broadcast_to(high, (length,))


def _centre_size(span: Span, low: np.ndarray, high: np.ndarray) -> int:
    """The largest field among the units around the centre that show every phase of an upsampled map."""
    first = max(min(len(low) // 2, len(low) - span.period), 0)
    sizes = high - low + 1
    around = sizes[first : first + span.period].max()
    return int(around if np.isfinite(around) else sizes.max())


def _frames_seen(span: Span | None, shape: tuple[int, ...], frames: int) -> tuple[Interval, ...]:
    if span is None or frames == 1:
        return ((0, 0),) * frames
    low, high = _along(span, shape, *_first_dims(span))
    if len(low) != frames or len(span.dims) != 1:
        return ((int(low.min()), int(high.max())),)
    return tuple((int(a), int(b)) for a, b in zip(low, high, strict=True))
