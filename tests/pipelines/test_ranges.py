"""Numbers that are out of range by the data or by the generators: refused in one line before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pipelines
from fieldshift.cli import main
from fieldshift.errors import UserError
from fieldshift.experiment import Experiment
from fieldshift.experiment.cards import NormedBatch, edges_to_decide
from fieldshift.motions import Policy
from fieldshift.search import SearchConfig, load_space
from fieldshift.settings import LARGEST_SEED
from fieldshift.training import Recipe

FEW = ["--loading.train_limit", "32", "--loading.test_limit", "16", "--tracking.enabled", "false"]
COMMANDS = {
    "train": ["train"],
    "tune": ["tune", "--arm", "none", "--samples", "1"],
    "compare": ["compare", "--arms", "none"],
    "sweep-frames": ["sweep-frames", "--policy", "POLICY"],
    "study": ["study"],
    "search": ["search"],
}
CROPS = {
    **{name: (words, "recipe") for name, words in COMMANDS.items() if name != "search"},
    **{f"{name}'s search": (COMMANDS[name], "search") for name in ("search", "study")},
    "compare's search": (["compare", "--arms", "das"], "search"),
}


def refusal(words: list[str], policy: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    given = [str(policy) if word == "POLICY" else word for word in words]
    assert main([*given, *FEW, "--out", str(folder / "out")]) == 2
    error: str = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert not (folder / "out").exists()
    return error


@pytest.mark.parametrize("name", CROPS)
def test_a_crop_that_may_leave_nothing_of_an_image_is_refused(
    name: str, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, section = CROPS[name]
    for crop in ("40", "60"):  # the images have 40 x 40 pixels
        error = refusal([*words, f"--{section}.crop", crop], policy, tmp_path, capsys)
        assert f"{section}.crop is {crop}, but must be below the shorter side of the images (40 x 40 pixels)" in error
        assert f"such as --{section}.crop 5" in error


def test_the_largest_crop_that_leaves_a_pixel_is_accepted() -> None:
    assert Experiment().checked_dataset(Recipe(crop=39), SearchConfig(crop=39)).size == (40, 40)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("seed", [2**64, 2**63, -5])
def test_a_seed_out_of_range_is_refused(
    seed: int, name: str, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal([*COMMANDS[name], "--seed", str(seed)], policy, tmp_path, capsys)
    assert f"--seed is {seed}" in error
    assert f"must be from 0 to {LARGEST_SEED}; give one in that range" in error


MOVED = {name: words for name, words in COMMANDS.items() if name in {"train", "tune", "compare", "sweep-frames"}}


@pytest.mark.parametrize("name", MOVED)
def test_a_fill_of_another_number_of_channels_is_refused_as_a_video(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = Policy.single("translate_x", 0.4, frames=3, fill=(0.5, 0.5)).save(tmp_path / "policy.json")
    words = [MOVED[name][0], "--policy", str(policy), "--form", "video"]
    words += ["--arms", "das"] if name == "compare" else []
    error = refusal(words, policy, tmp_path, capsys)
    assert "The fill of the policy has 2 values for 1 channel; give 1 value." in error


@pytest.mark.parametrize("words", [["search"], ["compare", "--arms", "das"], ["study", "--form", "video"]])
@pytest.mark.parametrize(("fill", "said"), [
    ("[0.5, 0.5]", "The fill of the space own has 2 values for 1 channel; give 1 value."),
    ("[]", "'fill' is [], but must be numbers within [0, 1], one or one per channel of the images."),
])  # fmt: skip
def test_a_spaces_fill_of_another_number_of_channels_is_refused(
    fill: str, said: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "own.toml"
    text = 'name = "own"\nversion = 1\ninputs = 1\nnodes = 1\ncandidates = ["identity", "zoom"]\nfill = FILL\n'
    space.write_text(text.replace("FILL", fill))
    assert said in refusal([*words, "--space", str(space)], space, tmp_path, capsys)
    space.write_text(text.replace("FILL", "[0.5]"))
    plan = Experiment()
    dataset = plan.checked_dataset()
    assert edges_to_decide(plan, dataset, load_space(space), step=NormedBatch(2)) == 1


@pytest.mark.parametrize("command", [pipelines.train, pipelines.search, pipelines.study])
def test_a_seed_out_of_range_is_refused_in_python(command: Callable[..., object]) -> None:
    with pytest.raises(UserError, match=f"--seed is {2**64}"):
        command(seed=2**64)


def test_the_last_of_several_seeds_is_in_range_too() -> None:
    assert Experiment(seed=LARGEST_SEED - 1).seeds(2) == [LARGEST_SEED - 1, LARGEST_SEED]
    with pytest.raises(UserError, match=f"--seed is {LARGEST_SEED} and 2 seeds begin with it"):
        Experiment(seed=LARGEST_SEED).seeds(2)


def test_the_largest_seed_trains_and_tunes(tmp_path: Path) -> None:
    for name in ("train", "tune"):
        words = [*COMMANDS[name], "--seed", str(LARGEST_SEED), "--recipe.epochs", "1", "--recipe.batch", "16"]
        given = [*words, *FEW, "--cluster.trials_at_once", "0"] if name == "tune" else [*words, *FEW]
        assert main([*given, "--out", str(tmp_path / name)]) == 0
