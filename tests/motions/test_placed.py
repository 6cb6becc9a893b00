"""Policies of several motions and version 2 of the policy file: round trips, golden text, one line for what is wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldshift.errors import UserError
from fieldshift.motions import Edge, Policy, Step
from fieldshift.motions.placed import PlacedMotion, PlacedPolicy, load_policy, policy_from_json


def single(op: str, magnitude: float, **changes: Any) -> Policy:
    return Policy.single(op, magnitude, **{"frames": 3, "fill": (0.1, 0.2), **changes})


POLICY = PlacedPolicy(
    motions=(
        PlacedMotion(("layer1.0.conv1", "layer1.1.conv1"), (single("translate_x", 0.43), single("rotate", -30.0))),
        PlacedMotion(("layer2.0.conv1",), (single("zoom", 1.4), Policy.replicate(3, fill=(0.1, 0.2)))),
    ),
    found={"space": "affine-groups", "seed": 1, "scores": [0.5, None, True]},
)
GOLDEN = """{
  "schema": "fieldshift.policy",
  "version": 2,
  "frames": 3,
  "reference": "centre",
  "symmetric": false,
  "fill": [
    0.1,
    0.2
  ],
  "interpolation": "bilinear",
  "groups": 1,
  "motions": [
    {
      "places": [
        "layer1.0.conv1",
        "layer1.1.conv1"
      ],
      "groups": [
        {
          "inputs": 1,
          "nodes": 1,
          "edges": [
            {
              "source": 0,
              "target": 1,
              "steps": [
                {
                  "op": "translate_x",
                  "magnitude": 0.43
                }
              ]
            }
          ]
        }
      ]
    }
  ],
  "found": {
    "seed": 1
  }
}
"""
GOLDEN_POLICY = PlacedPolicy(
    motions=(PlacedMotion(("layer1.0.conv1", "layer1.1.conv1"), (single("translate_x", 0.43),)),), found={"seed": 1}
)
GOLDEN_DIGEST = "26c4b8c59a395d67"


def document() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(POLICY.to_json())
    return values


def test_a_file_gives_the_same_policy_back(tmp_path: Path) -> None:
    path = POLICY.save(tmp_path / "policy.json")
    again = load_policy(path)
    assert again == POLICY
    assert isinstance(again, PlacedPolicy)
    assert again.found == POLICY.found
    assert again.to_json() == POLICY.to_json() == path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["policy.json"]


def test_files_of_version_2_are_read_and_written_for_ever() -> None:
    assert policy_from_json(GOLDEN) == GOLDEN_POLICY
    assert GOLDEN_POLICY.to_json() == GOLDEN
    assert GOLDEN_POLICY.digest() == GOLDEN_DIGEST


def test_files_of_version_1_are_read_as_policies_for_all_places(tmp_path: Path) -> None:
    policy = single("rotate", 30.0)
    assert load_policy(policy.save(tmp_path / "one.json")) == policy
    assert json.loads(policy.to_json())["version"] == 1


def test_a_file_of_version_2_has_no_video(tmp_path: Path) -> None:
    path = POLICY.save(tmp_path / "policy.json")
    with pytest.raises(UserError, match="which no single video can show; use it with the form folded") as caught:
        Policy.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_digest_names_the_motions_and_their_places() -> None:
    first, *others = POLICY.motions
    assert PlacedPolicy(motions=POLICY.motions, found={"seed": 2}).digest() == POLICY.digest()
    changed = [
        PlacedPolicy(motions=(PlacedMotion(("layer1.0.conv1",), first.policies), *others)),
        PlacedPolicy(motions=(PlacedMotion(first.places, first.policies[::-1]), *others)),
        PlacedPolicy(motions=(*others, first)),
        POLICY.with_frames(5),
    ]
    assert len({POLICY.digest(), *(each.digest() for each in changed)}) == 5


def test_with_frames_and_describe_speak_of_every_motion() -> None:
    assert {policy.frames for policy in POLICY.with_frames(7).parts} == {7}
    assert POLICY.with_frames(7).frames == 7
    assert POLICY.with_frames(3) == POLICY
    assert POLICY.describe() == [
        "layer1.0.conv1 to layer1.1.conv1, group 1 of 2: translate_x by 0.43 of the width at the outer frames",
        "layer1.0.conv1 to layer1.1.conv1, group 2 of 2: rotate by -30 degrees at the outer frames",
        "layer2.0.conv1, group 1 of 2: zoom by a factor of 1.4 at the outer frames",
        "layer2.0.conv1, group 2 of 2: identity",
    ]


def test_policies_are_given_in_the_order_of_the_networks_places() -> None:
    one, two = (motion.policies for motion in POLICY.motions)
    assert POLICY.at(["layer2.0.conv1", "layer1.0.conv1", "layer1.1.conv1"]) == [two, one, one]


KNOWN = ["layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1"]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([*KNOWN[:2], "layer2.0.conv2"], "for the place 'layer2.0.conv1', .*; the nearest is 'layer2.0.conv2'"),
        ([*KNOWN, "layer2.1.conv1"], "has a place 'layer2.1.conv1', .*; the nearest is 'layer"),
        ([], "for the place 'layer1.0.conv1', which the network lacks. Use the network"),
        (["x"], "for the place 'layer1.0.conv1', which the network lacks. Use the network"),
    ],
)  # fmt: skip
def test_places_that_do_not_fit_name_the_nearest(places: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        POLICY.at(places)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("motions", "message"),
    [
        ((), "has no motions; give at least one"),
        ((PlacedMotion(("a",), ()),), "different numbers of groups"),
        ((PlacedMotion(("a",), (single("zoom", 1.4),)), PlacedMotion(("b",), ())), "different numbers of groups"),
        ((PlacedMotion(("a",), (single("zoom", 1.4), single("zoom", 1.4, frames=5))),), "differ in frames"),
        ((PlacedMotion(("a",), (single("zoom", 1.4), single("zoom", 1.4, fill="mean"))),), "differ in frames"),
        ((PlacedMotion(("a", "b", "a"), (single("zoom", 1.4),)),), "The place 'a' has two motions"),
        (
            (PlacedMotion(("a",), (single("zoom", 1.4),)), PlacedMotion(("a",), (single("zoom", 1.4),))),
            "The place 'a' has two motions",
        ),
    ],
)
def test_motions_that_do_not_fit_together_are_refused(motions: tuple[PlacedMotion, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        PlacedPolicy(motions=motions)
    assert "\n" not in str(caught.value)


def with_motion(**changes: object) -> dict[str, Any]:
    values = document()
    values["motions"][0].update(changes)
    return values


def with_graph(**changes: object) -> dict[str, Any]:
    values = document()
    values["motions"][1]["groups"][0].update(changes)
    return values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({**document(), "groups": 0}, "groups is 0, but must be a whole number of at least 1"),
        ({**document(), "groups": True}, "groups is True"),
        ({**document(), "groups": 3}, r"Motion 0 has 2 groups, but groups is 3"),
        ({**document(), "motions": {}}, "motions is {}, but must be a list"),
        ({**document(), "motions": []}, "has no motions"),
        ({**document(), "motions": [3]}, "Motion 0 is 3, but must be an object"),
        ({**document(), "edges": []}, "unknown keys 'edges'"),
        ({**document(), "fill": "grey"}, "Unknown fill 'grey'"),
        ({**document(), "frames": 0}, "frames is 0"),
        ({**document(), "found": 3}, "found is 3"),
        (with_motion(places=[]), r"The places of motion 0 are \[\], but must be names of modules"),
        (with_motion(places=[""]), "must be names of modules"),
        (with_motion(places="layer1"), "The places of motion 0 is 'layer1', but must be a list"),
        (with_motion(places=["layer2.0.conv1"]), "'layer2.0.conv1' has two motions"),
        (with_motion(groups=[]), r"Motion 0 has 0 groups"),
        (with_motion(weight=1), "Motion 0 has unknown keys 'weight'"),
        (with_graph(nodes=9), "nodes?"),
        (with_graph(edges=3), "edges of motion 1 is 3, but must be a list"),
        (with_graph(frames=3), "A group of motion 1 has unknown keys 'frames'"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=words) as caught:
        load_policy(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", ["schema", "version", "frames", "reference", "symmetric", "fill", "groups", "motions"])
def test_every_missing_key_is_named(key: str) -> None:
    values = document()
    del values[key]
    with pytest.raises(UserError, match=key):
        policy_from_json(json.dumps(values))


some_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def ways(value: object, way: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(longer for key, part in inner for longer in ways(part, (*way, key)))]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_random_change_gives_a_policy_or_one_line(data) -> None:
    values = document()
    way = data.draw(st.sampled_from(ways(values)[1:]))
    holder: Any = values
    for key in way[:-1]:
        holder = holder[key]
    holder[way[-1]] = data.draw(some_values | st.just(copy.deepcopy(values)))
    try:
        policy = policy_from_json(json.dumps(values))
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert policy_from_json(policy.to_json()) == policy


def test_a_graph_of_several_edges_can_stand_at_a_place() -> None:
    mixed = Policy(
        inputs=1, nodes=2, frames=3,
        edges=(Edge(0, 1, (Step("rotate", 25.0),)), Edge(0, 2, (Step("zoom", 1.3),)), Edge(1, 2, (Step("shear_y", 8.0),))),
    )  # fmt: skip
    policy = PlacedPolicy(motions=(PlacedMotion(("a",), (mixed,)),))
    assert policy_from_json(policy.to_json()) == policy
