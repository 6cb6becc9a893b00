"""Movements against a slow loop over scipy's affine_transform, one channel at a time, and their gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from fieldshift.folding import PolicyMotion
from fieldshift.motions import FILLS, MOTIONS, Edge, Policy, Step
from fieldshift.networks import movement_pieces
from fieldshift.networks.movement import Movement, Taps

SIZES = [(7, 10), (9, 9), (1, 6), (1, 1)]
VALUES = (0.2, 0.7)
SCIPY_MODES = {"border": "nearest", "reflection": "reflect"}
Path = tuple[float, list[tuple[str, float]]]
"""A share, and the operations with their magnitudes that a path goes through."""


def magnitudes(name: str) -> list[float]:
    """Magnitudes to both sides of neutral that bring no pixel midway between two, where nearest is a matter of taste."""
    low, high = MOTIONS[name].preset
    return sorted({0.93 * low + 0.07 * high, 0.31 * low + 0.69 * high})


def slow_plane(plane: np.ndarray, paths: Sequence[Path], step: float, fill: object, mode: str) -> np.ndarray:
    """One channel as a frame at the distance `step` from the reference frame would show it."""
    height, width = plane.shape
    behind = plane.mean() if fill == "mean" else 0.0
    total = np.zeros_like(plane)
    for share, operations in paths:
        whole = np.eye(3)
        for name, magnitude in operations:
            given = torch.tensor([magnitude, step], dtype=torch.float64)
            matrix = MOTIONS[name].matrix(given[0], given[1], (height, width))
            whole = np.vstack([matrix.numpy(), [0, 0, 1]]) @ whole
        back = np.linalg.inv(whole)
        linear, shift = back[:2, :2][::-1, ::-1], back[:2, 2][::-1]  # rows and columns, not x and y
        centre = np.array([(height - 1) / 2, (width - 1) / 2])
        moved = scipy.ndimage.affine_transform(
            plane - behind,
            linear,
            centre - linear @ centre + shift,
            order=1 if mode == "bilinear" else 0,
            mode=SCIPY_MODES.get(str(fill), "grid-constant"),
        )
        total += share * (moved + behind)
    return total


def slow_move(
    features: Tensor, groups: Sequence[Sequence[Path]], width: int, fill: object, mode: str, step: float = 1.0
) -> Tensor:
    """The first half of the moved channels from the next frame, the second from the previous; each in equal groups."""
    result, each = features.clone(), width // (2 * len(groups))
    for b, c in product(range(len(features)), range(width)):
        side, group = divmod(c // each, len(groups))
        moved = slow_plane(features[b, c].numpy(), groups[group], step if side == 0 else -step, fill, mode)
        result[b, c] = torch.from_numpy(moved)
    return result


def some_features(size: tuple[int, int], channels: int = 5, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)


def movement_of(policies: Sequence[Policy], features: Tensor) -> Movement:
    return PolicyMotion(tuple(policies))((features.shape[-2], features.shape[-1]), features)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill", [*FILLS, VALUES], ids=str)
@pytest.mark.parametrize("name", [name for name in MOTIONS if name != "identity"])
def test_every_motion_equals_the_slow_loop(name: str, fill: str | tuple[float, ...], mode: str) -> None:
    for size, magnitude in product(SIZES, magnitudes(name)):
        policy = Policy.single(name, magnitude, frames=3, fill=fill, interpolation=mode)
        features = some_features(size)
        moved = movement_of([policy], features).move(features, 4)
        expected = slow_move(features, [[(1.0, [(name, magnitude)])]], 4, fill, mode)
        torch.testing.assert_close(moved, expected, atol=1e-9, rtol=0)
        last = movement_of([policy], features).move(features.to(memory_format=torch.channels_last), 4)
        torch.testing.assert_close(last, expected, atol=1e-9, rtol=0)


def mixed_policy(**settings: object) -> Policy:
    """Two paths: a turn followed by a zoom, and a translation."""
    edges = (Edge(0, 1, (Step("rotate", 31.0), Step("zoom", 1.3))), Edge(0, 2, (Step("translate_x", 0.37),)))
    joined = (*edges, Edge(1, 2, (Step("identity", 0.0),)))
    return Policy(inputs=1, nodes=2, edges=joined, frames=5, **settings)  # type: ignore[arg-type]


MIXED: list[Path] = [(0.5, [("rotate", 31.0), ("zoom", 1.3)]), (0.5, [("translate_x", 0.37)])]
SHEARED: list[Path] = [(1.0, [("shear_y", -11.0)])]


@pytest.mark.parametrize("fill", FILLS)
def test_several_paths_and_groups_equal_the_slow_loop(fill: str) -> None:
    policies = [mixed_policy(fill=fill), Policy.single("shear_y", -11.0, frames=5, fill=fill)]
    features = some_features((8, 7), channels=9)
    moved = movement_of(policies, features).move(features, 8)
    expected = slow_move(features, [MIXED, SHEARED], 8, fill, "bilinear", step=0.5)
    torch.testing.assert_close(moved, expected, atol=1e-9, rtol=0)
    assert torch.equal(moved[:, 8], features[:, 8])


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"frames": 4}, (0.5, -0.5)),
        ({"frames": 3, "reference": "first"}, (0.5, -0.5)),  # as if the video went on before its first frame
        ({"frames": 4, "reference": "first", "symmetric": True}, (1 / 3, -1 / 3)),
        ({"frames": 5, "symmetric": True}, (0.5, 0.5)),  # both neighbours show the same
    ],
)
def test_references_and_symmetry_have_their_meaning(settings: dict[str, object], steps: tuple[float, float]) -> None:
    policy = Policy.single("translate_x", 0.4, **settings)  # type: ignore[arg-type]
    features = some_features((5, 9), channels=4)
    moved = movement_of([policy], features).move(features, 4)
    for side, step in enumerate(steps):
        for c in (2 * side, 2 * side + 1):
            expected = slow_plane(features[0, c].numpy(), [(1.0, [("translate_x", 0.4)])], step, "zeros", "bilinear")
            torch.testing.assert_close(moved[0, c], torch.from_numpy(expected), atol=1e-9, rtol=0)


CASES = {
    "mixed": (mixed_policy(),),
    "mean": (mixed_policy(fill="mean"),),
    "groups": (mixed_policy(fill="border"), Policy.single("zoom", 0.7, frames=5, fill="border")),
    "translation": (Policy.single("translate_y", 0.3, frames=3),),
    "nothing is left": (Policy.single("translate_x", 1.0, frames=3),),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_every_order_in_features_and_in_weights(
    name: str, channels: int, layout: torch.memory_format
) -> None:
    features = some_features((3, 4), channels).to(memory_format=layout).requires_grad_()
    movement = movement_of(CASES[name], features)
    weights = torch.rand(len(movement.weights), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def moved(features: Tensor, weights: Tensor) -> Tensor:
        return dataclasses.replace(movement, weights=weights).move(features, 4)

    inputs = (features, weights.requires_grad_())
    assert torch.autograd.gradcheck(moved, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(moved, inputs, fast_mode=True)


@pytest.mark.parametrize("name", CASES)
def test_what_tracers_see_equals_the_one_pass_and_its_gradient(name: str) -> None:
    features = some_features((6, 5), channels=5)
    movement = movement_of(CASES[name], features)
    probe = torch.randn(features.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    traced, gradient_of = torch.func.vjp(lambda each: movement.move(each, 4), features)
    leaf = features.clone().requires_grad_()
    moved = movement.move(leaf, 4)
    torch.testing.assert_close(traced, moved, atol=1e-12, rtol=0)
    (expected,) = torch.autograd.grad((moved * probe).sum(), leaf)
    torch.testing.assert_close(gradient_of(probe)[0], expected, atol=1e-12, rtol=0)


def test_a_motion_that_moves_nothing_returns_the_very_tensor() -> None:
    features = some_features((5, 6))
    stills = [
        Policy.replicate(3),
        Policy.single("identity", 0.0, frames=3),
        Policy.single("zoom", 1.0, frames=3, fill="mean"),
        Policy.single("translate_x", 0.0, frames=5, interpolation="nearest"),
    ]
    for policies in ([policy] for policy in stills):
        movement = movement_of(policies, features)
        assert movement.is_identity
        assert movement.move(features, 4) is features
        assert movement.flops(4) == 0
    assert not movement_of([stills[1], Policy.single("rotate", 20.0, frames=3)], features).is_identity


@pytest.mark.parametrize("pieces", [1, 100, 2**14])  # an image at a time, two, all of them
@pytest.mark.parametrize("most", [0, 100])  # rows of a table, pieces of the map
@pytest.mark.parametrize("channels", [4, 5, 6])  # all move; the others are no whole piece, or one
def test_both_ways_on_a_cpu_equal_the_other_layout(
    channels: int, most: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(movement_pieces, "PIECES", pieces)
    monkeypatch.setattr(movement_pieces, "MOST_TAPS", most)
    features = some_features((4, 6), channels, batch=5)
    for policies in CASES.values():
        movement, other = movement_of(policies, features), movement_of(policies, features)
        leaf, last = features.clone().requires_grad_(), features.to(memory_format=torch.channels_last).requires_grad_()
        moved, moved_last = movement.move(leaf, 4), other.move(last, 4)
        assert moved_last.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(moved_last, moved, atol=1e-12, rtol=0)
        expected, found = (
            torch.autograd.grad((y * features).sum(), x)[0] for y, x in ((moved, leaf), (moved_last, last))
        )
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("fill", ["zeros", "mean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single_precision(dtype: torch.dtype, fill: str) -> None:
    features = some_features((8, 7), channels=6).to(dtype)
    eps = torch.finfo(dtype).eps
    for policy in (mixed_policy(fill=fill), Policy.single("translate_x", 0.37, frames=3, fill=fill)):
        exact = movement_of([policy], features.double()).move(features.double(), 4)
        for layout in (torch.contiguous_format, torch.channels_last):
            moved = movement_of([policy], features).move(features.to(memory_format=layout), 4)
            assert moved.dtype == dtype
            torch.testing.assert_close(moved, exact.float().to(dtype), atol=eps, rtol=eps)


def test_features_that_lie_anyhow_in_memory_are_moved_alike() -> None:
    whole = some_features((12, 10), channels=12)
    for part in (
        whole[:, ::2, ::2],
        whole[:, 3:9, 1:8, 2:9],
        whole.transpose(2, 3)[:, :6],
        whole[:1].expand(3, -1, -1, -1),
    ):
        movement = movement_of([mixed_policy()], part)
        assert torch.equal(movement.move(part, 4), movement.move(part.clone().contiguous(), 4))


def test_another_size_is_told_with_both() -> None:
    features = some_features((5, 6))
    with pytest.raises(ValueError, match=r"\(5, 6\), but received \(6, 5\)"):
        movement_of([mixed_policy()], features).move(features.transpose(2, 3), 4)


def test_the_adjoint_taps_are_the_transpose() -> None:
    rows, starts, receivers = [2, 0, 2, 1], [0, 1, 3], [0, 1, 1, 2]
    taps = Taps(*(torch.tensor(numbers, dtype=torch.int32) for numbers in (rows, starts, receivers)))
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def dense(taps: Taps, weights: Tensor) -> Tensor:
        matrix = torch.zeros(3, 3)
        matrix.index_put_((taps.receivers.long(), taps.rows.long()), weights, accumulate=True)
        return matrix

    assert torch.equal(dense(taps.transposed, weights[taps.order]), dense(taps, weights).T)
    again = taps.transposed.transposed
    assert torch.equal(dense(again, weights[taps.order][taps.transposed.order]), dense(taps, weights))
    assert again.starts.tolist() == starts
