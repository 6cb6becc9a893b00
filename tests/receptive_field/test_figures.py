"""Figures carry their conditions, share a scale and are written as they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.networks import video_network
from fieldshift.receptive_field import EffectiveField, effective, reshaped
from fieldshift.receptive_field.figures import comparison_figure, effective_figure, reshaped_figure, save_figure


@pytest.fixture(scope="module")
def fields() -> dict[str, EffectiveField]:
    torch.manual_seed(0)
    batch = torch.rand(2, 1, 24, 24)
    options = {"trained": False, "images_kind": "uniform noise"}
    plain = video_network("tiny-resnet", temporal="none", frames=1, num_classes=4, in_channels=1)
    video = video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=4, in_channels=1)
    policy = Policy.single("translate_x", 0.3, frames=3)
    return {"2D": effective(plain, batch, **options), "video": effective(video, batch, policy=policy, **options)}  # type: ignore[arg-type]


@pytest.fixture
def example() -> Tensor:
    return (torch.rand(1, 24, 24) * 255).to(torch.uint8)


def footer(figure: object) -> str:
    text: str = figure.get_supxlabel()  # type: ignore[attr-defined]
    return text


def test_one_field(fields: dict[str, EffectiveField], example: Tensor, tmp_path: Path) -> None:
    region = reshaped(
        Policy.single("translate_x", 0.3, frames=3),
        video_network("tiny-resnet", frames=3, num_classes=4, in_channels=1),
        24,
    )
    figure = effective_figure(fields["video"], example=example, region=region.fused)
    for words in (
        "tiny-resnet, T = 3, tsm",
        "not trained",
        "24 x 24 px",
        "2 images (uniform noise)",
        "translate_x by 0.3",
    ):
        assert words in footer(figure)
    paths = save_figure(figure, tmp_path / "made" / "map.v1", ("png", "svg", "pdf"))
    assert [path.name for path in paths] == ["map.v1.png", "map.v1.svg", "map.v1.pdf"]
    starts = [path.read_bytes()[:5] for path in paths]
    assert starts[0].startswith(b"\x89PNG")
    assert starts[1] == b"<?xml"
    assert starts[2] == b"%PDF-"


def test_a_comparison_has_one_scale(fields: dict[str, EffectiveField]) -> None:
    figure = comparison_figure(fields)
    figure.draw_without_rendering()
    norms = {id(image.norm) for panel in figure.subfigs[0].axes for image in panel.images}
    assert len(norms) == 1
    titles = [panel.get_title() for panel in figure.subfigs[1].axes]
    assert "difference: video - 2D" in titles
    assert "2D: tiny-resnet" in footer(figure)
    assert "video: tiny-resnet" in footer(figure)


def test_a_comparison_refuses(fields: dict[str, EffectiveField], example: Tensor) -> None:
    with pytest.raises(UserError, match="at least 2"):
        comparison_figure({"2D": fields["2D"]})
    other = effective(
        video_network("tiny-resnet", temporal="none", frames=1, num_classes=4, in_channels=1),
        torch.rand(3, 1, 24, 24),
        trained=False,
        images_kind="uniform noise",
    )
    with pytest.raises(UserError, match="number of images"):
        comparison_figure({"2D": fields["2D"], "other": other})
    with pytest.raises(UserError, match=r"example image has shape \(1, 20, 20\)"):
        comparison_figure(fields, example=example[:, :20, :20])


@pytest.mark.parametrize(("frames", "clip"), [(3, True), (11, False)])
def test_regions(frames: int, clip: bool, tmp_path: Path) -> None:
    network = video_network("tiny-resnet", frames=frames, num_classes=4)
    found = reshaped(Policy.single("rotate", 40.0, frames=frames), network, 24, clip=clip)
    figure = reshaped_figure(found, example=torch.rand(3, 24, 24) if clip else None)
    shown = [panel.get_title().split(":")[0] for panel in figure.axes if panel.get_title()]
    assert shown[0] == "frame 0"
    assert shown[-1] == "fused"
    assert len(shown) == min(frames, 7) + 1
    assert found.policy in footer(figure)
    assert save_figure(figure, tmp_path / "regions", ["png"])[0].stat().st_size > 5000


def test_unknown_format(fields: dict[str, EffectiveField], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown figure format 'bmp'"):
        save_figure(effective_figure(fields["2D"]), tmp_path / "map", ["bmp"])
