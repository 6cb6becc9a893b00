"""The search loop from end to end on a toy."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.search.journal import decision_metrics
from fieldshift.training.checkpoint import read_checkpoint
from fieldshift.training.objectives import Objective, objective_for


class Interrupted(Exception):  # noqa: N818
    pass


def test_a_search_ends_with_a_policy_and_tells_how(run, toy_space, tmp_path) -> None:
    lines, metrics, judged, reported = [], {}, [], []

    def report(row: dict[str, float], step: int) -> None:
        reported.append((step, row))
        if "train/loss" in row:
            metrics[step] = row
        else:
            judged.append(row)

    result = run(folder=tmp_path, progress=lines.append, report=report)
    assert result.policy.is_pure
    assert result.policy.frames == 3
    assert Policy.load(tmp_path / "policy.json") == result.policy
    kinds = [each["kind"] for each in result.decisions]
    assert kinds == ["option"] * len(toy_space.edges) + ["edges"] * kinds.count("edges")
    assert kinds.count("edges") >= 1
    assert result.policy.found["decisions"] == result.decisions
    assert sorted(metrics) == list(range(1, len(result.history) + 1))
    # What a tracker missed can be filled in.
    kept = [(row["pass"], row) for row in result.history]
    kept += [(each["pass"], decision_metrics(each)) for each in result.decisions]
    assert len(kept) == len(reported)
    assert all(each in kept for each in reported)
    for row, made in zip(judged, result.decisions, strict=True):
        assert [value for name, value in row.items() if name.startswith("harm/")] == list(made["harm"].values())
    assert {"harm/0-1/translate_x", "margin/0-1"} <= {name for row in judged for name in row}
    hours = [row["cost/device_hours"] for row in metrics.values()]
    assert 0 < hours[0] < hours[-1] <= result.device_hours
    assert {"search/entropy", "search/identity_share", "alpha/0-1/translate_x", "train/loss", "val/loss"} <= set(
        metrics[1]
    )
    assert all(isinstance(value, (int, float)) for row in metrics.values() for value in row.values())
    assert any("epoch 2/2" in line for line in lines)
    assert result.device_hours == pytest.approx(result.seconds / 3600)


def test_the_same_seed_gives_the_same_policy_bit_for_bit_and_alpha_too(run) -> None:
    first, again = run(seed=3), run(seed=3)
    assert first.policy.to_json() == again.policy.to_json()
    timeless = [
        [{k: v for k, v in row.items() if k not in {"seconds", "cost/device_hours"}} for row in each.history]
        for each in (first, again)
    ]
    assert timeless[0] == timeless[1]
    assert run(seed=4).policy.found["seed"] == 4


@pytest.mark.parametrize(("relaxation", "stop_after"), [("softmax", 1), ("gumbel", 2), ("softmax", 3), ("softmax", 4)])
def test_an_interrupted_and_resumed_search_equals_an_uninterrupted_one(
    run, quick, tmp_path, stop_after, relaxation
) -> None:
    config = quick(relaxation=relaxation)
    whole = run(config, folder=tmp_path / "whole")

    def interrupt(_row, step) -> None:
        if step == stop_after:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(config, folder=tmp_path / "parts", report=interrupt)
    assert len(read_checkpoint(tmp_path / "parts" / "search.pt")["history"]) == stop_after
    # Another network's weights, to prove that everything comes from the checkpoint.
    resumed = run(config, folder=tmp_path / "parts", resume=True)
    assert resumed.policy.to_json() == whole.policy.to_json()
    states = [read_checkpoint(tmp_path / name / "search.pt") for name in ("whole", "parts")]
    assert torch.equal(states[0]["cell"]["alpha"], states[1]["cell"]["alpha"])
    assert states[0]["cost"] == states[1]["cost"]
    assert min(states[0]["cost"][name] for name in ("flops", "weights", "alpha", "scored")) > 0
    for name, tensor in states[0]["network"].items():
        assert torch.equal(tensor, states[1]["network"][name]), name
    assert [row["train/loss"] for row in states[0]["history"]] == [row["train/loss"] for row in states[1]["history"]]


def test_resuming_a_finished_search_changes_nothing_and_other_settings_are_refused(run, quick, tmp_path) -> None:
    done = run(folder=tmp_path)
    before = (tmp_path / "policy.json").read_bytes()
    again = run(folder=tmp_path, resume=True)
    assert again.policy == done.policy
    assert (tmp_path / "policy.json").read_bytes() == before
    with pytest.raises(UserError, match="other settings"):
        run(quick(alpha_learning_rate=0.5), folder=tmp_path, resume=True)
    with pytest.raises(UserError, match="other settings"):
        run(folder=tmp_path, resume=True, seed=9)


def test_a_loss_that_is_not_finite_stops_with_step_and_images_and_keeps_the_last_state(
    run, quick, toy_network, tmp_path
) -> None:
    network = toy_network()
    report = lambda _row, step: network.network.fc.bias.data.fill_(torch.nan) if step == 1 else None  # noqa: E731
    with pytest.raises(UserError, match=r"loss is nan in pass 2 .*step 1, images \[\d+"):
        run(folder=tmp_path, network=network, report=report)
    state = read_checkpoint(tmp_path / "search.pt")
    assert state["epoch"] == 1


@pytest.mark.parametrize("magnitudes", ["frozen", "learned"])
def test_a_search_that_diverges_within_a_pass_ends_with_it_and_writes_no_nan(
    run, quick, toy_space, monkeypatch, tmp_path, magnitudes
) -> None:
    """The losses of a pass are read at its end: until then nothing may be sampled at points that are not numbers."""
    space, config = toy_space.with_changes(magnitudes=magnitudes), quick(batch=4, magnitude_learning_rate=0.5)
    run(config, space=space, folder=tmp_path / "whole")
    loss, calls = Objective.loss, []

    def broken(self, logits, targets, reduction="mean"):
        calls.append(1)
        return loss(self, logits, targets, reduction) * (torch.nan if len(calls) == 11 else 1.0)

    monkeypatch.setattr(Objective, "loss", broken)  # two losses per step, four steps per pass: alpha's second of pass 2
    with pytest.raises(UserError, match=r"^The alpha loss is nan in pass 2 \(supernet\), step 2, images") as caught:
        run(config, space=space, folder=tmp_path / "broken")
    assert "\n" not in str(caught.value)
    assert len(calls) == 16
    state = read_checkpoint(tmp_path / "broken" / "search.pt")
    assert state["epoch"] == 1
    assert all(tensor.isfinite().all() for part in ("cell", "network") for tensor in state[part].values())
    monkeypatch.setattr(Objective, "loss", loss)
    run(config, space=space, folder=tmp_path / "broken", resume=True)
    policies = [(tmp_path / name / "policy.json").read_text() for name in ("whole", "broken")]
    assert policies[0] == policies[1]


def test_a_state_with_the_earlier_name_of_magnitudes_is_resumed(run, quick, toy_space, tmp_path) -> None:
    space = toy_space.with_changes(magnitudes="learned")

    def interrupt(_row, step) -> None:
        if step == 2:
            raise Interrupted

    whole = run(space=space)
    with pytest.raises(Interrupted):
        run(space=space, folder=tmp_path, report=interrupt)
    state = torch.load(tmp_path / "search.pt", weights_only=True)
    state["cell"]["magnitudes.place"] = state["cell"].pop("magnitudes.position")
    torch.save(state, tmp_path / "search.pt")
    assert run(space=space, folder=tmp_path, resume=True).policy.to_json() == whole.policy.to_json()


@pytest.mark.parametrize("selection", ["magnitude", "random"])
def test_other_selections_need_no_measuring_and_no_tuning(run, quick, selection) -> None:
    result = run(quick(selection=selection))
    assert len(result.history) == 2
    assert all(each["whole"] == {} for each in result.decisions)
    assert result.policy.is_pure


@pytest.mark.parametrize("order", ["second", "second-exact"])
def test_second_order_runs_and_asks_for_sgd(run, quick, order) -> None:
    small = quick(order=order, epochs=1, optimizer="sgd", selection="magnitude")
    assert run(small).policy.is_pure
    with pytest.raises(UserError, match=r"search\.optimizer"):
        run(dataclasses.replace(small, optimizer="adamw"))


def test_learned_magnitudes_move_and_stay_in_range(run, quick, toy_space, tmp_path) -> None:
    space = toy_space.with_changes(magnitudes="learned")
    run(quick(selection="magnitude", magnitude_learning_rate=0.3), space=space, folder=tmp_path)
    state = read_checkpoint(tmp_path / "search.pt")
    run(quick(selection="magnitude", magnitude_learning_rate=1e-9), space=space, folder=tmp_path / "still")
    still = read_checkpoint(tmp_path / "still" / "search.pt")
    assert (state["cell"]["magnitudes.position"] - still["cell"]["magnitudes.position"]).abs().max() > 0.05


def test_segmentation_is_searched_on_masks(run, quick, toy_data, toy_network) -> None:
    result = run(
        quick(epochs=1, criterion="score"),
        data=toy_data(task="segmentation"),
        network=toy_network(task="segmentation"),
        objective=objective_for("segmentation", 2, 255),
    )
    assert result.policy.is_pure
    assert "train/mIoU" in result.history[0]


def test_warmup_leaves_alpha_alone_and_a_subset_is_smaller(run, quick) -> None:
    result = run(quick(warmup_epochs=1, selection="magnitude", subset=20))
    first, second = result.history
    assert "val/loss" not in first
    assert "val/loss" in second
    assert first["alpha/0-1/identity"] == pytest.approx(0, abs=5e-3)


def test_a_half_without_a_class_is_said(run, toy_data) -> None:
    lines = []
    data = toy_data()
    few = dataclasses.replace(data, train=data.train.subset(torch.tensor([0, 2, 4, 6, 8, 10, 12, 14, 15])))
    run(data=few, progress=lines.append)
    warnings = [line for line in lines if "has no image of 1 of 2 classes (right)" in line]
    assert len(warnings) == 1
    lines.clear()
    run(progress=lines.append)
    assert not [line for line in lines if "has no image" in line]


def test_frames_that_do_not_fit_the_network_are_a_users_mistake(run, toy_network) -> None:
    with pytest.raises(UserError, match="reads 2 frames, but the search uses 3"):
        run(network=toy_network(frames=2))


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("learning_rate", 0.0), ("alpha_learning_rate", float("nan")), ("warmup_epochs", 2), ("frames", 0)],
)
def test_settings_out_of_range_name_themselves(quick, field, value) -> None:
    with pytest.raises(UserError, match=field):
        quick(**{field: value})
