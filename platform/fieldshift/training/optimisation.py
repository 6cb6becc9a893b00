"""The optimizer, the schedule and the shared augmentation of a recipe."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from fieldshift.data import BasicAugmentation
from fieldshift.training.recipe import Recipe


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Applies weight decay to matrices and kernels only; not to biases, scales and shifts (one-dimensional)."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)


def build_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """Changes the learning rate once per training step, over `steps` in all."""
    if recipe.schedule == "one-cycle":
        return OneCycleLR(optimizer, max_lr=recipe.learning_rate, total_steps=max(2, steps))
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return LambdaLR(optimizer, lambda _: 1.0)


def basic_augmentation(recipe: Recipe, outside: int) -> BasicAugmentation:
    """The augmentation that every arm shares; `outside` is the mask value outside the image."""
    return BasicAugmentation(
        flip=recipe.flip, crop=recipe.crop, scale=recipe.scale, resized_crop=recipe.resized_crop, outside=outside
    )
