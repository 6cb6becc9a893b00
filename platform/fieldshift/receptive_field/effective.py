"""The effective receptive field: the dependence of a unit on every pixel, measured by gradients.

A gradient of 1 on the centre unit of the last feature map is propagated back through the network and, for a video network,
through the motions to the original image (a folded network has them inside); the map is the mean of its absolute value
over images and channels. Source: Luo et al., "Understanding the Effective Receptive Field", NeurIPS 2016. For videos [D]: the
unit is the reference frame's, so that the map shows what the temporal module combines; the map of the mean over all frames,
which is what fusion takes, is stored with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy
from fieldshift.motions import Policy
from fieldshift.motions.placed import PlacedPolicy
from fieldshift.receptive_field.arrivals import arrivals, copies_for
from fieldshift.receptive_field.effective_map import Conditions, EffectiveField, Of
from fieldshift.receptive_field.examples import check_layers, video_frames
from fieldshift.receptive_field.fitting import fitting_note
from fieldshift.receptive_field.image_means import MapMean, ShareMean, absolute
from fieldshift.receptive_field.passages import check_motions, motions_at_places, policy_in
from fieldshift.receptive_field.reshaped import Reshaped, reshaped
from fieldshift.receptive_field.theory import LayerField, feature_extractor, gates_note, theory
from fieldshift.receptive_field.unit_gradient import UnitGradient, frozen
from fieldshift.wording import counted

_CHUNK_PIXELS = 8 * 224 * 224  # pixels in memory at once: about 1 GB for a ResNet-50


def effective(
    network: nn.Module,
    images: Shaped[Tensor, "batch channels height width"],
    *,
    trained: bool,
    policy: AnyPolicy | None = None,
    layer: str | None = None,
    unit: tuple[int, int] | None = None,
    images_kind: str = "given images",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    chunk: int | None = None,
) -> EffectiveField:
    """Computes the mean absolute gradient, over images and channels, of one unit with respect to the original image.

    For a video network: of the reference frame's unit, with the share of its mass that arrives through other frames, and
    in `all_frames` the same for the unit's mean over the frames.

    network: any network of images (B, C, H, W), a video network with its `policy`, or a folded one, whose motions are
    inside and whose policy may be omitted; the gradient of every channel of the unit is 1 (1 / T in every frame for the
    mean over frames). images: uint8, or floats in [0, 1], on any device; they are moved to the network's. mean, std:
    one value per channel, in [0, 1] units, applied after the motions. trained, images_kind: given by the caller, since
    tensors do not show them. layer: by default the network's `feature_layer`
    or its last bounded map. unit: (row, column), by default the centre (height // 2, width // 2). chunk:
    images in memory at once; by default as many as have 400,000 pixels over all frames.
    The network runs in evaluation mode and is not changed. Raises UserError for no images, an unknown layer, a unit
    outside the map, a policy that does not match the network, and a gradient that is zero everywhere (with the reason).
    """
    motions = motions_at_places(network)
    if motions and policy is None:
        policy = policy_in(motions)
    elif motions and policy is not None:
        check_motions(policy, motions)
    video = None if motions else policy
    if isinstance(video, PlacedPolicy):
        raise UserError("The policy has a motion for each of several places, which only a folded network supports.")
    images, frames = _checked(network, images, video)
    size = (images.shape[-2], images.shape[-1])
    check_layers(network, [] if layer is None else [layer])
    traced = theory(network, size)
    wanted = layer or getattr(network, "feature_layer", None) or feature_extractor(traced).name
    described = next((field for field in traced if field.name == wanted), None)
    device, dtype = _home(network)
    scale = _Normalise(mean, std, images.shape[1], device, dtype)
    copies = copies_for(len(motions if described is None else described.moved)) if motions else 1
    count = chunk or min(64, max(1, _CHUNK_PIXELS // (frames * copies * size[0] * size[1])))

    def read(part: Tensor) -> Tensor:
        return _read(network, scale, video, part, frames)

    unit_maps, all_maps, shares = MapMean(size), MapMean(size), ShareMean()
    with frozen(network), UnitGradient(network, wanted, unit) as probe:
        probe.count_calls(read(_floats(images[:1], device, dtype)))
        for start in range(0, len(images), count):
            found = arrivals(
                probe, read, _floats(images[start : start + count], device, dtype), frames=frames,
                reference=0 if video is None else video.reference_frame, copies=copies,
            )  # fmt: skip
            shares.add(found)
            for maps, gradient in ((unit_maps, found.whole), (all_maps, found.averaged)):
                if gradient is not None:
                    maps.add(absolute(gradient, wanted))
    number = len(images)
    if unit_maps.mass == 0.0:
        why = "its activations are all zero for every image" if shares.silent == number else "no weight passes it on"
        raise UserError(
            f"The gradient of unit {probe.unit} of layer '{wanted}' is zero at every pixel: {why}; "
            "choose another unit, an earlier layer or other images."
        )
    conditions = Conditions(
        network=getattr(network, "name", type(network).__name__),
        layer=wanted,
        unit=probe.unit,
        input_size=size,
        trained=trained,
        images=number,
        images_kind=images_kind,
        frames=frames,
        of="all frames" if shares.share is None else "reference frame",
        form="folded" if motions else "video",
        temporal=getattr(network, "temporal", "none"),
        policy=() if policy is None else tuple(policy.describe()),
        policy_digest="" if policy is None else policy.digest(),
    )
    shared: dict[str, Any] = {
        "theoretical_size": None if described is None else described.size,
        "position": _position(described, probe.unit),
    }

    def field(maps: MapMean, of: Of, **more: Any) -> EffectiveField:
        area, notes = _expected(described, policy, size, probe.unit, of, fitting_note(traced, size))
        notes = tuple(filter(None, (*notes, gates_note(network))))
        known = replace(conditions, of=of)
        return EffectiveField(**maps.numbers(), **shared, conditions=known, theoretical_area=area, notes=notes, **more)

    return field(
        unit_maps,
        conditions.of,
        other_frames=shares.share,
        other_frames_error=shares.share_error,
        all_frames=field(all_maps, "all frames") if all_maps.count else None,
    )


def _checked(network: nn.Module, images: Tensor, policy: Policy | None) -> tuple[Tensor, int]:
    if images.dim() != 4:
        raise UserError(f"The images have shape {tuple(images.shape)}; expected (B, C, H, W).")
    if len(images) == 0:
        raise UserError("There are no images to measure the receptive field on; give at least one, 50 are usual.")
    frames = video_frames(network)
    if policy is not None and frames != policy.frames:
        reads = "single images" if frames is None else counted(frames, "frame")
        raise UserError(
            f"The policy makes {counted(policy.frames, 'frame')}, but the network reads {reads}; give both the same."
        )
    if policy is None and frames is not None and frames > 1:
        raise UserError(f"The network reads {counted(frames, 'frame')}; give the policy that makes them of an image.")
    return images, frames or 1


def _read(network: nn.Module, scale: _Normalise, video: Policy | None, part: Tensor, frames: int) -> Tensor:
    if video is not None:
        return scale(video.video(part))
    return scale(part[:, None] if video_frames(network) is not None and frames == 1 else part)


def _floats(images: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    moved = images.detach().to(device=device, dtype=dtype)
    return moved / 255 if images.dtype == torch.uint8 else moved.clone()


def _home(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    for tensor in network.parameters():
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32


def _expected(
    field: LayerField | None,
    policy: AnyPolicy | None,
    size: tuple[int, int],
    unit: tuple[int, int],
    of: Of,
    fitting: str,
) -> tuple[float | None, tuple[str, ...]]:
    """Number of image pixels inside the theoretical field, and warnings."""
    if field is not None and field.unknown_by:
        return None, (f"the theoretical field is unknown: {field.unknown_by} has no rule",)
    if field is None or field.size is None or field.map_size is None:
        return None, ("no theoretical field: the layer sees the whole image",)
    notes: list[str] = [field.note] if field.note else []
    if field.unbounded:
        notes.append(f"the theoretical field is unbounded ({field.unbounded_by}); without it {_by(field.size)} px")
    elif field.size[0] > size[0] or field.size[1] > size[1]:
        notes.append(
            f"clipped: the theoretical field {_by(field.size)} px is larger than the image {_by(size)} px; {fitting}"
        )
    if field.unbounded:
        return None, tuple(notes)
    try:
        region = region_of(field, policy, size, unit)
    except UserError as error:  # a policy with colours has no region
        return None, (*notes, str(error))
    return (region.reference if of == "reference frame" else region.fused).area, tuple(notes)


def region_of(field: LayerField, policy: AnyPolicy | None, size: tuple[int, int], unit: tuple[int, int]) -> Reshaped:
    """The region that a policy, or none, makes of a unit's field in a network of either form. Raises as `reshaped`."""
    still = Policy.replicate(1) if field.form == "video" else None
    return reshaped(policy or still, field, size, unit=unit)


def _position(field: LayerField | None, unit: tuple[int, int]) -> tuple[float, float] | None:
    if field is None or not field.rows:
        return None
    top, left, bottom, right = field.box(*unit)
    return (top + bottom) / 2, (left + right) / 2


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


class _Normalise:
    """(images - mean) / std over the channel dimension, third from the end; the identity if neither is given."""

    def __init__(
        self, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int, device: Any, dtype: Any
    ) -> None:
        self.mean, self.std = (
            None if values is None else torch.tensor(values, device=device, dtype=dtype)[:, None, None]
            for values in (mean, std)
        )
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != channels:
                raise UserError(f"`{name}` has {len(values)} values, but the images have {channels} channels.")

    def __call__(self, images: Tensor) -> Tensor:
        if self.mean is not None:
            images = images - self.mean
        return images if self.std is None else images / self.std
