"""Folded networks against the videos that they stand for, the plain 2D network, and what has no folded form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fieldshift.errors import UserError
from fieldshift.folding import PolicyMotion, motions_of
from fieldshift.motions import Edge, Policy, Step
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy
from fieldshift.networks import TEMPORAL, VideoNetwork, flops_per_image, video_network
from fieldshift.networks.folded import FoldedGSF, FoldedGSM, FoldedModule, FoldedTSM
from tests.networks.pairs import last_map, pair

PIXELS = 4  # of a step: one cell of the last map, two of the first block's
SIZE = (96, 112)
PLACES = ("blocks.0.conv1", "blocks.1.conv1")
AFTER = ("blocks.0.conv2", "blocks.1.conv2")
FOLDED = [name for name, kind in TEMPORAL.items() if kind.folded is not None]


def moved(op: str = "translate_x", frames: int = 5, sign: int = 1, **settings: object) -> Policy:
    """Neighbouring frames of a video lie PIXELS apart."""
    side = SIZE[1] if op == "translate_x" else SIZE[0]
    return Policy.single(op, sign * PIXELS * (frames // 2) / side, frames=frames, **settings)  # type: ignore[arg-type]


def interior_difference(policy: Policy, temporal: str, margin: int, **options: object) -> float:
    """How far the folded map and the reference frame's are apart at most, `margin` cells from the border."""
    networks = pair(policy, temporal, **options)
    return difference_within(networks, policy, margin)


def difference_within(networks: tuple[VideoNetwork, VideoNetwork], policy: Policy, margin: int) -> float:
    video, folded = networks
    images = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    frames = last_map(video, policy.video(images))
    one = last_map(folded, images[:, None])
    inside = (slice(margin, -margin), slice(margin, -margin))
    reference = frames[policy.frames // 2][:, *inside]
    assert reference.abs().max() > 0.1
    return float((reference - one[0][:, *inside]).abs().max())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("op", ["translate_x", "translate_y"])
def test_tsm_equals_the_video_as_soon_as_its_ends_are_out_of_reach(op: str, sign: int) -> None:
    """Two modules reach two frames: T // 2 = 2 is enough, with T // 2 = 1 the zeros at the ends come in."""
    assert interior_difference(moved(op, 5, sign), "tsm", 6) < 1e-9
    assert interior_difference(moved(op, 3, sign), "tsm", 6) > 1e-4


def test_the_block_wise_shift_equals_the_video_too() -> None:
    assert interior_difference(moved(frames=5), "tsm-inplace", 6) < 1e-9


@pytest.mark.parametrize(("op", "sign"), [("translate_x", 1), ("translate_y", -1)])
def test_gsm_equals_the_video_two_frames_per_module(op: str, sign: int) -> None:
    """A frame's gate reads both neighbours, and what arrives went through the neighbours' gates: two frames further."""
    assert interior_difference(moved(op, 9, sign), "gsm", 10) < 1e-9
    assert interior_difference(moved(op, 5, sign), "gsm", 10) > 1e-6


def test_gsf_equals_the_video_but_for_the_means_that_its_weights_read() -> None:
    """The fusion's weights read spatial means of three frames. A motion carries content out of the map, so the means of the
    frames differ, and one frame cannot know the others': this part does not fold. With constant weights all is equal.
    """
    policy = moved(frames=9)
    networks = pair(policy, "gsf")
    assert 1e-9 < difference_within(networks, policy, 10) < 0.1
    for network in networks:
        for name, tensor in network.state_dict().items():
            if "weigh.weight" in name:
                tensor.zero_()
    assert difference_within(networks, policy, 10) < 1e-9


def test_one_module_equals_the_video_of_equal_neighbours() -> None:
    """Away and back, both neighbours are the same; a second module would see M of M where the video comes back."""
    policy = moved(frames=3, symmetric=True)
    assert interior_difference(policy, "tsm", 6, places="blocks.1.conv1") < 1e-9
    assert interior_difference(policy, "tsm", 6) > 1e-4
    assert interior_difference(moved(frames=5, symmetric=True), "tsm", 6) > 1e-4


def plain_weights(folded: VideoNetwork) -> dict[str, Tensor]:
    return {
        name.replace(".wrapped", ""): tensor for name, tensor in folded.state_dict().items() if ".temporal." not in name
    }


@pytest.mark.parametrize(("temporal", "options"), [("tsm", {}), ("tsm-inplace", {}), ("gsm", {"interleave": False})])
def test_with_the_identity_it_is_the_plain_network_bit_for_bit(temporal: str, options: dict[str, bool]) -> None:
    _, folded = pair(Policy.replicate(3), temporal, **options)
    plain = video_network("tiny-resnet", temporal="none", frames=1, num_classes=5).double()
    plain.load_state_dict(plain_weights(folded))
    images = torch.rand(4, 1, 3, 24, 20, dtype=torch.float64)
    for training in (False, True):
        results = []
        for network in (folded, plain):
            network.train(training).zero_grad()
            logits = network(images)
            logits.square().sum().backward()
            results.append((logits, network.get_submodule("network.conv1").weight.grad))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])


def test_gsm_with_the_identity_only_interleaves() -> None:
    module = FoldedGSM(16, PolicyMotion((Policy.replicate(3),)), ratio=0.5, zero_gate=False)
    features = torch.rand(2, 16, 5, 6)
    expected = features.clone()
    for half in (0, 4):  # every half of 4 channels is read as (2, 2) and transposed
        expected[:, half : half + 4] = features[:, [half, half + 2, half + 1, half + 3]]
    assert torch.equal(module(features), expected)


@pytest.mark.parametrize("temporal", FOLDED)
def test_folded_modules_have_the_parameters_of_the_videos_and_learn(temporal: str) -> None:
    mixed = Policy(
        inputs=1, nodes=2, frames=3, fill="mean",
        edges=(Edge(0, 1, (Step("rotate", 25.0),)), Edge(0, 2, (Step("zoom", 1.3),)), Edge(1, 2, (Step("shear_y", 8.0),))),
    )  # fmt: skip
    video, folded = pair(mixed, temporal)
    assert {n: p.shape for n, p in video.named_parameters()} == {n: p.shape for n, p in folded.named_parameters()}
    folded.train()(torch.rand(3, 1, 3, 24, 20, dtype=torch.float64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in folded.parameters())


def placed(*, groups: int = 1, places: tuple[str, ...] = PLACES) -> PlacedPolicy:
    policies = [Policy.single("translate_x", 0.3, frames=3), Policy.single("rotate", 40.0, frames=3)]
    motions = (PlacedMotion((place,), (policies[n % 2], *policies)[:groups]) for n, place in enumerate(places))
    return PlacedPolicy(motions=tuple(motions))


@pytest.mark.parametrize("groups", [1, 3])
def test_every_place_and_group_has_its_own_motion(groups: int) -> None:
    policy = placed(groups=groups)
    network = video_network("tiny-resnet", frames=1, num_classes=5, motions=motions_of(policy)).eval()
    modules = [module for module in network.modules() if isinstance(module, FoldedTSM)]
    motions = [module.motion for module in modules]
    assert motions == [PolicyMotion(motion.policies) for motion in policy.motions]
    features = torch.rand(2, 24, 8, 8)
    for module, motion in zip(modules, policy.motions, strict=True):
        each = module.fold // groups
        for side, group in ((side, group) for side in (0, 1) for group in range(groups)):
            first = side * module.fold + group * each
            channels = features[:, first : first + each]
            alone = motion.policies[group].video(channels)[:, 2 if side == 0 else 0]
            torch.testing.assert_close(module(features)[:, first : first + each], alone, atol=1e-6, rtol=0)
        assert torch.equal(module(features)[:, 2 * module.fold :], features[:, 2 * module.fold :])


def test_operations_are_counted_with_the_motions_in_them() -> None:
    motion = Policy.single("rotate", 40.0, frames=3)
    folded = video_network("tiny-resnet", frames=1, num_classes=5, motions=motions_of(motion))
    still = video_network("tiny-resnet", frames=1, num_classes=5, motions=motions_of(Policy.replicate(3)))
    plain = video_network("tiny-resnet", temporal="none", frames=1, num_classes=5)
    counted = [flops_per_image(network, (32, 32)) for network in (folded, still, plain)]
    assert counted[1] == counted[2]
    taps = [len(PolicyMotion((motion,))((side, side), torch.zeros(1)).taps.rows) for side in (16, 8)]
    assert counted[0] - counted[2] == sum(2 * number * 3 for number in taps)  # 24 // 8 channels each way at both


@pytest.mark.parametrize("temporal", [name for name in TEMPORAL if name not in FOLDED])
def test_what_has_no_folded_form_says_why(temporal: str) -> None:
    with pytest.raises(UserError, match=f"'{temporal}' has no folded form: .+ Choose one of tsm, ") as caught:
        video_network("tiny-resnet", temporal=temporal, frames=1, num_classes=5, motions=motions_of(moved()))
    assert TEMPORAL[temporal].not_folded in str(caught.value)
    assert "\n" not in str(caught.value)


def built(policy: Policy | PlacedPolicy, name: str | nn.Module = "tiny-resnet", **options: object) -> object:
    settings = {"frames": 1, "num_classes": 5, **options}
    return video_network(name, motions=motions_of(policy), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: built(moved(frames=3).with_frames(2)), r"has 2 frames, but the folded form needs"),
        (lambda: built(placed().with_frames(1)), r"has 1 frame, but the folded form needs"),
        (lambda: built(Policy.single("solarize", 0.5, frames=3)), r"changes colours \(solarize\), but the folded form"),
        (lambda: built(moved(), nn.Conv2d(3, 5, 1)), "No residual block of a known family in Conv2d"),
        (lambda: built(moved(), places="stage9.*"), r"places='stage9\.\*' matches no module"),
        (lambda: built(placed(), places="blocks.1.conv1"), r"'blocks\.0\.conv1', which the network lacks; the nearest is"),
        (lambda: built(placed(places=PLACES[:1])), r"has a place 'blocks\.1\.conv1', for which the policy has no"),
        (lambda: built(placed(groups=2)), r"groups = 2 does not divide the 3 of 24 channels.* a ratio of 0\.0834"),
        (lambda: built(placed(groups=2, places=AFTER), temporal="gsm"), "groups = 2 is for tsm"),
        (lambda: built(moved(), frames=3), "folded network reads one frame, but frames is 3"),
        (lambda: built(moved(), ratio=0.01), "moves no channel"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_one_line(build, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_modules_show_what_they_are_and_the_registry_has_all_of_them() -> None:
    motion = PolicyMotion((moved(),))
    assert "fold=3, groups=1" in repr(FoldedTSM(24, motion))
    kinds = {type(TEMPORAL[name].build(24, frames=1, motion=motion)) for name in FOLDED}
    assert kinds == {FoldedTSM, FoldedGSM, FoldedGSF}
    assert kinds == set(FoldedModule.__args__)  # type: ignore[attr-defined]
