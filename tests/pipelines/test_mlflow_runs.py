"""What a study leaves in MLflow: a child a trial with every label, numbers that group to the report's, fields beside scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fieldshift.cli import main
from fieldshift.readings import EQUAL_COMPUTE, EQUAL_EPOCHS
from fieldshift.report import summarise
from fieldshift.run_folder import config_digest, read_result
from fieldshift.tracking import TrackingConfig
from fieldshift.tracking.store import client_for
from pipelines.field_subjects import trained_folder

pytestmark = pytest.mark.filterwarnings("ignore")

LABELS = {"stage", "arm", "form", "T", "network", "temporal", "data", "task"}
OF_TRIALS = LABELS | {"seed", "policy", "epochs", "equal_epochs", "equal_compute", "search_included"}


@pytest.fixture(scope="module")
def runs(small_study: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{small_study}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "fieldshift"]
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


@pytest.fixture(scope="module")
def children(runs: list[Any]) -> list[Any]:
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def of_stage(children: list[Any], *stages: str) -> list[Any]:
    return [run for run in children if run.data.params["stage"] in stages]


def test_there_is_one_parent_one_child_a_trial_and_all_are_closed(
    runs: list[Any], children: list[Any], small_study: Path
) -> None:
    assert len(runs) == len(children) + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    kept = {str(path.parent.relative_to(small_study)) for path in small_study.rglob("weights.safetensors")}
    trials = of_stage(children, "compare", "frames")
    assert {run.data.tags["fieldshift.folder"] for run in trials} == kept
    assert len(trials) == len(kept)


def test_every_child_has_every_label_as_parameter_and_as_tag(children: list[Any]) -> None:
    for run in children:
        stage = run.data.params["stage"]
        wanted = OF_TRIALS if stage in {"compare", "frames"} else LABELS
        if stage == "length":
            wanted = wanted - {"T"}  # a sweep's line has all of them
        assert wanted <= run.data.params.keys(), run.info.run_name
        for label in wanted:
            assert run.data.tags[label] == run.data.params[label]


def test_a_runs_name_starts_with_what_differs(children: list[Any]) -> None:
    for run in children:
        arm = run.data.params["arm"]
        assert run.info.run_name.startswith((f"{arm} ", "T = "))
    names = [run.info.run_name for run in of_stage(children, "compare")]
    assert len(set(names)) == len(names)
    assert "das T3 s0 equal-epochs" in names


def test_the_runs_of_an_arm_have_the_temporal_module_of_its_trials(children: list[Any]) -> None:
    of_arms = {run.data.params["arm"]: run.data.params["temporal"] for run in of_stage(children, "compare")}
    for run in of_stage(children, "arm"):
        assert run.data.params["temporal"] == of_arms[run.data.params["arm"]]
    assert set(of_arms.values()) == {"none", "tsm"}


@pytest.mark.parametrize(("reading", "label"), [(EQUAL_EPOCHS, "equal_epochs"), (EQUAL_COMPUTE, "equal_compute")])
def test_grouped_by_arm_the_trials_of_a_budget_have_the_reports_means(
    children: list[Any], small_study: Path, reading: str, label: str
) -> None:
    trials = [run for run in of_stage(children, "compare") if run.data.params[label] == "true"]
    frame = pd.DataFrame(
        {
            "arm": [run.data.params["arm"] for run in trials],
            "score": [run.data.metrics["accuracy/judged_percent"] for run in trials],
        }
    )
    result = read_result(small_study / "compare")
    summary = summarise(pd.DataFrame(result["rows"]), baseline_arms=result["baselines"])
    means = summary[summary["reading"] == reading].set_index("arm")["judged_mean"]
    assert frame.groupby("arm")["score"].mean().to_dict() == pytest.approx((100 * means).to_dict())
    assert "das" in means


def test_every_metric_has_a_section_and_accuracy_is_the_first(children: list[Any]) -> None:
    names = {name for run in children for name in run.data.metrics}
    assert all("/" in name for name in names)
    assert min(names).startswith("accuracy/")


def test_one_run_has_a_score_and_a_field(children: list[Any], small_study: Path) -> None:
    sheet = read_result(small_study / "receptive-field")["sheet"]
    for stage in ("compare", "arm", "receptive-field"):
        score = "accuracy/mean_percent" if stage == "arm" else "accuracy/judged_percent"
        both = {
            run.data.params["arm"]: run.data.metrics["field/sigma_along_px"]
            for run in of_stage(children, stage)
            if {"field/sigma_along_px", score} <= run.data.metrics.keys()
        }
        assert both == {
            arm: pytest.approx(numbers["effective, reference frame: sigma along, px"]) for arm, numbers in sheet.items()
        }


def test_a_search_says_what_it_found(children: list[Any], small_study: Path) -> None:
    found = {(each["form"], str(each["seed"])): each["words"] for each in read_result(small_study)["searches"]}
    searches = of_stage(children, "search")
    assert {(run.data.params["form"], run.data.params["seed"]) for run in searches} == found.keys()
    for run in searches:
        words = found[run.data.params["form"], run.data.params["seed"]]
        assert run.data.params["motions"] == "; ".join(words)
        assert len(run.data.params["policy"]) == 16


def test_colours_tell_arms_and_searches_apart(children: list[Any]) -> None:
    for stages, wanted in ((("compare", "frames"), ("arm",)), (("search",), ("form", "seed"))):
        colours: dict[tuple[str, ...], set[str]] = {}
        for run in of_stage(children, *stages):
            what = tuple(run.data.params[label] for label in wanted)
            colours.setdefault(what, set()).add(run.data.tags["mlflow.runColor"])
        assert {len(each) for each in colours.values()} == {1}
        assert len(set.union(*colours.values())) == len(colours)


def test_the_studys_own_run_has_the_headline_its_files_and_its_data(runs: list[Any], small_study: Path) -> None:
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    result = read_result(small_study)
    assert result["verdict"] in parent.data.tags["mlflow.note.content"]
    assert "fieldshift study --config" in parent.data.tags["mlflow.note.content"]
    summary = pd.DataFrame(result["summary"])
    das = summary[(summary["reading"] == EQUAL_COMPUTE) & (summary["arm"] == "das")].iloc[0]
    assert parent.data.metrics["accuracy/equal_compute/das_percent"] == pytest.approx(100 * das["judged_mean"])
    assert parent.data.metrics["accuracy/equal_compute/das_minus_best_2D_points"] == pytest.approx(
        100 * das["difference"]
    )
    (data,) = parent.inputs.dataset_inputs
    assert data.dataset.digest == result["data"]["digest"][:36]
    kept = {path.name for path in small_study.glob(f"artifacts/{parent.info.run_id}/artifacts/*")}
    assert {"report.html", "policy.json", "policy-folded.json", "comparison.json", "result.json", "config.yaml"} <= kept


def test_every_run_says_where_it_comes_from(runs: list[Any], small_study: Path) -> None:
    result = read_result(small_study)
    for run in runs:
        tags = run.data.tags
        assert {
            f"version.{name}": number for name, number in result["environment"]["versions"].items()
        }.items() <= tags.items()
        commit = result["environment"]["commit"]
        assert tags.get("mlflow.source.git.commit") == (commit and commit.removesuffix("-dirty"))
        assert tags["fieldshift.config"] == config_digest(result["config"])
        assert f"fieldshift study --config {small_study / 'config.yaml'}" in tags["mlflow.note.content"]
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.digest == result["data"]["digest"][:36]
        assert json.loads(data.dataset.profile) == {"train": 160, "test": 80}


def test_a_trials_run_id_leads_to_its_folder(
    children: list[Any], small_study: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/study").symlink_to(small_study)
    monkeypatch.chdir(tmp_path)
    trial = of_stage(children, "compare")[0]
    found = trained_folder(trial.info.run_id, TrackingConfig())
    assert found.resolve() == (small_study / trial.data.tags["fieldshift.folder"]).resolve()
    assert (found / "weights.safetensors").exists()


def test_a_trained_network_is_a_model_of_its_run_and_a_version_in_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    words = [
        "train",
        "--loading.train_limit",
        "40",
        "--loading.test_limit",
        "20",
        "--recipe.epochs",
        "1",
        "--recipe.batch",
        "8",
    ]
    for name in ("a", "b"):
        store = f"sqlite:///{tmp_path}/shared.db"
        options = ["--tracking.uri", store, "--tracking.register", "digits", "--out", str(tmp_path / name)]
        assert main([*words, *options]) == 0
    client = client_for(store)
    versions = client.search_model_versions("name = 'digits'")
    assert sorted(int(version.version) for version in versions) == [1, 2]
    model = mlflow.pyfunc.load_model(str(tmp_path / "b/model"))
    logged = client.download_artifacts(versions[0].run_id, "model")
    images = {"image": [np.full((40, 40), 7, np.uint8), np.zeros((20, 30, 3), np.uint8)]}
    pd.testing.assert_frame_equal(
        model.predict(images), mlflow.pyfunc.load_model(str(tmp_path / "b/model")).predict(images)
    )
    assert list(mlflow.pyfunc.load_model(logged).predict(images).columns) == ["class", "probability"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    registered = mlflow.pyfunc.load_model("models:/digits/2")
    pd.testing.assert_frame_equal(registered.predict(images), model.predict(images))


@pytest.mark.parametrize(
    ("name", "said"), [("", "is empty"), ("a/b", "must be a name without"), ("a:b", "must be a name without")]
)
def test_a_name_that_the_registry_refuses_is_told_before_any_work(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--tracking.register", name, "--out", str(tmp_path / "t")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
