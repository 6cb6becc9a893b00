"""The names of networks, temporal modules and published weights, available without importing torch.

torchvision's names are read from its sources, so they match the installed version.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import Literal

from fieldshift.errors import UserError, nearest_name, unknown_name
from fieldshift.tasks import TASKS, check_task

FAMILIES = (
    r"resnet\d+",
    r"resnext\d+.*",
    r"wide_resnet.*",
    r"regnet_.*",
    r"mobilenet_v[23].*",
    r"efficientnet_.*",
    r"convnext_.*",
)
DENSE_HEADS = ("fcn", "deeplabv3", "pspnet")
MOBILE_SEGMENTERS = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
TEMPORAL_NAMES = ("none", "tsm", "tsm-inplace", "tsm-causal", "gsm", "gsf", "conv3d")
NOT_FOLDED = {
    "none": "it connects no frames, so there is nothing to fold",
    "tsm-causal": "it only looks back, for streams of frames, and one frame is not a stream",
    "conv3d": "it mixes all channels of three frames, so every channel would be moved twice",
}
"""The temporal modules without a folded form, and why."""
FUSIONS = ("mean-logits", "mean-probabilities", "learned")
INTERLEAVED = ("gsm", "gsf")
IMPORT_PATH = "package.module:function"
SUFFIXES = (".pth", ".pt", ".safetensors")


EXAMPLES = {
    "classification": ("tiny-resnet", "resnet18", "resnet50"),
    "segmentation": ("tiny-resnet-fcn", "fcn_resnet18", "deeplabv3_resnet50"),
}


def known_networks(task: str = "classification") -> tuple[str, ...]:
    """The names of all networks for a task, "classification" or "segmentation"."""
    check_task(task)
    return known_classifiers() if task == "classification" else known_segmenters()


@functools.cache
def known_classifiers() -> tuple[str, ...]:
    """The names of all classifiers, tiny-resnet first."""
    names = sorted(published_models())
    return ("tiny-resnet", *(name for name in names if any(re.fullmatch(family, name) for family in FAMILIES)))


@functools.cache
def other_classifiers() -> tuple[str, ...]:
    """The classifiers of torchvision that have no default places for temporal modules."""
    return tuple(name for name in sorted(published_models()) if name not in known_classifiers())


def known_detectors() -> tuple[str, ...]:
    """The detectors of torchvision, of which only the backbone is used."""
    return tuple(sorted(published_models("detection")))


def is_import_path(name: str) -> bool:
    """Whether a network's name is an import path, `package.module:function`."""
    return ":" in name


def is_foreign(name: str, task: str | None = None) -> bool:
    """Whether `foreign_network` builds the network for a task, None for any."""
    return is_import_path(name) or (name in other_classifiers() and task != "segmentation")


def unknown_network(name: str, task: str | None = None) -> UserError:
    """The error for a network unknown for a task (None: any), with the nearest name; examples for one of another task."""
    own = {"classification": known_classifiers(), "segmentation": known_segmenters()}
    for other in TASKS:
        if task in EXAMPLES and other != task and (name in own[other] or is_foreign(name, other)):
            return UserError(
                f"The network {name} is for {other}, but the task is {task}; give a network (--network) such as "
                f"{', '.join(EXAMPLES[task])} (docs/how-to/own-network.md lists them)."
            )
    known = [each for kind, names in own.items() if task in (None, kind) for each in names]
    others = other_classifiers() if task != "segmentation" else ()
    nearest = nearest_name(name, [*known, *others])
    hint = f" Did you mean '{nearest}'?" if nearest else ""
    also = ", another classifier of torchvision" if others else ""
    return UserError(
        f"Unknown network '{name}'.{hint} Known: {', '.join(sorted(known))}{also}, or your own as {IMPORT_PATH}."
    )


def known_segmenters() -> tuple[str, ...]:
    """The names of all segmenters: tiny-resnet-fcn, each head over each ResNet, ResNeXt and Wide ResNet, two mobile."""
    residual = [name for name in known_classifiers() if re.fullmatch(r"(wide_)?resnex?t\d+.*", name)]
    return ("tiny-resnet-fcn", *(f"{head}_{name}" for head in DENSE_HEADS for name in residual), *MOBILE_SEGMENTERS)


def backbone_of(name: str) -> str:
    """The classifier whose body a segmenter has: "pspnet_resnet50" -> "resnet50"."""
    return "tiny-resnet" if name == "tiny-resnet-fcn" else name.partition("_")[2]


def known_temporal() -> tuple[str, ...]:
    """The names of all temporal modules, including those that a program added to the registry."""
    registry = sys.modules.get("fieldshift.networks.temporal")
    return TEMPORAL_NAMES if registry is None else tuple(registry.TEMPORAL)


def check_temporal_folds(temporal: str) -> None:
    """Raises UserError, with the reason, where a temporal module has no folded form."""
    registry = sys.modules.get("fieldshift.networks.temporal")
    unfolded = (
        NOT_FOLDED
        if registry is None
        else {kind.name: kind.not_folded for kind in registry.TEMPORAL.values() if kind.folded is None}
    )
    if temporal in unfolded:
        able = ", ".join(name for name in known_temporal() if name not in unfolded)
        raise UserError(
            f"The temporal module '{temporal}' has no folded form: {unfolded[temporal]}. Choose one of {able}, or the form "
            "video."
        )


def takes_interleave(temporal: str) -> bool:
    """Whether a temporal module interleaves channels."""
    registry = sys.modules.get("fieldshift.networks.temporal")
    return temporal in INTERLEAVED if registry is None else bool(registry.TEMPORAL[temporal].takes_interleave)


@functools.cache
def published_models(kind: Literal["", "segmentation", "detection"] = "") -> dict[str, tuple[str, ...]]:
    """torchvision's classifiers, segmenters or detectors, each with the names of its published weights."""
    found: dict[str, tuple[str, ...]] = {}
    for source in (_models() / kind).glob("*.py"):
        text = source.read_text(encoding="utf-8")
        entries = {
            kind: tuple(re.findall(r"^    ([A-Z]\w*) = ", body, re.M))
            for kind, body in re.findall(r"^class (\w+)\(WeightsEnum\):\n(.*?)(?=^\S)", text, re.M | re.S)
        }
        for part in text.split("@register_model()")[1:]:
            built = re.search(r"^def (\w+)\((.*?)\) ->", part, re.M | re.S)
            if built is not None:
                kinds = re.search(r"weights: [^,]*?(\w+_Weights)", built.group(2))
                found[built.group(1)] = entries.get(kinds.group(1), ()) if kinds else ()
    return found


def _models() -> Path:
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "models"


def is_weights_file(weights: str) -> bool:
    """Whether `weights` is a file rather than an entry of torchvision."""
    return weights.endswith(SUFFIXES) or Path(weights).exists()


def check_weights_file(path: Path) -> None:
    """Raises UserError where the file does not exist, or has an ending that weights do not have."""
    if not path.is_file():
        raise UserError(
            f"The weights file '{path}' does not exist; give a {', '.join(SUFFIXES)} file or a torchvision entry."
        )
    if path.suffix not in SUFFIXES:
        raise UserError(f"The weights file '{path}' has the suffix '{path.suffix}', but must be {', '.join(SUFFIXES)}.")


def check_weights_name(weights: str, network: str) -> None:
    """Raises UserError where `weights` is neither an existing file nor an entry of torchvision for the network."""
    if is_weights_file(weights):
        check_weights_file(Path(weights))
        return
    published = published_models() | published_models("segmentation")
    known = {*published.get(network, ())}
    if network in known_segmenters():
        known |= {*published.get(backbone_of(network), ())}
    if not known:
        raise UserError(
            f"No published weights exist for '{network}'; give a file ({', '.join(SUFFIXES)}) or omit weights."
        )
    if weights not in known:
        raise unknown_name(f"weights of {network}", weights, known)
