"""Checks of a 2D network that its user built, and of where and how modules are to be inserted: one line, before any work."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.jit import ScriptModule
from torch.nn.parameter import is_lazy

from fieldshift.errors import UserError
from fieldshift.settings import accepted

OPTIONS: dict[str, Any] = {"temporal": str, "ratio": float | None, "interleave": bool | None}


def check_network(network: object) -> None:
    """Raises UserError unless it is a module in eager mode, whose parameters have sizes, with a Conv2d."""
    name = type(network).__name__
    if not isinstance(network, nn.Module):
        raise UserError(f"The model is a {name}, but must be a torch.nn.Module.")
    if isinstance(network, ScriptModule):
        raise UserError(
            f"The model is a {name} of torch.jit, into which nothing can be inserted; give the eager model."
        )
    for key, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if is_lazy(tensor):
            raise UserError(
                f"'{key}' of {name} has no size yet, as in lazy layers before their first forward pass; run the model once on "
                "images first."
            )
    if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        raise UserError(f"{name} has no Conv2d, so temporal modules cannot be inserted into it.")


def check_options(places: object, **options: object) -> None:
    """Raises UserError for places that are no pattern, and for a temporal, ratio or interleave of another type."""
    if not isinstance(places, str | None):
        several = isinstance(places, list | tuple) and all(isinstance(each, str) for each in places)
        such = ",".join(map(str, places)) if several and isinstance(places, list | tuple) else "layer3.*.conv1"
        raise UserError(
            f"places is {places!r}, but must be one text, a shell pattern of module names or several comma-separated, such as "
            f"'{such}'."
        )
    for name, value in options.items():
        accepted(name, OPTIONS[name], value)
