"""Loads weights from torchvision or from a file, and reports which of them the network took."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights, list_models

from fieldshift.errors import UserError, reason_of, unknown_name
from fieldshift.networks.names import SUFFIXES, check_weights_file, is_weights_file
from fieldshift.wording import counted

_NESTED = ("state_dict", "model", "network")  # keys under which training scripts store the weights
_SECOND_HEADS = ("aux_classifier", "low_classifier")


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """The use of the tensors of a file of weights; names are those of the plain 2D network."""

    source: str
    """The torchvision entry or the file."""
    matched: tuple[str, ...]
    """Loaded unchanged."""
    adapted: tuple[str, ...]
    """Loaded after averaging or repeating the input channels of the first convolution."""
    reshaped: tuple[str, ...]
    """In both, but with different shapes, such as a head for other classes, a stem for small images or the larger kernels of
    a wide field: not loaded."""
    missing: tuple[str, ...]
    """In the network only, such as new temporal modules: not loaded."""
    unexpected: tuple[str, ...]
    """In the file only: not used."""

    def summary(self) -> str:
        """One line with the counts, and the names if there are few."""

        def named(names: tuple[str, ...]) -> str:
            return f"{len(names)} ({_few(names)})" if names else "0"

        return (
            f"{self.source}: {len(self.matched)} tensors matched, adapted {named(self.adapted)}, other shape "
            f"{named(self.reshaped)}, new here {named(self.missing)}, unused {named(self.unexpected)}"
        )


def plain_name(name: str) -> str:
    """The name of a tensor in the plain 2D network, without wrappers."""
    parts = [part for part in name.removeprefix("module.").split(".") if part != "wrapped"]
    return ".".join(parts[1:] if parts[0] == "network" else parts)


def load_weights(
    network: nn.Module,
    weights: str,
    *,
    name: str,
    body: str,
    first_conv: str,
    num_classes: int,
    wide_field: bool = False,
) -> WeightsReport:
    """Loads weights into a network, in place, by the names of the plain 2D network.

    `weights` is a file (.pth, .pt or .safetensors) or an entry of torchvision, such as "IMAGENET1K_V2" or "DEFAULT",
    for the network itself or for its body. A head for other classes, a stem for images of another size and, with
    `wide_field`, convolutions with another kernel size keep their initial values and are reported; the first convolution is
    adapted to another number of input channels. Raises UserError where the source is unknown or unreadable, where no
    tensor matches, and where any other tensor has another shape.
    """
    if is_weights_file(weights):
        source, tensors = weights, read_weights(Path(weights))
    else:
        source, tensors = torchvision_weights(weights, name, body)
    heads = _tensors_of_heads(network, num_classes)
    return _adopt(network, _best_prefix(network, tensors), source, first_conv, heads, wide_field)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a file of tensors, .safetensors or torch's own format (tensors only, no code is run)."""
    check_weights_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():  # torch's warnings about old formats
            warnings.simplefilter("ignore")
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"The weights file '{path}' cannot be read ({reason_of(error)}); give a file of tensors."
        ) from error
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = (
        {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise UserError(f"The weights file '{path}' contains no tensors by name; give a state dict.")
    return tensors


def torchvision_weights(entry: str, name: str, body: str) -> tuple[str, dict[str, Tensor]]:
    """The tensors of a torchvision entry of the network `name`, or else of its body, and the entry's full name."""
    chosen = torchvision_entry(entry, name, body)
    try:
        return str(chosen), chosen.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise UserError(
            f"The weights {chosen} cannot be downloaded from {chosen.url} ({error}); download that file on a machine with a "
            "connection and give its path."
        ) from error


def torchvision_entry(entry: str, name: str, body: str) -> Any:
    """A member of torchvision's enumerations of weights. Raises UserError for an unknown one."""
    known: dict[str, Any] = {}
    for owner in (body, name):  # the network's own entries take precedence
        if owner in list_models():
            kinds = get_model_weights(owner)
            known |= {member: kinds[member] for member in kinds.__members__}
    if not known:
        raise UserError(
            f"No published weights exist for '{name}'; give a file ({', '.join(SUFFIXES)}) or omit weights."
        )
    if entry not in known:
        raise unknown_name(f"weights of {name}", entry, known)
    return known[entry]


def _best_prefix(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under plain names, as part of the whole network or of its body, whichever matches more names."""
    plain = {plain_name(key): value for key, value in tensors.items()}
    wanted = {plain_name(key) for key in network.state_dict()}
    as_body = {f"backbone.{key}": value for key, value in plain.items()}
    return max((plain, as_body), key=lambda candidate: len(wanted & candidate.keys()))


def _adopt(
    network: nn.Module, tensors: dict[str, Tensor], source: str, first_conv: str, heads: set[str], wide_field: bool
) -> WeightsReport:
    matched, adapted, reshaped, missing, misfits = [], [], [], [], []
    own = {plain_name(key): value for key, value in network.state_dict().items()}
    for name, target in own.items():
        if name not in tensors:
            missing.append(name)
            continue
        value = tensors[name]
        if value.shape == target.shape:
            target.copy_(value)
            matched.append(name)
        elif name == f"{first_conv}.weight" and value.shape[2:] == target.shape[2:]:
            target.copy_(_other_inputs(value, target.shape[1]))
            adapted.append(name)
        else:
            reshaped.append(name)
            expected = (
                name == f"{first_conv}.weight"
                or (name in heads and value.shape[1:] == target.shape[1:])
                or (wide_field and _other_kernel(value, target))
            )
            if not expected:
                misfits.append(f"{name} {tuple(value.shape)} instead of {tuple(target.shape)}")
    if misfits:
        shown = ", ".join(misfits[:4]) + (f" and {len(misfits) - 4} more" if len(misfits) > 4 else "")
        raise UserError(
            f"'{source}' has {counted(len(misfits), 'tensor')} of another shape than the network's: {shown}; it was made "
            "for another network or another ratio."
        )
    if not matched:
        raise UserError(
            f"No tensor of '{source}' fits the network by name; it was made for another network: it contains "
            f"{_few(tensors)}, the network {_few(own)}."
        )
    return WeightsReport(
        source=source,
        matched=tuple(matched),
        adapted=tuple(adapted),
        reshaped=tuple(reshaped),
        missing=tuple(missing),
        unexpected=tuple(name for name in tensors if name not in own),
    )


def _tensors_of_heads(network: nn.Module, num_classes: int) -> set[str]:
    """The plain names of the weights and biases of the logits: of the last layer with one output per class.

    An auxiliary head, and the lower of the two layers that LRASPP adds up, also have such a layer.
    """
    last: dict[str, str] = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear):
            outputs = module.out_features
        elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            outputs = module.out_channels
        else:
            continue
        if outputs == num_classes:
            name = plain_name(path)
            last[next((part for part in _SECOND_HEADS if part in name.split(".")), "")] = name
    return {f"{name}.{kind}" for name in last.values() for kind in ("weight", "bias")}


def _other_kernel(value: Tensor, target: Tensor) -> bool:
    """Whether two tensors are weights of convolutions that differ in the kernel size alone."""
    return value.ndim == target.ndim == 4 and value.shape[:2] == target.shape[:2]


def _few(names: Iterable[str]) -> str:
    """The first names, for an error or a report."""
    listed = list(names)
    return ", ".join(listed[:4]) + (", ..." if len(listed) > 4 else "")


def _other_inputs(weight: Tensor, channels: int) -> Tensor:
    """A first convolution for another number of channels with the same output on a grey image as the original."""
    inputs = weight.shape[1]
    return weight.mean(1, keepdim=True).repeat(1, channels, 1, 1) * (inputs / channels)
