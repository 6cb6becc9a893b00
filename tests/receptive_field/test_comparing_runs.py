"""`compare-fields`: whose fields are compared, under which motions, and what is refused before any work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fieldshift.cli import main
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.cards import arm_card
from fieldshift.motions import Policy
from fieldshift.networks import NetworkConfig, VideoNetwork
from fieldshift.run_folder import SCHEMA, VERSION, read_result
from fieldshift.tracking import TrackingConfig
from fieldshift.tracking.store import client_for, open_store
from fieldshift.training import NetworkCard, save_network
from pipelines.field_maps import FieldSettings, measured
from pipelines.field_subjects import Subject, lengths_of, motions_named, seed_of, subjects_of, trained_folder

POLICY = Policy.single("translate_x", 0.4, frames=3, fill="mean")
UNTRACKED = TrackingConfig(enabled=False)
SMALL = ["--loading.train_limit", "40", "--loading.test_limit", "20", "--images", "3"]


@pytest.fixture(scope="module")
def cards() -> dict[str, NetworkCard]:
    loading = LoadingConfig(train_limit=40, test_limit=20)
    experiment = Experiment(
        data="digit-pairs-left",
        task=None,
        network="tiny-resnet",
        temporal="tsm",
        frames=3,
        architecture=NetworkConfig(),
        loading=loading,
    )
    dataset = experiment.load()
    return {arm: arm_card(experiment, dataset, arm, POLICY, None) for arm in ("none", "das")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cards: dict[str, NetworkCard]) -> dict[str, Path]:
    """Networks on disk as training leaves them, with weights that nobody trained."""
    folders = {}
    for arm, card in cards.items():
        folders[arm] = tmp_path_factory.mktemp("runs") / f"{arm}-T3-seed7"
        torch.manual_seed(7)
        save_network(folders[arm], card.build(), card)
    return folders


def subjects(*names: Any, **options: Any) -> Any:
    chosen = {"motions": None, "before": False, **options}
    return subjects_of([str(name) for name in names], UNTRACKED, **chosen)


def test_a_run_is_named_by_its_folder_or_its_mlflow_id(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "runs" / "study"
    store = open_store(TrackingConfig(), here)
    tracking = TrackingConfig(uri=f"sqlite:///{here / 'mlflow.db'}")
    (here / "trials" / "a-trial").mkdir(parents=True)
    whole = store.run("fieldshift", "one", key=str(runs["das"]))
    trial = store.run("fieldshift", "two", key=f"{here}:a-trial", parent_id=whole.id)
    gone = store.run("fieldshift", "three", key=str(tmp_path / "gone"))
    monkeypatch.chdir(tmp_path)
    for given in (TrackingConfig(), tracking):  # the stores below runs/, or the one that is named
        assert trained_folder(whole.id, given) == runs["das"]
        assert trained_folder(trial.id, given) == here / "trials" / "a-trial"
        with pytest.raises(UserError, match=r"lies in .*gone, which is not here"):
            trained_folder(gone.id, given)
    assert trained_folder(str(runs["das"]), tracking) == runs["das"]
    with pytest.raises(UserError, match="There is no MLflow run 0{32} in sqlite:"):
        trained_folder("0" * 32, tracking)


def test_motions_in_words(runs: dict[str, Path], tmp_path: Path) -> None:
    (subject,) = subjects(runs["das"])
    settings = {"frames": 3, "fill": "mean"}
    assert motions_named("own", subject) is None
    assert motions_named("plain", subject) == Policy.replicate(**settings)  # type: ignore[arg-type]
    assert motions_named("rotate=-30", subject) == Policy.single("rotate", -30.0, **settings)  # type: ignore[arg-type]
    long = motions_named(",".join(["rotate=30.0000000000"] * 20), subject)  # longer than a file's name can be
    assert long == Policy.chain([("rotate", 30.0)] * 20, **settings)  # type: ignore[arg-type]
    both = motions_named("translate_x=0.3, zoom=1.2", subject)
    assert both == Policy.chain([("translate_x", 0.3), ("zoom", 1.2)], **settings)  # type: ignore[arg-type]
    Policy.single("zoom", 2.0, frames=5).save(tmp_path / "policy.json")
    read = motions_named(str(tmp_path), subject)
    assert read is not None
    assert read.frames == 3
    assert read.describe() == ["edge 0->1: zoom by a factor of 2 at the outer frames"]


def test_policy_files_are_told_apart(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    zooms = {"a/policy.json": 2.0, "b/policy.json": 3.0, "lr=0.1/other.json": 4.0}
    for file, zoom in zooms.items():
        Path(file).parent.mkdir()
        Policy.single("zoom", zoom, frames=3).save(Path(file))
    found = subjects(runs["das"], motions=[*zooms, "zoom=5"])
    assert [each.name for each in found] == ["a/policy.json", "b/policy.json", "other.json", "zoom=5"]
    for each, zoom in zip(found, (2, 3, 4, 5), strict=True):
        assert each.policy.describe() == [f"edge 0->1: zoom by a factor of {zoom} at the outer frames"]


def test_the_folder_that_one_is_in_has_its_own_name(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs["das"])
    before, after = subjects(".", before=True)
    assert (before.name, after.name) == ("das-T3-seed7, before training", "das-T3-seed7")
    assert before.seed == 7


def test_networks_under_motions_and_before_training(runs: dict[str, Path], cards: dict[str, NetworkCard]) -> None:
    found = subjects(runs["das"], motions=["plain", "rotate=30"], before=True)
    assert [each.name for each in found] == [
        "plain, before training", "plain", "rotate=30, before training", "rotate=30",
    ]  # fmt: skip
    assert [each.trained for each in found] == [False, True, False, True]
    before, after = found[0].network(), found[1].network()
    assert seed_of(runs["das"]) == 7  # of the folder's name: the weights on disk were drawn with it
    assert all(torch.equal(before.state_dict()[key], value) for key, value in after.state_dict().items())
    started = replace(
        before_of := found[0], card=replace(before_of.card, architecture=NetworkConfig(weights="DEFAULT"))
    )
    assert started.trained


def test_a_sweep_is_its_networks_of_the_first_seed() -> None:
    rows = [{"frames": t, "seed": s, "folder": f"T{t}-seed{s}"} for s in (1, 0) for t in (3, 1)]
    assert lengths_of(pd.DataFrame(rows)) == {1: Path("T1-seed0"), 3: Path("T3-seed0")}


def test_a_sweep_under_motions(runs: dict[str, Path], cards: dict[str, NetworkCard], tmp_path: Path) -> None:
    longer = replace(cards["das"], policy=json.loads(POLICY.with_frames(5).to_json()))
    save_network(tmp_path / "T5", longer.build(), longer)
    rows = [{"frames": t, "seed": 0, "folder": str(f)} for t, f in ((3, runs["das"]), (5, tmp_path / "T5"))]
    (tmp_path / "result.json").write_text(
        json.dumps({"schema": SCHEMA, "version": VERSION, "command": "frames", "rows": rows})
    )
    found = subjects(tmp_path, motions=["rotate=30"])
    assert [(each.name, each.frames) for each in found] == [("T = 3, rotate=30", 3), ("T = 5, rotate=30", 5)]
    assert [each.policy.frames for each in found] == [3, 5]
    with pytest.raises(UserError, match="names 2 motions, but .* is a frame sweep"):
        subjects(tmp_path, motions=["rotate=30", "plain"])


def test_maps_of_different_conditions_are_refused_in_one_line(
    cards: dict[str, NetworkCard], runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "the data set is digit-pairs-left": {"data": "digit-pairs-top"},
        "the input size is 40 x 40 px": {"size": (48, 48)},
        "the layer is network.blocks.1": {"network": "resnet18"},
    }
    for i, (words, change) in enumerate(changes.items()):
        other = tmp_path / f"other{i}"
        card = replace(cards["none"], **change)  # type: ignore[arg-type]
        save_network(other, card.build(), card)
        out = tmp_path / "out"
        assert main(["compare-fields", "--runs", str(runs["none"]), str(other), "--out", str(out), *SMALL]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error
        assert not out.exists()


MISTAKES = {
    "a layer there is not": (["--layers", "network.blocks.9"], "Nearest: network.blocks.1"),
    "two layers": (["--layers", "network.blocks.0", "network.blocks.1"], "give one"),
    "half a unit": (["--unit", "3"], "a row and a column"),
    "a unit outside": (["--unit", "99", "3"], "Unit (99, 3) is outside the map of layer"),
    "a unit before the first": (["--unit", "0", "-1"], "Unit (0, -1) is outside the map of layer"),
    "no motion": (["--motions", "rotat=3"], "Did you mean 'rotate'?"),
    "no magnitude": (["--motions", "rotate=much"], "NAME=NUMBER"),
    "the same twice": (["--motions", "plain", "plain"], "names a motion twice"),
    "no images": (["--images", "0"], "at least 1 image"),
    "theory's option": (["--policy", "nowhere.json"], "Unknown option --policy"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_before_any_work(
    name: str,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words, said = MISTAKES[name]
    assert main(["compare-fields", "--runs", str(runs["das"]), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert said in error
    assert not (tmp_path / "runs").exists()


def test_motions_of_a_network_of_single_images(runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="reads single images"):
        subjects(runs["none"], motions=["rotate=3"])


def test_one_network_under_several_motions(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fields"
    words = ["--motions", "plain", "rotate=40", "--noise", "true", "--unit", "4", "5", "--out", str(out), *SMALL]
    assert main(["compare-fields", "--runs", str(runs["das"]), *words]) == 0
    printed = capsys.readouterr().out
    assert "3 images (uniform noise)" in printed
    assert "unit (4, 5)" in printed
    assert "mass: standard error" in printed
    result = read_result(out)
    plain, turned = result["rows"]
    for whose in ("reference frame", "all frames"):
        assert plain[f"reshaped, {whose}: area, px²"] == 225.0 < turned[f"reshaped, {whose}: area, px²"]
    for row in (plain, turned):
        assert 0 < row["effective, reference frame: share through other frames"] < 1
        assert row["effective, all frames: sigma along, px"] > 0
    assert set(result["measures"]["plain"]["area"]) == {"0.2", "0.3", "0.5", "0.99"}
    assert {path.name for path in out.glob("*.svg")} == {
        "receptive-fields.svg",
        "all-frames.svg",
        "reshaped-rotate=40.svg",
    }
    assert {path.name for path in out.glob("*.npz")} == {"plain.npz", "rotate=40.npz"}

    client = client_for(f"sqlite:///{out / 'mlflow.db'}?timeout=60")
    experiment = client.get_experiment_by_name("fieldshift").experiment_id
    by_name = {run.info.run_name: run for run in client.search_runs([experiment])}
    run = by_name["rotate=40 field"]
    assert run.data.tags["conditions.unit"] == "4, 5"
    assert run.data.tags["conditions.images_kind"] == "uniform noise"
    assert run.data.tags["conditions.policy"] == "edge 0->1: rotate by 40 degrees at the outer frames"
    assert run.data.metrics["field/mass_of_the_map"] == pytest.approx(turned["mass of the map"])
    named = run.data.metrics["field/share_through_other_frames"]
    assert named == pytest.approx(turned["effective, reference frame: share through other frames"])
    assert {"field/sigma_along_px", "field/all_frames_sigma_along_px"} <= set(run.data.metrics)
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
    assert any("field" in path and path.endswith(".png") for path in pictures), pictures
    parent = by_name["fields"]
    stored = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"receptive_field.json", "receptive-fields.png", "receptive-fields.svg"} <= stored


def test_the_first_run_says_how_images_are_read_and_older_results_are_shown(
    cards: dict[str, NetworkCard], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare-fields", "--out", str(tmp_path / "out"), "--images", "30", "--before", "true", "--runs"]
    for name, limit in (("first", 7), ("second", 9)):
        save_network(tmp_path / name, cards["none"].build(), cards["none"])
        loading = f"loading: {{train_limit: 40, test_limit: {limit}}}\n"
        (tmp_path / name / "config.yaml").write_text(loading)
        words.append(str(tmp_path / name))
    assert main(words) == 0
    assert "7 images" in capsys.readouterr().out
    file = tmp_path / "out" / "result.json"
    result = json.loads(file.read_text())
    del result["lengths"]
    file.write_text(json.dumps(result))
    assert main([*words, "--resume", "true"]) == 0
    assert "7 images" in capsys.readouterr().out


def test_a_network_that_is_probed_is_measured_at_an_earlier_layer(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sorting(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sort(dim=1).values

    class Sorted(Subject):
        def network(self, device: torch.device | str = "cpu") -> VideoNetwork:
            network = super().network(device)
            network.get_submodule("network").bn1 = Sorting()
            return network

    (subject,) = subjects(runs["none"])
    looking = FieldSettings(layer="network.blocks.0")
    found = measured(Sorted(**vars(subject)), torch.rand(2, subject.card.channels, 40, 40), "uniform noise", looking)
    plain = measured(subject, torch.rand(2, subject.card.channels, 40, 40), "uniform noise", looking)
    assert found.numbers["theory: side, px"] == plain.numbers["theory: side, px"] is not None


def test_theory_of_a_policy_with_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    POLICY.save(tmp_path / "policy.json")
    out = tmp_path / "theory"
    words = ["receptive-field", "--network", "tiny-resnet", "--policy", str(tmp_path / "policy.json"), "--size", "40"]
    assert main([*words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "feature extractor" in printed
    assert [line.split()[:3] for line in printed.splitlines() if line.startswith("fused")] == [["fused", "570", "15.0"]]
    assert (
        read_result(out)["reshaped"]["fused"]["area"] == 570.0
    )  # 15 px high: 15 px and, 16 px away, the 11 and 12 px inside
    with np.load(out / "regions.npz") as masks:
        assert masks["frames"].shape == (3, 40, 40)
        assert masks["fused"].sum() == 570
    assert (out / "reshaped.svg").exists()


def test_an_image_smaller_than_the_field_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["receptive-field", "--network", "resnet18", "--size", "128", "--layers", "network.layer1", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    note, drawn = found["notes"]
    assert note == (
        "clipped: the feature extractor's field, 435 x 435 px, is larger than the image, 128 x 128 px; "
        "network.layer2, 99 x 99 px, is the last that fits: --layers network.layer2"
    )
    assert (
        drawn
        == f"a figure (--out FOLDER) is that of {found['drawn']}"
        == "a figure (--out FOLDER) is that of network.layer1"
    )
    assert [layer["name"] for layer in found["layers"]] == ["network.layer1"]
    assert found["feature_extractor"]["size"] == [435, 435]
