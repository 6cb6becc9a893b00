"""Copies of networks whose forward pass is run for shapes alone, so that the network itself stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def twin(network: nn.Module, device: torch.device | str = "meta") -> nn.Module:
    """A copy of a network with parameters and buffers on another device; those that modules share are shared in the copy.

    On "meta" its forward pass computes shapes and nothing else. `torch.func.functional_call` would leave a module that is
    registered under two names without its parameters. Tensors that modules keep as plain attributes, such as a feature map of
    their last forward pass, are copied like buffers; what cannot be copied is shared.
    """
    kept = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    tensors = [*network.parameters(), *network.buffers(), *kept]
    memo: dict[int, Any] = {id(tensor): tensor.detach().to(device, copy=True) for tensor in tensors}
    try:
        return copy.deepcopy(network, dict(memo))
    except Exception:  # any error of what the user's network holds
        return copy.deepcopy(network, {**memo, **_shared(network, memo)})


def _shared(network: nn.Module, memo: dict[int, Any]) -> dict[int, Any]:
    """The plain attributes of modules that cannot be copied, such as a lock, each in place of its copy."""
    found: dict[int, Any] = {}
    for module in network.modules():
        for name, value in vars(module).items():
            if name not in {"_parameters", "_buffers", "_modules"}:
                try:
                    copy.deepcopy(value, dict(memo))
                except Exception:
                    found[id(value)] = value
    return found
