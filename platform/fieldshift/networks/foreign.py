"""2D networks without default places: torchvision's other classifiers, and the user's own by import path.

An import path is `package.module:function`, as in entry points. The module is imported and the function called,
so its code runs: use only import paths, and load only runs, that you trust.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from fieldshift.errors import UserError, nearest_name
from fieldshift.networks.names import IMPORT_PATH, is_import_path
from fieldshift.networks.twin import twin

_WITH_AUXILIARY = {"googlenet", "inception_v3"}
_handed_out: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def foreign_network(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """Builds a network (N, C, H, W) -> logits that has no default places, with random weights.

    name: an import path, or one of `other_classifiers()`, which reads 3 channels whatever `in_channels` is. The function
    of an import path is called with `num_classes` and `in_channels`, if it accepts them. It may
    be a class, or an existing module, which is then copied. Raises UserError where the path names nothing, the
    call fails, or the result is not a new torch.nn.Module.
    """
    if not is_import_path(name):
        options: dict[str, Any] = {"init_weights": True, "aux_logits": False} if name in _WITH_AUXILIARY else {}
        return get_model(name, weights=None, num_classes=num_classes, **options)
    with torch.device("cpu"):  # the user's code may compute with its weights, which meta tensors do not allow
        found = _imported(name)
        network = (
            copied(found, f"The network '{name}' cannot be copied, so name a function that builds it")
            if isinstance(found, nn.Module)
            else _called(name, found, num_classes, in_channels)
        )
    if network in _handed_out:
        raise UserError(f"The network '{name}' is the same object at every call; let the function build a new one.")
    _handed_out.add(network)
    return network


def detection_backbone(name: str) -> nn.Module:
    """The backbone of a torchvision detector, (N, 3, H, W) -> its maps by name, with random weights."""
    return get_model(name, weights=None, weights_backbone=None).get_submodule("backbone")


def check_answer(network: nn.Module, name: str, shape: tuple[int, ...], num_classes: int, *, maps: bool) -> None:
    """Raises UserError unless the network returns `num_classes` logits per image, in training and in evaluation mode.

    shape: of the images, (N, C, H, W). maps: whether the logits are maps (N, K, H, W). The network is not changed.
    """
    wanted = (shape[0], num_classes, *shape[2:]) if maps else (shape[0], num_classes)
    for when, answer in answers(network, name, shape).items():
        if shape_of(answer) != wanted:
            raise UserError(
                f"The network '{name}' answers images {shape} in {when} with {given_as(answer)}, but logits {wanted} are "
                f"needed for {num_classes} classes; let the function take num_classes."
            )


def shape_of(answer: Any) -> tuple[int, ...]:
    """The shape of an answer of a network; () where it is no tensor."""
    return tuple(answer.shape) if isinstance(answer, Tensor) else ()


def given_as(answer: Any) -> str:
    """The answer of a network in words: its shape, or its type where it is no tensor."""
    return f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"


def answers(network: nn.Module, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """The network's output for blank images (N, C, H, W), in training and in evaluation mode. The network is not changed.

    Raises UserError for a network that cannot read such images.
    """
    return {
        when: _answer(network, name, shape, training) for training, when in ((True, "training"), (False, "evaluation"))
    }


def _answer(network: nn.Module, name: str, shape: tuple[int, ...], training: bool) -> Any:
    """The network's output for blank images: by shapes alone, or with copies of its weights where shapes do not suffice."""
    with torch.no_grad():
        try:
            return twin(network).train(training)(torch.empty(shape, device="meta"))
        except Exception:  # an operation needs values, or rejects images of this shape
            try:
                return twin(network, "cpu").train(training)(torch.zeros(shape))
            except Exception as error:
                raise _failed(f"The network '{name}' cannot read images {shape} in float32", error) from error


def _imported(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise UserError(f"The network '{path}' is not an import path; write {IMPORT_PATH}, such as my_networks:small.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _failed(f"The module '{module_name}' of the network '{path}' cannot be imported", error) from error
        raise UserError(
            f"There is no module '{error.name}' for the network '{path}'; the current folder and PYTHONPATH are searched."
        ) from None
    except (Exception, SystemExit) as error:
        raise _failed(f"The module '{module_name}' of the network '{path}' cannot be imported", error) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            nearest = nearest_name(part, [each for each in vars(found) if not each.startswith("_")])
            hint = f" Did you mean '{nearest}'?" if nearest else ""
            raise UserError(f"The module '{module_name}' has no '{attribute}' for the network '{path}'.{hint}")
        found = getattr(found, part)
    return found


def _called(path: str, function: Any, num_classes: int, in_channels: int) -> nn.Module:
    if not callable(function):
        raise UserError(
            f"The network '{path}' is of type {type(function).__name__}; name a function or class that returns a Module."
        )
    try:
        offered = {"num_classes": num_classes, "in_channels": in_channels}
        network = function(**{key: value for key, value in offered.items() if key in _taken(function)})
    except (Exception, SystemExit) as error:
        raise _failed(f"The network '{path}' cannot be built", error) from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"The network '{path}' gave a value of type {type(network).__name__}, but must return a torch.nn.Module."
        )
    return network


def _taken(function: Any) -> set[str]:
    """The arguments of ours that a function accepts; `num_classes` also by **kwargs, as in torchvision's networks."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return set()
    named = {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    return named | ({"num_classes"} if any(each.kind == each.VAR_KEYWORD for each in parameters) else set())


def copied(network: nn.Module, failure: str) -> nn.Module:
    """A copy of a network. Raises UserError, which begins with `failure`, for one that cannot be copied."""
    try:
        return copy.deepcopy(network)
    except Exception as error:
        raise _failed(failure, error) from error


def _failed(what: str, error: BaseException) -> UserError:
    lines = str(error).strip().splitlines()
    return UserError(f"{what} ({type(error).__name__}{': ' + lines[0] if lines else ''}).")
