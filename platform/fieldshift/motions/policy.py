"""The policy: the motions that turn an image into a video; the single definition of the transform.

Search returns one; training, receptive fields, preview and export use it, and a JSON file stores it
(`fieldshift.motions.policy_file`). Shape letters: B batch, T frames, C channels, H, W, P paths.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from fieldshift.errors import UserError
from fieldshift.motions import policy_file
from fieldshift.motions.graph import Edge, Graph, Step
from fieldshift.motions.registry import motion
from fieldshift.motions.rendering import RenderPlan, render, render_plan, taps_of
from fieldshift.motions.warp import check_fill, check_mode, is_colour, warp_masks
from fieldshift.whole_file import write_whole
from fieldshift.wording import counted

ROUNDING = 1e-3  # tolerance beyond [0, 1] for resizing and half precision
_ANY_SIZE = (97, 131)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A graph of motions over videos of `frames` frames, with the settings for sampling them.

    Nodes 0 .. inputs - 1 show the image in every frame; each of the `nodes` intermediate nodes is the mean of its
    incoming edges, and the last one is the output (with none, the image is replicated). A magnitude applies to the
    farthest frame; frame t is at the distance s(t) of `distances(frames, reference, symmetric)`. `fill` defines
    pixels outside the image: one of warp.FILLS or values in [0, 1], one per channel (for example the data set's mean);
    `interpolation` is one of warp.MODES. `found` describes how the policy was found, in plain JSON values; `digest`
    excludes it.
    Raises UserError for a value that is not allowed. Source: METHOD.md 2 and 3; node values are means, not sums [D].
    """

    inputs: int = 1
    nodes: int
    edges: tuple[Edge, ...]
    frames: int
    reference: str = "centre"
    symmetric: bool = False
    fill: str | tuple[float, ...] = "zeros"
    interpolation: str = "bilinear"
    found: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(self.edges))
        check_fill(self.fill)
        if not isinstance(self.fill, str):
            if not is_colour(self.fill):
                raise UserError(f"The fill is {list(self.fill)}, but its values must lie within [0, 1], as pixels do.")
            object.__setattr__(self, "fill", tuple(float(value) for value in self.fill))
        check_mode(self.interpolation)
        _ = self.graph

    @classmethod
    def single(cls, op: str, magnitude: float, *, frames: int, **settings: Any) -> Policy:
        """The policy of one operation on one edge; `settings` are further fields, such as fill="border"."""
        return cls.chain([(op, magnitude)], frames=frames, **settings)

    @classmethod
    def chain(cls, steps: Sequence[tuple[str, float]], *, frames: int, **settings: Any) -> Policy:
        """The policy of one edge whose operations (name, magnitude) are applied in order."""
        edge = Edge(0, 1, tuple(Step(op, magnitude) for op, magnitude in steps))
        return cls(inputs=1, nodes=1, edges=(edge,), frames=frames, **settings)

    @classmethod
    def replicate(cls, frames: int, **settings: Any) -> Policy:
        """The policy of equal frames: the control without motion."""
        return cls(inputs=1, nodes=0, edges=(), frames=frames, **settings)

    @property
    def graph(self) -> Graph:
        """Nodes, edges and frames: the part that determines where content goes."""
        return Graph(
            inputs=self.inputs,
            nodes=self.nodes,
            edges=self.edges,
            frames=self.frames,
            reference=self.reference,
            symmetric=self.symmetric,
        )

    @property
    def distances(self) -> Float[Tensor, " frames"]:
        """The frames' distances s from the reference frame, (T,), float64 on the CPU."""
        return self.graph.distances

    @property
    def reference_frame(self) -> int:
        """Index of the frame that shows the image itself: T // 2, or 0 with the reference "first"."""
        return self.frames // 2 if self.reference == "centre" else 0

    @property
    def is_pure(self) -> bool:
        """Whether every frame is the image under one matrix: a single path without colour changes."""
        plan = render_plan(self.graph, _ANY_SIZE)
        return plan.is_geometric and len(plan.paths) == 1

    def paths(self, size: tuple[int, int]) -> tuple[Float[Tensor, " paths"], Float[Tensor, "paths frames 2 3"]]:
        """The paths whose weighted sum is a geometric policy: weights (P,) that add to 1, and matrices (P, T, 2, 3).

        Equal paths are merged. float32 on the CPU; matrices are forward maps in pixels about the centre of an image of
        the size (H, W). Raises UserError for a policy with colour changes on a path to its output.
        """
        plan = self._geometric(size)
        weights = torch.tensor([float(path.weight) for path in plan.paths])
        return weights, torch.stack([path.matrices for path in plan.paths]).float()

    def matrices(self, size: tuple[int, int]) -> Float[Tensor, "frames 2 3"]:
        """The frames' matrices (T, 2, 3), float32, of a pure policy; a policy that is not pure raises UserError."""
        return self._pure(size, "has one matrix per frame").paths[0].matrices.float()

    @property
    def parts(self) -> tuple[Policy, ...]:
        """The policies that compose this one: only itself."""
        return (self,)

    @property
    def transform(self) -> tuple[Hashable, ...]:
        """A key of the transform: all fields but `found`."""
        return self.graph, self.fill, self.interpolation

    @property
    def centred(self) -> Policy:
        """The policy whose reference frame has neighbours on both sides, with the same steps; itself where that is so."""
        if self.reference != "first":
            return self
        return replace(self, frames=2 * self.frames - 1, reference="centre", symmetric=False)

    def neighbours(self, size: tuple[int, int]) -> tuple[Float[Tensor, " paths"], Float[Tensor, "paths 2 2 3"]]:
        """The motions of the frames next to the reference: weights (P,) and matrices (P, 2, 2, 3), next and previous.

        Float64 on the CPU; forward maps in pixels of a grid (H, W), as in `paths`. With the reference "centre" these are
        the policy's own frames. With "first", the reference frame has no previous one: it is treated as the middle of a
        video that continues on both sides with the same steps, in which `symmetric` has no effect. Source: METHOD.md 5 [D].
        Raises UserError for a policy with fewer than 3 frames or with colour changes.
        """
        if self.frames < 3:
            raise UserError(
                f"The policy has {counted(self.frames, 'frame')}, but a frame with neighbours on both sides needs 3; "
                "use 3 or more."
            )
        centred = self.centred
        paths, middle = centred._geometric(size).paths, centred.frames // 2
        weights = torch.tensor([float(path.weight) for path in paths], dtype=torch.float64)
        return weights, torch.stack([path.matrices[[middle + 1, middle - 1]] for path in paths])

    def video(self, images: Shaped[Tensor, "batch channels H W"]) -> Float[Tensor, "batch frames channels H W"]:
        """Converts images (B, C, H, W), floats in [0, 1] or uint8, to videos (B, T, C, H, W) of floats.

        Floats beyond [0, 1] raise UserError where values matter (colours, a numeric fill). uint8 is divided by 255.
        Every distinct matrix is sampled once; frames without motion equal the image, bit for bit. Differentiable in
        the pixels. Normalise afterwards, so that the fill means the same for every data set.
        """
        if images.dim() != 4:
            raise ValueError(f"Expected images (B, C, H, W), but received the shape {tuple(images.shape)}.")
        if images.dtype == torch.uint8:
            images = images.float() / 255
        elif self.looks_at_values:
            check_range(images)
        return render(self.graph, images, self.fill, self.interpolation)

    @property
    def looks_at_values(self) -> bool:
        """Whether the result depends on the meaning of 0 and 1, as with colours and a numeric fill."""
        return not isinstance(self.fill, str) or any(step.is_colour for edge in self.edges for step in edge.steps)

    def flops(self, size: tuple[int, int], channels: int) -> int:
        """Floating-point operations of computing one image's video: a multiplication and an addition per tap and channel.

        A frame without motion is a copy and counts as zero; a colour change counts as one tap per pixel.
        """
        return 2 * channels * taps_of(self.graph, size, self.fill, self.interpolation)

    def video_masks(
        self, masks: Integer[Tensor, "batch H W"], outside: int = 255
    ) -> Integer[Tensor, "batch frames H W"]:
        """Moves label masks (B, H, W) like the images: (B, T, H, W), same dtype, each pixel from its nearest one.

        Pixels from outside the image become `outside`, whatever the images' fill. Raises UserError unless the policy is pure.
        """
        size = (masks.shape[-2], masks.shape[-1])
        return warp_masks(masks, self._pure(size, "can move masks").paths[0].matrices, outside)

    def with_frames(self, frames: int) -> Policy:
        """The same policy with another number of frames; magnitudes keep their meaning."""
        return replace(self, frames=frames)

    def scaled(self, factor: float) -> Policy:
        """The same policy with every motion `factor` times as large; zooms are raised to that power.

        Colour ops keep their magnitudes. Raises UserError where a magnitude leaves its limits.
        """

        def larger(step: Step) -> Step:
            if step.is_colour:
                return step
            is_ratio = motion(step.op).neutral == 1.0
            return Step(step.op, step.magnitude**factor if is_ratio else factor * step.magnitude)

        return replace(self, edges=tuple(replace(e, steps=tuple(map(larger, e.steps))) for e in self.edges))

    def describe(self) -> list[str]:
        """One line per edge: "edge 0->2: translate_x by 0.43 of the width at the outer frames"."""
        return [edge.describe() for edge in self.edges]

    def digest(self) -> str:
        """16 hexadecimal digits that identify the transform: all fields but `found`."""
        return policy_file.digest(self._document)

    def to_json(self) -> str:
        """The policy as JSON text; `from_json` gives the same policy back."""
        return policy_file.to_text(self._document)

    @classmethod
    def from_json(cls, text: str, source: str = "the text") -> Policy:
        """Reads a policy from JSON text; an invalid policy raises UserError, which names the source.

        For a policy with separate motions at several places see `fieldshift.motions.placed`.
        """
        try:
            return cls(**policy_file.read(text))
        except UserError as error:
            raise policy_file.invalid(source, error) from None

    def save(self, path: str | Path) -> Path:
        """Writes the policy file atomically (temporary name, then rename) and returns its path."""
        return write_whole(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Reads a policy from a file; a missing or invalid file raises UserError."""
        return cls.from_json(policy_file.text_of(Path(path)), str(path))

    @property
    def _document(self) -> dict[str, Any]:
        return policy_file.to_document(self.graph, self.fill, self.interpolation, self.found)

    def _geometric(self, size: tuple[int, int]) -> RenderPlan:
        plan = render_plan(self.graph, size)
        if not plan.is_geometric:
            ops = ", ".join(step.op for _, step in plan.colourings)
            raise UserError(
                f"The policy changes colours ({ops}), but only motions have matrices; remove these operations."
            )
        return plan

    def _pure(self, size: tuple[int, int], ability: str) -> RenderPlan:
        plan = self._geometric(size)
        if len(plan.paths) != 1:
            raise UserError(
                f"The policy mixes {len(plan.paths)} paths, but only one with a single path {ability}; "
                "search with edges_per_node=1."
            )
        return plan


def check_range(images: Tensor) -> None:
    """Raises UserError for floats beyond [0, 1]. Checks values on the CPU only: reading them from a GPU would wait for it."""
    if images.device.type != "cpu" or torch.compiler.is_compiling() or not images.numel():
        return
    low, high = (float(value) for value in images.detach().aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise UserError(
            f"The images are floats in [{low:g}, {high:g}], but must lie in [0, 1]: divide by 255, and normalise after the "
            "motions."
        )
