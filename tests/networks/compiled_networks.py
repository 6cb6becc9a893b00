"""Prints how far compiled folded networks are from uncompiled ones; run by test_compiled.py in a process without shape checks.

Each line of the result is a case, the largest difference of the outputs and that of the gradients. `fullgraph` makes a
break of the graph an error.
"""

from __future__ import annotations

import copy
import json

import torch
from torch import Tensor, nn

from fieldshift.folding import fold
from fieldshift.motions import Policy
from fieldshift.networks import recompute_stages
from fieldshift.networks.cells import InImage
from fieldshift.networks.tiny_resnet import TinyResNet

SIZES = ((24, 24), (27, 34))  # in the second, the stride divides neither side


def results(run: nn.Module, network: nn.Module, images: Tensor) -> list[Tensor]:
    """The output and all gradients."""
    network.zero_grad()
    output = run(images)
    output.square().mean().backward()
    return [output.detach(), *(each.grad.clone() for each in network.parameters() if each.grad is not None)]


def without_size(network: nn.Module) -> list[float]:
    """How far the output changes at the second size if the modules do not know the size of the image."""
    blind = copy.deepcopy(network).eval()
    for module in blind.modules():
        if isinstance(module, InImage):
            module.read = None
    images = torch.rand(4, 1, *SIZES[1])
    with torch.no_grad():
        return [float((blind(images) - copy.deepcopy(network).eval()(images)).abs().max())]


def main() -> None:
    found = {}
    cases = [
        ("tsm", Policy.single("translate_x", 0.3, frames=3, fill="mean"), SIZES),
        ("gsm", Policy.single("translate_x", 0.3, frames=3), SIZES[1:]),
    ]
    for number, (temporal, policy, sizes) in enumerate(cases):
        torch.manual_seed(number)
        network = TinyResNet(num_classes=3, in_channels=1)
        fold(network, policy, temporal=temporal)
        for name, values in network.named_parameters():
            if ".temporal." in name:
                nn.init.normal_(values, std=0.3)  # gates start at zero
        if temporal == "tsm":
            found["without the image's size"] = without_size(network)
        recompute_stages(network, ["blocks"])  # has no effect on compiled code
        torch._dynamo.reset()
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
        for size in sizes:
            images = torch.rand(4, 1, *size)
            there, here = results(compiled, network, images), results(network, network, images)
            found[f"{temporal}-{size[0]}"] = [
                float((there[0] - here[0]).abs().max()),
                max(float((a - b).abs().max()) for a, b in zip(there[1:], here[1:], strict=True)),
            ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
