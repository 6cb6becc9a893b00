"""Policies: frames, paths, masks and words, against independent arithmetic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldshift.errors import UserError
from fieldshift.motions import COLOURS, MOTIONS, Edge, Policy, Step, colour, distances, operation, warp, warp_frames
from fieldshift.motions.matrices import REFERENCES

DEFAULT_CELL = {"inputs": 2, "nodes": 4}


def pixels(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3)).to(dtype)


def cell(*edges: tuple[int, int, str, float], **settings: object) -> Policy:
    steps = tuple(Edge(source, target, (Step(op, magnitude),)) for source, target, op, magnitude in edges)
    return Policy(**{"inputs": 2, "nodes": 2, "frames": 5, "edges": steps, **settings})


MIXED = cell((0, 2, "translate_x", 0.4), (1, 2, "rotate", -35), (1, 3, "zoom", 1.8), (2, 3, "shear_y", 20))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 8])
def test_distances(frames, reference, symmetric) -> None:
    s = distances(frames, reference, symmetric)
    middle = frames // 2 if reference == "centre" else 0
    far = (frames // 2 if reference == "centre" else frames - 1) or 1
    expected = [(t - middle) / far for t in range(frames)]
    assert s.tolist() == [abs(v) if symmetric else v for v in expected]
    assert s[middle] == 0
    assert frames == 1 or s.abs().max() == 1


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [(7, 7), (8, 12)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8], ids=str)
@pytest.mark.parametrize("fill", ["zeros", "mean", (0.25, 0.5, 0.75)], ids=str)
def test_the_reference_frame_is_the_image_bit_for_bit(frames, size, dtype, fill) -> None:
    images = (pixels(2, 3, *size) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    shown = images.float() / 255 if dtype == torch.uint8 else images
    for policy in (
        Policy.chain([("rotate", 30), ("zoom", 0.6), ("translate_y", -0.3)], frames=frames, fill=fill),
        Policy.single("equalize", 1.0, frames=frames),
        cell((0, 2, "rotate", 30), (1, 2, "zoom", 2), (0, 3, "identity", 0), (2, 3, "shear_x", 9), frames=frames),
    ):
        video = policy.video(images)
        assert video.shape == (2, frames, 3, *size)
        assert torch.equal(video[:, frames // 2], shown)


@pytest.mark.parametrize("op", [*MOTIONS, *COLOURS])
def test_both_signs_of_every_op(op) -> None:
    low, high = operation(op).preset
    images = pixels(2, 3, 33, 32)  # equalize leaves a plane of fewer than 256 pixels as it is
    for magnitude in {low, high}:
        video = Policy.single(op, magnitude, frames=3).video(images)
        mirrored = Policy.single(op, magnitude, frames=3, symmetric=True).video(images)
        first = Policy.single(op, magnitude, frames=3, reference="first").video(images)
        assert torch.equal(video[:, 1], images)
        assert torch.equal(first[:, 0], images)
        assert torch.equal(mirrored[:, 0], mirrored[:, 2])
        assert torch.equal(first[:, 2], video[:, 2])
        if magnitude == operation(op).neutral:
            assert torch.equal(video[:, 2], images)
        else:
            assert not torch.equal(video[:, 2], images)


def test_one_frame_and_no_nodes_show_the_image() -> None:
    images = pixels(2, 3, 6, 6)
    for policy in (Policy.replicate(4), Policy(inputs=2, nodes=0, edges=(), frames=4)):
        video = policy.video(images)
        assert all(torch.equal(video[:, t], images) for t in range(4))
        assert policy.is_pure
        assert torch.equal(policy.matrices((6, 6)), torch.eye(2, 3).expand(4, 2, 3))
        assert policy.describe() == []
        video[:, 0] += 1  # frames don't share memory
        assert torch.equal(video[:, 1], images)
    assert Policy.single("rotate", 20, frames=1).is_pure


def brute_force_paths(policy: Policy, size: tuple[int, int]) -> list[tuple[float, np.ndarray]]:
    """Every way through the graph, with 3 x 3 products in numpy."""
    s = policy.distances

    def ways(node: int) -> list[tuple[float, list[np.ndarray]]]:
        if node < policy.inputs:
            return [(1.0, [np.eye(3) for _ in s])]
        incoming = [edge for edge in policy.edges if edge.target == node]
        found = []
        for edge in incoming:
            for weight, frames in ways(edge.source):
                moved = []
                for t, frame in enumerate(frames):
                    for step in edge.steps:
                        m = MOTIONS[step.op].matrix(torch.tensor(step.magnitude, dtype=s.dtype), s[t], size)
                        frame = np.vstack([m.numpy(), [0, 0, 1]]) @ frame
                    moved.append(frame)
                found.append((weight / len(incoming), moved))
        return found

    return [(weight, np.stack(frames)[:, :2]) for weight, frames in ways(policy.inputs + policy.nodes - 1)]


def brute_force_video(policy: Policy, images: torch.Tensor) -> torch.Tensor:
    paths = brute_force_paths(policy, images.shape[-2:])
    return sum(w * warp(images, torch.from_numpy(m), fill=policy.fill, mode=policy.interpolation) for w, m in paths)


@st.composite
def geometric_policies(draw) -> Policy:
    inputs, nodes = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    names = list(MOTIONS)
    edges = []
    for target in range(inputs, inputs + nodes):
        for source in draw(st.sets(st.integers(0, target - 1), min_size=1, max_size=2)):
            steps = []
            for op in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)):
                low, high = MOTIONS[op].preset
                steps.append(Step(op, low + draw(st.sampled_from([0.0, 0.3, 1.0])) * (high - low)))
            edges.append(Edge(source, target, tuple(steps)))
    return Policy(
        inputs=inputs,
        nodes=nodes,
        edges=tuple(edges),
        frames=draw(st.integers(1, 4)),
        reference=draw(st.sampled_from(REFERENCES)),
        symmetric=draw(st.booleans()),
        fill=draw(st.sampled_from(["zeros", "border", "reflection", "mean", (0.5,)])),
    )


@settings(max_examples=40, deadline=None)
@given(geometric_policies())
def test_any_geometric_policy_is_the_mean_of_its_paths(policy) -> None:
    size = (6, 9)
    weights, matrices = policy.paths(size)
    assert abs(float(weights.sum()) - 1) < 1e-6
    expected = brute_force_paths(policy, size)
    for weight, path in zip(weights, matrices, strict=True):
        same = sum(w for w, m in expected if np.allclose(m, path.numpy(), atol=1e-5))
        assert abs(same - float(weight)) < 1e-6
    for one, other in itertools.combinations(matrices, 2):
        assert not torch.allclose(one, other, atol=1e-7), "equal paths were not merged"
    images = pixels(2, 2, *size, dtype=torch.float64)
    assert torch.allclose(policy.video(images), brute_force_video(policy, images), atol=1e-9)
    assert policy.is_pure == (len(weights) == 1)
    assert Policy.from_json(policy.to_json()) == policy


def test_distinct_matrices_are_sampled_once(monkeypatch) -> None:
    from fieldshift.motions.rendering import render_plan

    policy = cell(
        (0, 2, "rotate", 30), (1, 2, "rotate", 30), (0, 3, "rotate", 30), (2, 3, "identity", 0), symmetric=True
    )
    assert policy.is_pure
    output = render_plan(policy.graph, (8, 8)).output
    assert len(output.matrices) == 3  # s = 0, 1/2 and 1
    assert output.mixture[0] == output.mixture[4]


def test_frames_mean_the_same_at_every_number_of_frames() -> None:
    images = pixels(2, 3, 9, 10)
    many = MIXED.with_frames(9)
    assert torch.allclose(MIXED.video(images), many.video(images)[:, ::2], atol=1e-6)
    assert torch.allclose(MIXED.with_frames(3).video(images), many.video(images)[:, ::4], atol=1e-6)
    assert many.with_frames(5) == MIXED


def test_colour_ops_split_a_chain() -> None:
    images = pixels(2, 3, 9, 10, dtype=torch.float64)
    policy = Policy.chain([("rotate", 25), ("brightness", 0.6), ("zoom", 1.4), ("solarize", 0.5)], frames=3)
    s = policy.distances
    one = torch.ones((), dtype=torch.float64)
    video = warp(images, MOTIONS["rotate"].matrix(25 * one, s, (9, 10)))
    video = colour("brightness").apply(video, 0.6 * s)
    video = warp_frames(video, MOTIONS["zoom"].matrix(1.4 * one, s, (9, 10)))
    assert torch.allclose(policy.video(images), colour("solarize").apply(video, 0.5 * s), atol=1e-12)
    assert not policy.is_pure


def test_colour_in_a_cell_acts_on_the_node_value() -> None:
    images = pixels(2, 3, 8, 8, dtype=torch.float64)
    policy = cell((0, 2, "translate_x", 0.25), (1, 2, "rotate", 40), (2, 3, "contrast", 0.7), (0, 3, "autocontrast", 1))
    s = policy.distances
    one = torch.ones((), dtype=torch.float64)
    moved = [
        warp(images, MOTIONS[name].matrix(m * one, s, (8, 8))) for name, m in (("translate_x", 0.25), ("rotate", 40))
    ]
    node = colour("contrast").apply((moved[0] + moved[1]) / 2, 0.7 * s)
    other = colour("autocontrast").apply(images[:, None].expand(-1, 5, -1, -1, -1), s)
    assert torch.allclose(policy.video(images), (node + other) / 2, atol=1e-12)


def test_nodes_without_a_way_to_the_output_do_nothing() -> None:
    images = pixels(1, 3, 6, 6)
    dead = cell((0, 2, "brightness", 0.5), (1, 3, "rotate", 30))
    assert dead.is_pure
    assert torch.equal(dead.video(images), Policy.single("rotate", 30, frames=5).video(images))


def test_masks_move_with_the_image() -> None:
    policy = Policy.chain([("translate_x", 0.25), ("rotate", 30)], frames=3, fill="border", interpolation="nearest")
    labels = (torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(0)) * 20).to(torch.uint8)
    masks = policy.video_masks(labels)
    video = policy.video(labels[:, None].float())[:, :, 0]
    inside = masks != 255
    assert masks.dtype == torch.uint8
    assert torch.equal(masks[:, 1], labels)
    assert not inside.all()
    assert torch.equal(masks[inside].float(), video[inside])
    assert (policy.video_masks(labels.long(), outside=-1) == -1).any()


def test_gradient_reaches_the_image_through_motions_and_colours() -> None:
    images = pixels(1, 1, 4, 5, dtype=torch.float64).requires_grad_()
    policy = Policy.chain([("rotate", 25), ("brightness", -0.6), ("translate_x", 0.3)], frames=3)
    assert torch.autograd.gradcheck(policy.video, (images,))


def test_the_video_of_an_image_does_not_depend_on_its_batch() -> None:
    images = pixels(5, 3, 9, 7)
    policy = cell((0, 2, "equalize", 0.7), (1, 3, "rotate", 33), (2, 3, "zoom", 1.5), fill="mean")
    alone = torch.cat([policy.video(image[None]) for image in images])
    assert torch.allclose(policy.video(images), alone, atol=1e-6)


def test_words() -> None:
    assert Policy.single("translate_x", 0.43, frames=3).describe() == [
        "edge 0->1: translate_x by 0.43 of the width at the outer frames"
    ]
    chain = Policy.chain([("rotate", -30), ("brightness", 0.5)], frames=3)
    assert chain.describe() == ["edge 0->1: rotate by -30 degrees, then brightness by +0.5 at the outer frames"]
    assert cell((0, 2, "identity", 0), (2, 3, "zoom", 2)).describe()[0] == "edge 0->2: identity"


def test_the_digest_names_the_transform_only() -> None:
    policy = Policy.single("rotate", 30, frames=3)
    found = Policy.single("rotate", 30.0, frames=3, found={"space": "affine-edge"})
    assert policy.digest() == found.digest()
    assert hash(policy) == hash(found)
    others = [
        Policy.single("rotate", 31, frames=3),
        policy.with_frames(5),
        Policy.single("rotate", 30, frames=3, fill="border"),
        Policy.single("rotate", 30, frames=3, fill=(0.5,)),
        Policy.single("rotate", 30, frames=3, symmetric=True),
        Policy.single("rotate", 30, frames=3, reference="first"),
        Policy.single("rotate", 30, frames=3, interpolation="nearest"),
    ]
    assert len({p.digest() for p in [policy, *others]}) == len(others) + 1
    assert Policy.single("zoom", 2, frames=3, fill=[0, 1]) == Policy.single("zoom", 2, frames=3, fill=(0.0, 1.0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Policy.single("spin", 3, frames=3), "Unknown operation 'spin'"),
        (lambda: Policy.single("rotat", 3, frames=3), "Did you mean 'rotate'"),
        (lambda: Policy.single("rotate", 200, frames=3), "rotate is 200, but must be from -180 to 180"),
        (lambda: Policy.single("zoom", -1.5, frames=3), "zoom is -1.5, but must be from 0.05 to 20"),
        (lambda: Policy.single("posterize", 9, frames=3), "posterize is 9, but must be from -8 to 8"),
        (lambda: Policy.single("rotate", math.nan, frames=3), "finite number"),
        (lambda: Policy.single("rotate", 10, frames=0), "frames is 0, but must be a whole number of at least 1"),
        (lambda: Policy.replicate(2, fill="white"), "Unknown fill 'white'"),
        (lambda: Policy.replicate(2, interpolation="cubic"), "Unknown interpolation 'cubic'"),
        (lambda: Policy.replicate(2, reference="middle"), "Unknown reference 'middle'"),
        (lambda: cell((0, 2, "rotate", 3)), "Node 3 has no incoming edge"),
        (lambda: cell((0, 2, "rotate", 3), (3, 2, "rotate", 3)), "3->2 leads backwards"),
        (
            lambda: cell((0, 1, "rotate", 3)),
            "0->1 ends at node 1, but an edge ends at a node that is no input .from 2 to 3.",
        ),
        (lambda: cell((0, 4, "rotate", 3)), "0->4 ends at node 4"),
        (lambda: cell((0, 2, "rotate", 3), (0, 2, "zoom", 2), (2, 3, "zoom", 2)), "0->2 appears twice"),
        (lambda: cell((0, 1, "zoom", 2), nodes=0, inputs=1), "none, as .nodes. is 0"),
        (lambda: Policy(inputs=0, nodes=0, edges=(), frames=2), "number of inputs is 0"),
        (lambda: Edge(0, 1, ()), "has no steps"),
        (lambda: Edge(-1, 1, (Step("zoom", 2),)), "source of an edge is -1"),
        (lambda: MIXED.matrices((5, 5)), "mixes 3 paths, but only one with a single path has one matrix per frame"),
        (lambda: MIXED.video_masks(torch.zeros(1, 5, 5, dtype=torch.uint8)), "can move masks"),
        (lambda: Policy.single("equalize", 1, frames=3).matrices((5, 5)), "changes colours .equalize."),
        (lambda: Policy.single("contrast", 1, frames=3).video(pixels(1, 2, 5, 5)), "need images of 1 or 3 channels"),
        (lambda: Policy.single("rotate", 1, frames=3).video(torch.zeros(1, 2, 5, 5, dtype=torch.int64)), "int64"),
    ],
)
def test_mistakes_are_told_in_one_line(make, words) -> None:
    with pytest.raises(UserError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "policy",
    [Policy.single("brightness", 0.5, frames=3), Policy.single("rotate", 30.0, frames=3, fill=(0.5,))],
    ids=["colour", "fill in numbers"],
)
def test_floats_beyond_one_are_refused_where_values_matter(policy: Policy) -> None:
    images = pixels(1, 3, 8, 8)
    assert policy.video(images).shape == (1, 3, 3, 8, 8)
    for wrong in (images * 255, images - 1, images * torch.nan):
        with pytest.raises(UserError, match=r"must lie in \[0, 1\]: divide by 255"):
            policy.video(wrong)


def test_motions_alone_move_any_floats() -> None:
    policy, images = Policy.single("rotate", 30.0, frames=3), pixels(1, 3, 8, 8)
    assert torch.allclose(policy.video(images * 255), policy.video(images) * 255, atol=1e-3)


def test_policies_are_made_alike_where_tensors_go_elsewhere_by_default() -> None:
    with torch.device("meta"):
        policy = Policy.single("rotate", 30.0, frames=4, symmetric=True)
        distances = policy.distances
    assert distances.tolist() == [1.0, 0.5, 0.0, 0.5]
    assert Policy.single("rotate", 30.0, frames=4, reference="first").distances.tolist() == [0.0, 1 / 3, 2 / 3, 1.0]
