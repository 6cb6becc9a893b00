"""Animated previews: every page shows the policy's frames, enlarged by a whole factor, in a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from fieldshift.cli import main
from fieldshift.motions import Policy
from fieldshift.motions.animation import GAP, write_animation
from fieldshift.report.figures import frame_captions


def pages(path: Path) -> list[np.ndarray]:
    with Image.open(path) as file:
        assert file.info["loop"] == 0
        return [np.asarray(page.convert("RGB")) for page in ImageSequence.Iterator(file)]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_page_shows_one_frame_of_every_image(tmp_path: Path, channels: int) -> None:
    images = torch.zeros(2, channels, 8, 8)
    images[0, :, :, 4:] = 1.0  # colours that a palette of 256 holds exactly
    images[1, :, 4:] = 1.0
    policy = Policy.single("translate_x", 0.5, frames=5)
    found = pages(write_animation([policy], images, tmp_path / "x.gif", "abcde"))
    assert len(found) == 5
    video = (policy.video(images) * 255).round().byte().numpy()
    side, factor = 160, 20
    for frame, page in enumerate(found):
        for row in range(2):
            left = GAP + row * (side + GAP)
            shown = page[GAP + factor // 2 : GAP + side : factor, left + factor // 2 : left + side : factor]
            expected = np.broadcast_to(video[row, frame].transpose(1, 2, 0), (8, 8, 3))
            assert np.array_equal(shown, expected)


def test_a_long_caption_is_whole_below_one_image(tmp_path: Path) -> None:
    images, policy = torch.rand(1, 1, 8, 8), Policy.single("translate_x", 0.45, frames=3)
    found = pages(write_animation([policy], images, tmp_path / "x.gif", ["a caption " * 9] * 3))
    below = found[0][GAP + 160 :]
    assert (below[:, :-GAP] < 128).any(axis=(0, 2)).nonzero()[0].max() > 160 + 2 * GAP
    assert (below[:, -GAP:] > 128).all()  # the paper's edge: no letter is cut


def test_neighbours_are_the_three_frames_about_the_reference(tmp_path: Path) -> None:
    images = torch.rand(1, 1, 8, 8)
    policy = Policy.single("translate_y", 0.5, frames=7)
    assert len(pages(write_animation([policy], images, tmp_path / "x.gif", "abc", neighbours=True))) == 3


@pytest.mark.parametrize("form", ["video", "folded"])
def test_a_preview_is_animated_by_its_files_ending(tmp_path: Path, form: str) -> None:
    policy, out = Policy.single("rotate", 30, frames=5).save(tmp_path / "policy.json"), tmp_path / "new" / "x.gif"
    assert main(["preview", "--policy", str(policy), "--form", form, "--examples", "2", "--out", str(out)]) == 0
    assert len(pages(out)) == {"video": 5, "folded": 3}[form]
    assert [path.name for path in out.parent.iterdir()] == ["x.gif"]


@pytest.mark.parametrize(
    ("policies", "neighbours", "captions"),
    [
        ([Policy.single("rotate", 30, frames=3)], False,
         ["frame 0, -1.0: rotate -30°", "frame 1, 0: the image itself", "frame 2, +1.0: rotate +30°"]),
        ([Policy.single("translate_x", 0.4, frames=5)], True,
         ["frame 0, -0.5: translate_x -0.2 of the width", "frame 1, 0: the image itself",
          "frame 2, +0.5: translate_x +0.2 of the width"]),
        ([Policy.single("rotate", 30, frames=3)] * 2, False, ["frame 0, -1.0", "frame 1, 0", "frame 2, +1.0"]),
    ],
)  # fmt: skip
def test_the_captions_name_frame_distance_and_motion(
    policies: list[Policy], neighbours: bool, captions: list[str]
) -> None:
    assert frame_captions(policies, neighbours=neighbours) == captions
