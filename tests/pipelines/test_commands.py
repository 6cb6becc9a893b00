"""Single commands through the command line: what they print and write, and every mistake in one line with status 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from fieldshift.cli import main
from fieldshift.data import LoadingConfig
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.cards import NormedBatch
from fieldshift.motions import Policy
from fieldshift.networks import TEMPORAL, NetworkConfig
from fieldshift.run_folder import read_result
from fieldshift.search import load_space
from fieldshift.training import ARMS
from pipelines.arms import arms_that_build

SMALL = ["--loading.train_limit", "160", "--loading.test_limit", "80"]
SHORT = ["--recipe.epochs", "1", "--recipe.batch", "32", "--tracking.enabled", "false"]
QUICK = [*SMALL, *SHORT]

SEARCHED = ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "32", "--tracking.enabled", "false"]
TRIED = [*SHORT, "--cluster.trials_at_once", "0"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "--policy", str(policy), "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from fieldshift.data import load_dataset

    folder = tmp_path_factory.mktemp("pictures")
    images, _ = load_dataset("digit-pairs-left", test_limit=80, train_limit=160).test.gather(torch.arange(2))
    paths = [folder / "one.png", folder / "zwei ä.png"]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[0].numpy()).save(path)
    return paths


def test_train_leaves_a_network_that_evaluates_to_its_own_score(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = read_result(trained)["row"]
    assert row["arm"] == "das"
    assert main(["evaluate", "--run", str(trained), "--out", str(tmp_path / "scored"), *SMALL]) == 0
    assert f"accuracy {row['score']:.2%}" in capsys.readouterr().out
    assert read_result(tmp_path / "scored")["score"] == row["score"]


def test_train_again_is_refused_and_resume_prints_the_result(
    trained: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--policy", str(policy), "--out", str(trained), *QUICK]
    assert main(words) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert "das: test accuracy" in capsys.readouterr().out


def test_the_written_configuration_runs_again(trained: Path, tmp_path: Path) -> None:
    assert main(["train", "--config", str(trained / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    first, second = read_result(trained), read_result(tmp_path / "again")
    assert first["config"] == second["config"]
    assert first["row"]["score"] == second["row"]["score"]
    assert first["row"]["loss"] == second["row"]["loss"]


def test_every_written_configuration_is_one_that_its_command_reads(
    trained: Path, small_study: Path, tmp_path: Path
) -> None:
    """Found finished under --resume, so that nothing is trained again."""
    assert main(["study", "--config", str(small_study / "config.yaml"), "--out", str(small_study), "--resume"]) == 0
    out = ["--out", str(tmp_path / "fields")]
    assert main(["compare-fields", "--runs", str(trained), "--images", "4", *SMALL, *out]) == 0
    assert main(["compare-fields", "--config", str(tmp_path / "fields" / "config.yaml"), *out, "--resume"]) == 0
    for command, more in (("search", SEARCHED), ("sweep-frames", ["--frame_counts", "1", "--seeds", "1", *TRIED]),
                          ("compare", ["--arms", "none", "--seeds", "1", *TRIED])):  # fmt: skip
        policy = [] if command == "search" else ["--policy", str(small_study)]
        out = ["--out", str(tmp_path / command)]
        assert main([command, *policy, *more, *SMALL, *out]) == 0
        assert main([command, "--config", str(tmp_path / command / "config.yaml"), *out, "--resume"]) == 0


def test_predict_gives_class_and_probability_a_file(
    trained: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "--run", str(trained), "--top", "10", "--json", *map(str, pictures)]
    assert main(words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for path in pictures:
        (mine,) = (row["classes"] for row in rows if row["file"] == str(path))
        assert [row["probability"] for row in mine] == sorted((row["probability"] for row in mine), reverse=True)
        assert sum(row["probability"] for row in mine) == pytest.approx(1.0, abs=1e-5)
        assert sorted(row["class"] for row in mine) == [str(digit) for digit in range(10)]


def test_predict_says_how_pictures_of_another_size_are_read(
    trained: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--run", str(trained), *map(str, pictures)]) == 0
    assert "Images are" not in capsys.readouterr().out
    Image.new("RGB", (60, 50)).save(tmp_path / "large.png")
    assert main(["predict", "--run", str(trained), str(tmp_path / "large.png")]) == 0
    said = "Images are scaled to cover 40 x 40 pixels, cropped at the centre, converted to grey."
    assert said in capsys.readouterr().out


def test_a_policy_of_an_unfinished_search_is_named(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(policy.read_text())
    document["found"] = {"by": "fieldshift search", "phase": "supernet", "passes": 3}
    (tmp_path / "policy.json").write_text(json.dumps(document))
    assert main(["preview", "--policy", str(tmp_path), "--out", str(tmp_path / "frames.png")]) == 0
    assert "is not finished; this is its policy after 3 passes. Its command with --resume" in capsys.readouterr().out
    assert main(["preview", "--policy", str(policy), "--out", str(tmp_path / "again.png")]) == 0
    assert "not finished" not in capsys.readouterr().out


def test_preview_draws_frames_and_says_the_policy(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "frames.png"
    assert main(["preview", "--policy", str(policy), "--out", str(out)]) == 0
    assert "translate_x by 0.4 of the width" in capsys.readouterr().out
    with Image.open(out) as figure:
        assert figure.size[0] > 300


def test_preview_refuses_own_pictures_over_the_pixel_limit(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    words = [
        "preview",
        "--policy",
        str(policy),
        "--images",
        str(tmp_path / "large.png"),
        "--out",
        str(tmp_path / "f.png"),
    ]
    assert main([*words, "--loading.pixel_limit", "1199"]) == 2
    assert "large.png has 40 x 30 pixels, over the limit of 1199" in capsys.readouterr().err
    assert main([*words, "--loading.pixel_limit", "1200"]) == 0


@pytest.mark.parametrize("network", ["tiny-resnet", "resnet18"])
def test_theory_as_json_needs_no_data(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["receptive-field", "--network", network, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["feature_extractor"]["size"] == {"tiny-resnet": [15, 15], "resnet18": [435, 435]}[network]
    assert {"size", "stride", "temporal_reach"} <= found["layers"][0].keys()


def test_fields_of_runs_are_compared(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tmp_path / "plain"
    assert main(["train", "--out", str(plain), *QUICK]) == 0
    words = ["--images", "4", "--out", str(tmp_path / "fields"), "--tracking.enabled", "false", *SMALL]
    assert main(["compare-fields", "--runs", str(trained), str(plain), *words]) == 0
    assert "anisotropy" in capsys.readouterr().out
    rows = {row["network"]: row for row in read_result(tmp_path / "fields")["rows"]}
    assert rows["run"]["reshaped, all frames: width, px"] > rows["plain"]["reshaped, all frames: width, px"] == 15


def test_describe_says_what_is_in_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "--network", "tiny-resnet", "--temporal", "gsf", "--size", "40", "--channels", "1"]) == 0
    assert "GSF" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in ARMS if not ARMS[name].needs_policy])
def test_every_arm_without_a_policy_trains(name: str, tmp_path: Path) -> None:
    assert main(["train", "--arm", name, "--out", str(tmp_path / "run"), *QUICK]) == 0


@pytest.mark.parametrize("name", [name for name in ARMS if ARMS[name].needs_policy])
def test_every_arm_with_a_policy_trains(name: str, policy: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", "--arm", name, "--policy", str(policy), "--tta_copies", "2", *out, *QUICK]) == 0
    averaged = read_result(tmp_path / "run")["row"]["score_tta"]
    assert (averaged is not None) == (name == "policy-2d")  # the others have no other views


@pytest.mark.parametrize("name", [*TEMPORAL])
def test_every_temporal_module_trains(name: str, policy: Path, tmp_path: Path) -> None:
    words = ["train", "--policy", str(policy), "--temporal", name, "--out", str(tmp_path / "run"), *QUICK]
    assert main(words) == 0


def test_segmentation_trains_with_the_same_commands(policy: Path, tmp_path: Path) -> None:
    words = ["train", "--task", "segmentation", "--network", "tiny-resnet-fcn", "--policy", str(policy)]
    assert main([*words, "--out", str(tmp_path / "run"), *QUICK]) == 0
    assert read_result(tmp_path / "run")["row"]["score_name"] == "mIoU"


JOB, SECRET = ["--address", "http://127.0.0.1:1", "--"], "postgresql://me:hunter2@host/db"
MISTAKES = {
    "data set": (["train", "--data", "digit-pairs-lef"], "Did you mean 'digit-pairs-left'"),
    "space": (["search", "--space", "affine-cel"], "Did you mean 'affine-cell'"),
    "arm": (["compare", "--arms", "randaugmen"], "Did you mean 'randaugment'"),
    "network": (["train", "--network", "tiny-resne"], "Did you mean 'tiny-resnet'"),
    "temporal module": (["train", "--temporal", "tsn"], "Did you mean 'tsm'"),
    "task": (["train", "--task", "segmentatio"], "Did you mean 'segmentation'"),
    "stage": (["study", "--stages", "serch"], "Did you mean 'search'"),
    "budget": (["compare", "--budgets", "equal-epoch"], "Did you mean 'equal-epochs'"),
    "frames": (["train", "--frames", "0"], "--frames is 0"),
    "frame counts": (["study", "--frame_counts", "3", "0"], "--frame_counts holds 0"),
    "frame seeds": (
        ["study", "--frame_seeds", "7"],
        "--frame_seeds is 7, but the frame sweep uses seeds of the comparison",
    ),
    "folded frame counts": (["study", "--form", "folded", "--frame_counts", "2", "5"], "--frame_counts holds 2"),
    "seeds": (["study", "--seeds", "0"], "--seeds is 0"),
    "batch": (["train", "--cluster.workers", "2", "--recipe.batch", "63"], "cannot be shared equally by 2 workers"),
    "search batch": (
        ["search", "--cluster.workers", "2", "--search.batch", "63"],
        "cannot be shared equally by 2 workers",
    ),
    "workers": (
        ["train", "--cluster.workers", "4096", "--recipe.batch", "4096"],
        "Too few CPU cores for 4,096 workers",
    ),
    "search workers": (
        ["search", "--cluster.workers", "4096", "--search.batch", "4096"],
        "Too few CPU cores for 4,096 workers",
    ),
    "trial workers": (
        ["compare", "--arms", "none", "--cluster.trial_workers", "4096", "--recipe.batch", "4096"],
        "Too few CPU cores for 4,096 workers",
    ),
    "study workers": (
        ["study", "--cluster.workers", "4096", "--search.batch", "4096"],
        "Too few CPU cores for 4,096 workers",
    ),
    "GPUs": (
        ["train", "--cluster.workers", "64", "--cluster.gpus_per_worker", "1"],
        "Too few CPU cores for 64 workers: 64 needed",
    ),
    "weights": (["train", "--network", "resnet18", "--architecture.weights", "DEFALT"], "Did you mean 'DEFAULT'"),
    "weights file": (["train", "--architecture.weights", "nowhere.pth"], "nowhere.pth"),
    "interleave": (["train", "--architecture.interleave", "true"], "has no interleave"),
    "places": (
        ["train", "--policy", "POLICY", "--architecture.places", "nowhere*"],
        "matches no module with convolutions",
    ),
    "places that are no single map": (
        [
            "train",
            "--policy",
            "POLICY",
            "--task",
            "segmentation",
            "--network",
            "fcn_resnet18",
            "--temporal",
            "gsm",
            "--architecture.places",
            "backbone",
        ],
        "returns a value of type",
    ),
    "swept places": (
        ["sweep-frames", "--policy", "POLICY", "--architecture.places", "nowhere*"],
        "matches no module with convolutions",
    ),
    "second order": (["search", "--search.order", "second"], "give --search.optimizer sgd"),
    "study frames": (["study", "--frames", "5", "--search.frames", "3"], "give only --frames"),
    "unbuilt arm": (["study", "--network", "mobilenet_v3_small", "--arms", "wide-field"], "wide_field"),
    "twice": (["compare-fields", "--runs", "a", "a"], "names a folder twice"),
    "policy unused": (["train", "--arm", "none", "--policy", "POLICY"], "reads no policy"),
    "two frames": (["search", "--frames", "5", "--search.frames", "3"], "give only --frames"),
    "size": (["train", "--loading.size", "40"], "two whole numbers, height and width"),
    "no run given": (["predict", "a.png"], "--run is required"),
    "no policy": (["train", "--arm", "das"], "The arm 'das' needs a policy"),
    "no policy file": (["train", "--policy", "nowhere.json"], "nowhere.json"),
    "sweep without policy": (["sweep-frames"], "needs a policy"),
    "number": (["train", "--recipe.epochs", "many"], "--recipe.epochs is 'many', but must be a whole number"),
    "option": (["train", "--recipe.epoch", "3"], "Did you mean --recipe.epochs?"),
    "no run": (["predict", "--run", "nowhere", "a.png"], "There is no folder nowhere"),
    "no network": (["receptive-field"], "--network is required"),
    "no runs": (["compare-fields"], "--runs is required"),
    "option of another command": (["receptive-field", "--runs", "a"], "fieldshift compare-fields --runs"),
    "explanation by search": (["search", "--explain", "a.json"], "fieldshift explain POLICY"),
    "submitted option": (["submit", *JOB, "train", "--recipe.epoch", "3"], "Did you mean --recipe.epochs?"),
    "submitted password": (["submit", *JOB, "train", "--uri", SECRET], "--tracking.uri holds a password"),
    "submitted password of a group": (
        ["submit", *JOB, "train", f"--tracking={{uri: '{SECRET}'}}"],
        "--tracking holds a password",
    ),
    "submitted password of a list": (["submit", *JOB, "compare", "--arms", "none", SECRET], "--arms holds a password"),
    "nothing to submit": (["submit", "--address", "http://127.0.0.1:1"], "no command to submit"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    name: str, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words, said = MISTAKES[name]
    assert main([str(policy) if word == "POLICY" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert said in error
    assert "hunter2" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ("not json", "JSON"),
        ("[]", ""),
        ('{"schema": "fieldshift.policy", "version": 99}', "99"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text(content)
    assert main(["train", "--policy", "bad.json"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "bad.json" in error
    assert said in error


@pytest.mark.parametrize(
    ("network", "dilated", "lacking"), [("mobilenet_v3_small", False, "wide-field"), ("tiny-resnet", True, "dilated")]
)
def test_an_arm_that_a_network_does_not_have_is_left_out_and_said(
    network: str, dilated: bool, lacking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment(
        data="digit-pairs-left", task=None, network=network, temporal="tsm", frames=3,
        architecture=NetworkConfig(dilated=dilated), loading=LoadingConfig(train_limit=160, test_limit=80),
    )  # fmt: skip
    given = (["none", lacking, "das"], {"video": Policy.replicate(3)}, load_space("affine-one"))
    batches = {"step": NormedBatch(32), "searched": NormedBatch(32)}
    assert arms_that_build(experiment, experiment.load(), *given, named=False, **batches) == (["none", "das"], {})
    assert f"skipping the arm {lacking}" in capsys.readouterr().out
    with pytest.raises(UserError, match=lacking.replace("-", ".")):
        arms_that_build(experiment, experiment.load(), *given, named=True, **batches)


def test_runs_of_one_name_are_compared_by_their_paths(trained: Path, tmp_path: Path) -> None:
    import shutil

    folders = [tmp_path / part / "run" for part in ("a", "b")]
    for folder in folders:
        shutil.copytree(trained, folder)
    out = tmp_path / "fields"
    words = ["compare-fields", "--runs", *map(str, folders), "--images", "4", "--tracking.enabled", "false", *SMALL]
    assert main([*words, "--out", str(out)]) == 0
    assert len(list(out.glob("*.npz"))) == 2
    assert not list(tmp_path.glob("?/*.npz"))


def test_colour_is_predicted_by_a_network_that_reads_grey(
    trained: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = Image.open(pictures[0])
    for mode in ("RGB", "RGBA"):
        grey.convert(mode).save(tmp_path / f"{mode}.png")
    assert main(["predict", "--run", str(trained), "--json", str(pictures[0]), *map(str, tmp_path.glob("*.png"))]) == 0
    first, *others = (json.loads(line)["classes"] for line in capsys.readouterr().out.splitlines())
    assert others == [first, first]


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_pictures_that_cannot_be_read_stop_predict_before_any_work(
    content: bytes, trained: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    assert main(["predict", "--run", str(trained), str(pictures[0]), str(bad)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "bad.png" in shown.err
    assert "loading." not in shown.err  # an option that predict does not have
