"""A network's theory without data: its figure, the layer that fits into the image, and the layers that are listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from torch import nn

from fieldshift.cli import main
from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.networks import video_network
from fieldshift.receptive_field import probe, theory
from fieldshift.receptive_field.fitting import fits, fitting_note, last_fitting
from fieldshift.receptive_field.theory_figure import MOST_BOXES, boxes_of, main_path, theory_figure
from pipelines import fields as command

NETWORK = "network.blocks.0"


def drawn_box(figure: Any, label: str) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of the box with that label, in pixels, included."""
    (found,) = [box for box in figure.subfigs[0].axes[1].patches if str(box.get_label()).startswith(f"{label}: ")]
    left, top = found.get_xy()
    return tuple(  # type: ignore[return-value]
        round(edge) for edge in (top + 0.5, left + 0.5, top + found.get_height() - 0.5, left + found.get_width() - 0.5)
    )


def test_the_boxes_are_what_units_depend_on() -> None:
    network = video_network("tiny-resnet", temporal="none", frames=1, num_classes=4)
    known = theory(network, 40)
    (shown,) = [field for field in known if field.name == "network.blocks.1"]
    figure = theory_figure(known, shown, (40, 40), name="tiny-resnet")
    assert len(boxes_of(known, shown)) <= MOST_BOXES
    for field in boxes_of(known, shown):
        assert drawn_box(figure, field.name) == probe(network, torch.zeros(1, 1, 3, 40, 40), field.name).box
    left = figure.subfigs[0].axes[0]
    drawn = [field for field in known if field.size is not None and field.map_size is not None]
    assert list(left.lines[0].get_ydata()) == [drawn[number].size[0] for number in main_path(drawn)[0]]


def test_shortcuts_are_points_beside_the_curve_of_the_main_path() -> None:
    known = [field for field in theory(_resnet(), 224) if field.size is not None and field.map_size is not None]
    main, beside = main_path(known)
    assert [known[number].name for number in beside] == [field.name for field in known if "downsample" in field.name]
    (shown,) = [field for field in known if field.name == "network.layer3"]
    curve, points = theory_figure(known, shown, (224, 224), name="resnet18").subfigs[0].axes[0].lines[:2]
    drawn = dict(zip([*curve.get_xdata(), *points.get_xdata()], [*curve.get_ydata(), *points.get_ydata()], strict=True))
    assert [drawn[number + 1] for number in range(len(known))] == [field.size[0] for field in known if field.size]
    assert list(curve.get_ydata()) == sorted(curve.get_ydata())
    assert (len(curve.get_xdata()), len(points.get_xdata())) == (len(main), len(beside))


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (448, "layer4"),
        (434, "layer4.0"),
        (224, "layer3"),
        (128, "layer2"),
        (99, "layer2"),
        (98, "layer2.0"),
        (43, "layer1"),
    ],
)
def test_the_last_block_that_fits(size: int, name: str) -> None:
    """Of resnet18: 43 px at the end of layer1, 99 of layer2, 211 of layer3 and 435 of layer4."""
    known = theory(_resnet(), 448)
    found = last_fitting(known, (size, size))
    assert found is not None
    assert found.size is not None
    assert found.name == f"network.{name}"
    assert fits(found, found.size)
    assert not fits(found, (found.size[0], found.size[1] - 1))


def test_a_layer_where_no_block_fits() -> None:
    found = last_fitting(theory(_resnet(), 448), (26, 26))
    assert found is not None
    assert found.name == "network.layer1.0.bn1"


def test_where_nothing_fits() -> None:
    known = theory(nn.Sequential(nn.Conv2d(3, 4, 9, padding=4), nn.Conv2d(4, 4, 3)), 8)
    assert last_fitting(known, (8, 8)) is None
    assert fitting_note(known, (8, 8)) == "no layer's field fits into it"
    pooled = theory(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), 8)
    with pytest.raises(UserError, match="has no map of units with a known field"):
        theory_figure(pooled, pooled[-1], (8, 8), name="pooled")


def lines_of(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("network")}


def test_layers_without_parameters_are_left_out_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["receptive-field", "--network", "resnet18", "--size", "128"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    few = [line.split()[0] for line in printed.splitlines() if line.startswith("network.")]
    assert main([*words, "--all"]) == 0
    every = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("network.")]
    built = video_network("resnet18", temporal="none", frames=1, num_classes=10)
    left_out = [name for name in every if name not in few]
    assert left_out
    assert not any(list(built.get_submodule(name).parameters()) for name in left_out)
    assert {"network.maxpool", "network.avgpool"} <= set(few)  # without parameters, but they change the field
    assert (
        f"left out: {len(left_out)} layers without parameters that leave the field as it is; --all lists them"
        in printed
    )
    assert main([*words, "--layers", "network.relu"]) == 0
    assert "network.relu" in lines_of(capsys)
    assert main(["compare-fields", "--runs", "nowhere", "--all"]) == 2
    assert "Unknown option --all" in capsys.readouterr().err


def test_theory_alone_writes_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "theory"
    found = command.receptive_field(network="resnet18", size=128, out=str(out))
    assert {name: path.parent for name, path in found.figures.items()} == {"theory.png": out, "theory.svg": out}
    assert imread(found.figures["theory.png"]).std() > 0.01
    result = json.loads((out / "result.json").read_text())
    assert result["drawn"] == last_fitting(theory(_resnet(), 128), (128, 128)).name  # type: ignore[union-attr]
    assert "435 x 435 px, is larger than the image, 128 x 128 px" in result["notes"][0]
    with pytest.raises(UserError, match="has no map of units with a known field"):
        command.receptive_field(network="resnet18", size=128, layers=["network.fc"], out=str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def _resnet() -> nn.Module:
    return video_network("resnet18", temporal="none", frames=1, num_classes=10)


def test_the_region_is_that_of_the_drawn_layer(tmp_path: Path) -> None:
    Policy.single("translate_x", 0.4, frames=3).save(tmp_path / "policy.json")
    for layers, name in ((None, "network.layer2"), (["network.layer1.0"], "network.layer1.0")):
        out = tmp_path / name
        found = command.receptive_field(
            network="resnet18", size=128, policy=str(tmp_path / "policy.json"), layers=layers, out=str(out)
        )
        result = json.loads((out / "result.json").read_text())
        assert result["reshaped"]["layer"] == result["drawn"] == name
        assert {"reshaped.png", "theory.png", "regions.npz"} <= {path.name for path in out.iterdir()}
        assert result["reshaped"]["reference_frame"] == 1
        assert found.figures["png"] == out / "reshaped.png"
