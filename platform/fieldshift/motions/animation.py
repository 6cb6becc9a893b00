"""Animated pictures of policies: the frames of each image one after another, in a loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fieldshift.motions.policy import Policy
from fieldshift.whole_file import whole_file

LOOP = 2000  # milliseconds for all frames
SHORTEST = 60  # milliseconds of a frame; viewers slow down shorter ones
SIDE, GAP, CAPTION = 160, 6, 20  # pixels: least side of an image, space between images, height of the line below
LETTERS = 13  # pixels: height of the caption's letters
PAPER, INK = 255, 40  # grey levels


def write_animation(
    policies: Sequence[Policy], images: Tensor, path: Path, captions: Sequence[str], *, neighbours: bool = False
) -> Path:
    """Writes an animated GIF that shows the images side by side, frame after frame, and returns its path.

    images: (N, C, H, W), uint8 or floats in [0, 1], C = 1 (grey) or 3. One policy moves all images; several, with equal
    numbers of frames, move one image each. With `neighbours` only the reference frame and its two neighbours are shown.
    captions: one line below each shown frame, such as those of `fieldshift.report.figures.frame_captions`.
    Small images are enlarged by a whole factor. A loop takes two seconds, or 60 ms per frame for many frames.
    """
    policies = [each.centred if neighbours else each for each in policies]
    videos = [each.video(images if len(policies) == 1 else images[[row]]) for row, each in enumerate(policies)]
    middle = policies[0].frames // 2
    shown = range(middle - 1, middle + 2) if neighbours else range(policies[0].frames)
    pixels = np.concatenate([(video.detach().cpu().clamp(0, 1) * 255).round().byte().numpy() for video in videos])
    least = max(math.ceil(ImageFont.load_default(LETTERS).getlength(caption)) for caption in captions) + 2 * GAP
    pages = [page(pixels[:, frame], caption, least) for frame, caption in zip(shown, captions, strict=True)]
    with whole_file(path) as temporary:
        pages[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pages[1:],
            duration=max(SHORTEST, LOOP // len(pages)),
            loop=0,
            disposal=1,
        )
    return path


def page(images: np.ndarray, caption: str, least: int) -> Image.Image:
    """One frame of all images, (N, C, H, W) uint8, in a row with a caption, at least `least` pixels wide."""
    count, channels, height, width = images.shape
    assert channels in (1, 3), f"images of 1 or 3 channels can be shown, not {channels}"
    factor = max(1, -(-SIDE // max(height, width)))
    tall, wide = height * factor, width * factor
    sheet = Image.new("RGB", (max(least, count * (wide + GAP) + GAP), tall + GAP + CAPTION), (PAPER,) * 3)
    for place, image in enumerate(images):
        picture = Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)).convert("RGB")
        enlarged = picture.resize((wide, tall), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (GAP + place * (wide + GAP), GAP))
    ImageDraw.Draw(sheet).text((GAP, tall + GAP + 3), caption, (INK,) * 3, ImageFont.load_default(LETTERS))
    return sheet
