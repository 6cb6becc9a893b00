"""A search with a model and images as objects: the policy of the search by name, the model unchanged, mistakes by name."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fieldshift import find_policy, fold
from fieldshift.data import Split, TensorSplit
from fieldshift.errors import UserError
from fieldshift.folding import still
from fieldshift.networks import video_network
from fieldshift.search import SearchConfig, load_space, search

pytestmark = pytest.mark.filterwarnings("ignore:.*may be chance:UserWarning")  # short searches of few images

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


def test_classes_without_a_pixel_are_a_warning(toy_data, quick) -> None:
    model, train = nn.Sequential(nn.Conv2d(1, 16, 1), nn.Conv2d(16, 4, 1)), toy_data(task="segmentation").train
    lines: list[str] = []
    find_policy(model, train, space=SMALL, config=quick(epochs=1), places="1", progress=lines.append)
    assert lines[0] == "Warning: the masks have no pixel of 2 of 4 classes (2, 3); add images."


@pytest.mark.parametrize("progress", [True, False])
def test_a_decision_in_which_nothing_differs_keeps_the_identity_and_is_a_warning(quick, progress: bool) -> None:
    model, lines = own_model(), list[str]()
    model.get_submodule("fc").requires_grad_(False).weight.zero_()  # one answer for every image
    given = {"space": SMALL, "config": quick(epochs=1), **({"progress": lines.append} if progress else {})}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = find_policy(model, labelled(torch.arange(20) % 2), **given)
    assert found.decisions[0]["chosen"] == ["identity"]
    said = lines[-1] if progress else f"Warning: {caught[-1].message}"
    assert said.startswith("Warning: edge 0->1: the choice of identity may be chance (margin 0, standard error 0)")
    assert len(caught) == (0 if progress else 1)


@pytest.mark.parametrize(("last", "warned"), [(nn.Softmax(1), True), (nn.ReLU(), False), (nn.LogSoftmax(1), False)])
def test_outputs_of_a_softmax_are_a_warning(toy_data, quick, last: nn.Module, warned: bool) -> None:
    lines: list[str] = []
    model = nn.Sequential(own_model(), last)
    find_policy(model, toy_data().train, space=SMALL, config=quick(epochs=1), progress=lines.append)
    assert ["after a softmax" in line for line in lines].count(True) == warned


def test_the_normalisation_is_any_iterable_of_numbers(toy_data, quick) -> None:
    given = {"space": SMALL, "config": quick(epochs=1, selection="magnitude")}
    losses = [
        find_policy(own_model(), toy_data().train, mean=mean, std=std, **given).history[0]["train/loss"]
        for mean, std in (
            ((0.25,), (0.5,)),
            (np.array([0.25]), torch.tensor([[[0.5]]])),
            (iter([0.25]), [np.float32(0.5)]),
        )
    ]
    assert losses == losses[:1] * 3


def test_a_folder_with_a_search_is_kept_and_one_without_is_named(toy_data, quick, tmp_path: Path) -> None:
    given = {"space": SMALL, "config": quick(epochs=1, selection="magnitude"), "folder": tmp_path / "new"}
    with pytest.warns(UserWarning, match="nothing to resume in .*new: the search starts anew"):
        first = find_policy(own_model(), toy_data().train, resume=True, **given)
    before = (tmp_path / "new" / "search.pt").read_bytes()
    with pytest.raises(UserError, match="already holds a search; give resume=True"):
        find_policy(own_model(), toy_data().train, **given)
    assert (tmp_path / "new" / "search.pt").read_bytes() == before
    assert find_policy(own_model(), toy_data().train, resume=True, **given).policy == first.policy
    with pytest.raises(UserError, match="is a file"):
        find_policy(own_model(), toy_data().train, **{**given, "folder": tmp_path / "new" / "search.pt"})


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


class Keeping(nn.Module):
    """Keeps a feature map of its last forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.features = self.conv(images)
        return self.features.mean((2, 3))

    def after_a_run(self) -> nn.Module:
        self(torch.zeros(1, 1, 12, 12))
        return self


def lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls lazy layers new
        return nn.Sequential(nn.LazyConv2d(2, 12), nn.Flatten())


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated
        script: nn.Module = torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 12), nn.Flatten()))
    return script


def with_weight(value: float) -> nn.Module:
    model = own_model()
    next(model.parameters()).data[0, 0, 0, 0] = value
    return model


def normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 16, 12), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2))


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
        {"model": own_model("segmentation"), "train": masked(torch.full((4, 12, 12), 255))},
        "No pixel of the masks is labelled",
    ),
    "maps for classes": ({"train": masked(torch.zeros(4, 12, 12))}, "the split has masks"),
    "resume": ({"resume": True}, "without the folder"),
    "no deviation": ({"mean": (0.5,), "std": (0.0,)}, "each must be above 0"),
    "infinite deviation": ({"mean": (0.5,), "std": (float("inf"),)}, "each must be above 0 and finite"),
    "a number as mean": ({"mean": 0.5, "std": 0.5}, "mean is 0.5, but must be a list of 1 number"),
    "text as mean": ({"mean": "5", "std": "5"}, "mean is '5', but must be a list of 1 number"),
    "mean of 0 to 255": ({"mean": (123.7,), "std": (58.4,)}, "from 0 to 1: .* scale 0 to 255 by 255"),
    "unknown mean": ({"mean": (float("nan"),), "std": (0.5,)}, "each must be from 0 to 1"),
    "binary masks": (
        {"model": own_model("segmentation"), "train": masked(255 * torch.eye(12).expand(4, 12, 12))},
        r"only the values 0 and 255 \(= ignored\); give 0 and 1",
    ),
    "a dict as config": ({"config": {"epochs": 1}}, r"must be an object such as fieldshift\.search\.SearchConfig\(\)"),
    "text as seed": ({"seed": "a"}, "seed is 'a', but must be a whole number"),
    "large seed": ({"seed": 2**63}, "seed is 9223372036854775808, but must be from 0 to 9223372036854775807"),
    "unknown device": ({"device": "gpu"}, "device is 'gpu', but must be one that torch can use here"),
    "a number as device": ({"device": 0.5}, "device is 0.5, but must be one that torch can use here"),
    "no values on the device": ({"device": "meta"}, "device is meta, which has no values"),
    "a model without values": ({"model": own_model().to("meta")}, "is on the device meta and has no values"),
    "list of places": ({"places": ["blocks.0"]}, "one text, a shell pattern .*, such as 'blocks.0'"),
    "a number as space": ({"space": 3}, "space is 3, but must be text or an object such as"),
    "a truth value as progress": ({"progress": True}, "must be a function of one line, such as print"),
    "kept features": ({"model": Keeping().after_a_run()}, "Keeping cannot be copied; remove what it keeps"),
    "lazy": ({"model": lazy()}, r"'0\.weight' of Sequential has no size yet, .*run the model once"),
    "several GPUs": ({"model": nn.DataParallel(own_model())}, r"DataParallel around the model .*; give model\.module"),
    "scripted": ({"model": scripted()}, "RecursiveScriptModule of torch.jit, .*; give the eager model"),
    "no convolution": ({"model": nn.Sequential(nn.Flatten(), nn.Linear(144, 2))}, "Sequential has no Conv2d"),
    "weight without value": (
        {"model": with_weight(float("nan"))},
        r"'conv1\.weight' of .* values that are not finite",
    ),
    "infinite weight": ({"model": with_weight(float("inf"))}, r"'conv1\.weight' of .* values that are not finite"),
    "batch of one": (
        {"model": normed(), "train": labelled(torch.arange(3) % 2)},
        "A step has 1 image .*Give more images",
    ),
    "batch of one by choice": (
        {"model": normed(), "config": SearchConfig(batch=1)},
        r"A step has 1 image \(half of 4 images, search\.batch is 1\)",
    ),
    "nothing to synchronise": ({"config": SearchConfig(sync_batch_norm=True)}, "there is only one process"),
    "edges": ({"config": SearchConfig(edges_per_node=5)}, r"edges_per_node is 5, but no node .* more than 1 edge"),
    "negative label": ({"train": labelled(torch.tensor([0, -1]))}, "smallest label is -1"),
    "one image": ({"train": labelled(torch.zeros(1, dtype=torch.int64))}, "a search needs 2 or more"),
    "channels": ({"train": labelled(torch.arange(2), channels=3)}, "cannot read images"),
    "dictionary": ({"model": Dictionary()}, "returns a dict for images"),
    "maps": ({"model": nn.Conv2d(1, 2, 1)}, "the split has class numbers"),
    "places": ({"places": "nowhere"}, "nowhere"),
    "half of a normalisation": ({"mean": (0.5,)}, "give both"),
    "mean of three channels": ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "must be a list of 1 number, one per channel"),
    "form": ({"form": "fold"}, "Did you mean 'folded'"),
    "space": ({"space": "affine-on"}, "affine-one"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str) -> None:
    changes, words = MISTAKES[mistake]
    given: dict[str, Any] = {"model": own_model(), "train": labelled(torch.arange(4) % 2), **changes}
    with pytest.raises(UserError, match=words):
        find_policy(**given)
