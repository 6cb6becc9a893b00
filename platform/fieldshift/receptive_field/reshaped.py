"""The region of the original image that a unit can see through a policy's motions, in either form of a network.

Convention: a frame's matrix maps content forward, p -> A p + b, in pixels about the image's centre ((W - 1) / 2,
(H - 1) / 2), x right, y down. A unit sees a box in every frame it reaches in time; the box in frame t is the
parallelogram A_t^-1 (box - b_t) on the original image. Pixels are unit squares about their centres. The half pixel that
bilinear sampling reads on either side is omitted. In the folded form the motions are inside the network: the region is
computed through its maps (`fieldshift.receptive_field.passages`), with every cell that the sampling reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy
from fieldshift.forms import Form
from fieldshift.motions import Policy
from fieldshift.motions.placed import PlacedPolicy
from fieldshift.receptive_field.measures import ellipse_of
from fieldshift.receptive_field.passages import Boxes, Mask, check_motions, moved_region, policy_in
from fieldshift.receptive_field.spans import Numbers
from fieldshift.receptive_field.theory import LayerField, feature_extractor, theory
from fieldshift.wording import counted

_SAMPLES = 500_000
_WEIGHTLESS = 1e-9
_ROUND = 1.01


@dataclass(frozen=True, kw_only=True)
class Region:
    """A region of the image plane, as a mask with its geometry.

    mask (H, W): pixels whose centre is inside. origin: the mask's first row and column in the image's coordinates,
    (0, 0) unless the region was not clipped to the image. Geometry is measured on a finer grid than the mask.
    """

    mask: Bool[Tensor, "height width"]
    origin: tuple[int, int]
    area: float
    """Square pixels."""
    extent: tuple[float, float]
    """Height and width of the bounding box, in pixels."""
    centre: tuple[float, float]
    """Centre of area, (row, column) in pixels."""
    anisotropy: float
    """Standard deviation of the region along its long axis / across it; 1 for a square."""
    angle: float
    """Degrees of the long axis from the x axis, clockwise on the screen, in (-90, 90]; 0 for anisotropy below 1.01."""

    def to_json(self) -> dict[str, Any]:
        """The geometry as plain values, without the mask."""
        plain = {key: value for key, value in vars(self).items() if key != "mask"}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


@dataclass(frozen=True, kw_only=True)
class Reshaped:
    """The part of the original image that one unit sees: as a plain network, per frame, and after fusion."""

    form: Form = "video"
    """The form in which the network reads the motions."""
    plain: Region
    """The box that the same unit sees in the image itself, in the folded form through channels that stay."""
    frames: tuple[Region, ...]
    """For each frame, the union over the frames that it reaches in time; none in the folded form."""
    fused: Region
    """The region that the output depends on: the union over all frames, or in the folded form over all paths of motions."""
    reference_frame: int = 0
    """The index of the frame that shows the image itself."""
    layer: str
    unit: tuple[int, int]
    """(row, column) in the layer's map."""
    size: tuple[int, int]
    """The image's height and width, in pixels."""
    policy: str
    """The policy's digest; empty for a folded network whose motions do not come from a policy."""
    motions: tuple[str, ...]
    """Description of the policy, one line per edge or place; empty without motion."""
    clipped: bool
    """Whether the box is larger than the image and was clipped at its border."""

    @property
    def reference(self) -> Region:
        """The region of the reference frame's unit: the plain box if no temporal module connects it with other frames."""
        return self.frames[self.reference_frame] if self.frames else self.fused

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the masks."""
        shared = {"form": self.form, "layer": self.layer, "unit": list(self.unit), "size": list(self.size)}
        return {
            **shared,
            "policy": self.policy,
            "motions": list(self.motions),
            "clipped": self.clipped,
            "plain": self.plain.to_json(),
            "frames": [region.to_json() for region in self.frames],
            "reference_frame": self.reference_frame,
            "reference": self.reference.to_json(),
            "fused": self.fused.to_json(),
        }


def reshaped(
    policy: AnyPolicy | None,
    network: nn.Module | LayerField,
    size: tuple[int, int] | int,
    *,
    layer: str | None = None,
    unit: tuple[int, int] | None = None,
    clip: bool = True,
) -> Reshaped:
    """The union, over the frames within temporal reach, of the inverse-mapped receptive boxes of one unit (METHOD 6).

    network: a video or folded network, or a layer's field from `theory`. A folded one has its motions inside: its region
    is the union over every choice of moving or not at every place before the layer, and its policy may be None. size: image
    side or (H, W), in pixels; for a folded network that of the theory. layer: the network's `feature_layer` or its
    last bounded map by default; unit: (row, column), the centre by default. clip=True clips boxes at the frames' borders
    and the region at the image's; clip=False shows the whole geometry, as if image and frames were unbounded (video only). A
    policy with several paths sees the union over them.
    Raises UserError where frames do not match, the layer has no bounded map, a motion cannot be undone, the policy has
    colour operations, or is not the one that moves the folded network's channels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    field = network
    if isinstance(field, nn.Module):
        wanted = layer or getattr(field, "feature_layer", None)
        field = feature_extractor(theory(field, (height, width), None if wanted is None else [wanted]))
    make = _through_channels if field.form == "folded" else _through_frames
    return make(policy, field, field.centre_unit() if unit is None else unit, (height, width), clip)


def _through_frames(
    policy: AnyPolicy | None, field: LayerField, unit: tuple[int, int], size: tuple[int, int], clip: bool
) -> Reshaped:
    if not isinstance(policy, Policy):
        given = "a motion for each of several places" if isinstance(policy, PlacedPolicy) else "no policy"
        raise UserError(
            f"No channels move in this network, so its frames need one policy, but there is {given}; give a policy with one "
            "motion, or a folded network."
        )
    seen = _frames_seen(field, policy.frames)
    corners = _corners(field.box(*unit), size, clip)
    weights, matrices = policy.paths(size)
    shapes = [
        [_undone(corners, matrices[path, frame], size) for path in _used(weights)] for frame in range(policy.frames)
    ]
    canvas = (0, 0, *size) if clip else _canvas([corners, *(shape for frame in shapes for shape in frame)])
    raster = _Raster(canvas)
    by_frame = [raster.union(polygons) for polygons in shapes]
    return Reshaped(
        plain=raster.region(raster.union([corners])),
        frames=tuple(raster.region(np.logical_or.reduce(by_frame[first : last + 1])) for first, last in seen),
        fused=raster.region(np.logical_or.reduce([by_frame[t] for a, b in seen for t in range(a, b + 1)])),
        reference_frame=policy.reference_frame,
        layer=field.name,
        unit=unit,
        size=size,
        policy=policy.digest(),
        motions=tuple(policy.describe()),
        clipped=clip and _exceeds(field.box(*unit), size),
    )


def _through_channels(
    policy: AnyPolicy | None, field: LayerField, unit: tuple[int, int], size: tuple[int, int], clip: bool
) -> Reshaped:
    if not clip:
        raise UserError(
            "clip=False is for videos: the maps of a folded network end at their borders, and so do its fields; leave "
            "it out."
        )
    motions = {passage.place: passage.motion for passage, _ in field.moved}
    if policy is None:
        policy = policy_in(motions)
    else:
        check_motions(policy, motions)
    box, raster = field.box(*unit), _Raster((0, 0, *size))
    mask = moved_region(field.along(*unit), Boxes(field.rows, field.columns), field.moved, size)
    return Reshaped(
        form="folded",
        plain=raster.region(raster.union([_corners(box, size, clip)])),
        frames=(),
        fused=raster.region(raster.enlarged(mask)),
        layer=field.name,
        unit=unit,
        size=size,
        policy="" if policy is None else policy.digest(),
        motions=() if policy is None else tuple(policy.describe()),
        clipped=_exceeds(box, size),
    )


def _exceeds(box: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    return box[0] < 0 or box[1] < 0 or box[2] >= size[0] or box[3] >= size[1]


def _frames_seen(field: LayerField, frames: int) -> list[tuple[int, int]]:
    """The frames that each frame sees; a network of single images sees every frame separately."""
    if field.frames_seen == ((0, 0),):
        return [(t, t) for t in range(frames)]
    if len(field.frames_seen) == 1 and field.frames_seen[0][1] == frames - 1:
        return [field.frames_seen[0]] * frames
    if len(field.frames_seen) != frames:
        reads = max(last for _, last in field.frames_seen) + 1
        raise UserError(
            f"The policy makes {counted(frames, 'frame')}, but the network reads {reads}; give both the same."
        )
    return list(field.frames_seen)


def _used(weights: Float[Tensor, " paths"]) -> list[int]:
    return [path for path, weight in enumerate(weights.tolist()) if abs(weight) > _WEIGHTLESS]


def _corners(box: tuple[int, int, int, int], size: tuple[int, int], clip: bool) -> Numbers:
    """The box as a rectangle (4, 2) of (x, y) corners around its pixels."""
    top, left, bottom, right = box[0] - 0.5, box[1] - 0.5, box[2] + 0.5, box[3] + 0.5
    if clip:
        top, left = max(top, -0.5), max(left, -0.5)
        bottom, right = min(bottom, size[0] - 0.5), min(right, size[1] - 0.5)
        if top >= bottom or left >= right:
            raise UserError("The unit's receptive field lies outside the image; choose a unit nearer the centre.")
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _undone(corners: Numbers, matrix: Float[Tensor, "2 3"], size: tuple[int, int]) -> Numbers:
    forward = matrix.detach().to(torch.float64).numpy(force=True)
    if abs(np.linalg.det(forward[:, :2])) < 1e-9:
        raise UserError("The policy flattens a frame to a line, so its motion cannot be undone; lower its magnitude.")
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    undone: Numbers = np.linalg.solve(forward[:, :2], (corners - centre - forward[:, 2]).T).T + centre
    return undone


def _canvas(polygons: list[Numbers]) -> tuple[int, int, int, int]:
    points = np.concatenate(polygons)
    left, top = np.floor(points.min(axis=0) + 0.5).astype(int)
    right, bottom = np.ceil(points.max(axis=0) - 0.5).astype(int)
    return int(top), int(left), int(bottom - top + 1), int(right - left + 1)


class _Raster:
    """A grid finer than the pixels on which convex polygons are painted; pixel (0, 0) of the mask is at `origin`."""

    def __init__(self, canvas: tuple[int, int, int, int]) -> None:
        top, left, height, width = canvas
        self.origin, self.shape = (top, left), (height, width)
        finest = math.isqrt(max(_SAMPLES // (height * width), 1))
        self.fine = max(1, min(5, finest - (finest + 1) % 2))  # odd, so that a pixel's centre is a sample
        self.rows = top - 0.5 + (np.arange(height * self.fine) + 0.5) / self.fine
        self.columns = left - 0.5 + (np.arange(width * self.fine) + 0.5) / self.fine

    def union(self, polygons: list[Numbers]) -> np.ndarray:
        """The samples inside any of the convex polygons (V, 2)."""
        painted = np.zeros((len(self.rows), len(self.columns)), dtype=bool)
        for polygon in polygons:
            (x0, y0), (x1, y1) = polygon.min(axis=0), polygon.max(axis=0)
            rows = slice(*np.searchsorted(self.rows, [y0 - 1e-9, y1 + 1e-9]))
            columns = slice(*np.searchsorted(self.columns, [x0 - 1e-9, x1 + 1e-9]))
            y, x = self.rows[rows, None], self.columns[None, columns]
            inside = np.ones((y.size, x.size), dtype=bool)
            edges = np.roll(polygon, -1, axis=0) - polygon
            turn = np.sign(_turn(polygon))
            for (px, py), (ex, ey) in zip(polygon, edges, strict=True):
                inside &= turn * (ex * (y - py) - ey * (x - px)) >= -1e-9
            painted[rows, columns] |= inside
        return painted

    def enlarged(self, mask: Mask) -> Mask:
        """The samples of the pixels of a mask (H, W)."""
        painted: Mask = mask.repeat(self.fine, axis=0).repeat(self.fine, axis=1)
        return painted

    def region(self, painted: np.ndarray) -> Region:
        """The region of painted samples, with its geometry in image coordinates."""
        middle = self.fine // 2
        mask = torch.from_numpy(painted[middle :: self.fine, middle :: self.fine].copy())
        if not painted.any():
            nowhere = (math.nan, math.nan)
            return Region(
                mask=mask, origin=self.origin, area=0.0, extent=(0.0, 0.0), centre=nowhere, anisotropy=1.0, angle=0.0
            )
        ellipse = ellipse_of(painted.astype(np.float64))
        rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
        own = (1 / self.fine) ** 2 / 12  # variance of one sample's square
        spread = [math.sqrt((sigma / self.fine) ** 2 + own) for sigma in (ellipse.along, ellipse.across)]
        return Region(
            mask=mask,
            origin=self.origin,
            area=float(painted.sum()) / self.fine**2,
            extent=((int(rows[-1] - rows[0]) + 1) / self.fine, (int(columns[-1] - columns[0]) + 1) / self.fine),
            centre=self._at(ellipse.centre),
            anisotropy=spread[0] / spread[1],
            angle=round(ellipse.angle, 9) + 0.0 if spread[0] > _ROUND * spread[1] else 0.0,
        )

    def _at(self, sample: tuple[float, float]) -> tuple[float, float]:
        row, column = ((position + 0.5) / self.fine - 0.5 for position in sample)
        return row + self.origin[0], column + self.origin[1]


def _turn(polygon: Numbers) -> float:
    """Twice the signed area of a polygon (V, 2): its sign is the orientation of the corners."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))
