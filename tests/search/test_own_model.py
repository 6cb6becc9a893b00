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
from fieldshift.search import SearchConfig, load_space, search

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


class Dropping(nn.Module):
    """A model that draws random numbers in training, and whose forward pass needs values."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(self.stem(images)).mean((2, 3))
        return self.fc(nn.functional.dropout(features, 0.5, self.training) * float(images.max().item() >= 0))


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


def test_random_layers_leave_the_state_of_random_numbers(toy_data, quick) -> None:
    model, train = Dropping(), toy_data().train
    before = torch.get_rng_state()
    find_policy(model, train, space=SMALL, config=quick(epochs=1, selection="magnitude"), places="conv")
    assert torch.equal(before, torch.get_rng_state())


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


@pytest.mark.parametrize("change", ["order of the images", "labels", "weights", "mean", "places"])
def test_a_search_of_other_images_or_another_model_is_not_resumed(toy_data, quick, tmp_path: Path, change: str) -> None:
    train, given = toy_data().train, {"space": SMALL, "config": quick(epochs=1, selection="magnitude")}
    find_policy(own_model(), train, folder=tmp_path, **given)
    model, other, settings = own_model(), train, dict(given)
    if change == "order of the images":
        other = TensorSplit(train.images.flip(0), train.targets)
    elif change == "labels":
        other = TensorSplit(train.images, 1 - train.targets)
    elif change == "weights":
        next(model.parameters()).data.add_(0.1)
    elif change == "mean":
        settings |= {"mean": (0.5,), "std": (0.5,)}
    else:
        settings |= {"places": "blocks.0"}
    with pytest.raises(UserError, match="belongs to a search with other settings or data"):
        find_policy(model, other, folder=tmp_path, resume=True, **settings)


def test_a_missing_class_is_a_warning_of_pythons(quick) -> None:
    with pytest.warns(UserWarning, match="no image of 1 of 2 classes"):
        find_policy(own_model(), labelled(torch.zeros(20, dtype=torch.int64)), space=SMALL, config=quick(epochs=1))


class Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.conv(images)}


class InTraining(Dictionary):
    """Returns a tuple in training, as torchvision's GoogLeNet does."""

    def forward(self, images: Tensor) -> Any:
        logits = self.conv(images).mean((2, 3))
        return (logits, logits) if self.training else logits


def frozen() -> nn.Module:
    return own_model().requires_grad_(False)


def labelled(labels: Tensor, channels: int = 1) -> TensorSplit:
    return TensorSplit(torch.zeros(len(labels), channels, 12, 12, dtype=torch.uint8), labels)


def masked(masks: Tensor) -> TensorSplit:
    count = len(masks)
    pixels = torch.zeros(count, 1, 12, 12, dtype=torch.uint8)
    return TensorSplit(pixels, torch.zeros(count, dtype=torch.int64), masks.to(torch.uint8))


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "label": ({"train": labelled(torch.arange(4))}, "largest label is 3, but the model has 2 outputs"),
    "images": ({"train": torch.zeros(4, 1, 12, 12)}, r"are a Tensor, but must be a Split: TensorSplit"),
    "name of a model": ({"model": "resnet18"}, "is a str, but must be a torch.nn.Module"),
    "frozen": ({"model": frozen()}, "No parameter of the model requires gradients"),
    "double": ({"model": own_model().double()}, "cannot read images .* in float32"),
    "one output": ({"model": nn.Sequential(nn.Conv2d(1, 1, 12), nn.Flatten())}, "has 1 output, but must have"),
    "tuple": ({"model": InTraining()}, "returns a tuple for images .* in training"),
    "crop": ({"config": SearchConfig(crop=12)}, r"search\.crop is 12"),
    "two frames": ({"config": SearchConfig(frames=2)}, "uses 2 frames, but the form folded needs 3"),
    "one frame": ({"config": SearchConfig(frames=1), "form": "video"}, "uses 1 frame, but the form video needs 2"),
    "no labelled pixel": (
        {"model": nn.Conv2d(1, 2, 1), "train": masked(torch.full((4, 12, 12), 255))},
        "No pixel of the masks is labelled",
    ),
    "maps for classes": ({"train": masked(torch.zeros(4, 12, 12))}, "the split has masks"),
    "resume": ({"resume": True}, "without the folder"),
    "no deviation": ({"mean": (0.5,), "std": (0.0,)}, "each must be above 0"),
    "a number as mean": ({"mean": 0.5, "std": 0.5}, "each must be a list of 1 number"),
    "negative label": ({"train": labelled(torch.tensor([0, -1]))}, "smallest label is -1"),
    "one image": ({"train": labelled(torch.zeros(1, dtype=torch.int64))}, "a search needs 2 or more"),
    "channels": ({"train": labelled(torch.arange(2), channels=3)}, "cannot read images"),
    "dictionary": ({"model": Dictionary()}, "returns a dict for images"),
    "maps": ({"model": nn.Conv2d(1, 2, 1)}, "the split has class numbers"),
    "places": ({"places": "nowhere"}, "nowhere"),
    "half of a normalisation": ({"mean": (0.5,)}, "give both"),
    "mean of three channels": ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "each must be a list of 1 number"),
    "form": ({"form": "fold"}, "Did you mean 'folded'"),
    "space": ({"space": "affine-on"}, "affine-one"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str) -> None:
    changes, words = MISTAKES[mistake]
    given: dict[str, Any] = {"model": own_model(), "train": labelled(torch.arange(4) % 2), **changes}
    with pytest.raises(UserError, match=words):
        find_policy(**given)
