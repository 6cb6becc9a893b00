"""A search in bf16: both learning steps round, decisions and what is stored do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fieldshift.errors import UserError
from fieldshift.folding import still
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.search import SearchConfig, load_space
from fieldshift.search.run import STATE_FILE
from fieldshift.training import Recipe
from fieldshift.training.checkpoint import read_checkpoint
from fieldshift.training.objectives import objective_for
from fieldshift.training.step import precision_of

FORMS = ["video", "folded"]
ROUNDING = 2e-2  # how far eight bits of mantissa may carry the first pass's losses, relative


def network_of(form: str, task: str = "classification") -> VideoNetwork:
    torch.manual_seed(0)
    name = "tiny-resnet" if task == "classification" else "tiny-resnet-fcn"
    motions = {"frames": 1, "motions": still(1)} if form == "folded" else {"frames": 3}
    return video_network(name, task=task, temporal="tsm", num_classes=2, in_channels=1, **motions)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("form", FORMS)
def test_both_steps_run_in_bf16_and_decisions_in_float32(run, quick, toy_data, form: str, task: str) -> None:
    kinds: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    network = network_of(form, task)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda _m, _i, output: kinds[torch.is_grad_enabled()].add(output.dtype))
    objective = objective_for(task, 2, 255 if task == "segmentation" else None)
    found = run(quick(precision="bf16"), network=network, data=toy_data(task=task), objective=objective)
    assert kinds == {True: {torch.bfloat16}, False: {torch.float32}}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert found.policy.found["settings"]["precision"] == "bf16"


@pytest.mark.parametrize("magnitudes", ["frozen", "learned"])
@pytest.mark.parametrize("form", FORMS)
def test_the_losses_are_those_of_float32_up_to_rounding(run, quick, form: str, magnitudes: str, tmp_path: Path) -> None:
    space = load_space("affine-cell").with_changes(
        inputs=1, nodes=1, edges_per_node=1, candidates=(("identity",), ("translate_x",), ("rotate",)), ranges={},
        magnitudes=magnitudes,
    )  # fmt: skip
    rows, alphas = [], []
    for precision in ("float32", "bf16"):
        settings = quick(precision=precision, epochs=1, selection="magnitude")
        rows.append(run(settings, space=space, network=network_of(form), folder=tmp_path / precision).history[0])
        alphas.append(read_checkpoint(tmp_path / precision / STATE_FILE)["cell"]["alpha"])
    for name in ("train/loss", "val/loss"):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=ROUNDING)
        assert rows[1][name] != rows[0][name]
    assert torch.isfinite(alphas[1]).all()
    assert torch.equal(alphas[0].sign(), alphas[1].sign())


@pytest.mark.parametrize("form", FORMS)
def test_an_exact_second_order_step_in_bf16(run, quick, form: str) -> None:
    settings = quick(precision="bf16", order="second-exact", optimizer="sgd", epochs=1, selection="magnitude")
    assert run(settings, network=network_of(form)).history


def test_finite_differences_are_refused_in_bf16_of_the_search_alone() -> None:
    with pytest.raises(UserError, match=r"give --search\.precision float32"):
        SearchConfig(order="second", optimizer="sgd", precision="bf16")
    SearchConfig(order="second", optimizer="sgd").check(1, Recipe(precision="bf16"))


def test_a_gpu_without_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match=r"search\.precision float32"):
        precision_of("search", "bf16", torch.device("cuda"))
