"""Colour changes: functions of a frame's colours that leave every point in place.

A frame at distance s gets the strength magnitude * s, so the reference frame is unchanged, bit for bit. Frames are
floats in [0, 1], shape (..., C, H, W); images of a batch are processed independently. Changes
that could leave [0, 1] clamp to it, as torchvision's do. Those without two directions use |strength|.

Gradients: all changes are differentiable in the strength except solarize; posterize and equalize count levels and pass the
gradient straight through to the pixels, solarize passes it with the sign of its slope.
Source: torchvision's colour changes [R]; the magnitude as a blend for autocontrast and equalize, and fractional bits for
posterize, are departures [D] that make every change a continuous function of its magnitude.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fieldshift.errors import UserError, unknown_name
from fieldshift.motions.registry import Change
from fieldshift.tensor_cache import constant

ColourOf = Callable[[Tensor, Tensor], Tensor]
_LEVELS = 256


@dataclass(frozen=True, kw_only=True)
class Colour(Change):
    """A colour change alters frames (..., C, H, W) in [0, 1] by a strength, one per frame; strength 0 changes nothing."""

    change: ColourOf

    def apply(
        self, frames: Float[Tensor, "*batch channels H W"], strength: Float[Tensor, "*strength"]
    ) -> Float[Tensor, "*batch channels H W"]:
        """Frames with the strength applied; the strength broadcasts against the dimensions before the channels."""
        return self.change(frames, strength[..., None, None, None])


COLOURS: dict[str, Colour] = {}


def register_colour(change: Colour) -> Colour:
    """Adds a colour change to the registry and returns it; a taken name raises UserError."""
    if change.name in COLOURS:
        raise UserError(f"The colour change '{change.name}' is already registered; choose another name.")
    change.check(change.neutral)
    COLOURS[change.name] = change
    return change


def colour(name: str) -> Colour:
    """Returns the registered colour change of that name; an unknown name raises UserError, which lists the known ones."""
    if name not in COLOURS:
        raise unknown_name("colour change", name, COLOURS)
    return COLOURS[name]


def _grey(frames: Tensor) -> Tensor:
    if frames.shape[-3] == 1:
        return frames
    if frames.shape[-3] != 3:
        raise UserError(
            f"Colour changes need images of 1 or 3 channels, but these have {frames.shape[-3]}; use motions only."
        )
    weights = constant((0.2989, 0.587, 0.114), frames.dtype, frames.device)
    return (frames * weights[:, None, None]).sum(-3, keepdim=True)


def _away_from(frames: Tensor, dull: Tensor, strength: Tensor) -> Tensor:
    """(1 + strength) of the way from the dull frame to the frame itself, clamped to [0, 1]; exact at strength 0."""
    return torch.where(strength == 0, frames, (frames + strength * (frames - dull)).clamp(0, 1))


def brightness(frames: Tensor, strength: Tensor) -> Tensor:
    """Multiplies by 1 + strength."""
    return _away_from(frames, torch.zeros_like(frames), strength)


def contrast(frames: Tensor, strength: Tensor) -> Tensor:
    """Scales by 1 + strength about the frame's mean grey."""
    return _away_from(frames, _grey(frames).mean((-3, -2, -1), keepdim=True), strength)


def saturation(frames: Tensor, strength: Tensor) -> Tensor:
    """Scales by 1 + strength about each pixel's grey; leaves frames of one channel unchanged."""
    return _away_from(frames, _grey(frames), strength)


def sharpness(frames: Tensor, strength: Tensor) -> Tensor:
    """Scales by 1 + strength about a 3 x 3 smoothing (5 in the centre, 1 around, over 13); the outermost pixels stay."""
    height, width = frames.shape[-2:]
    if height < 3 or width < 3:
        return frames
    kernel = torch.ones(1, 1, 3, 3, dtype=frames.dtype, device=frames.device)
    kernel[..., 1, 1] = 5
    inner = F.conv2d(frames.reshape(-1, 1, height, width), kernel / 13)
    smooth = frames.clone()
    smooth[..., 1:-1, 1:-1] = inner.reshape(*frames.shape[:-2], height - 2, width - 2)
    return _away_from(frames, smooth, strength)


def _towards(frames: Tensor, target: Tensor, strength: Tensor) -> Tensor:
    return torch.where(strength == 0, frames, frames + strength.abs() * (target - frames))


def autocontrast(frames: Tensor, strength: Tensor) -> Tensor:
    """Moves the share |strength| towards the frame whose channels each span 0 to 1; a flat channel stays."""
    low, high = frames.amin((-2, -1), keepdim=True), frames.amax((-2, -1), keepdim=True)
    span = high - low
    flat = span == 0
    stretched = torch.where(flat, frames, (frames - low) / torch.where(flat, torch.ones_like(span), span))
    return _towards(frames, stretched, strength)


def _equalized(frames: Tensor) -> Tensor:
    """Maps each channel through its cumulative histogram over 256 levels, as in torchvision and PIL."""
    levels = (frames.detach() * (_LEVELS - 1)).round().clamp(0, _LEVELS - 1).long().flatten(-2)
    histogram = torch.zeros(*levels.shape[:-1], _LEVELS, dtype=torch.long, device=frames.device)
    histogram.scatter_add_(-1, levels, torch.ones_like(levels))
    cumulative = histogram.cumsum(-1)
    top = levels.amax(-1, keepdim=True)
    step = (cumulative[..., -1:] - histogram.gather(-1, top)) // (_LEVELS - 1)
    flat = step == 0
    before = F.pad(cumulative[..., :-1], (1, 0))
    table = ((before + step // 2) // step.clamp(min=1)).clamp(0, _LEVELS - 1)
    mapped = torch.where(flat, levels, table.gather(-1, levels)).to(frames.dtype) / (_LEVELS - 1)
    return torch.where(flat[..., None], frames.detach(), mapped.unflatten(-1, frames.shape[-2:]))


def equalize(frames: Tensor, strength: Tensor) -> Tensor:
    """Moves the share |strength| towards the frame with even histograms; the gradient to the pixels is straight-through."""
    return _towards(frames, frames + (_equalized(frames) - frames.detach()), strength)


def solarize(frames: Tensor, strength: Tensor) -> Tensor:
    """Inverts the pixels brighter than 1 - |strength|; no gradient to the strength."""
    return torch.where(frames > 1 - strength.abs(), 1 - frames, frames)


def _to_bits(frames: Tensor, bits: Tensor) -> Tensor:
    """Keeps the leading bits of eight and sets the others to zero."""
    width = torch.exp2(8 - bits)
    levels = (frames.detach() * (_LEVELS - 1)).round()
    return torch.where(bits == 8, frames.detach(), (levels / width).floor() * width / (_LEVELS - 1))


def posterize(frames: Tensor, strength: Tensor) -> Tensor:
    """Drops |strength| of the eight bits, blending between whole numbers of bits; straight-through gradient to pixels."""
    dropped = strength.abs()
    fewer = dropped.detach().floor()
    coarse, coarser = _to_bits(frames, 8 - fewer), _to_bits(frames, (7 - fewer).clamp(min=0))
    target = coarse + (dropped - fewer) * (coarser - coarse)
    return torch.where(dropped == 0, frames, frames + (target - frames.detach()))


_BLEND = ("difference of the factor from 1", " by {:+.3g}")
_SHARE = ("share of the full effect", " by {:.3g} of the full effect")

for _name, _change, _limits, _preset, (_unit, _measure) in (
    ("brightness", brightness, (-1.0, 3.0), (-0.9, 0.9), _BLEND),
    ("contrast", contrast, (-1.0, 3.0), (-0.9, 0.9), _BLEND),
    ("saturation", saturation, (-1.0, 3.0), (-0.9, 0.9), _BLEND),
    ("sharpness", sharpness, (-1.0, 3.0), (-0.9, 0.9), _BLEND),
    ("autocontrast", autocontrast, (-1.0, 1.0), (0.0, 1.0), _SHARE),
    ("equalize", equalize, (-1.0, 1.0), (0.0, 1.0), _SHARE),
    ("solarize", solarize, (-1.0, 1.0), (0.0, 1.0), ("share of the brightness range", " of the brightest {:.3g}")),
    ("posterize", posterize, (-8.0, 8.0), (0.0, 4.0), ("bits of eight", " by {:.3g} bits")),
):
    register_colour(Colour(name=_name, change=_change, limits=_limits, preset=_preset, unit=_unit, measure=_measure))
