"""Networks without default places: torchvision's other classifiers, and anyone's own by import path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from fieldshift.errors import UserError
from fieldshift.networks import check_answer, is_foreign, known_networks, video_network
from fieldshift.networks.config import NetworkConfig
from fieldshift.networks.foreign import foreign_network
from fieldshift.networks.names import other_classifiers

OWN = """
import threading
import torch
from torch import nn

def small(num_classes, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(16, num_classes))

def by_keywords(**options):
    return small(**options)

def unasked():
    return small(10)

def weighed(num_classes):
    network = small(num_classes)
    network.scale = float(network[0].weight.detach().abs().sum())  # needs values, not shapes alone
    return network

class Twice(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = small(num_classes)
    def forward(self, images):
        return (self.body(images), self.body(images)) if self.training else self.body(images)

def fails(num_classes):
    raise RuntimeError("there is no\\nway")

def leaves():
    raise SystemExit("over")

def gives_weights():
    return small(10).state_dict()

kept = small(10)

def shared():
    return kept

kept_lock = small(10)
kept_lock.lock = threading.Lock()
number = 3

class inside:
    small = staticmethod(small)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that lies where the command is started, importable from there alone."""
    (tmp_path / "networks_of_mine.py").write_text(OWN)
    (tmp_path / "broken_of_mine.py").write_text("def small(:\n")
    (tmp_path / "needing_of_mine.py").write_text("import what_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "networks_of_mine"
    for module in ("networks_of_mine", "broken_of_mine", "needing_of_mine"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("function", ["small", "by_keywords", "unasked", "weighed", "Twice", "kept", "inside.small"])
def test_a_network_of_ones_own_is_built_by_its_import_path(own: str, function: str) -> None:
    with torch.device("meta"):  # where only shapes are wanted, code of others gets values all the same
        network = foreign_network(f"{own}:{function}", num_classes=10, in_channels=3)
    assert network.eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_it_becomes_a_video_network_at_the_places_that_are_named(own: str) -> None:
    network = video_network(f"{own}:small", frames=3, num_classes=4, in_channels=1, places="1")
    assert [placement.path for placement in network.placements] == ["1"]
    assert network(torch.zeros(2, 3, 1, 16, 16)).shape == (2, 3, 4)
    with pytest.raises(UserError, match=r"no default place; name the modules.*are 0, 1\."):
        video_network(f"{own}:small", frames=3, num_classes=4)
    with pytest.raises(UserError, match="build your own network"):
        video_network(f"{own}:small", temporal="none", frames=1, num_classes=4, wide_field=True)
    assert not NetworkConfig().takes_small_images(f"{own}:small", (32, 32))


MISTAKES = {
    "nowhere_at_all:small": "There is no module 'nowhere_at_all'",
    "torch.nowhere:small": "There is no module 'torch.nowhere'",
    "broken_of_mine:small": r"'broken_of_mine' of the network .* cannot be imported \(SyntaxError",
    "needing_of_mine:small": r"cannot be imported \(ModuleNotFoundError: No module named 'what_nobody_has'",
    "networks_of_mine:smal": "has no 'smal'.*Did you mean 'small'",
    "networks_of_mine:inside.large": "has no 'inside.large'",
    "networks_of_mine:fails": r"cannot be built \(RuntimeError: there is no\)",
    "networks_of_mine:leaves": r"cannot be built \(SystemExit: over\)",
    "networks_of_mine:gives_weights": "gave a value of type OrderedDict, but must return a torch.nn.Module",
    "networks_of_mine:number": "is of type int; name a function or class",
    "networks_of_mine:kept_lock": "cannot be copied, so name a function that builds it",
    "networks_of_mine:": "is not an import path; write package.module:function",
    ":small": "is not an import path",
    "my/file.py:small": "is not an import path",
}


@pytest.mark.parametrize("path", MISTAKES)
def test_a_path_that_gives_no_network_says_why_in_one_line(own: str, path: str) -> None:
    with pytest.raises(UserError, match=MISTAKES[path]) as caught:
        video_network(path, temporal="none", frames=1, num_classes=10)
    assert "\n" not in str(caught.value)


def test_one_network_for_every_call_is_refused(own: str) -> None:
    video_network(f"{own}:shared", frames=3, num_classes=10, places="1")
    with pytest.raises(UserError, match="same object at every call"):
        video_network(f"{own}:shared", frames=3, num_classes=10, places="1")


@pytest.mark.parametrize(
    ("function", "classes", "maps", "said"),
    [
        ("small", 10, False, None),
        ("unasked", 7, False, r"in training with shape \(2, 10\), but logits \(2, 7\)"),
        ("Twice", 10, False, "in training with a tuple"),
        ("small", 10, True, r"logits \(2, 10, 16, 16\) are needed"),
    ],
)
def test_the_answer_is_checked_in_training_and_in_evaluation(
    own: str, function: str, classes: int, maps: bool, said: str | None
) -> None:
    network = foreign_network(f"{own}:{function}", num_classes=classes, in_channels=3).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    if said is None:
        check_answer(network, "mine", (2, 3, 16, 16), classes, maps=maps)
    else:
        with pytest.raises(UserError, match=said):
            check_answer(network, "mine", (2, 3, 16, 16), classes, maps=maps)
    assert not network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_images_that_the_network_cannot_read_are_said(own: str) -> None:
    network = foreign_network(f"{own}:small", num_classes=10, in_channels=3)
    with pytest.raises(UserError, match=r"cannot read images \(2, 1, 16, 16\)") as caught:
        check_answer(network, "mine", (2, 1, 16, 16), 10, maps=False)
    assert "\n" not in str(caught.value)


# The rest has no Conv2d outside of one patch embedding, or is tried by name in test_torchvision of the receptive fields.
@pytest.mark.parametrize("name", ["alexnet", "vgg11", "densenet121", "inception_v3", "googlenet", "squeezenet1_1"])
def test_other_classifiers_of_torchvision_take_any_channels_and_classes(name: str) -> None:
    first = {"alexnet": "features.3", "vgg11": "features.3", "squeezenet1_1": "features.3.squeeze"}.get(name)
    places = (
        first or {"densenet121": "features.transition1", "inception_v3": "Mixed_5b", "googlenet": "inception3a"}[name]
    )
    with torch.device("meta"):
        network = video_network(name, temporal="tsm", frames=2, num_classes=5, in_channels=1, places=places)
    check_answer(network.network, name, (4, 1, 96, 96), 5, maps=False)


def test_no_classifier_of_torchvision_is_left_out() -> None:
    every = torchvision.models.list_models(module=torchvision.models)
    assert set(every) == (set(known_networks()) | set(other_classifiers())) - {"tiny-resnet"}
    assert not set(known_networks()) & set(other_classifiers())
    assert is_foreign("vgg16")
    assert not is_foreign("vgg16", "segmentation")
    assert not any(is_foreign(name) for name in known_networks("segmentation"))


def test_an_unknown_name_says_the_nearest_and_the_ways_out() -> None:
    with pytest.raises(
        UserError, match=r"Did you mean 'vgg16'.*another classifier of torchvision, or your own as"
    ) as e:
        video_network("vgg-16", frames=3, num_classes=3)
    assert "\n" not in str(e.value)
