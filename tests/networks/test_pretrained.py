"""Weights from a file or an entry of torchvision, and the report of what of them the network took."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.networks import VideoNetwork, video_network


def tiny(weights: str | None = None, **options: object) -> VideoNetwork:
    return video_network("tiny-resnet", **{"frames": 2, "num_classes": 5, "weights": weights, **options})  # type: ignore[arg-type]


def plain_state() -> dict[str, Tensor]:
    torch.manual_seed(7)
    return tiny(temporal="none").network.state_dict()


def saved(tensors: dict[str, Tensor], path: Path, nested: str | None) -> str:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({nested: tensors, "epoch": 3} if nested else tensors, path)
    return str(path)


@pytest.mark.parametrize(
    ("file", "nested", "prefix"),
    [
        ("w.safetensors", None, ""),
        ("w.pth", None, ""),
        ("w.pt", "state_dict", "module."),
        ("w.pth", "model", "network."),
    ],
)
@pytest.mark.parametrize("temporal", ["none", "tsm", "gsm", "gsf"])
def test_a_file_of_2d_weights_fills_a_network_with_temporal_modules(
    tmp_path: Path, temporal: str, file: str, nested: str | None, prefix: str
) -> None:
    state = plain_state()
    weights = saved({prefix + key: value for key, value in state.items()}, tmp_path / file, nested)
    network = tiny(weights, temporal=temporal)
    report = network.weights_report
    assert report is not None
    assert set(report.matched) == set(state)
    assert (report.adapted, report.reshaped, report.unexpected) == ((), (), ())
    assert all(".temporal." in name for name in report.missing)
    assert bool(report.missing) == (temporal in ("gsm", "gsf"))
    for key, value in network.network.state_dict().items():
        if ".temporal." not in key:
            assert torch.equal(value, state[key.replace(".wrapped", "")])
    assert f"{len(state)} tensors matched" in report.summary()


def test_gsm_over_pretrained_weights_starts_as_the_pretrained_function(tmp_path: Path) -> None:
    weights = saved(plain_state(), tmp_path / "w.safetensors", None)
    plain, gated = tiny(weights, temporal="none").eval(), tiny(weights, temporal="gsm").eval()
    video = torch.rand(1, 2, 3, 20, 20)
    assert torch.equal(plain(video), gated(video))


def test_a_video_networks_own_weights_come_back_whole(tmp_path: Path) -> None:
    first = tiny(temporal="gsf", fusion="mean-logits").eval()
    weights = saved(first.state_dict(), tmp_path / "w.safetensors", None)
    second = tiny(weights, temporal="gsf", interleave=True).eval()
    assert second.weights_report is not None
    assert second.weights_report.missing == ()
    video = torch.rand(1, 2, 3, 20, 20)
    assert torch.equal(first(video), second(video))


def test_other_classes_and_other_channels_are_reported(tmp_path: Path) -> None:
    state = plain_state() | {"extra": torch.zeros(1)}
    network = tiny(saved(state, tmp_path / "w.pth", None), num_classes=9, in_channels=1, temporal="none").eval()
    report = network.weights_report
    assert report is not None
    assert report.adapted == ("conv1.weight",)
    assert report.reshaped == ("fc.weight", "fc.bias")
    assert report.unexpected == ("extra",)
    original = nn.Conv2d(3, 24, 3, 2, 1, bias=False)
    original.load_state_dict({"weight": state["conv1.weight"]})
    grey = torch.rand(2, 1, 12, 12)
    adapted = network.network.get_submodule("conv1")
    torch.testing.assert_close(adapted(grey), original(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_a_segmenter_takes_a_classifiers_weights_into_its_body(tmp_path: Path) -> None:
    network = video_network(
        "tiny-resnet-fcn",
        task="segmentation",
        frames=2,
        num_classes=5,
        weights=saved(plain_state(), tmp_path / "w.pth", None),
    )
    report = network.weights_report
    assert report is not None
    assert all(name.startswith("backbone.") for name in report.matched)
    assert set(report.missing) == {"classifier.weight", "classifier.bias"}
    assert set(report.unexpected) == {"backbone.fc.weight", "backbone.fc.bias"}


def test_an_entry_of_torchvision_is_looked_up_and_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torchvision.models.mobilenet_v3_small(weights=None)
    entries = torchvision.models.MobileNet_V3_Small_Weights
    monkeypatch.setattr(entries, "get_state_dict", lambda *_, **__: plain.state_dict())
    network = video_network("mobilenet_v3_small", frames=2, num_classes=1000, weights="DEFAULT")
    report = network.weights_report
    assert report is not None
    assert (report.missing, report.reshaped, report.unexpected) == ((), (), ())
    assert "IMAGENET1K_V1" in report.source


def test_no_connection_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models.MobileNet_V3_Small_Weights, "get_state_dict", offline)
    with pytest.raises(UserError, match=r"cannot be downloaded.*give its path"):
        video_network("mobilenet_v3_small", frames=2, num_classes=5, weights="IMAGENET1K_V1")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"not a checkpoint", "cannot be read"),
        ("w.safetensors", b"not a checkpoint", "cannot be read"),
        ("w.bin", b"", "suffix"),
    ],
)
def test_a_file_that_is_no_weights_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        tiny(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_name_the_tensors_and_both_shapes(tmp_path: Path) -> None:
    state = plain_state()
    state["blocks.1.conv1.weight"] = torch.zeros(48, 24, 5, 5)
    with pytest.raises(
        UserError, match=r"blocks\.1\.conv1\.weight \(48, 24, 5, 5\) instead of \(48, 24, 3, 3\)"
    ) as caught:
        tiny(saved(state, tmp_path / "w.pth", None))
    assert "\n" not in str(caught.value)
    gated = video_network("tiny-resnet", temporal="gsf", frames=2, num_classes=5).state_dict()
    with pytest.raises(UserError, match=r"gate\.norm\.weight \(4,\) instead of \(12,\).*another ratio"):
        tiny(saved(gated, tmp_path / "g.pth", None), temporal="gsf", ratio=0.5)


def test_a_stem_for_small_images_is_reported_and_not_refused(tmp_path: Path) -> None:
    plain = torchvision.models.mobilenet_v3_small(weights=None, num_classes=5)
    plain.features[0][0] = nn.Conv2d(3, 16, 5, 2, 2, bias=False)
    path = saved(plain.state_dict(), tmp_path / "w.safetensors", None)
    report = video_network(
        "mobilenet_v3_small", frames=2, num_classes=5, weights=path, small_images=True, temporal="none"
    ).weights_report
    assert report is not None
    assert report.reshaped == ("features.0.0.weight",)


def test_the_larger_kernels_of_a_wide_field_are_reported_and_not_refused(tmp_path: Path) -> None:
    state = plain_state()
    wide = tiny(saved(state, tmp_path / "w.pth", None), temporal="none", wide_field=True)
    assert wide.weights_report is not None
    assert wide.weights_report.reshaped == ("blocks.0.conv1.weight", "blocks.1.conv1.weight")
    assert torch.equal(wide.network.get_parameter("conv1.weight"), state["conv1.weight"])
    state["blocks.1.conv1.weight"] = torch.zeros(40, 24, 3, 3)
    with pytest.raises(UserError, match=r"1 tensor.*blocks\.1\.conv1\.weight \(40, 24, 3, 3\)"):
        tiny(saved(state, tmp_path / "v.pth", None), temporal="none", wide_field=True)


def test_a_head_with_other_inputs_is_refused(tmp_path: Path) -> None:
    state = plain_state() | {"fc.weight": torch.zeros(5, 40)}
    with pytest.raises(UserError, match=r"1 tensor.*fc\.weight \(5, 40\) instead of \(5, 48\)"):
        tiny(saved(state, tmp_path / "w.pth", None), temporal="none")


def test_a_layer_with_as_many_outputs_as_classes_is_no_head(tmp_path: Path) -> None:
    state = plain_state()
    state["blocks.0.conv2.weight"] = torch.zeros(20, 24, 1, 1)
    with pytest.raises(UserError, match=r"1 tensor.*blocks\.0\.conv2\.weight \(20, 24, 1, 1\)"):
        tiny(saved(state, tmp_path / "w.pth", None), num_classes=24, temporal="none")


@pytest.mark.parametrize(
    ("name", "auxiliary", "heads"),
    [
        ("fcn_resnet18", True, ("classifier.4", "aux_classifier.4")),
        ("lraspp_mobilenet_v3_large", False, ("classifier.low_classifier", "classifier.high_classifier")),
    ],
)
def test_every_head_of_a_segmenter_may_have_other_classes(
    tmp_path: Path, name: str, auxiliary: bool, heads: tuple[str, str]
) -> None:
    options = {"task": "segmentation", "frames": 2, "auxiliary": auxiliary, "temporal": "none"}
    state = video_network(name, num_classes=6, **options).network.state_dict()  # type: ignore[arg-type]
    path = saved(state, tmp_path / "w.pth", None)
    report = video_network(name, num_classes=9, weights=path, **options).weights_report  # type: ignore[arg-type]
    assert report is not None
    assert report.reshaped == tuple(f"{head}.{kind}" for head in heads for kind in ("weight", "bias"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"made for another network: it contains a, the network conv1\.weight"):
        tiny(saved({"a": torch.zeros(2)}, tmp_path / "w.pth", None))
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="contains no tensors"):
        tiny(str(tmp_path / "empty.pth"))
