"""The relaxed cell against a plain loop of one warp an operation and frame."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fieldshift.motions import COLOURS, MOTIONS, colour, compose, distances, motion, warp_frames
from fieldshift.search import RelaxedCell, Space, load_space
from fieldshift.search.slabs import IDLE_CALLS, TapCache
from search_spaces import motion_spaces

SMALL = {"frames": 3, "size": (11, 14), "batch": 2, "channels": 3}


def plain_video(cell: RelaxedCell, images: Tensor, weights: Tensor) -> Tensor:
    """Every option of every edge on its own, warped frame by frame with the public warp, then added up."""
    space, s = cell.space, distances(cell.frames, cell.space.reference, cell.space.symmetric)
    size = (images.shape[-2], images.shape[-1])
    background = images.mean((-2, -1), keepdim=True) if space.fill == "mean" else torch.zeros(())
    if not isinstance(space.fill, str):
        background = torch.tensor(space.fill, dtype=images.dtype).view(1, -1, 1, 1)
    padding = space.fill if space.fill in ("border", "reflection") else "zeros"
    magnitudes = cell.magnitudes()
    videos = [images[:, None].expand(-1, cell.frames, -1, -1, -1)] * space.inputs

    def moved(video: Tensor, matrices: list[Tensor]) -> Tensor:
        if not matrices:
            return video
        behind = background.unsqueeze(1) if background.dim() else background
        return warp_frames(video - behind, compose(*matrices).to(video.dtype), fill=padding) + behind

    def applied(video: Tensor, e: int, o: int) -> Tensor:
        pending: list[Tensor] = []
        for k, op in enumerate(cell.operations[o].steps):
            magnitude = magnitudes[e, o, k]
            if op in COLOURS:
                video, pending = moved(video, pending), []
                video = colour(op).apply(video, (magnitude * s).to(video.dtype))
            else:
                pending.append(motion(op).matrix(magnitude, s, size))
        return moved(video, pending)

    for node in range(space.inputs, space.inputs + space.nodes):
        incoming = [e for e, (_, target) in enumerate(space.edges) if target == node and cell.kept[e]]
        values = [
            sum(weights[e, o] * applied(videos[space.edges[e][0]], e, o) for o in range(len(cell.operations)))
            for e in incoming
        ]
        videos.append(torch.stack(values).mean(0) if values else torch.zeros_like(videos[0]))
    return videos[-1]


def small_space(**changes: object) -> Space:
    return load_space("affine-cell").with_changes(**{"inputs": 2, "nodes": 2, **changes})


def some_images(seed: int = 0, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, channels, *SMALL["size"], generator=generator)


def uneven_weights(cell: RelaxedCell, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(cell.alpha.shape, generator=generator)).softmax(-1)


def assert_same_video_and_gradients(cell: RelaxedCell, images: Tensor, weights: Tensor) -> None:
    wanted = cell.outer_parameters[1:]
    images, weights = images.requires_grad_(), weights.requires_grad_()
    probe = torch.randn(2, cell.frames, *images.shape[1:], generator=torch.Generator().manual_seed(5))
    results = []
    for video in (cell.video(images, weights), plain_video(cell, images, weights)):
        leaves = [images, weights, *wanted]
        gradients = torch.autograd.grad((video * probe).sum(), leaves, materialize_grads=True)
        results.append((video.detach(), gradients))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for fast, plain in zip(results[0][1], results[1][1], strict=True):
        scale = max(1.0, float(plain.abs().max()))
        torch.testing.assert_close(fast / scale, plain / scale, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", motion_spaces.names())
@pytest.mark.parametrize("frames", [1, 4])
def test_every_packaged_space_equals_the_plain_loop(name: str, frames: int) -> None:
    space = load_space(name)
    cell = RelaxedCell(space.with_changes(nodes=min(space.nodes, 2)), frames, seed=3)
    assert_same_video_and_gradients(cell, some_images(), uneven_weights(cell))


@pytest.mark.parametrize("op", sorted(set(MOTIONS) - {"identity"}))
@pytest.mark.parametrize("magnitudes", ["frozen", "learned"])
def test_every_motion_equals_the_plain_loop_with_either_sign(op: str, magnitudes: str) -> None:
    for seed in range(2):
        space = small_space(candidates=((op,),), ranges={}, magnitudes=magnitudes)
        cell = RelaxedCell(space, 3, seed=seed)
        assert_same_video_and_gradients(cell, some_images(seed), uneven_weights(cell))


@pytest.mark.parametrize("fill", ["zeros", "border", "reflection", "mean", (0.3, 0.6, 0.1)])
def test_every_fill_equals_the_plain_loop_also_where_weights_do_not_add_to_one(fill: object) -> None:
    cell = RelaxedCell(small_space(fill=fill), 3, seed=0)
    weights = uneven_weights(cell)
    assert_same_video_and_gradients(cell, some_images(), weights.detach().clone())
    weights = weights.detach().clone()
    weights[1, 2] = 0.0
    images = some_images()
    torch.testing.assert_close(cell.video(images, weights), plain_video(cell, images, weights), atol=1e-5, rtol=1e-5)


def test_frames_of_equal_strength_are_equal_and_computed_once() -> None:
    cell = RelaxedCell(small_space(symmetric=True), 5, seed=0)
    assert_same_video_and_gradients(cell, some_images(), uneven_weights(cell))
    assert len(cell.node_slabs(some_images(), cell.weights())[-1]) == 3
    video = cell.video(some_images())
    assert torch.equal(video[:, 0], video[:, 4])


@pytest.mark.parametrize("reference", ["centre", "first"])
def test_the_reference_frame_is_the_image(reference: str) -> None:
    cell = RelaxedCell(load_space("affine-cell").with_changes(reference=reference), 4, seed=0)
    place = 2 if reference == "centre" else 0
    torch.testing.assert_close(cell.video(some_images())[:, place], some_images(), atol=1e-6, rtol=0)


def test_a_decided_cell_renders_what_its_policy_renders() -> None:
    cell = RelaxedCell(small_space(), 3, seed=2)
    cell.decided = [e % len(cell.operations) for e in range(len(cell.edges))]
    images = some_images()
    assert torch.equal(cell.video(images), cell.to_policy({}).video(images))
    one_hop = RelaxedCell(load_space("affine-one"), 3, seed=2)
    one_hop.decided = [3]
    torch.testing.assert_close(
        one_hop.video(images), plain_video(one_hop, images, one_hop.weights()), atol=1e-5, rtol=0
    )


def test_half_decided_cells_keep_one_hot_edges_without_gradient() -> None:
    cell = RelaxedCell(small_space(), 3, seed=2)
    cell.decided[0], cell.decided[3] = 1, 0
    cell.kept[2] = False
    images, weights = some_images(), cell.weights()
    assert weights[0].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert weights[2].abs().sum() == 0
    torch.testing.assert_close(cell.video(images), plain_video(cell, images, weights), atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(cell.video(images).square().sum(), cell.alpha)
    assert torch.equal(gradient[[0, 2, 3]], torch.zeros(3, 5))
    assert (gradient[[1, 4]] != 0).any(-1).all()


def test_slabs_before_an_edge_do_not_depend_on_it() -> None:
    cell = RelaxedCell(load_space("affine-cell"), 3, seed=2)
    images, weights = some_images(), cell.weights().detach()
    before = cell.node_slabs(images, weights)
    for edge, (_, target) in enumerate(cell.edges):
        changed = weights.clone()
        changed[edge, 0] = 0.0
        known = tuple(before[: cell.slabs_before(edge)])
        assert len(known) == target - 1
        assert torch.equal(cell.video(images, changed, known), cell.video(images, changed))


def test_gumbel_samples_are_one_hot_seeded_and_have_a_soft_gradient() -> None:
    cell = RelaxedCell(load_space("affine-cell"), 3, seed=0)
    sample = cell.weights(noise=11)
    assert torch.equal(sample.detach().round(), sample.detach().round().clamp(0, 1))
    torch.testing.assert_close(sample.sum(-1), torch.ones(len(cell.edges)))
    assert torch.equal(sample, cell.weights(noise=11))
    assert not torch.equal(sample, cell.weights(noise=12))
    (gradient,) = torch.autograd.grad(cell.video(some_images(), sample).square().sum(), cell.alpha)
    assert (gradient != 0).any(-1).all()
    draws = torch.stack([cell.weights(noise=n).detach() for n in range(400)]).mean(0)
    assert (draws - 0.2).abs().max() < 0.1


def test_magnitudes_stay_in_their_ranges_and_factors_are_drawn_evenly_in_the_logarithm() -> None:
    space = load_space("affine-cell").with_changes(inputs=40, nodes=1)
    drawn = RelaxedCell(space, 3, seed=0).magnitudes()[:, :, 0]
    for o, (op,) in enumerate(space.candidates):
        low, high = space.range_of(op)
        assert drawn[:, o].min() >= low
        assert drawn[:, o].max() <= high
    zoom = drawn[:, space.candidates.index(("zoom",))].log()
    assert (zoom < 0).sum() in range(10, 31)
    assert torch.equal(drawn, drawn.round(decimals=4))


def test_the_same_seed_gives_the_same_cell_and_another_one_another() -> None:
    first, again, other = (RelaxedCell(load_space("affine-cell"), 3, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.alpha, again.alpha)
    assert torch.equal(first.magnitudes(), again.magnitudes())
    assert not torch.equal(first.magnitudes(), other.magnitudes())


def test_kept_taps_stay_within_their_bytes_and_what_is_idle_makes_room() -> None:
    kept = TapCache(100)
    first = kept.of("a", 60)
    assert first is not None
    assert kept.of("b", 50) is None
    assert kept.of("c", 40) is not None
    assert kept.of("a", 60) is first
    for _ in range(IDLE_CALLS + 1):
        assert kept.of("c", 40) is not None
    assert kept.of("b", 50) is not None
    assert kept.of("a", 60) is None


def test_taps_that_find_no_room_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 1, 9, 8)
    videos = []
    for limit in (0, 20_000, 2**31):
        monkeypatch.setattr("fieldshift.search.nodes.CACHE_BYTES", limit)
        cell = RelaxedCell(load_space("affine-cell"), 3, seed=4)
        steps = [cell.video(images, cell.weights()) for _ in range(2)]
        videos += [*steps, torch.autograd.grad(steps[1].square().sum(), cell.alpha)[0]]
    for number in (0, 1, 2):
        assert torch.equal(videos[number], videos[number + 3])
        assert torch.equal(videos[number], videos[number + 6])
