"""The backend for exporters: a policy's video by `grid_sample` on stored grids, which every runtime supports."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.motions.grid_sampling import sample_grid
from fieldshift.motions.matrices import are_identities
from fieldshift.motions.policy import Policy
from fieldshift.motions.sampling import normalised, source_points
from fieldshift.motions.warp import lookup_of


class ExportableVideo(nn.Module):
    """Maps images (B, C, H, W), floats in [0, 1], of one size to the videos (B, T, C, H, W) of a geometric policy.

    All that depends on the policy is computed here, so that the forward pass can be traced; the batch size is free. Raises
    UserError for a policy with colour changes.
    """

    grids: Tensor
    outside: Tensor

    def __init__(self, policy: Policy, size: tuple[int, int]) -> None:
        super().__init__()
        weights, matrices = policy.paths(size)
        self.frames, self.weights = policy.frames, weights.tolist()
        self.still = are_identities(matrices).tolist()  # [path][frame]
        self.lookup = lookup_of(policy.fill, policy.interpolation)
        self.fill_mean = policy.fill == "mean"
        values = (0.0,) if isinstance(policy.fill, str) else policy.fill
        grids = torch.stack([normalised(source_points(path.double(), size)) for path in matrices])
        self.register_buffer("grids", grids.float())  # (paths, T, H, W, 2)
        self.register_buffer("outside", torch.tensor(values).view(1, -1, 1, 1).clone())

    def forward(self, images: Float[Tensor, "batch channels H W"]) -> Float[Tensor, "batch frames channels H W"]:
        outside = images.mean((-2, -1), keepdim=True) if self.fill_mean else self.outside
        difference = images - outside
        frames = []
        for t in range(self.frames):
            parts = [
                weight
                * (difference if self.still[p][t] else sample_grid(difference, self.grids[p, t][None], self.lookup))
                for p, weight in enumerate(self.weights)
            ]
            frames.append(torch.stack(parts).sum(0) + outside)
        return torch.stack(frames, dim=1)
