"""A running search: its halves, supernet and optimizers, and how its state is written and restored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fieldshift.data import BasicAugmentation, DataSet, Split, halves, write_parts
from fieldshift.data.partition import limited
from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy
from fieldshift.motions.policy_file import BY_SEARCH
from fieldshift.motions.warp import check_channels
from fieldshift.networks import VideoNetwork
from fieldshift.renamed import without_later
from fieldshift.search.cell import Cell
from fieldshift.search.config import SearchConfig
from fieldshift.search.cost import SearchCost, forward_flops
from fieldshift.search.space import Space
from fieldshift.search.state import SearchState
from fieldshift.search.supernet import AnySupernet, check_recomputation, supernet_of
from fieldshift.training import distributed
from fieldshift.training.checkpoint import checkpoint_of_first, write_checkpoint
from fieldshift.training.objectives import Objective
from fieldshift.training.recipe import Recipe
from fieldshift.training.step import precision_of
from fieldshift.wording import counted

POLICY_FILE, STATE_FILE, HALVES_FILE = "policy.json", "search.pt", "halves.json"
DEFAULT_FRAMES = 3
MOMENTUM = 0.9
LATER = {"resized_crop": 1.0, "precision": "float32"}
"""Settings that earlier versions did not have, with the values that they searched with."""


@dataclass(kw_only=True)
class SearchRun:
    """All objects of a running search; `state` is the part that is stored.

    Attributes:
        objective: of both learning steps; decisions use `plain_objective`.
        halves: the data's digest, and the indices of both halves in its training set.
        batch: images per step, over all workers together.
        autocast: the precision of the network in both learning steps, entered anew in each.
        found: the fields of `policy.found` that do not change.
    """

    seed: int
    config: SearchConfig
    space: Space
    device: torch.device
    supernet: AnySupernet
    objective: Objective
    halves: tuple[str, Tensor, Tensor]
    weight_half: Split
    alpha_half: Split
    batch: int
    augmentation: BasicAugmentation
    autocast: AbstractContextManager[Any]
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
        objective: Objective,
        normalise: Callable[[Tensor], Tensor],
        device: torch.device | str,
        seed: int,
    ) -> SearchRun:
        """Starts a new search. Raises UserError for inconsistent network, space, settings and workers."""
        device, config = torch.device(device), config.like(Recipe())
        frames = config.frames or space.frames or DEFAULT_FRAMES
        folded = network.form == "folded"
        if not folded and network.frames != frames:
            raise UserError(
                f"The network reads {counted(network.frames, 'frame')}, but the search uses {frames}; give "
                "both the same number."
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
        check_channels(space.fill, dataset.channels, f"The fill of the space {space.name}", network.form)
        check_recomputation(network, config.order)
        supernet = supernet_of(network.to(device), space, frames, seed, normalise)
        cell = supernet.cell.to(device)
        parameters = [each for each in network.parameters() if each.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [cell.alpha], "lr": config.alpha_learning_rate, "weight_decay": config.alpha_weight_decay}
        ]
        if len(cell.outer_parameters) > 1:
            groups.append(
                {"params": cell.outer_parameters[1:], "lr": config.magnitude_learning_rate, "weight_decay": 0.0}
            )
        found = {
            "by": BY_SEARCH,
            "space": space.name,
            "space_version": space.version,
            "data": dataset.name,
            "network": network.name,
            "temporal": network.temporal,
            **({"form": network.form} if folded else {}),
            "seed": seed,
            "settings": config.record(),
        }
        return cls(
            seed=seed,
            config=config,
            space=space,
            device=device,
            supernet=supernet,
            objective=replace(objective, label_smoothing=config.label_smoothing or objective.label_smoothing),
            halves=(dataset.digest, used[on_weights], used[on_alpha]),
            weight_half=train.subset(on_weights).to(device),
            alpha_half=train.subset(on_alpha).to(device),
            batch=batch,
            augmentation=BasicAugmentation(
                flip=config.flip or 0.0,
                crop=config.crop or 0,
                scale=config.scale or 1.0,
                resized_crop=config.resized_crop or 1.0,
                outside=255 if dataset.ignore_index is None else dataset.ignore_index,
            ),
            autocast=precision_of("search", config.precision, device),
            optimizer=torch.optim.SGD(parameters, config.learning_rate, MOMENTUM, weight_decay=config.weight_decay)
            if config.optimizer == "sgd"
            else torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay),
            alpha_optimizer=torch.optim.Adam(groups, betas=(0.5, 0.999)),
            state=SearchState(
                fingerprint=fingerprint_of(found, space, dataset, frames),
                cost=asdict(SearchCost(flops=forward_flops(supernet, dataset), order=config.order)),
            ),
            found=found,
        )

    @property
    def cell(self) -> Cell:
        """The cell of the supernet."""
        return self.supernet.cell

    @property
    def plain_objective(self) -> Objective:
        """The objective of decisions, on plain targets, as networks are scored [D]."""
        return replace(self.objective, label_smoothing=0.0)

    @property
    def edges_per_node(self) -> int:
        """Incoming edges kept at each node."""
        return self.config.edges_per_node or self.space.edges_per_node

    @property
    def steps_per_pass(self) -> int:
        """Steps of a pass over the halves: whole batches, at least one."""
        return max(1, min(len(self.weight_half), len(self.alpha_half)) // self.batch)

    @property
    def tuning_passes(self) -> int:
        """Maximum number of passes between the decisions: fewer if nodes no longer reach the output and need no decision."""
        return self.config.tune_epochs * (self.space.decisions(len(self.cell.edges), self.edges_per_node) - 1)

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
                    f"Warning: the half of the training set that teaches the {name} has no image of "
                    f"{of_classes(missing, classes)}; add images."
                )
        return warnings

    def synchronise(self) -> None:
        """Copies the first worker's network and cell to all workers."""
        distributed.broadcast_from_first([*self.supernet.network.state_dict().values(), *self.cell.outer_parameters])

    def policy(self) -> AnyPolicy:
        """The current policy: the decided operations, and the largest weights where there is no decision yet."""
        choices, kept = self.cell.derived(self.edges_per_node)
        found = {
            **self.found,
            "phase": self.state.phase,
            "passes": self.state.passes,
            "decisions": self.state.decisions,
            "cost": self.cost.record(),
        }
        policy = self.cell.to_policy(found, choices, kept)
        return replace(policy, found={**policy.found, "digest": policy.digest()})

    def save(self, folder: Path | None) -> None:
        """Writes the state and the current policy into the folder, on the first worker only.

        Raises RuntimeError where alpha differs between workers.
        """
        distributed.assert_equal_across_workers(self.cell.alpha, "alpha")
        if folder is None:
            return
        state = self.state
        state.decided, state.kept = list(self.cell.decided), list(self.cell.kept)
        state.cell, state.network = self.cell.state_dict(), self.supernet.network.state_dict()
        state.optimizer, state.alpha_optimizer = self.optimizer.state_dict(), self.alpha_optimizer.state_dict()
        if distributed.rank() == 0:
            write_checkpoint(folder / STATE_FILE, state.to_values())
            self.policy().save(folder / POLICY_FILE)

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


def of_classes(missing: Sequence[str], classes: Sequence[str]) -> str:
    """The number of missing classes, with the first of their names."""
    shown = f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
    return f"{len(missing)} of {len(classes)} classes ({shown})"


def fingerprint_of(found: dict[str, Any], space: Space, dataset: DataSet, frames: int) -> str:
    """Equal for searches that must end with the same policy.

    A space of one motion, and settings that earlier versions did not have, are named as in these.
    """
    named = repr(space).replace(", per='network', groups=1", "")
    origin = {**found, "settings": without_later(found["settings"], LATER)}
    text = f"({sorted(origin.items())!r}, {named}, {dataset.digest!r}, {len(dataset.train)}, {frames})"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
