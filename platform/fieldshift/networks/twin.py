"""Copies of networks whose forward pass is run for shapes alone, so that the network itself stays as it is."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def twin(network: nn.Module, device: torch.device | str = "meta") -> nn.Module:
    """A copy of a network with parameters and buffers on another device; those that modules share are shared in the copy.

    On "meta" its forward pass computes shapes and nothing else. `torch.func.functional_call` would leave a module that is
    registered under two names without its parameters. Tensors that modules keep as plain attributes, such as a feature map of
    their last forward pass, are copied like buffers.
    """
    kept = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    tensors = [*network.parameters(), *network.buffers(), *kept]
    return copy.deepcopy(network, {id(tensor): tensor.detach().to(device, copy=True) for tensor in tensors})
