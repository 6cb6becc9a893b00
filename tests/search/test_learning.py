"""What a search learns from: images augmented and targets smoothed as in training, decisions on plain ones; step sizes."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor
from torch.func import functional_call

from fieldshift.errors import UserError
from fieldshift.networks import video_network
from fieldshift.search import SearchConfig
from fieldshift.search.bilevel import outer_gradient
from fieldshift.search.learning import for_alpha, part_size
from fieldshift.search.supernet import Supernet
from fieldshift.training import Recipe
from fieldshift.training.checkpoint import read_checkpoint
from fieldshift.training.objectives import Objective

RANDOM = {"flip": 0.5, "crop": 2}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Tensor, Tensor]]:
    """Every (step, images, targets) that reaches the cell in a search, before motion and normalisation."""
    kept: list[tuple[str, Tensor, Tensor]] = []
    images: list[tuple[str, Tensor]] = []
    forward, loss = Supernet.forward, Objective.loss

    def watched(self, pixels, weights=None, known=(), *, learns_cell=True, **settings):
        step = "scoring" if not torch.is_grad_enabled() else "alpha" if learns_cell else "weights"
        images.append((step, pixels.clone()))
        return forward(self, pixels, weights, known, learns_cell=learns_cell, **settings)

    def measured(self, logits, targets, reduction="mean"):
        kept.append((*images[-1], targets.clone()))
        return loss(self, logits, targets, reduction)

    monkeypatch.setattr(Supernet, "forward", watched)
    monkeypatch.setattr(Objective, "loss", measured)
    return kept


def variants(image: Tensor, reach: int) -> dict[bytes, Tensor]:
    """Every crop and flip of an image, by torchvision."""
    height, width = image.shape[-2:]
    padded = tvf.pad(image, [reach])
    crops = [
        tvf.crop(tvf.horizontal_flip(padded) if flip else padded, top, left, height, width)
        for flip in (False, True)
        for top in range(2 * reach + 1)
        for left in range(2 * reach + 1)
    ]
    return {crop.numpy().tobytes(): crop for crop in crops}


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_both_steps_see_crops_and_flips_and_decisions_plain_images(
    run, quick, toy_data, toy_network, objective, seen, task
) -> None:
    data = toy_data(task=task)
    objective = dataclasses.replace(objective, task=task, ignore_index=data.ignore_index)
    run(quick(**RANDOM, epochs=1), data=data, network=toy_network(task=task), objective=objective)
    plain = {image.numpy().tobytes() for image in data.train.images}
    moved = {key for image in data.train.images for key in variants(image, 2)}
    found: dict[str, set[bytes]] = {"weights": set(), "alpha": set(), "scoring": set()}
    for step, images, targets in seen:
        found[step] |= (
            {image.numpy().tobytes() for image in (images * 255).round().to(torch.uint8)}
            if (images.is_floating_point())
            else {image.numpy().tobytes() for image in images}
        )
        if task == "segmentation":  # the column of 255 is the class, in every crop: masks go along
            bright = (images if images.dtype == torch.uint8 else images * 255)[:, 0] == 255
            assert torch.equal((targets == 1), bright)
            assert bool((targets == 255).any()) == (step != "scoring")
    for step in ("weights", "alpha"):
        assert found[step] <= moved
        assert len(found[step] - plain) > len(found[step]) / 2
    assert found["scoring"] <= plain


def test_both_losses_are_smoothed_and_the_measured_one_is_not(run, quick, monkeypatch) -> None:
    smoothings: dict[str, set[float]] = {}
    loss = Objective.loss

    def noted(self, logits, targets, reduction="mean"):
        smoothings.setdefault(reduction, set()).add(self.label_smoothing)
        value = loss(self, logits, targets, reduction)
        torch.testing.assert_close(
            value,
            torch.nn.functional.cross_entropy(
                logits, targets, reduction=reduction, label_smoothing=0.25 if reduction == "mean" else 0.0
            ),
        )
        return value

    monkeypatch.setattr(Objective, "loss", noted)
    run(quick(epochs=1, label_smoothing=0.25))
    assert smoothings == {"mean": {0.25}, "none": {0.0}}


def test_a_search_takes_from_the_recipe_what_it_has_no_value_of_its_own_for() -> None:
    recipe = Recipe(flip=0.5, crop=3, scale=1.5, label_smoothing=0.1)
    taken = SearchConfig(crop=0).like(recipe)
    assert SearchConfig().like(Recipe(sync_batch_norm=True)).sync_batch_norm
    assert SearchConfig().like(Recipe(precision="bf16", resized_crop=0.5)) == SearchConfig(
        flip=0.0, crop=0, scale=1.0, resized_crop=0.5, label_smoothing=0.0, precision="float32", sync_batch_norm=False
    )
    assert (taken.flip, taken.crop, taken.scale, taken.label_smoothing) == (0.5, 0, 1.5, 0.1)
    assert SearchConfig(epochs=3).like(Recipe()) == SearchConfig(
        epochs=3,
        flip=0.0,
        crop=0,
        scale=1.0,
        resized_crop=1.0,
        label_smoothing=0.0,
        precision="float32",
        sync_batch_norm=False,
    )


def test_nothing_asked_is_the_default_of_training(run, quick) -> None:
    asked = run(quick(flip=0.0, crop=0, scale=1.0, label_smoothing=0.0))
    default = run(quick())
    assert default.policy.to_json() == asked.policy.to_json()
    assert default.policy.found["settings"]["crop"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("flip", 2.0), ("crop", -1), ("scale", 0.5), ("resized_crop", 0.0), ("label_smoothing", 1.0)],
)
def test_settings_that_there_are_not_name_themselves(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"^search\.{name} is"):
        SearchConfig(**{name: value})


class Interrupted(Exception):  # noqa: N818
    pass


def test_an_augmented_search_goes_on_exactly(run, quick, tmp_path) -> None:
    config = quick(**RANDOM, scale=1.2, label_smoothing=0.1)
    run(config, folder=tmp_path / "whole")

    def interrupt(_row, step) -> None:
        if step == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(config, folder=tmp_path / "parts", report=interrupt)
    run(config, folder=tmp_path / "parts", resume=True)
    states = [read_checkpoint(tmp_path / name / "search.pt") for name in ("whole", "parts")]
    assert torch.equal(states[0]["cell"]["alpha"], states[1]["cell"]["alpha"])
    for name, tensor in states[0]["network"].items():
        assert torch.equal(tensor, states[1]["network"][name]), name
    with pytest.raises(UserError, match="other settings"):
        run(dataclasses.replace(config, crop=1), folder=tmp_path / "parts", resume=True)


def test_a_state_of_a_version_before_is_refused_in_a_line(run, quick, tmp_path) -> None:
    run(quick(epochs=1), folder=tmp_path)
    state = torch.load(tmp_path / "search.pt", weights_only=True)
    torch.save(state | {"schema": 1}, tmp_path / "search.pt")
    with pytest.raises(UserError, match="of this version; delete it") as caught:
        run(quick(epochs=1), folder=tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_the_tuning_between_decisions_has_one_cosine_from_a_tenth(run, quick) -> None:
    """As in the code of DARTS-PT: 3 edges and 1 node with too many edges are 4 decisions, 3 stretches of tuning."""
    config = quick(epochs=2, tune_epochs=2, learning_rate=0.01, min_learning_rate=1e-4)
    history = run(config).history
    assert len(history) == 2 + 3 * 2
    last_step = (36 // 2 // 8 - 1) / (36 // 2 // 8)  # a row has the rate of its pass's last step
    expected = [1e-4 + (1e-3 - 1e-4) * (1 + math.cos(math.pi * (done + last_step) / 6)) / 2 for done in range(6)]
    assert [row["learning_rate"] for row in history[2:]] == pytest.approx(expected)


def test_alpha_of_an_edge_stays_after_its_decision(run, quick) -> None:
    """Its gradient is 0 then, and the weight decay of its optimizer would be all that moves it."""
    result = run(quick(epochs=2, tune_epochs=3, alpha_weight_decay=0.1, alpha_learning_rate=0.01))
    decided = [choice["at"] for choice in result.decisions if choice["at"].startswith("edge ")]
    assert len(decided) >= 3
    for number, edge in enumerate(decided[:-1]):
        name = edge.removeprefix("edge ").replace("->", "-")
        learned = [{k: v for k, v in row.items() if k.startswith(f"alpha/{name}/")} for row in result.history]
        first_after = 2 + 3 * number  # two passes, then three between one decision and the next
        assert learned[first_after - 1] != learned[0]
        assert all(row == learned[first_after - 1] for row in learned[first_after:])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_part_of_a_half_has_too_few_images_for_batch_statistics(workers: int) -> None:
    for batch in range(workers, 40, workers):
        for count in range(max(batch, 2 * workers), 200):
            size = part_size(count, batch, workers, min(2 * workers, batch))
            parts = [min(size, count - start) for start in range(0, count, size)]
            equal = max(workers, math.ceil(count / math.ceil(count / batch)))
            assert min(parts) >= min(2 * workers, batch)
            assert size >= equal
            if (count % equal or equal) >= 2 * workers:
                assert size == equal


def test_alphas_step_has_the_same_gradient_where_activations_are_recomputed() -> None:
    """In ConvNeXt, whose recomputation would save other tensors for parameters without gradients."""
    images, found = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = video_network("convnext_tiny", temporal="tsm", frames=3, num_classes=3, recompute=recompute).eval()
        names, parameters = zip(*network.named_parameters(), strict=True)
        alpha = torch.ones((), requires_grad=True)
        run = SimpleNamespace(config=SearchConfig(), supernet=SimpleNamespace(network=network))

        def loss(given, network=network, names=names, alpha=alpha):
            return functional_call(network, dict(zip(names, given, strict=True)), (images * alpha,)).square().mean()

        given = for_alpha(run, parameters)  # type: ignore[arg-type]
        assert any(each.requires_grad for each in given) == recompute
        found.append(outer_gradient(loss, loss, given, [alpha])[0][0])
    assert found[0].abs() > 0
    torch.testing.assert_close(found[1], found[0])
