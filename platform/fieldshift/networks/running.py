"""Whether the forward pass of a network runs the temporal modules that were inserted, found on shapes alone."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import nn

from fieldshift.errors import UserError
from fieldshift.networks.cells import WAYS
from fieldshift.networks.twin import twin

SMALL = ("meta", 64)
"""The device and side of small images, beside `WAYS`: a network may have a part for these."""


class _AllRunError(Exception):
    """Ends the run of a copy of a network in which every module that is watched has run."""


def not_run(network: nn.Module, kind: type[nn.Module]) -> set[nn.Module]:
    """The modules of a kind that the network runs neither in training nor in evaluation; none where it does not run at all.

    Runs copies without temporal modules, on shapes alone and, if a module is left then, on small images of noise. A UserError
    of such a module, as for a map of other channels, is raised.
    """
    left: set[nn.Module] | None = None
    for device, side in (*WAYS, SMALL):
        if left is None or left:
            with suppress(_NotRunError):
                found = _left(network, kind, True, device, side) & _left(network, kind, False, device, side)
                left = found if left is None else left & found
    return left or set()


class _NotRunError(Exception):
    """A copy of a network cannot be run in this way."""


def _left(network: nn.Module, kind: type[nn.Module], training: bool, device: str, side: int) -> set[nn.Module]:
    """The modules of a kind that are left when a copy of the network has run. Raises _NotRunError where it does not run."""
    try:
        eager = torch.compiler.set_stance("force_eager")
        with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device(device), eager:
            copied = twin(network, device).train(training)
            pairs = zip(network.modules(), copied.modules(), strict=True)
            left = {ours: module for module, ours in pairs if isinstance(module, kind)}

            def note(module: nn.Module, *_: object) -> None:
                left.pop(module, None)
                if not left:
                    raise _AllRunError

            for module in list(left):
                module.temporal = nn.Identity()  # keeps the map, and may need several frames or the motions of a search
                module.register_forward_hook(note)
            first = next(module for module in copied.modules() if isinstance(module, nn.Conv2d))
            with suppress(_AllRunError):
                copied(torch.rand(2, first.in_channels, side, side).to(first.weight.dtype))
    except UserError:
        raise
    except Exception as error:  # any error of a network that does not run in this way
        raise _NotRunError from error
    return set(left.values())
