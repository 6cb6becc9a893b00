"""A geometric policy at one image size as a module without parameters, for export.

`Policy.video` decides in Python what to sample, which a tracer cannot follow. `VideoLayer` stores the result:
grids and weights are buffers, and its forward is one grid_sample and one weighted sum over samples, which
torch.export, ONNX and torch.compile support. Shape letters: B batch, T frames, D distinct samplings, C channels, H, W.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.motions.policy import Policy
from fieldshift.motions.recipe import recipe_of
from fieldshift.motions.warp import sampling_grid


class VideoLayer(nn.Module):
    """Converts images (B, C, H, W), floats in [0, 1], to videos (B, T, C, H, W); equal to Policy.video to 1e-5.

    The size (H, W) is fixed, the batch size is free, and the layer has no parameters. Raises UserError for a policy with
    colour ops, and for the fill "mean" or values, which exported grid_sample does not support; the fills "zeros", "border"
    and "reflection" are exported unchanged.
    """

    grid: Tensor
    shares: Tensor

    def __init__(self, policy: Policy, size: tuple[int, int]) -> None:
        super().__init__()
        if not isinstance(policy.fill, str) or policy.fill == "mean":
            raise UserError(f"The fill {policy.fill!r} cannot be exported; choose zeros, border or reflection.")
        policy.paths(size)  # raises for colour ops
        output = recipe_of(policy.graph, size).output
        shares = torch.zeros(policy.frames, len(output.matrices))
        for t, terms in enumerate(output.mixture):
            for weight, _, m in terms:
                shares[t, m] += weight
        self.padding, self.mode, self.size = policy.fill, policy.interpolation, size
        self.frames = policy.frames
        self.register_buffer("grid", sampling_grid(output.matrices, size).float().flatten(0, 1)[None])  # (1, D H, W, 2)
        self.register_buffer("shares", shares)

    def forward(self, images: Float[Tensor, "batch channels H W"]) -> Float[Tensor, "batch frames channels H W"]:
        """The videos of the images, (B, C, H, W) -> (B, T, C, H, W)."""
        batch, channels, height, width = images.shape
        if (height, width) != self.size:
            raise ValueError(f"Expected images of the size {self.size}, but received {(height, width)}.")
        grid = self.grid.expand(batch, -1, -1, -1)
        tall = F.grid_sample(images, grid, mode=self.mode, padding_mode=self.padding, align_corners=False)
        samples = tall.reshape(batch, channels, -1, height * width)  # (B, C, D, H W)
        mixed = torch.einsum("td,bcdp->btcp", self.shares, samples)
        return mixed.reshape(batch, self.frames, channels, height, width)
