"""A policy as a torchvision transform: images become videos, and masks move with them.

Shape letters: T frames, C channels, H, W; "..." any leading dimensions.
"""

from __future__ import annotations

from typing import Any

import PIL.Image
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from fieldshift.errors import UserError
from fieldshift.motions.placed import PlacedPolicy, WithPolicy, policy_of
from fieldshift.motions.policy import Policy

MODES = ("L", "RGB", "RGBA", "LA", "P", "1")
WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64}


class ImageToVideo(v2.Transform):
    """Converts every image (..., C, H, W) of a sample to a video (..., T, C, H, W), every mask (..., H, W) to (..., T, H, W).

    Accepts the inputs of torchvision.transforms.v2: PIL images, tensors, `tv_tensors.Image` (converted to
    `tv_tensors.Video`) and `tv_tensors.Mask`, alone or in tuples, lists and dicts; a plain tensor counts as an image only if
    the sample has no other image. Dtypes stay: uint8 is moved in [0, 1] and rounded back, floats are assumed in [0, 1].
    Palette images are converted to their colours. Masks, of any integer dtype, are moved by the same matrices, nearest
    pixel, with `outside` (255) beyond the image; this needs a pure policy.
    Boxes, key points and videos raise UserError. The transform draws no random numbers. `policy` is a policy, or what
    `find_policy` returns; one with several motions raises UserError.
    """

    def __init__(self, policy: Policy | WithPolicy, outside: int = 255) -> None:
        super().__init__()
        found = policy_of(policy)
        if isinstance(found, PlacedPolicy):
            raise UserError(
                "The policy has separate motions for several places, which no single video can show; use it with fold."
            )
        self.policy = found
        self.outside = outside

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ARG002 - the signature is torchvision's
        """Moves one image or mask of the sample."""
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.Mask(self._mask(inpt.as_subclass(Tensor)))
        if isinstance(inpt, PIL.Image.Image):
            return tv_tensors.Video(self._image(functional.pil_to_tensor(with_colours(inpt))))
        if isinstance(inpt, tv_tensors.Image):
            return tv_tensors.Video(self._image(inpt.as_subclass(Tensor)))
        if isinstance(inpt, tv_tensors.TVTensor):
            raise UserError(
                f"ImageToVideo moves images and masks, but the sample contains {type(inpt).__name__}; remove it."
            )
        return self._image(inpt)

    def extra_repr(self) -> str:
        """Describes the policy's edges."""
        return f"frames={self.policy.frames}, {'; '.join(self.policy.describe()) or 'the image in every frame'}"

    def _image(self, image: Tensor) -> Tensor:
        if image.dim() < 3:
            raise UserError(
                f"An image has the shape {tuple(image.shape)}, but must be (..., C, H, W); add the channels."
            )
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise UserError(f"An image is {image.dtype}, but must be uint8 or floats in [0, 1]; convert it first.")
        video = self.policy.video(image.reshape(-1, *image.shape[-3:]))
        if image.dtype == torch.uint8:
            video = (video * 255).round().clamp(0, 255).to(torch.uint8)
        return video.reshape(*image.shape[:-3], *video.shape[1:])

    def _mask(self, mask: Tensor) -> Tensor:
        masks = mask.reshape(-1, *mask.shape[-2:])
        if mask.dtype == torch.bool:
            raise UserError(
                "A mask is torch.bool, which cannot represent 'outside'; give whole-number labels, such as uint8."
            )
        if mask.is_floating_point() or mask.is_complex():
            raise UserError(
                f"A mask is {mask.dtype}, but labels must be integers; convert it, for example with .long()."
            )
        if self.outside < 0 or self.outside > torch.iinfo(mask.dtype).max:
            raise UserError(
                f"The label outside is {self.outside}, but {mask.dtype} masks contain 0 to {torch.iinfo(mask.dtype).max}; "
                "choose another."
            )
        # torch has few operations on the wider unsigned types: they are moved as signed ones, which have the same labels.
        wider = WIDER.get(mask.dtype, mask.dtype)
        moved = self.policy.video_masks(masks.to(wider), self.outside).to(mask.dtype)
        return moved.reshape(*mask.shape[:-2], *moved.shape[1:])


def with_colours(image: PIL.Image.Image) -> PIL.Image.Image:
    """The picture with one number per channel: a palette's colours instead of its indices, one bit as 0 and 255.

    Raises UserError for pixels of another mode, whose range is unknown.
    """
    if image.mode == "P":
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode not in MODES:
        raise UserError(
            f"An image has the mode {image.mode}, but must be one of {', '.join(MODES)}; convert it to 8 bits per channel."
        )
    return image
