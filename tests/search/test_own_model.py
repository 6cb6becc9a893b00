"""A search with a model and images as objects: the policy of the search by name, the model unchanged, mistakes by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fieldshift import find_policy, fold
from fieldshift.data import Split, TensorSplit
from fieldshift.errors import UserError
from fieldshift.folding import still
from fieldshift.networks import video_network
from fieldshift.search import load_space, search

SMALL = load_space("affine-one").with_changes(
    candidates=(("identity",), ("translate_x",), ("rotate",)),
    ranges={},
    grid={"translate_x": (0.3,), "rotate": (40.0,)},
    name="small",
)


class Interrupted(Exception):  # noqa: N818
    pass


class Reading(Split):
    """A split of a user's own, which counts what is read at once."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.targets, self.most = images, labels, 0

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        self.most = max(self.most, len(indices))
        return self.images[indices], self.targets[indices]

    def subset(self, indices: Tensor) -> Split:
        return TensorSplit(self.images[indices], self.targets[indices])

    def to(self, device: torch.device | str) -> Split:
        return self


def own_model(task: str = "classification") -> nn.Module:
    torch.manual_seed(0)
    name = "tiny-resnet" if task == "classification" else "tiny-resnet-fcn"
    return video_network(name, task=task, temporal="none", frames=1, num_classes=2, in_channels=1).network


@pytest.mark.parametrize("form", ["folded", "video"])
def test_the_policy_is_that_of_the_search_of_a_network_by_name(
    toy_data, objective, quick, normalise, form: str
) -> None:
    data = toy_data()
    motions: dict[str, Any] = {"frames": 1, "motions": still(1)} if form == "folded" else {"frames": 3}
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal="tsm", num_classes=2, in_channels=1, **motions)
    by_name = search(network, data, SMALL, quick(), objective=objective, normalise=normalise, seed=3)
    lines: list[str] = []
    model = own_model()
    found = find_policy(
        model,
        data.train,
        space=SMALL,
        config=quick(),
        form=form,
        mean=(0.2,),
        std=(0.3,),
        seed=3,
        progress=lines.append,
    )
    assert [row["train/loss"] for row in found.history] == [row["train/loss"] for row in by_name.history]
    assert found.decisions == by_name.decisions
    assert found.policy.describe() == by_name.policy.describe()
    assert len(lines) >= len(found.history) + len(found.decisions)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_model_is_unchanged_and_takes_the_policy(toy_data, quick, task: str) -> None:
    model, train = own_model(task), toy_data(task=task).train
    before, shown = copy.deepcopy(model.state_dict()), repr(model)
    random_state = torch.get_rng_state()
    found = find_policy(model, train, space=SMALL, config=quick(epochs=1), temporal="gsf")
    assert torch.equal(random_state, torch.get_rng_state())
    assert repr(model) == shown
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert fold(model, found.policy, temporal="gsf")
    images, labels = train.gather(torch.arange(3))
    assert model(images.float()).shape == ((3, 2) if labels.ndim == 1 else (3, 2, 12, 12))


def test_images_have_their_own_statistics_and_are_read_in_parts(toy_data, quick) -> None:
    images = toy_data(count=600).train.images
    labels = torch.arange(600) % 2
    split = Reading(images, labels)
    found = find_policy(own_model(), split, space=SMALL, config=quick(epochs=1, selection="magnitude"))
    assert split.most <= 256
    pixels = images.double() / 255
    given = find_policy(
        own_model(), TensorSplit(images, labels), space=SMALL, config=quick(epochs=1, selection="magnitude"),
        mean=(float(pixels.mean()),), std=(float(pixels.std(correction=0)),),
    )  # fmt: skip
    assert found.history[0]["train/loss"] == pytest.approx(given.history[0]["train/loss"], abs=1e-5)


def test_an_interrupted_search_resumes(toy_data, quick, tmp_path: Path) -> None:
    train, settings = toy_data().train, {"space": SMALL, "config": quick()}
    whole = find_policy(own_model(), train, **settings)
    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        find_policy(own_model(), train, folder=tmp_path, progress=interrupt, **settings)
    resumed = find_policy(own_model(), train, folder=tmp_path, resume=True, **settings)
    assert resumed.policy.describe() == whole.policy.describe()
    assert [row["train/loss"] for row in resumed.history] == [row["train/loss"] for row in whole.history]


class Dictionary(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": images}


def labelled(labels: Tensor, channels: int = 1) -> TensorSplit:
    return TensorSplit(torch.zeros(len(labels), channels, 12, 12, dtype=torch.uint8), labels)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "label": ({"train": labelled(torch.arange(4))}, "largest label is 3, but the model has 2 outputs"),
    "negative label": ({"train": labelled(torch.tensor([0, -1]))}, "smallest label is -1"),
    "one image": ({"train": labelled(torch.zeros(1, dtype=torch.int64))}, "a search needs 2 or more"),
    "channels": ({"train": labelled(torch.arange(2), channels=3)}, "cannot read images"),
    "dictionary": ({"model": Dictionary()}, "must return logits as one tensor"),
    "maps": ({"model": nn.Conv2d(1, 2, 1)}, "logits"),
    "places": ({"places": "nowhere"}, "nowhere"),
    "half of a normalisation": ({"mean": (0.5,)}, "give both"),
    "mean of three channels": ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "3 and 3 values, but the images 1 channels"),
    "form": ({"form": "fold"}, "must be folded or video"),
    "space": ({"space": "affine-on"}, "affine-one"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str) -> None:
    changes, words = MISTAKES[mistake]
    given = {"model": own_model(), "train": labelled(torch.arange(4) % 2), **changes}
    with pytest.raises(UserError, match=words):
        find_policy(**given)
