"""The settings of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from fieldshift.errors import UserError
from fieldshift.forms import check_length
from fieldshift.renamed import RENAMED, former_names, present_names
from fieldshift.search.rules import RULES
from fieldshift.settings import accept_fields
from fieldshift.training.recipe import AUGMENTED, Recipe, check_batch, check_learning, check_synchronised

SHARED = (*AUGMENTED, "sync_batch_norm")
"""Settings that a search takes from the training's recipe unless it has its own values."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of a search. The defaults suit twelve passes over a small data set.

    Departure [D]: The usual optimizer in DARTS for the network is SGD at 0.025 over fifty passes, which in twelve passes hardly
    trains a small network. That long search: `optimizer="sgd", learning_rate=0.025, min_learning_rate=0.001,
    weight_decay=3e-4, clip_norm=5, epochs=50, alpha_learning_rate=3e-4`.

    Attributes:
        frames: frames of the videos; None uses the command's --frames, in Python the space's number, or 3.
        epochs: passes over the halves of the training set before the selection.
        tune_epochs: passes between two decisions of the selection.
        batch: images per step, over all workers together.
        order: first (no unrolled step), second (by finite differences) or second-exact (by a second derivative).
        relaxation: softmax (all operations at once) or gumbel (one sampled operation per edge, straight-through gradient).
        temperature: temperature of the Gumbel softmax; lower values are closer to the most likely operation.
        selection: perturbation (keep what costs most to remove), magnitude (largest weight), random, or a rule that was added
            with `register_rule`.
        criterion: quantity that perturbation measures, loss or score (accuracy; mIoU for segmentation).
        edges_per_node: incoming edges kept at each node; None uses the space's number.
        alpha_learning_rate: step size of Adam on alpha; 3e-4 suits 50 epochs, 3e-2 suits 12.
        alpha_weight_decay: L2 penalty on alpha.
        magnitude_learning_rate: step size of Adam on learned magnitudes, on the scale of a sigmoid over the range.
        optimizer: optimizer of the network, sgd (momentum 0.9) or adamw.
        learning_rate: largest step size of the network's optimizer, falling to `min_learning_rate` along a cosine.
        min_learning_rate: smallest step size of the network's optimizer.
        weight_decay: of the network's optimizer.
        clip_norm: maximum norm of the network's gradient; 0 disables clipping.
        warmup_epochs: first passes in which alpha is fixed and only the network learns.
        subset: number of training images, evenly over classes; 0 uses all.
        channels_last: keep 2D convolutions in channels-last memory order.
        flip: probability of a left-right flip, in both halves; None uses the training's value, as do the next four options
            (`fieldshift search`, which has no recipe, uses the default of recipe.flip).
        crop: maximum distance of the random crop from the centre, in pixels in every direction, in both halves; below the
            shorter side of the images.
        scale: largest factor of random scaling, in both directions, in both halves, from 1 to 20; 1 keeps the size.
        resized_crop: smallest share of the area that a random resized crop keeps, in both halves; 1 crops nothing.
        label_smoothing: share of the target spread over all classes, in both losses; the selection does not use it.
        precision: float32, or bf16 (autocast of both learning steps, on devices that support it; decisions are measured in
            float32).
        sync_batch_norm: BatchNorm statistics over the batches of all workers of a search; None uses the training's value.
    """

    frames: int | None = None
    epochs: int = 12
    tune_epochs: int = 1
    batch: int = 64
    order: Literal["first", "second", "second-exact"] = "first"
    relaxation: Literal["softmax", "gumbel"] = "softmax"
    temperature: float = 1.0
    selection: str = "perturbation"
    criterion: Literal["loss", "score"] = "loss"
    edges_per_node: int | None = None
    alpha_learning_rate: float = 3e-2
    alpha_weight_decay: float = 1e-3
    magnitude_learning_rate: float = 3e-2
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 6e-3
    min_learning_rate: float = 1e-4
    weight_decay: float = 5e-3
    clip_norm: float = 0.0
    warmup_epochs: int = 0
    subset: int = 0
    channels_last: bool = True
    flip: float | None = None
    crop: int | None = None
    scale: float | None = None
    resized_crop: float | None = None
    label_smoothing: float | None = None
    precision: Literal["float32", "bf16"] = "float32"
    sync_batch_norm: bool | None = None

    def __post_init__(self) -> None:
        accept_fields(self, "search")
        if self.selection not in RULES:
            raise UserError(f"search.selection is '{self.selection}', but must be one of {', '.join(RULES)}.")
        lowest = {"epochs": 1, "batch": 1, "tune_epochs": 0, "warmup_epochs": 0, "subset": 0}
        for name, least in {**lowest, "edges_per_node": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"search.{name} is {value}, but must be at least {least}.")
        if self.frames is not None:
            check_length(self.frames, "search.frames")
        for name in ("learning_rate", "alpha_learning_rate", "magnitude_learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise UserError(f"search.{name} is {getattr(self, name)}, but must be above 0.")
        for name in ("min_learning_rate", "weight_decay", "alpha_weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise UserError(f"search.{name} is {getattr(self, name)}, but must be 0 or more.")
        if self.order != "first" and self.optimizer != "sgd":
            raise UserError(
                f"search.order is '{self.order}', which unrolls a step of sgd, but search.optimizer is '{self.optimizer}'; "
                "give --search.optimizer sgd and its step size, such as --search.learning_rate 0.025."
            )
        if self.order == "second" and self.precision == "bf16":
            raise UserError(
                "search.order is 'second', whose finite differences are below the rounding of bf16, but search.precision is "
                "bf16; give --search.precision float32, or --search.order second-exact."
            )
        if self.warmup_epochs >= self.epochs:
            raise UserError(
                f"search.warmup_epochs is {self.warmup_epochs}, but must be below search.epochs ({self.epochs}): "
                "alpha would never learn."
            )
        values = self._taken_from(Recipe())
        check_learning("search", **{name: values[name] for name in AUGMENTED})

    def check(self, workers: int, recipe: Recipe = Recipe()) -> None:
        """Raises UserError where `workers` cannot share the batch, have nothing to synchronise, or the recipe does not fit."""
        self.like(recipe)
        check_batch(self.batch, workers)
        if self.sync_batch_norm:
            check_synchronised("search", workers)

    def like(self, recipe: Recipe) -> SearchConfig:
        """The same settings, with the recipe's values where the search has none."""
        return replace(self, **self._taken_from(recipe))

    def record(self) -> dict[str, Any]:
        """The settings as files of runs hold them, with the former names of options."""
        return former_names(asdict(self), "search.")

    @staticmethod
    def from_record(values: Mapping[str, Any]) -> SearchConfig:
        """The settings that `record` wrote."""
        return SearchConfig(**present_names(values, RENAMED.values(), "search."))

    def _taken_from(self, recipe: Recipe) -> dict[str, Any]:
        own, shared = asdict(self), asdict(recipe)
        return {name: shared[name] if own[name] is None else own[name] for name in SHARED}
