"""Inserts temporal modules into a 2D network: by block type in the known families, by module-name pattern otherwise."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torchvision.models.convnext import CNBlock
from torchvision.models.efficientnet import FusedMBConv, MBConv
from torchvision.models.mobilenetv2 import InvertedResidual as InvertedResidualV2
from torchvision.models.mobilenetv3 import InvertedResidual as InvertedResidualV3
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck

from fieldshift.errors import UserError
from fieldshift.networks.cells import InImage, ReadImage, Strides, strides_at
from fieldshift.networks.folded import Motion
from fieldshift.networks.running import not_run
from fieldshift.networks.temporal import TemporalKind
from fieldshift.networks.tiny_resnet import TinyBlock

DEEP_STAGE = 23  # number of blocks from which only every second block of a stage is shifted
SHOWN_NAMES = 24  # number of modules named in an error message


class Inserted(nn.Module):
    """A module of the 2D network together with the temporal module before or after it, for maps of `channels`.

    Raises UserError where its input (after the module: the module's output) is not a map of that many channels.
    """

    def __init__(self, wrapped: nn.Module, temporal: nn.Module, *, before: bool, path: str, channels: int) -> None:
        super().__init__()
        self.temporal, self.wrapped, self.before, self.path = temporal, wrapped, before, path
        self.channels = channels

    def forward(
        self, *maps: Any, **named: Any
    ) -> Float[Tensor, "batch_frames other_channels other_height other_width"]:
        """The wrapped module's output; of several inputs the temporal module reads the first."""
        if not self.before:
            after: Tensor = self.temporal(self._fitting(self.wrapped(*maps, **named)))
            return after
        if maps:
            maps = (self.temporal(self._fitting(maps[0])), *maps[1:])
        else:
            first = next(iter(named), "")
            named = {**named, first: self.temporal(self._fitting(named.get(first)))}
        mixed: Tensor = self.wrapped(*maps, **named)
        return mixed

    def __getattr__(self, name: str) -> Any:
        """An attribute of the wrapped module, such as `weight`, where this one has none of that name."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "wrapped":
                raise
            return getattr(self.wrapped, name)

    def __iter__(self) -> NoReturn:
        raise self._in_parts()

    def __getitem__(self, _: object) -> NoReturn:
        raise self._in_parts()

    def _in_parts(self) -> UserError:
        return UserError(
            f"The place '{self.path}' is run part by part, where no channels would move; name one of its parts in places."
        )

    def _fitting(self, value: object) -> Tensor:
        """Returns the map for the temporal module if it has the expected shape."""
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[1] == self.channels:
            return value
        if isinstance(value, fx.Proxy):
            raise UserError(
                f"torch.fx cannot trace through the place '{self.path}', whose function depends on the size of its map; "
                "trace with fieldshift.networks.Inserted as a leaf, such as create_feature_extractor(network, nodes, "
                "tracer_kwargs={'leaf_modules': [Inserted]})."
            )
        given = f"a value of type {type(value).__name__}"
        if isinstance(value, Tensor):
            given = (
                f"a map of {value.shape[1]} channels" if value.ndim == 4 else f"a value of shape {tuple(value.shape)}"
            )
        side, edge = ("receives", "begins with") if self.before else ("returns", "ends in")
        raise UserError(
            f"The place '{self.path}' {side} {given}, but a map of {self.channels} channels (N, "
            f"{self.channels}, H, W) was expected; name a module in places that {edge} one convolution."
        )


@dataclass(frozen=True)
class Placement:
    """One temporal module in a network: the module it is attached to, before or after it, and its channels."""

    path: str
    """Dotted name of the wrapped module, as it was in the 2D network."""
    before: bool
    """Whether the temporal module comes before the wrapped module."""
    channels: int
    """Number of channels of the temporal module."""


MotionsAt = Callable[[Sequence[Placement]], Sequence[Motion]]
"""The motions of all places of a network, in their order; UserError where places and motions do not match."""


@dataclass(frozen=True)
class _Branch:
    """The residual branch of a block: dotted names of its first and last convolution inside the block, and channels."""

    first: str
    last: str
    channels_in: int
    channels_out: int


def _branch_between(first: str, last: str) -> Callable[[nn.Module], _Branch | None]:
    def branch(block: nn.Module) -> _Branch | None:
        opening, closing = block.get_submodule(first), block.get_submodule(last)
        assert isinstance(opening, nn.Conv2d)
        assert isinstance(closing, nn.Conv2d)
        return _Branch(first, last, opening.in_channels, closing.out_channels)

    return branch


def _convolutions(block: nn.Module, inside: str) -> list[tuple[str, nn.Conv2d]]:
    """The convolutions of a branch that work on its feature map, without squeeze-and-excitation."""
    return [
        (name, module)
        for name, module in block.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith(f"{inside}.") and ".fc" not in name and ".se." not in name
    ]


def _branch_within(inside: str) -> Callable[[nn.Module], _Branch | None]:
    def branch(block: nn.Module) -> _Branch | None:
        if getattr(block, "use_res_connect", True) is False:
            return None
        convolutions = _convolutions(block, inside)
        (first, opening), (last, closing) = convolutions[0], convolutions[-1]
        return _Branch(first, last, opening.in_channels, closing.out_channels)

    return branch


def _convnext(block: nn.Module) -> _Branch | None:
    assert isinstance(block, CNBlock)
    depthwise = block.block[0]
    assert isinstance(depthwise, nn.Conv2d)
    # The branch ends in a permutation back to (N, C, H, W); its last linear layer still works on (N, H, W, C).
    return _Branch("block.0", f"block.{len(block.block) - 1}", depthwise.in_channels, depthwise.in_channels)


def _timm_convnext(block: nn.Module) -> _Branch | None:
    depthwise = block.get_submodule("conv_dw")
    assert isinstance(depthwise, nn.Conv2d)
    # The linear layers may work on (N, H, W, C); the module that drops the branch in training is the first to see (N, C, H, W).
    return _Branch("conv_dw", "drop_path", depthwise.in_channels, depthwise.out_channels)


BLOCKS: dict[type[nn.Module], Callable[[nn.Module], _Branch | None]] = {
    TinyBlock: _branch_between("conv1", "conv2"),
    BasicBlock: _branch_between("conv1", "conv2"),
    Bottleneck: _branch_between("conv1", "conv3"),
    ResBottleneckBlock: _branch_within("f"),
    InvertedResidualV2: _branch_within("conv"),
    InvertedResidualV3: _branch_within("block"),
    MBConv: _branch_within("block"),
    FusedMBConv: _branch_within("block"),
    CNBlock: _convnext,
}
NAMED_BLOCKS: dict[str, Callable[[nn.Module], _Branch | None]] = {
    "timm.models.resnet.BasicBlock": _branch_between("conv1", "conv2"),
    "timm.models.resnet.Bottleneck": _branch_between("conv1", "conv3"),
    "timm.models.convnext.ConvNeXtBlock": _timm_convnext,
}
"""Blocks of optional packages, by the full names of their classes."""


def residual_branches(network: nn.Module) -> Iterator[tuple[str, _Branch]]:
    """Every residual block of a known family with its branch, in the order of the network."""
    for path, module in network.named_modules():
        kind = type(module)
        branch_of = BLOCKS.get(kind) or NAMED_BLOCKS.get(f"{kind.__module__}.{kind.__qualname__}")
        branch = branch_of(module) if branch_of else None
        if branch is not None:
            yield path, branch


def placements_by_family(network: nn.Module, kind: TemporalKind) -> list[Placement]:
    """The places of a temporal module among known residual blocks; raises UserError where there are none."""
    branches = list(residual_branches(network))
    if not branches:
        raise UserError(
            f"No residual block of a known family in {type(network).__name__}, so '{kind.name}' has no default place; "
            f"name the modules to insert at with places='PATTERN' (--architecture.places PATTERN). {_known_of_timm(network)}"
            f"{_names(_with_convolutions(network))}"
        )
    if kind.thins_deep_stages:
        branches = _thinned(branches)
    if kind.place == "before-block":
        return [Placement(path, True, branch.channels_in) for path, branch in branches]
    if kind.place == "before-first-conv":
        return [Placement(f"{path}.{branch.first}", True, branch.channels_in) for path, branch in branches]
    return [Placement(f"{path}.{branch.last}", False, branch.channels_out) for path, branch in branches]


def _known_of_timm(network: nn.Module) -> str:
    """A sentence about the families that are known in one package and not in the other, for networks of timm."""
    if not any(type(module).__module__.startswith("timm.") for module in network.modules()):
        return ""
    return (
        "Of timm's networks only ResNets and ConvNeXts with their usual blocks are known, of torchvision's also RegNets, "
        "MobileNets and EfficientNets. "
    )


def _thinned(branches: list[tuple[str, _Branch]]) -> list[tuple[str, _Branch]]:
    stages: dict[str, list[tuple[str, _Branch]]] = {}
    for path, branch in branches:
        stages.setdefault(path.rpartition(".")[0], []).append((path, branch))
    return [entry for stage in stages.values() for entry in stage[:: 2 if len(stage) >= DEEP_STAGE else 1]]


def placements_by_pattern(network: nn.Module, kind: TemporalKind, pattern: str) -> list[Placement]:
    """A temporal module at every module whose dotted name matches the shell pattern (several: comma-separated).

    Before the module for the shifts and conv3d, after it for GSM and GSF. A pattern selects the Conv2d it matches; if
    it matches none, the outermost modules that contain convolutions, with the channels of their first or last
    one. Raises UserError, which lists the names, where a pattern matches neither.
    """
    before = kind.place != "after-last-conv"
    holders = _with_convolutions(network)
    chosen: dict[str, list[nn.Conv2d]] = {}
    for part in (part.strip() for part in pattern.split(",")):
        matching = {name: inside for name, inside in holders.items() if fnmatch.fnmatchcase(name, part)}
        single = {name: inside for name, inside in matching.items() if inside[0] is network.get_submodule(name)}
        within = _inside_others(network, matching)
        outermost = {name: inside for name, inside in matching.items() if name not in within}
        if not matching:
            raise UserError(
                f"No place was found: places='{part}' matches no module with convolutions in {type(network).__name__}. "
                f"{_names(holders)}"
            )
        chosen |= single or outermost
    for name in sorted(_inside_others(network, chosen)):
        raise UserError(f"places='{pattern}' names '{name}' and a module around it; name one of them.")
    named = {network.get_submodule(name): name for name in reversed(holders) if name in chosen}  # a shared module once
    return [
        Placement(name, before, inside[0].in_channels if before else inside[-1].out_channels)
        for name, inside in holders.items()
        if name in named.values()
    ]


def _with_convolutions(network: nn.Module) -> dict[str, list[nn.Conv2d]]:
    """The convolutions inside every module that has any, a Conv2d's own name included, in the order of the network.

    A module that the network holds under several names is found under each.
    """
    found = {
        name: [inner for inner in module.modules() if isinstance(inner, nn.Conv2d)]
        for name, module in network.named_modules(remove_duplicate=False)
        if name
    }
    return {name: inside for name, inside in found.items() if inside}


def _inside_others(network: nn.Module, names: Iterable[str]) -> set[str]:
    """The names of modules that are inside another one of these, which is not the same module under another name."""
    modules = {name: network.get_submodule(name) for name in names}
    inner = {id(each) for module in modules.values() for each in module.modules() if each is not module}
    return {name for name, module in modules.items() if id(module) in inner}


def _names(holders: dict[str, list[nn.Conv2d]]) -> str:
    """The names that a pattern can match, all of them if there are few."""
    shown = ", ".join(list(holders)[:SHOWN_NAMES])
    more = len(holders) - SHOWN_NAMES
    return f"Its modules with convolutions are {shown}{f' and {more} more' if more > 0 else ''}."


def insert(
    network: nn.Module,
    kind: TemporalKind,
    *,
    frames: int,
    ratio: float | None = None,
    interleave: bool | None = None,
    places: str | None = None,
    motions: MotionsAt | None = None,
) -> list[Placement]:
    """Inserts the temporal modules of one kind into a 2D network, in place, and returns where.

    `places=None` uses the residual blocks of the known families, otherwise a module-name pattern. Parameters of the 2D
    network keep their values; the wrapped modules get `.wrapped` in their names. Inserted modules take over device,
    precision and mode (training or evaluation). With `motions`, which gives one motion per place, the modules are those of
    the folded form. A video of one frame has no neighbours: nothing is inserted, so the network stays the 2D network, with
    its names and no unused parameter [D]. Raises UserError where a place has a module already.
    """
    if motions is not None:
        kind.folding()
    if kind.place == "nowhere":
        if ratio is not None or interleave or places:
            raise UserError(
                "temporal='none' inserts nothing, so ratio, interleave and places have no meaning; omit them."
            )
        return []
    if not places:
        _check_free(network, [""])
    placements = placements_by_pattern(network, kind, places) if places else placements_by_family(network, kind)
    _check_free(network, [placement.path for placement in placements])
    if frames == 1 and motions is None:
        with torch.device("meta"):  # raises the same errors as for several frames
            for placement in placements:
                kind.build(placement.channels, frames=frames, ratio=ratio, interleave=interleave)
        return []
    strides, read = Strides([None] * len(placements), None), ReadImage()
    if motions is not None:
        strides = strides_at(network, [(placement.path, placement.before) for placement in placements])
    of_place = [None] * len(placements) if motions is None else motions(placements)
    built = [
        kind.build(placement.channels, frames=frames, ratio=ratio, interleave=interleave, motion=motion)
        for placement, motion in zip(placements, of_place, strict=True)
    ]
    undo = [] if strides.reader is None else _noting(network, strides.reader, read)
    for placement, temporal, stride in zip(placements, built, strides.at, strict=True):
        if isinstance(temporal, InImage):
            temporal.read, temporal.stride = read, stride
        undo.append(_attach(network, placement, temporal))
    if places:
        try:
            _check_run(network, places)
        except UserError:
            for restore in undo:
                restore()
            raise
    return placements


def _noting(network: nn.Module, reader: str, read: ReadImage) -> list[Callable[[], None]]:
    """Lets a network and the convolution that reads the image note its size; returns what ends that."""
    modules = (network, network.get_submodule(reader))
    return [module.register_forward_pre_hook(read.note, with_kwargs=True).remove for module in modules]


def _attach(network: nn.Module, placement: Placement, temporal: nn.Module) -> Callable[[], None]:
    """Puts a temporal module at a place, under every name that the network has for it; returns what undoes that."""
    wrapped = network.get_submodule(placement.path)
    like = next(network.get_submodule(placement.path.rpartition(".")[0]).parameters(), None)
    if like is not None:
        temporal.to(like.device, like.dtype)
    holders = [(parent, name) for parent in network.modules() for name in names_of(parent, wrapped)]
    inserted = Inserted(wrapped, temporal, before=placement.before, path=placement.path, channels=placement.channels)
    temporal.train(wrapped.training)
    inserted.training = wrapped.training

    def hold(module: nn.Module) -> None:
        for parent, name in holders:
            setattr(parent, name, module)

    hold(inserted)
    return lambda: hold(wrapped)


def names_of(parent: nn.Module, module: nn.Module) -> list[str]:
    """The names under which a module directly holds another one."""
    return [name for name, child in parent._modules.items() if child is module]


def _check_run(network: nn.Module, places: str) -> None:
    """Raises UserError where the forward pass does not run every inserted module, or gives one another map."""
    left = sorted(module.path for module in not_run(network, Inserted) if isinstance(module, Inserted))
    if left:
        raise UserError(
            f"places='{places}' names '{left[0]}', but a forward pass of images alone does not run it, or not through the "
            "modules that the network holds, as where they are kept in a Python list; name other modules."
        )


def _check_free(network: nn.Module, places: Sequence[str]) -> None:
    """Raises UserError where a place already has a temporal module, or is inside one."""
    taken = {name: module.path for name, module in network.named_modules() if isinstance(module, Inserted)}
    for place in places:
        for name, path in taken.items():
            if not place or f"{place}.".startswith(f"{name}.") or name.startswith(f"{place}."):
                raise UserError(
                    f"The place '{path}' already has a temporal module and cannot get a second one; start from a network "
                    "without any, or name other modules in places."
                )
