"""The working state of a search: halves, cell, optimizers, and how the state is written and restored."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldshift.data import BasicAugmentation, DataSet, Split, batches, halves, write_parts
from fieldshift.data.partition import limited
from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy
from fieldshift.networks import VideoNetwork
from fieldshift.networks.recomputation import is_recomputed
from fieldshift.search.cell import RelaxedCell
from fieldshift.search.choices import Choices
from fieldshift.search.config import SearchConfig
from fieldshift.search.cost import SearchCost, forward_flops
from fieldshift.search.folded_cell import FoldedCell
from fieldshift.search.space import Space
from fieldshift.search.state import SearchState
from fieldshift.search.supernet import AnySupernet, FoldedSupernet, Supernet
from fieldshift.training import distributed
from fieldshift.training.checkpoint import checkpoint_of_first, write_checkpoint
from fieldshift.training.loop import layers_draw_from
from fieldshift.training.recipe import Recipe

POLICY_FILE, STATE_FILE, HALVES_FILE = "policy.json", "search.pt", "halves.json"
DEFAULT_FRAMES = 3
MOMENTUM = 0.9
WEIGHTS, ALPHA = 1, 2  # streams of random draws
AUGMENTATION = 3
Batch = tuple[Tensor, Tensor, Tensor]


def mixed_seed(*numbers: int) -> int:
    """Combines several numbers into one seed, equal on every worker."""
    text = ",".join(str(number) for number in numbers)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@dataclass(kw_only=True)
class Session:
    """All objects of a running search; `state` is the part that is stored."""

    seed: int
    config: SearchConfig
    space: Space
    device: torch.device
    supernet: AnySupernet
    halves: tuple[str, Tensor, Tensor]  # the data's digest, and the indices of both halves in its training set
    weight_half: Split
    alpha_half: Split
    batch: int
    augmentation: BasicAugmentation
    optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer
    state: SearchState
    found: dict[str, Any]

    @classmethod
    def start(
        cls,
        network: VideoNetwork,
        dataset: DataSet,
        space: Space,
        config: SearchConfig,
        *,
        normalise: Callable[[Tensor], Tensor],
        device: torch.device | str,
        seed: int,
    ) -> Session:
        """Starts a new session. Raises UserError for inconsistent network, space, settings and workers."""
        device, config = torch.device(device), config.like(Recipe())
        frames = config.frames or space.frames or DEFAULT_FRAMES
        folded = network.form == "folded"
        if not folded and network.frames != frames:
            raise UserError(
                f"The network reads {network.frames} frames, but the search uses {frames}; give both the same number."
            )
        used = limited(dataset.train.targets, config.subset or None, seed)
        train = dataset.train.subset(used) if config.subset else dataset.train
        on_weights, on_alpha = halves(train, seed)
        batch = min(config.batch, len(on_weights), len(on_alpha))
        workers = distributed.world_size()
        if batch < workers or (workers > 1 and batch % workers):
            raise UserError(
                f"search.batch is {batch} (a half of the training set has {len(on_weights)} images), but {workers} "
                f"workers share it equally; give a multiple of {workers}."
            )
        check_recomputation(network, config.order)
        supernet = supernet_of(network.to(device), space, frames, seed, normalise)
        cell = supernet.cell.to(device)
        parameters = [each for each in network.parameters() if each.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [cell.alpha], "lr": config.alpha_lr, "weight_decay": config.alpha_weight_decay}
        ]
        if len(cell.outer_parameters) > 1:
            groups.append({"params": cell.outer_parameters[1:], "lr": config.magnitude_lr, "weight_decay": 0.0})
        found = {
            "by": "fieldshift search",
            "space": space.name,
            "space_version": space.version,
            "data": dataset.name,
            "network": network.name,
            "temporal": network.temporal,
            **({"form": network.form} if folded else {}),
            "seed": seed,
            "settings": asdict(config),
        }
        return cls(
            seed=seed,
            config=config,
            space=space,
            device=device,
            supernet=supernet,
            halves=(dataset.digest, used[on_weights], used[on_alpha]),
            weight_half=train.subset(on_weights).to(device),
            alpha_half=train.subset(on_alpha).to(device),
            batch=batch,
            augmentation=BasicAugmentation(
                flip=config.flip or 0.0,
                crop=config.crop or 0,
                scale=config.scale or 1.0,
                outside=255 if dataset.ignore_index is None else dataset.ignore_index,
            ),
            optimizer=torch.optim.SGD(parameters, config.lr, MOMENTUM, weight_decay=config.weight_decay)
            if config.optimizer == "sgd"
            else torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay),
            alpha_optimizer=torch.optim.Adam(groups, betas=(0.5, 0.999)),
            state=SearchState(
                fingerprint=fingerprint_of(found, space, dataset, frames),
                cost=asdict(SearchCost(flops=forward_flops(supernet, dataset), order=config.order)),
            ),
            found=found,
        )

    @property
    def cell(self) -> Choices:
        return self.supernet.cell

    @property
    def steps_a_pass(self) -> int:
        return max(1, min(len(self.weight_half), len(self.alpha_half)) // self.batch)

    @property
    def tuning_passes(self) -> int:
        """Maximum number of passes between the decisions: fewer if nodes no longer reach the output and need no decision."""
        kept = self.config.edges_per_node or self.space.edges_per_node
        return self.config.tune_epochs * (self.space.decisions(len(self.cell.edges), kept) - 1)

    @property
    def cost(self) -> SearchCost:
        """The image passes so far."""
        return SearchCost(**self.state.cost)

    def count(self, **images: int) -> None:
        """Adds image passes, by the names of SearchCost."""
        self.state.cost |= {name: self.state.cost[name] + number for name, number in images.items()}

    def missing_classes(self, classes: Sequence[str]) -> list[str]:
        """A warning for each half that has no image of some class; empty for scenes, whose pixels have the classes."""
        if self.supernet.network.task == "segmentation":
            return []
        warnings = []
        for name, half in (("network", self.weight_half), ("motions", self.alpha_half)):
            present = set(half.targets.tolist())
            missing = [each for label, each in enumerate(classes) if label not in present]
            if missing:
                warnings.append(
                    f"Warning: the half of the training set that teaches the {name} has no image of {len(missing)} of "
                    f"{len(classes)} classes ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); add images."
                )
        return warnings

    def learning_rate(self, step: int) -> float:
        """The network's step size: a cosine over the supernet phase; from a tenth, another over all tuning passes."""
        config, state = self.config, self.state
        high, done, passes = config.lr, state.epoch, config.epochs
        if state.tuning:
            high, done, passes = max(config.lr / 10, config.lr_min), state.passes - state.epoch, self.tuning_passes
        share = (done + step / self.steps_a_pass) / passes
        return config.lr_min + (high - config.lr_min) * (1 + math.cos(math.pi * share)) / 2

    def pairs_of_batches(self) -> Iterator[tuple[Batch, Batch]]:
        """Yields this worker's slices of one pass over both halves: (for the network, for alpha), whole and augmented.

        During a pass, random layers such as dropout draw from a seed of this pass.
        """
        passes = self.state.passes
        on_weights, on_alpha = (
            self._batches(half, self.batch, seed=self.seed + stream, epoch=passes, drop_last=True)
            for half, stream in ((self.weight_half, WEIGHTS), (self.alpha_half, ALPHA))
        )
        with layers_draw_from(mixed_seed(self.seed, passes, distributed.rank()), self.device):
            for step, (batch, alpha_batch) in enumerate(zip(on_weights, on_alpha, strict=False)):
                yield self._augmented(batch, step, WEIGHTS), self._augmented(alpha_batch, step, ALPHA)

    def _augmented(self, batch: Batch, step: int, stream: int) -> Batch:
        """The batch after crop, flip and scale, before any motion; each image as if one worker had the whole batch."""
        images, targets, indices = batch
        masks = targets if targets.dim() > 1 else None
        seed = mixed_seed(self.seed, self.state.passes, step, stream, AUGMENTATION)
        part = (distributed.rank() * len(images), distributed.world_size() * len(images))
        images, moved = self.augmentation(images, seed, masks, part=part)
        return images, targets if moved is None else moved, indices

    def noise(self, step: int, stream: int) -> int | None:
        """The seed of the gumbel sample of a step, the same on every worker; None for softmax."""
        gumbel = self.config.relaxation == "gumbel"
        return mixed_seed(self.seed, self.state.passes, step, stream) if gumbel else None

    def weights(self, noise: int | None) -> Tensor | None:
        """The mixture weights; None for a decided cell, which its policy renders."""
        return None if self.cell.is_decided else self.cell.weights(noise, self.config.temperature)

    def momentum(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """The contribution of earlier steps to the next step of sgd."""
        kept = [self.optimizer.state[each].get("momentum_buffer") for each in parameters]
        return [torch.zeros_like(p) if m is None else MOMENTUM * m for m, p in zip(kept, parameters, strict=True)]

    def alpha_half_in_order(self) -> Iterator[Batch]:
        """Yields this worker's part of the whole alpha half, in batches of equal size for reliable batch statistics."""
        count = len(self.alpha_half)
        size = max(distributed.world_size(), math.ceil(count / math.ceil(count / self.batch)))
        return self._batches(self.alpha_half, size, seed=0, epoch=0, shuffle=False)

    def _batches(self, half: Split, size: int, **order: Any) -> Iterator[Batch]:
        rank, world = distributed.rank(), distributed.world_size()
        return batches(half, size, rank=rank, world=world, device=self.device, **order)

    def synchronise(self) -> None:
        """Copies the first worker's network and cell to all workers."""
        distributed.broadcast_from_first([*self.supernet.network.state_dict().values(), *self.cell.outer_parameters])

    def policy(self, edges_per_node: int) -> AnyPolicy:
        """The current policy: the decided options, and the largest weights where there is no decision yet."""
        choices, kept = self.cell.derived(edges_per_node)
        found = {
            **self.found,
            "phase": self.state.phase,
            "passes": self.state.passes,
            "decisions": self.state.decisions,
            "cost": self.cost.record(),
        }
        return self.cell.to_policy(found, choices, kept)

    def save(self, folder: Path, edges_per_node: int) -> None:
        """Writes the state and the current policy, on the first worker only."""
        state = self.state
        state.decided, state.kept = list(self.cell.decided), list(self.cell.kept)
        state.cell, state.network = self.cell.state_dict(), self.supernet.network.state_dict()
        state.optimizer, state.alpha_optimizer = self.optimizer.state_dict(), self.alpha_optimizer.state_dict()
        if distributed.rank() == 0:
            write_checkpoint(folder / STATE_FILE, state.to_values())
            self.policy(edges_per_node).save(folder / POLICY_FILE)

    def write_halves(self, folder: Path) -> None:
        """Writes which training images train the network and which alpha, on the first worker only."""
        digest, weights, alpha = self.halves
        if distributed.rank() == 0:
            write_parts(folder / HALVES_FILE, digest, weights=weights, alpha=alpha)

    def restore(self, folder: Path) -> None:
        """Restores the state in `folder`, if any. Raises UserError when it belongs to another search."""
        path = folder / STATE_FILE
        values = checkpoint_of_first(path)
        if values is None:
            return
        state = SearchState.from_values(values, str(path))
        if state.fingerprint != self.state.fingerprint:
            raise UserError(
                f"{path} belongs to a search with other settings or data ({state.fingerprint}, now {self.state.fingerprint}); "
                "resume with the same ones or start again in another folder."
            )
        self.cell.load_state_dict(state.cell)
        self.cell.decided, self.cell.kept = list(state.decided), list(state.kept)
        self.supernet.network.load_state_dict(state.network)
        self.optimizer.load_state_dict(state.optimizer)
        self.alpha_optimizer.load_state_dict(state.alpha_optimizer)
        self.state = state


def check_search(network: VideoNetwork, space: Space, frames: int, order: str = "first") -> int:
    """Returns the number of edges that a search in the space decides for a network.

    Raises UserError if they are incompatible: the form, the channels, the space's motions or the order of the outer gradient.
    A folded network keeps a cell of the space.
    """
    check_recomputation(network, order)
    return len(supernet_of(network, space, frames, 0, lambda video: video).cell.edges)


def check_recomputation(network: VideoNetwork, order: str) -> None:
    """Raises UserError where a search cannot recompute activations, because their inputs have changed by the backward pass.

    A folded network's mixture lasts for one forward pass, and second order temporarily replaces the network's weights.
    """
    if is_recomputed(network) and (network.form == "folded" or order != "first"):
        what = "in folded form" if network.form == "folded" else f"with search.order {order}"
        raise UserError(f"A search {what} cannot recompute activations; leave out --architecture.recompute.")


def supernet_of(
    network: VideoNetwork, space: Space, frames: int, seed: int, normalise: Callable[[Tensor], Tensor]
) -> AnySupernet:
    """The supernet of a network in its form, with a cell of the space drawn from the seed."""
    if network.form == "folded":
        cell = FoldedCell(space, frames, seed, network.placements, network.stages)
        return FoldedSupernet(network, cell, normalise)
    if space.is_placed:
        raise UserError(
            f"The space {space.name} has a motion for each {space.per} and {space.groups} group(s) of channels, but a "
            "video has one motion for all; use the form folded, or another space."
        )
    return Supernet(network, RelaxedCell(space, frames, seed), normalise)


def fingerprint_of(found: dict[str, Any], space: Space, dataset: DataSet, frames: int) -> str:
    """Equal for searches that must end with the same policy; a space of one motion is named as in earlier versions."""
    named = repr(space).replace(", per='network', groups=1", "")
    text = f"({sorted(found.items())!r}, {named}, {dataset.digest!r}, {len(dataset.train)}, {frames})"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
