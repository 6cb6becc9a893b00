"""One option --form in every command on a trained network, and what a folded one is shown as."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fieldshift.cli import main
from fieldshift.motions import Policy
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy
from fieldshift.run_folder import read_result

SMALL = ["--loading.train_limit", "80", "--loading.test_limit", "40"]
QUICK = [*SMALL, "--recipe.epochs", "1", "--recipe.batch", "32", "--tracking.enabled", "false"]
FORMS = ("video", "folded")


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a policy of five frames."""
    return Policy.single("translate_x", 0.4, frames=5).save(tmp_path_factory.mktemp("longer") / "policy.json")


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("placed") / "policy.json"
    right, down = (Policy.single(name, 0.4, frames=3) for name in ("translate_x", "translate_y"))
    motions = (
        PlacedMotion(("blocks.0.conv1",), (right, down, right)),
        PlacedMotion(("blocks.1.conv1",), (down, right, down)),
    )
    PlacedPolicy(motions=motions).save(path)
    return path


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory, longer: Path) -> Path:
    out = tmp_path_factory.mktemp("folded") / "run"
    assert main(["train", "--form", "folded", "--policy", str(longer), "--out", str(out), *QUICK]) == 0
    return out


def test_a_run_is_used_in_its_own_form(folded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = read_result(folded)["row"]["score"]
    for number, form in enumerate(([], ["--form", "folded"])):
        out = ["--out", str(tmp_path / str(number))]
        assert main(["evaluate", "--run", str(folded), *form, *SMALL, *out]) == 0
        assert read_result(tmp_path / str(number))["score"] == score
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_a_form_that_a_run_does_not_have_is_refused(
    command: str, folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = ["a.png"] if command == "predict" else []
    assert main([command, "--run", str(folded), "--form", "video", *pictures]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has the form folded" in error
    assert list(tmp_path.iterdir()) == []


def test_describe_builds_the_folded_network(policy: Path, placed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["describe", "--form", "folded", "--size", "40", "--channels", "1", "--speed", "false"]
    for given in ([], ["--policy", str(policy)], ["--policy", str(placed)]):
        assert main([*words, *given]) == 0
        assert "folded" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("name", ["longer", "placed"])
def test_a_folded_preview_draws_the_neighbouring_frames(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fieldshift.motions.placed import load_policy
    from fieldshift.report import frame_strip

    file, out = request.getfixturevalue(name), tmp_path / "frames.png"
    assert main(["preview", "--policy", str(file), "--form", "folded", "--out", str(out), *SMALL]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "frames: previous, reference, next" in said
    with Image.open(out) as figure:
        assert figure.size[0] > 300
    import torch

    parts = load_policy(file).parts
    strip = frame_strip(parts if len(parts) > 1 else parts[0], torch.rand(len(parts), 1, 20, 20), neighbours=True)
    assert len(strip.axes) == 3 * len(parts)
    if name == "longer":  # of five frames the middle three, half as far as the outer ones
        assert [axes.get_xlabel().split()[2] for axes in strip.axes] == ["-0.5", "0", "+0.5"]


@pytest.mark.parametrize("reference", ["centre", "first"])
def test_the_drawn_neighbours_are_those_that_channels_move_by(reference: str) -> None:
    policy = Policy.single("translate_x", 0.4, frames=5, reference=reference)
    _, sides = policy.neighbours((20, 20))
    middle = policy.centred.frames // 2
    matrices = policy.centred.matrices((20, 20))
    for side, frame in ((0, middle + 1), (1, middle - 1)):
        assert (matrices[frame].double() - sides[0, side]).abs().max() < 1e-5
