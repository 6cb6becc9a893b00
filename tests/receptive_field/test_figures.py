"""Figures carry their conditions, share a scale and are written as they should."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.networks import video_network
from fieldshift.receptive_field import EffectiveField, effective, measures, reshaped
from fieldshift.receptive_field.figure_frame import save_figure
from fieldshift.receptive_field.figures import (
    brightest,
    comparison_figure,
    effective_figure,
    map_picture,
    reshaped_figure,
)
from fieldshift.receptive_field.sweep_figure import sweep_figure


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


def footer(figure: Any) -> str:
    (found,) = figure.findobj(lambda artist: artist.get_gid() == "footer")
    return " ".join(found.get_text().split())


def text_boxes(figure: Any) -> list[tuple[str, Any]]:
    """Draws the figure and returns titles, axis labels, key and footer with their boxes in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for axes in figure.findobj(lambda artist: hasattr(artist, "get_title")) for text in _words(axes)]
    texts += figure.findobj(lambda artist: artist.get_gid() == "footer")
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts if text.get_text()]


def _words(owner: Any) -> list[Text]:
    if hasattr(owner, "get_texts"):
        return list(owner.get_texts())
    return [owner.title, owner.xaxis.label, owner.yaxis.label] if hasattr(owner, "xaxis") and owner.axison else []


def lines_by_letter(figure: Any) -> dict[str, tuple[str, str]]:
    (key,) = figure.subfigs[2].legends
    return {line.get_label()[0]: (line.get_color(), line.get_linestyle()) for line in key.get_lines()}


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
    assert "difference: B minus A\nred: B has the larger share" in titles
    assert [panel.get_title()[:4] for panel in figure.subfigs[0].axes[:2]] == ["A: 2", "B: v"]
    assert all("px\N{SUPERSCRIPT TWO}\n" in panel.get_title() for panel in figure.subfigs[0].axes[:2])
    assert "A: 2D: tiny-resnet" in footer(figure)
    assert "B: video: tiny-resnet" in footer(figure)


@pytest.mark.parametrize(
    ("count", "narrow"), [(2, False), (3, False), (4, False), (5, False), (8, False), (2, True), (5, True)]
)
@pytest.mark.parametrize("name", ["a-run-whose-name-says-all-of-its-settings-equal-epochs-T3-seed", "das"])
def test_names_stay_on_the_page_and_apart(
    fields: dict[str, EffectiveField], example: Tensor, count: int, name: str, narrow: bool
) -> None:
    both = list(fields.values())
    named = {f"{name}{i}": both[i % 2] for i in range(count)}
    figure = comparison_figure(named, example=example, narrow=narrow)
    found = text_boxes(figure)
    width, height = figure.canvas.get_width_height()
    for text, box in found:
        assert min(box.x0, box.y0) >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (one, box), (other, other_box) in combinations(found, 2):
        assert not box.overlaps(other_box), (one, other)


@pytest.mark.parametrize(("count", "columns"), [(2, 2), (4, 4), (5, 3), (6, 3), (7, 4), (8, 4), (9, 3), (13, 5)])
def test_no_map_stands_alone_in_its_row(fields: dict[str, EffectiveField], count: int, columns: int) -> None:
    both = list(fields.values())
    figure = comparison_figure({str(i): both[i % 2] for i in range(count)})
    grid: Any = figure.subfigs[0].axes[0].get_subplotspec()
    assert grid.get_gridspec().ncols == columns


def test_more_than_three_maps_have_one_contour_each_and_the_key_stands_outside(
    fields: dict[str, EffectiveField], example: Tensor
) -> None:
    both = list(fields.values())
    for count, levels in ((3, 2), (4, 1)):
        figure = comparison_figure({str(i): both[i % 2] for i in range(count)}, example=example)
        panel = figure.subfigs[1].axes[1]
        assert len(panel.collections) == levels * count
        assert ("99 %" in panel.get_title()) == (levels == 2)
        assert not any(axes.get_legend() for axes in figure.subfigs[1].axes)


def test_a_map_has_one_colour_and_dash_by_its_place(fields: dict[str, EffectiveField]) -> None:
    both = list(fields.values())
    few, many = (comparison_figure({str(i): both[i % 2] for i in range(count)}) for count in (2, 9))
    key = lines_by_letter(many)
    assert len(set(key.values())) == 9
    assert lines_by_letter(few) == {letter: key[letter] for letter in "AB"}
    profiles, contours = many.subfigs[1].axes[:2]
    assert [(line.get_color(), line.get_linestyle()) for line in profiles.lines] == list(key.values())
    assert [to_hex(drawn.get_edgecolor()[0]).upper() for drawn in contours.collections] == [c for c, _ in key.values()]


def test_profiles_are_measured_from_the_unit_with_bands(fields: dict[str, EffectiveField]) -> None:
    def profile(figure: Any) -> tuple[str, str]:
        panel = next(axes for axes in figure.findobj(lambda a: hasattr(a, "get_xlabel")) if "distance" in a_label(axes))
        assert len(panel.collections) == len(panel.lines) * ("band" in panel.get_title())
        return " ".join(panel.get_title().split()), a_label(panel)

    def a_label(axes: Any) -> str:
        return str(axes.get_xlabel())

    about = "radial profile about the unit, x 12, y 12 px band: upper bound of the standard error"
    assert profile(comparison_figure(fields)) == (about, "distance from the unit (px)")
    assert profile(effective_figure(fields["2D"])) == (about, "distance from the unit (px)")
    assert profile(effective_figure(fields["video"]))[0] == about
    assert profile(comparison_figure({"one": fields["video"], "two": fields["video"]}))[0] == about
    unknown = replace(fields["video"], position=None, standard_error=None)
    lost = profile(effective_figure(unknown))
    assert lost[0].startswith("radial profile about the centre of mass")
    assert lost[1] == "distance from the centre of mass (px)"


def test_boxes_that_the_border_cuts_are_said(fields: dict[str, EffectiveField]) -> None:
    words = "fields of moved frames are cut off at the image's border"
    assert footer(comparison_figure(fields)).count(words) == 1
    inside = torch.zeros(24, 24, dtype=torch.float64)
    inside[5:20, 5:20] = 1.0
    assert words not in footer(effective_figure(replace(fields["video"], values=inside)))
    assert words not in footer(effective_figure(fields["2D"]))


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
    assert all("px\N{SUPERSCRIPT TWO}" in panel.get_title() for panel in figure.axes if panel.get_title())
    assert found.policy in footer(figure)
    assert save_figure(figure, tmp_path / "regions", ["png"])[0].stat().st_size > 5000


def test_a_narrow_figure_has_the_same_panels_below_each_other(
    fields: dict[str, EffectiveField], example: Tensor
) -> None:
    for draw, row in (
        (lambda narrow: comparison_figure(fields, example=example, narrow=narrow), 1),
        (lambda narrow: effective_figure(fields["video"], example=example, narrow=narrow), 0),
        (lambda narrow: sweep_figure({3: fields["video"], 1: fields["2D"]}, narrow=narrow), 0),
    ):
        shapes = []
        for narrow, most in ((False, 7.6), (True, 3.75)):
            figure = draw(narrow)
            panels: list[Any] = [axes for axes in figure.subfigs[row].axes if axes.get_label() != "<colorbar>"]
            assert figure.get_figwidth() == most
            assert all(text.get_fontsize() >= 7 for text in figure.findobj(Text) if text.get_text())
            (foot,) = figure.findobj(lambda artist: artist.get_gid() == "footer")
            assert foot.get_fontsize() == 8
            shapes.append([panel.get_subplotspec().get_gridspec().get_geometry() for panel in panels])
        assert shapes == [[(1, 3)] * 3, [(3, 1)] * 3]


def test_before_and_after_training_are_compared_only_when_asked(fields: dict[str, EffectiveField]) -> None:
    after = replace(fields["2D"], conditions=replace(fields["2D"].conditions, trained=True))
    with pytest.raises(UserError, match="cannot be compared: the training is"):
        comparison_figure({"before": fields["2D"], "after": after})
    assert "not trained" in footer(comparison_figure({"before": fields["2D"], "after": after}, compared={"trained"}))


def test_the_field_against_frames(fields: dict[str, EffectiveField]) -> None:
    figure = sweep_figure({3: fields["video"], 1: fields["2D"]})
    left, right, through = figure.subfigs[0].axes
    assert {line.get_label()[2:]: list(line.get_xdata()) for line in left.lines} == {"along": [1, 3], "across": [1, 3]}
    along = left.lines[0].get_ydata()
    assert list(along) == [measures(fields[name]).moments.along for name in ("2D", "video")]
    assert list(right.lines[0].get_ydata()) == [fields[name].theoretical_area for name in ("2D", "video")]
    (share,) = through.lines
    assert list(share.get_ydata()) == [0.0, 100 * (fields["video"].other_frames or 0.0)]
    assert share.get_ydata()[1] > 0
    with pytest.raises(UserError, match="at least 2 numbers of frames"):
        sweep_figure({3: fields["video"]})


def test_a_map_as_a_picture_on_a_common_scale(fields: dict[str, EffectiveField]) -> None:
    highest = brightest(list(fields.values()))
    pictures = {name: map_picture(field, highest) for name, field in fields.items()}
    for name, picture in pictures.items():
        assert (picture.shape, picture.dtype.name) == ((312, 312, 3), "uint8")
        row, column = divmod(int(fields[name].values.argmax()), 24)
        assert picture[13 * row, 13 * column].sum() == picture.reshape(-1, 3).sum(axis=1).max()
        assert (picture[:13, :13] == picture[0, 0]).all()
    assert max(int(picture.max()) for picture in pictures.values()) == int(map_picture(fields["2D"]).max())


def test_unknown_format(fields: dict[str, EffectiveField], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown figure format 'bmp'"):
        save_figure(effective_figure(fields["2D"]), tmp_path / "map", ["bmp"])
