"""Segmenters and motions of several paths, from the command line: refused before any work, or made to work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fieldshift.cli import main
from fieldshift.experiment import Experiment
from fieldshift.experiment.cards import NormedBatch
from fieldshift.experiment.search_trial import space_of_search
from fieldshift.motions import Edge, Policy, Step
from fieldshift.run_folder import read_result
from fieldshift.search import load_space, random_policy
from pipelines.arms import arms_that_build, check_arms
from pipelines.run_data import align_of

SMALL = ["--tracking.enabled", "false", "--loading.workers", "0"]
RECIPE = ["--recipe.epochs", "1", "--recipe.batch", "4", "--network", "tiny-resnet-fcn"]
SEARCH = ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "4"]
HERE = ["--cluster.trials_at_once", "0"]
CELL = ["--space", "affine-cell"]

MIXED = Policy(
    inputs=1, nodes=2, frames=3,
    edges=(Edge(0, 1, (Step("translate_x", 0.2),)), Edge(0, 2, (Step("identity", 0.0),)), Edge(1, 2, (Step("rotate", 20.0),))),
)  # fmt: skip
COLOURED = Policy.chain([("translate_x", 0.2), ("brightness", 0.2)], frames=3)

REFUSED = {
    **{f"compare {arm}": ["compare", "--arms", arm, "none", *CELL, *SEARCH, *HERE] for arm in
       ("das", "no-shift", "policy-2d", "das+affine")},
    "compare random ones": ["compare", "--arms", "random-policy", *CELL, *HERE],
    "compare colours": ["compare", "--arms", "das", "--space", "affine-colour", *SEARCH, *HERE],
    "compare a policy": ["compare", "--arms", "das", "--policy", "POLICY", *HERE],
    "study": ["study", "--arms", "das", *CELL, *SEARCH, *HERE],
    "study's frames": ["study", "--arms", "none", "--form", "video", *CELL, *SEARCH, *HERE],
    "train": ["train", "--policy", "POLICY"],
    "train colours": ["train", "--policy", "COLOURED"],
    "train a random one": ["train", "--arm", "random-policy", *CELL],
    "train on frames": ["train", "--arm", "policy-2d", "--policy", "POLICY", "--align", "false"],
    "sweep": ["sweep-frames", "--policy", "POLICY", "--frame_counts", "1", "3", *HERE],
}  # fmt: skip


@pytest.fixture
def policies(tmp_path: Path) -> dict[str, str]:
    files = {"POLICY": (MIXED, tmp_path / "mixed.json"), "COLOURED": (COLOURED, tmp_path / "coloured.json")}
    for policy, path in files.values():
        policy.save(path)
    return {word: str(path) for word, (_, path) in files.items()}


@pytest.fixture
def small_cell(tmp_path: Path) -> list[str]:
    """A space of three edges, of which a node keeps two."""
    path = tmp_path / "small-cell.toml"
    path.write_text(
        'name = "small-cell"\nversion = 1\ninputs = 1\nnodes = 2\nedges_per_node = 2\n'
        'candidates = ["translate_x", "rotate"]\n'
    )
    return ["--space", str(path)]


@pytest.mark.parametrize("name", REFUSED)
def test_maps_that_cannot_be_aligned_are_refused_before_any_work(
    name: str, scenes: Path, policies: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [policies.get(word, word) for word in REFUSED[name]]
    assert main([*words, *RECIPE, *SMALL, "--data", f"voc:{scenes}", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "by one matrix per frame, but" in error
    assert "form folded" in error
    assert not out.exists()


def trials_of(out: Path) -> dict[str, dict[str, object]]:
    return {path.parent.name: json.loads(path.read_text()) for path in out.rglob("trials/*/network.json")}


def test_one_edge_per_node_works_and_random_policies_have_as_few(
    scenes: Path, small_cell: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--arms", "das", "random-policy", "random-policy-folded", "--seeds", "1",
             "--budgets", "equal-epochs", "--search.edges_per_node", "1"]  # fmt: skip
    words += [*small_cell, *SEARCH, *RECIPE, *HERE, *SMALL, "--data", f"voc:{scenes}", "--out", str(tmp_path / "out")]
    assert main(words) == 0, capsys.readouterr().err
    cards = trials_of(tmp_path / "out")
    assert len(cards) == 3
    for name, card in cards.items():
        policy = Policy.from_json(json.dumps(card["policy"]))
        assert policy.is_pure, name
        targets = [edge.target for edge in policy.edges]
        assert len(targets) == len(set(targets)), name


def test_the_folded_form_takes_several_paths(
    scenes: Path, small_cell: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "compare",
        "--arms",
        "das",
        "random-policy",
        "--form",
        "folded",
        "--seeds",
        "1",
        "--budgets",
        "equal-epochs",
    ]
    words += [*small_cell, *SEARCH, *RECIPE, *HERE, *SMALL, "--data", f"voc:{scenes}", "--out", str(tmp_path / "out")]
    assert main(words) == 0, capsys.readouterr().err
    cards = trials_of(tmp_path / "out")
    assert len(cards) == 2
    assert any(not Policy.from_json(json.dumps(card["policy"])).is_pure for card in cards.values())


def test_a_network_is_used_aligned_or_not_as_it_was_trained(
    scenes: Path, policies: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["train", "--policy", policies["POLICY"], "--align", "false", *RECIPE, *SMALL]
    assert main([*words, "--data", f"voc:{scenes}", "--out", str(run)]) == 0, capsys.readouterr().err
    for command in (["evaluate", "--out", str(tmp_path / "score")], ["export", "--format", "torch"]):
        capsys.readouterr()
        assert main([command[0], "--run", str(run), "--align", "true", *command[1:]]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "give --align false" in error
    assert not (tmp_path / "score").exists()
    assert main(["evaluate", "--run", str(run), "--out", str(tmp_path / "score")]) == 0
    found, trained = read_result(tmp_path / "score"), read_result(run)["row"]
    assert (found["config"]["align"], found["score"], found["loss"]) == (False, trained["score"], trained["loss"])
    assert "3 frames, fused unaligned" in (tmp_path / "score" / "failures.html").read_text()
    for form in ("torch", "mlflow"):
        assert main(["export", "--run", str(run), "--format", form]) == 0
    (serving,) = (run / "export-mlflow").rglob("serving.json")
    assert json.loads(serving.read_text()) == {"align": False}


@pytest.mark.parametrize(("config", "expected"), [("align: false", False), ("align: true", True), ("seed: 0", True)])
def test_the_alignment_of_a_run_is_its_trainings_unless_given(tmp_path: Path, config: str, expected: bool) -> None:
    assert align_of(tmp_path, None)  # a copy of the weights alone
    (tmp_path / "config.yaml").write_text(f"# fieldshift train\n{config}\n")
    assert align_of(tmp_path, None) is expected
    assert align_of(tmp_path, not expected) is not expected


def test_a_search_says_what_its_policy_can_be_used_for(
    scenes: Path, small_cell: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", *small_cell, *SEARCH, *SMALL, "--network", "tiny-resnet-fcn", "--data", f"voc:{scenes}"]
    assert main([*words, "--out", str(tmp_path / "two")]) == 0
    assert "note: The arm 'das' moves a segmenter's maps" in capsys.readouterr().out
    assert main([*words, "--search.edges_per_node", "1", "--out", str(tmp_path / "one")]) == 0
    assert "note: The arm" not in capsys.readouterr().out


def test_arms_that_nobody_named_are_left_out(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fieldshift.data import LoadingConfig
    from fieldshift.networks import NetworkConfig

    experiment = Experiment(
        data=f"voc:{scenes}", task=None, network="tiny-resnet-fcn", temporal="tsm", frames=3, architecture=NetworkConfig(),
        loading=LoadingConfig(workers=0),
    )  # fmt: skip
    arms, edges = arms_that_build(
        experiment, experiment.checked_dataset(), check_arms(None, "video", "tsm"), {}, load_space("affine-cell"), named=False,
        step=NormedBatch(4), searched=NormedBatch(4),
    )  # fmt: skip
    assert list(edges) == ["folded"]
    assert {"none", "replicate", "das-folded", "random-policy-folded"} <= set(arms)
    assert not {"das", "no-shift", "random-policy", "policy-2d"} & set(arms)
    said = capsys.readouterr().out
    for name in ("das", "no-shift", "random-policy", "policy-2d"):
        assert f"skipping the arm {name}: " in said


def test_the_random_control_of_a_given_policy_is_as_large_as_it() -> None:
    from fieldshift.search import SearchConfig

    space = load_space("affine-cell")
    found = {"space": "affine-cell", "settings": {"edges_per_node": 1}}
    given = Policy(inputs=MIXED.inputs, nodes=MIXED.nodes, edges=MIXED.edges, frames=3, found=found)
    drawn_from = space_of_search(space, SearchConfig(), [given])
    assert (drawn_from.edges_per_node, space.edges_per_node) == (1, 2)
    assert all(random_policy(drawn_from, 3, seed).is_pure for seed in range(5))  # type: ignore[union-attr]
    elsewhere = Policy.single("rotate", 20.0, frames=3)
    assert space_of_search(space, SearchConfig(edges_per_node=3), [elsewhere]).edges_per_node == 3
    assert space_of_search(space, SearchConfig(), [elsewhere]) == space
