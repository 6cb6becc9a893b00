"""Regions of folded networks against gradients of the network itself: the pixels that a unit depends on, by brute force."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fieldshift.cli import main
from fieldshift.errors import UserError
from fieldshift.folding import fold, motions_of
from fieldshift.motions import MOTIONS, Edge, Policy, Step
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy
from fieldshift.networks import VideoNetwork, video_network
from fieldshift.receptive_field import effective, probe, reshaped, theory
from fieldshift.receptive_field.figures import reshaped_figure
from fieldshift.receptive_field.passages import motions_at_places, policy_in
from pipelines.describing import field_of

SIZE = (36, 45)
PLACES = ("blocks.0.conv1", "blocks.1.conv1")
SIGNS = {
    "identity": (0.0,),
    "zoom": (0.6, 1.5),
    "rotate": (-50.0, 30.0),
    "shear_x": (-20.0, 25.0),
    "shear_y": (-25.0, 20.0),
}
CASES = [(name, magnitude) for name in sorted(MOTIONS) for magnitude in SIGNS.get(name, (-0.3, 0.4))]
ACROSS = Policy.single("translate_x", 0.4, frames=5)


def folded(policy: Policy | PlacedPolicy, temporal: str = "tsm", name: str = "tiny-resnet") -> VideoNetwork:
    torch.manual_seed(0)
    return video_network(name, temporal=temporal, frames=1, num_classes=4, motions=motions_of(policy))


def depends_on(network: VideoNetwork, unit: tuple[int, int] | None = None, size: tuple[int, int] = SIZE) -> Tensor:
    return probe(network, torch.zeros(1, 1, 3, *size), network.feature_layer, unit).mask


@pytest.mark.parametrize(("name", "magnitude"), CASES)
def test_every_motion_against_gradients(name: str, magnitude: float) -> None:
    network = folded(Policy.single(name, magnitude, frames=3))
    for unit in ((4, 5), (0, 11)):  # about the centre, and in a corner
        found = reshaped(None, network, SIZE, unit=unit)
        assert torch.equal(found.fused.mask, depends_on(network, unit))
        assert found.fused.area == float(found.fused.mask.sum())
        assert found.frames == ()


@pytest.mark.parametrize("fill", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_what_lies_outside_and_how_maps_are_sampled(fill: str, interpolation: str) -> None:
    network = folded(Policy.single("rotate", 40.0, frames=3, fill=fill, interpolation=interpolation))
    found = reshaped(None, network, SIZE, unit=(1, 1))
    assert torch.equal(found.fused.mask, depends_on(network, (1, 1)))


def test_whole_cells_are_the_boxes_of_all_steps() -> None:
    """Steps of 8 px, 2 cells of the second place's map and 4 of the first: M^k of the plain box, |k| <= 2."""
    network = folded(Policy.single("translate_x", 0.2, frames=5))  # 80 px: 16 at the outer frames, 8 a step
    found = reshaped(None, network, 80)
    (field,) = theory(network, 80, [network.feature_layer])
    top, left, bottom, right = field.box(10, 10)
    expected = torch.zeros(80, 80, dtype=torch.bool)
    for k in range(-2, 3):
        expected[top : bottom + 1, left + 8 * k : right + 1 + 8 * k] = True
    assert torch.equal(found.fused.mask, expected)
    assert field.size == (15, 15)
    assert found.plain.area == 15 * 15
    assert torch.equal(found.fused.mask, depends_on(network, size=(80, 80)))


def test_motions_of_their_own_at_places_and_in_groups() -> None:
    one, two, still = (
        Policy.single(name, size, frames=3)
        for name, size in (("translate_x", 0.3), ("rotate", 45.0), ("identity", 0.0))
    )
    by_place = PlacedPolicy(motions=(PlacedMotion(PLACES[:1], (one,)), PlacedMotion(PLACES[1:], (two,))))
    turned = PlacedPolicy(motions=(PlacedMotion(PLACES[:1], (two,)), PlacedMotion(PLACES[1:], (one,))))
    in_groups = PlacedPolicy(motions=(PlacedMotion(PLACES, (one, two, still)),))
    regions = []
    for policy in (by_place, turned, in_groups):
        network = folded(policy)
        found = reshaped(policy, network, SIZE)
        assert torch.equal(found.fused.mask, depends_on(network))
        assert (found.policy, found.motions) == (policy.digest(), tuple(policy.describe()))
        regions.append(found.fused.mask)
    assert not torch.equal(*regions[:2])  # the order of the places counts


def test_several_paths_and_gates() -> None:
    edges = (Edge(0, 2, (Step("translate_x", 0.4),)), Edge(1, 2, (Step("rotate", 40.0),)))
    mixed = Policy(inputs=2, nodes=1, edges=edges, frames=3)
    network = folded(mixed)
    assert torch.equal(reshaped(None, network, SIZE).fused.mask, depends_on(network))
    for temporal in ("gsm", "gsf"):
        gated = folded(ACROSS, temporal)
        (field,) = theory(gated, SIZE, [gated.feature_layer])
        assert [passage.place for passage, _ in field.moved] == [place.path for place in gated.placements]
        found = reshaped(None, field, SIZE).fused.mask
        assert bool((found & ~reshaped(None, field, SIZE).plain.mask).any())
        assert bool((found <= depends_on(gated)).all())  # the gates look at 3 x 3 places around as well


def test_any_network_that_was_folded() -> None:
    """A network of one's own: a branch beside the place, a module used twice, and layers before all places."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 3, 2, 1)
            self.shared = nn.Conv2d(16, 16, 3, 1, 1)
            self.side = nn.Conv2d(16, 16, 1)
            self.last = nn.Conv2d(32, 8, 3, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            before = self.stem(images).relu_()
            result: Tensor = self.last(torch.cat([self.shared(self.shared(before)), self.side(before)], dim=1))
            return result

    network = Own()
    fold(network, Policy.single("translate_y", 0.3, frames=3), places="shared")
    fields = {field.name: field for field in theory(network, SIZE)}
    assert [passage.place for passage, _ in fields["last"].moved] == ["shared", "shared"]
    assert fields["side"].moved == ()
    assert fields["stem"].note == ""
    assert "moved at 2 places" in fields["last"].note
    assert fields["last"].to_json()["moved_at"] == ["shared", "shared"]
    for name in ("last", "side"):
        found = reshaped(None, network, SIZE, layer=name)
        assert torch.equal(found.fused.mask, probe(network, torch.zeros(1, 3, *SIZE), name).mask)


def test_a_trace_with_data_finds_the_same() -> None:
    """Where a network cannot run without data, the moved channels are followed all the same."""

    class NeedsData(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, images: Tensor) -> Tensor:
            if images.is_meta:
                raise NotImplementedError
            return self.inner(images)  # type: ignore[no-any-return]

    network = folded(ACROSS)
    inside = NeedsData(network)
    wanted = f"inner.{network.feature_layer}"
    (with_data,) = theory(inside, torch.zeros(1, 1, 3, *SIZE), [wanted])
    (without,) = theory(network, SIZE, [network.feature_layer])
    assert with_data.rows == without.rows
    one, other = (reshaped(None, field, SIZE).fused.mask for field in (with_data, without))
    assert torch.equal(one, other)
    assert policy_in(motions_at_places(network)) == ACROSS  # as before the traces


def test_the_identity_adds_nothing() -> None:
    found = reshaped(None, folded(Policy.replicate(3)), SIZE)
    assert torch.equal(found.fused.mask, found.plain.mask)
    assert found.motions == ()
    (field,) = theory(folded(Policy.replicate(3)), SIZE, ["network.blocks.1"])
    assert field.note == ""


def test_the_effective_field_comes_straight_from_the_image() -> None:
    network = folded(ACROSS)
    images = torch.rand(2, 3, *SIZE)
    field = effective(network, images, trained=False)
    assert (field.conditions.form, field.conditions.frames) == ("folded", 1)
    assert field.conditions.policy_digest == ACROSS.digest()
    assert "tiny-resnet, folded, tsm, not trained" in field.conditions.lines()[0]
    region = reshaped(ACROSS, network, SIZE).fused
    assert field.theoretical_area == region.area
    assert bool(((field.values > 0) <= region.mask).all())
    outside_the_box = region.mask & ~reshaped(ACROSS, network, SIZE).plain.mask
    assert float(field.values[outside_the_box].sum()) > 0
    assert field.values.equal(effective(network, images, trained=False, policy=ACROSS).values)


def test_describe_tells_what_the_motions_add() -> None:
    words = field_of(folded(ACROSS), 40)
    assert words == "15 x 15 px, stride 4 px, with the motions at 2 places 15 x 40 px of an image of 40 x 40 px"


def test_figures_show_one_frame() -> None:
    figure = reshaped_figure(reshaped(ACROSS, folded(ACROSS), SIZE))
    panels = [axis for part in figure.subfigs for axis in part.axes if axis.get_title()]
    assert len(panels) == 1
    assert panels[0].get_title().startswith("folded: ")


REFUSED = {
    "another policy": (lambda: reshaped(ACROSS.with_frames(3), folded(ACROSS), SIZE), "are not moved by the policy"),
    "no clip": (lambda: reshaped(None, folded(ACROSS), SIZE, clip=False), "clip=False is for videos"),
    "no policy": (lambda: reshaped(None, video_network("tiny-resnet", frames=3, num_classes=4), SIZE), "no policy"),
    "another in effective": (
        lambda: effective(folded(ACROSS), torch.rand(1, 3, *SIZE), trained=False, policy=Policy.replicate(3)),
        "are not moved by the policy",
    ),
    "motions at places for a video": (
        lambda: effective(
            video_network("tiny-resnet", frames=3, num_classes=4),
            torch.rand(1, 3, *SIZE),
            trained=False,
            policy=PlacedPolicy(motions=(PlacedMotion(PLACES, (ACROSS,)),)),
        ),
        "only a folded network supports",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    call, words = REFUSED[case]
    with pytest.raises(UserError, match=words):
        call()


def test_the_command_reads_both_versions_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [ACROSS.save(tmp_path / "one.json")]
    files.append(PlacedPolicy(motions=(PlacedMotion(PLACES, (ACROSS, ACROSS, ACROSS)),)).save(tmp_path / "two.json"))
    asked = ["receptive-field", "--network", "tiny-resnet", "--size", "40", "--form", "folded"]
    found = []
    for file in files:
        assert main([*asked, "--policy", str(file), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    for values in found:
        assert (values["form"], values["temporal"], values["frames"]) == ("folded", "tsm", 1)
        assert values["feature_extractor"]["size"] == [15, 15]
        assert values["feature_extractor"]["moved_at"] == list(PLACES)
        assert values["reshaped"]["fused"]["area"] == 15 * 40
    assert main([*asked, "--policy", str(files[1]), "--out", str(tmp_path / "run")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "reshaped region: with the channels moved at 2 places" in printed
    assert (tmp_path / "run" / "reshaped.png").stat().st_size > 0
    for words, line in (
        (asked, "give --policy FILE"),
        ([*asked[:-1], "video", "--policy", str(files[1])], "or use the form folded"),
        ([*asked, "--policy", str(files[0]), "--temporal", "tsm-causal"], "tsm-causal"),
        (["compare-fields", "--runs", str(tmp_path), "--form", "folded"], "Unknown option --form"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err.strip()
        assert line in error
        assert len(error.splitlines()) == 1


class _Transposed(nn.Module):
    """Passes on the transposed map."""

    def forward(self, features: Tensor) -> Tensor:
        return features.transpose(2, 3)


def test_a_map_that_is_transposed_behind_the_places() -> None:
    """A unit is named by the places of the tensor: rows of a transposed map run along the image's columns."""
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    network = nn.Sequential(*body, _Transposed(), nn.Conv2d(8, 8, (1, 3), padding=(0, 1)))
    fold(network, Policy.single("translate_x", 0.2, frames=3), "1")
    (field,) = theory(network, SIZE, ["3"])
    assert (field.map_size, field.transposed) == ((23, 18), True)
    for unit in ((11, 9), (15, 4)):
        measured = probe(network, torch.zeros(1, 3, *SIZE), "3", unit).mask
        assert torch.equal(reshaped(None, field, SIZE, unit=unit).fused.mask, measured)
        found = effective(network, torch.rand(2, 3, *SIZE), trained=False, layer="3", unit=unit)
        assert bool(((found.values > 0) <= measured).all())
        assert found.position == (2 * unit[1], 2 * unit[0])


def test_a_place_in_a_transposed_map_is_not_followed() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), _Transposed(), nn.Conv2d(8, 8, 3), _Transposed(), nn.Conv2d(8, 8, 3))
    fold(network, Policy.single("translate_x", 0.2, frames=3), "2")
    before, *_, behind = theory(network, SIZE, ["0", "4"])
    assert (before.unknown_by, behind.unknown_by) == ("", "a movement of channels in a transposed map")
