"""The policy file: round trips, golden text, migration, and one line for whatever is wrong."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldshift.errors import UserError
from fieldshift.forms import MOST_FRAMES
from fieldshift.motions import Edge, Policy, Step

POLICY = Policy(
    inputs=2,
    nodes=2,
    edges=(
        Edge(0, 2, (Step("translate_x", 0.43),)),
        Edge(1, 3, (Step("rotate", -30), Step("equalize", 0.5))),
        Edge(2, 3, (Step("identity", 0),)),
    ),
    frames=3,
    fill=(0.1, 0.2, 0.3),
    found={"space": "affine-cell", "seed": 1, "scores": [0.5, None, True]},
)
GOLDEN = """{
  "schema": "fieldshift.policy",
  "version": 1,
  "frames": 3,
  "reference": "centre",
  "symmetric": false,
  "fill": [
    0.1,
    0.2,
    0.3
  ],
  "interpolation": "bilinear",
  "inputs": 2,
  "nodes": 2,
  "edges": [
    {
      "source": 0,
      "target": 2,
      "steps": [
        {
          "op": "translate_x",
          "magnitude": 0.43
        }
      ]
    },
    {
      "source": 1,
      "target": 3,
      "steps": [
        {
          "op": "rotate",
          "magnitude": -30.0
        },
        {
          "op": "equalize",
          "magnitude": 0.5
        }
      ]
    },
    {
      "source": 2,
      "target": 3,
      "steps": [
        {
          "op": "identity",
          "magnitude": 0.0
        }
      ]
    }
  ],
  "found": {
    "space": "affine-cell",
    "seed": 1,
    "scores": [
      0.5,
      null,
      true
    ]
  }
}
"""


def document() -> dict:
    return json.loads(POLICY.to_json())


def test_golden_file_and_digest() -> None:
    assert POLICY.to_json() == GOLDEN
    assert Policy.from_json(GOLDEN) == POLICY
    without_found = {name: value for name, value in json.loads(GOLDEN).items() if name != "found"}
    text = json.dumps(without_found, sort_keys=True, separators=(",", ":"))
    assert POLICY.digest() == "c568c77071a01f32" == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_save_and_load(tmp_path) -> None:
    path = POLICY.save(tmp_path / "deep" / "policy.json")
    assert Policy.load(path) == POLICY
    POLICY.with_frames(5).save(str(path))
    assert Policy.load(str(path)).frames == 5
    assert [file.name for file in path.parent.iterdir()] == ["policy.json"]


def test_a_failed_save_leaves_the_old_file(tmp_path) -> None:
    path = POLICY.save(tmp_path / "policy.json")
    unfit = Policy.replicate(3, found={"score": float("nan")})
    with pytest.raises(UserError, match="must be plain JSON"):
        unfit.save(path)
    with pytest.raises(UserError, match="must be plain JSON"):
        Policy.replicate(3, found={"path": tmp_path}).to_json()
    assert Policy.load(path) == POLICY
    assert len(list(tmp_path.iterdir())) == 1


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(b"\xef\xbb\xbf" + GOLDEN.encode())
    assert Policy.load(path) == POLICY


def test_the_longest_video_of_a_file_is_read() -> None:
    """Also where its first frame is the reference: the middle of a longer one in receptive fields."""
    longest = Policy.from_json(changed(frames=MOST_FRAMES, reference="first"))
    assert (longest.frames, longest.centred.frames) == (1000, 1999)


def test_found_may_be_missing() -> None:
    text = document()
    del text["found"]
    assert Policy.from_json(json.dumps(text)).found == {}


def changed(**changes: object) -> str:
    return json.dumps({**document(), **changes})


def with_step(**changes: object) -> str:
    text = document()
    text["edges"][0]["steps"][0].update(changes)
    return json.dumps(text)


def with_edge(**changes: object) -> str:
    text = document()
    text["edges"][0].update(changes)
    return json.dumps(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        ("a policy", "is not JSON .line 1"),
        ("{", "is not JSON"),
        ("[]", r"a policy file \(fieldshift search writes them\) has"),
        ("3", r"a policy file \(fieldshift search writes them\) has"),
        ("null", r"a policy file \(fieldshift search writes them\) has"),
        ('{"name": "vscode"}', "It has no schema, but a policy file"),
        (changed(schema="other"), "'other'"),
        (changed(version=3), "version is 3, but this FieldShift reads up to 2; update FieldShift"),
        (changed(version=0), "version is 0"),
        (changed(version=True), "version is True"),
        (changed(version="1"), "version is '1'"),
        (changed(frames=0), "frames is 0, but must be a whole number of at least 1"),
        (changed(frames=-3), "frames is -3"),
        (changed(frames=10**9), "number of frames is 1,000,000,000, but a video has at most 1,000 frames; give fewer"),
        (changed(inputs=10**12), "number of inputs is 1,000,000,000,000, but must be at most 1,000; give fewer"),
        (changed(nodes=10**12), "number of nodes is 1,000,000,000,000, but must be at most 1,000; give fewer"),
        (changed(fill=[0.5, 1e30]), r"fill is \[0.5, 1e\+30\], but its values must lie within \[0, 1\]"),
        (changed(frames=2.0), "frames is 2.0"),
        (changed(frames=None), "frames is None"),
        (changed(frames=True), "frames is True"),
        (changed(reference="end"), "Unknown reference 'end'"),
        (changed(reference=["centre"]), "reference is"),
        (changed(symmetric=1), "symmetric is 1"),
        (changed(fill="white"), "Unknown fill 'white'"),
        (changed(fill=[]), "fill is"),
        (changed(fill=[0.1, "x"]), "fill is"),
        (changed(fill=None), "fill is None"),
        (changed(fill=[10**400]), "fill is"),
        (changed(interpolation="cubic"), "Unknown interpolation"),
        (changed(interpolation=3), "interpolation is 3"),
        (changed(inputs=0), "number of inputs is 0"),
        (changed(nodes=-1), "number of nodes is -1"),
        (changed(nodes=1), "ends at node 3"),
        (changed(nodes=3), "Node 4 has no incoming edge"),
        (changed(edges={}), "edges is .*must be a list"),
        (changed(edges=[3]), "Edge 0 of the list is 3, but must be an object"),
        (changed(edges=[]), "no incoming edge"),
        (changed(found=[1]), "found is"),
        (changed(extra=1), "unknown keys 'extra'"),
        (with_edge(source=5), "leads backwards"),
        (with_edge(source=None), "source of an edge is None"),
        (with_edge(target="2"), "target of an edge is '2'"),
        (with_edge(steps=[]), "has no steps"),
        (with_edge(steps="rotate"), "must be a list"),
        (with_edge(weight=1), "unknown keys 'weight'"),
        (with_step(op="spin"), "Unknown operation 'spin'"),
        (with_step(op=None), "operation is None"),
        (with_step(op="two\nlines"), "Unknown operation 'two lines'"),
        (with_step(magnitude=1.5), "translate_x is 1.5, but must be from -1 to 1"),
        (with_step(magnitude="0.4"), "'0.4', but must be a finite number"),
        (with_step(magnitude=True), "must be a finite number"),
        (with_step(magnitude=10**400), "must be a finite number"),
        (with_step(p=0.5), "unknown keys 'p'"),
        (GOLDEN.replace('"magnitude"', '"magntude"', 1), "A step of edge 0->2 has 'magntude' but not magnitude"),
        (GOLDEN.replace("0.43", "NaN"), "contains NaN"),
        (GOLDEN.replace("0.43", "1" * 5000), "too long"),
        (GOLDEN.replace('"frames": 3', '"frames": 3, "frames": 5'), "'frames' appears twice"),
        ("[" * 100000, "is nested too deeply|is not JSON"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(text, words, tmp_path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        Policy.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", [*POLICY.__dataclass_fields__, "schema", "version"])
def test_every_missing_key_is_named(key) -> None:
    if key == "found":
        return
    text = document()
    del text[key]
    with pytest.raises(UserError, match=key):
        Policy.from_json(json.dumps(text))


def test_files_that_cannot_be_read(tmp_path) -> None:
    (tmp_path / "binary").write_bytes(b"\x80\x04\x95")
    for path, words in (
        (tmp_path / "none.json", "There is no policy file"),
        (tmp_path, "cannot be read"),
        (tmp_path / "binary", "it is not text"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            Policy.load(path)
        assert str(path) in str(caught.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: object, way: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, part in inner for place in places(part, (*way, key)))]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_random_change_gives_a_policy_or_one_line(data) -> None:
    text = document()
    way = data.draw(st.sampled_from(places(text)[1:]))
    holder = text
    for key in way[:-1]:
        holder = holder[key]
    holder[way[-1]] = data.draw(values | st.just(copy.deepcopy(text)))
    try:
        policy = Policy.from_json(json.dumps(text))
    except UserError as error:
        lines = str(error).splitlines()
    else:
        lines = ["a policy"]
        assert Policy.from_json(policy.to_json()) == policy
    assert len(lines) == 1


def test_the_package_imports_torch_but_not_torchvision() -> None:
    code = (
        "import sys, fieldshift.motions as m; "
        "assert 'torchvision' not in sys.modules and 'scipy' not in sys.modules; "
        "m.ImageToVideo; assert 'torchvision' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
