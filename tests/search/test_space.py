"""Spaces: every packaged file, their sizes by brute force, and errors that name file and key."""

from __future__ import annotations

import math
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fieldshift import find_policy
from fieldshift.data import TensorSplit
from fieldshift.errors import UserError
from fieldshift.experiment.search_trial import describe_space
from fieldshift.motions import MOTIONS, operation
from fieldshift.motions.placed import PlacedPolicy
from fieldshift.search import RelaxedCell, SearchConfig, load_space, random_policy
from fieldshift.search.space import parse_space
from search_spaces import motion_spaces

UNITS = [("stage.0", "stage.1"), ("head",)]
GOOD = """
name = "own"
version = 1
inputs = 1
nodes = 1
candidates = ["identity", "zoom + rotate"]
[ranges]
zoom = [0.5, 2.0]
"""


@pytest.mark.parametrize("name", motion_spaces.names())
def test_every_packaged_space_is_named_as_its_file_and_lies_within_the_limits(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.summary
    for ops in space.candidates:
        for op in ops:
            low, high = space.range_of(op)
            assert operation(op).limits[0] <= low <= high <= operation(op).limits[1]
    policy = random_policy(space, frames=3, seed=0, units=UNITS)
    assert policy.frames == 3
    assert policy.to_json() == random_policy(space, frames=3, seed=0, units=UNITS).to_json()
    assert isinstance(policy, PlacedPolicy) == space.is_placed
    assert space.size() ** len(UNITS) == space.size(len(UNITS)) > 1


def test_spaces_of_the_folded_form_say_what_has_a_motion_and_how_many_policies_that_makes() -> None:
    known = {name: load_space(name) for name in motion_spaces.names()}
    assert {name: (space.per, space.groups) for name, space in known.items() if space.is_placed} == {
        "affine-place": ("place", 1),
        "affine-stage": ("stage", 1),
        "affine-groups": ("place", 2),
    }
    for name in ("affine-place", "affine-stage"):
        assert known[name].operations == known["affine-one"].operations
        assert known[name].size(2) == 11**2
    groups, places_of_resnet18 = known["affine-groups"], 8
    assert "10^12" in groups.summary
    assert groups.size(groups.groups * places_of_resnet18) == 26**16 > 10**12


def test_the_default_cell_is_the_papers_and_colour_is_beyond_a_million_million() -> None:
    cell = load_space("affine-cell")
    assert (cell.inputs, cell.nodes, len(cell.edges), len(cell.operations)) == (2, 4, 14, 5)
    assert {op for ops in cell.candidates for op in ops} == {"identity", "translate_x", "translate_y", "zoom", "rotate"}
    colour = load_space("affine-colour")
    assert len({op for ops in colour.candidates for op in ops}) >= 15
    assert colour.size() > 10**12
    for name in ("affine-cell", "affine-edge", "affine-learned"):
        assert load_space(name).range_of("translate_x") == (-0.48, 0.48)


@settings(max_examples=15, deadline=None)
@given(inputs=st.integers(1, 2), nodes=st.integers(1, 2), kept=st.integers(1, 3), options=st.integers(1, 3))
def test_the_size_is_what_counting_gives(inputs: int, nodes: int, kept: int, options: int) -> None:
    candidates = tuple((op,) for op in list(MOTIONS)[:options])
    changes = {"inputs": inputs, "nodes": nodes, "edges_per_node": kept, "candidates": candidates, "ranges": {}}
    space = load_space("affine-cell").with_changes(**changes)
    per_node = []
    for node in range(inputs, inputs + nodes):
        chosen = combinations(range(node), min(kept, node))
        per_node.append([(edges, ops) for edges in chosen for ops in product(candidates, repeat=len(edges))])
    assert space.size() == len(list(product(*per_node)))


def test_a_grid_is_written_out_as_separate_options() -> None:
    space = load_space("affine-one")
    labels = [option.label for option in space.operations]
    assert "translate_x 0.45" in labels
    assert len(set(labels)) == len(labels) == 1 + sum(len(values) for values in space.grid.values())
    values = RelaxedCell(space, 3, seed=0).magnitudes()[0, :, 0].tolist()
    assert values == pytest.approx([option.magnitudes[0] or 0.0 for option in space.operations])


def test_an_own_file_is_read_and_may_have_composites(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GOOD)
    space = load_space(path)
    assert space.candidates == (("identity",), ("zoom", "rotate"))
    assert space.range_of("zoom") == (0.5, 2.0)
    assert space.range_of("rotate") == MOTIONS["rotate"].preset


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nodes = 0", "'nodes' is 0"),
        ("edges_per_node = 9", "'edges_per_node' is 9, but no node has more than"),
        ("version = true", "'version' is True, but must be a whole number"),
        ("name = 3", "'name' is 3, but must be a text"),
        ("fill = 1", "'fill' is 1, but must be a list of finite numbers"),
        ("node = 3", "Unknown key 'node'. Did you mean 'nodes'"),
        ('candidates = ["zom"]', "Unknown operation 'zom'. Did you mean 'zoom'"),
        ("candidates = []", "'candidates' must be a list"),
        ('candidates = ["zoom", "zoom"]', "the operations 'zoom' twice"),
        ('candidates = ["identity + zoom", "zoom"]', "'identity \\+ zoom' and 'zoom', which are the same"),
        (
            'candidates = ["identity", "identity + identity"]',
            "'identity' and 'identity \\+ identity', which are the same",
        ),
        (
            "nodes = 3000",
            "'inputs' is 1 and 'nodes' is 3,000, which make 4,501,500 edges, but a space has at most 1,000",
        ),
        ("inputs = 999999999999999999999", "which make 999,999,999,999,999,999,999 edges"),
        (
            "groups = 99999999999",
            "'groups' is 99,999,999,999, each with an edge at every place, but must be at most 1,000",
        ),
        ("fill = []", "'fill' is \\[\\], but must be numbers within \\[0, 1\\]"),
        ("fill = [1e30]", "'fill' is \\[1e\\+30\\], but must be numbers within \\[0, 1\\]"),
        ("fill = [0.5, -0.1]", "'fill' is \\[0.5, -0.1\\], but must be numbers within"),
        ('name = "two\\nlines"', r"'name' is 'two\\nlines', but must be a text of 1 to 100 printable characters"),
        ('name = "nothing\\u0000"', "'name' is .*, but must be a text of 1 to 100 printable characters"),
        (f'name = "{"x" * 101}"', f"'name' is '{'x' * 60}'..., but must be a text of 1 to 100"),
        ('name = " "', "'name' is ' ', but must be a text of 1 to 100"),
        (f'summary = "{"x" * 501}"', "'summary' is .*, but must be a text of 0 to 500"),
        ('magnitudes = "fixed"', "must be one of frozen, learned, grid"),
        ('magnitudes = "grid"', "needs a \\[grid\\] table"),
        ('fill = "grey"', "'fill' is 'grey'"),
        ('reference = "last"', "must be one of centre, first"),
        ("frames = 0", "'frames' is 0"),
        ("symmetric = 1", "must be true or false"),
        ("ranges = 3", "'ranges' is 3"),
        ("ranges = {zoom = [0.5, 200.0]}", "must lie within"),
        ("ranges = {zoom = [2.0, 0.5]}", "low <= high"),
        ("ranges = {zoom = [2.0]}", "must be \\[low, high\\]"),
        ('ranges = {zoom = ["a", 1]}', "list of finite numbers"),
        ("ranges = {zoom = [nan, 1.0]}", "list of finite numbers"),
        ("ranges = {shear_x = [0.0, 1.0]}", "has no effect: no operation uses 'shear_x'"),
        ("grid = {zoom = [1.0]}", "'grid' has no effect"),
        ("name = ", "is not TOML"),
    ],
)
def test_mistakes_name_the_file_the_key_and_what_is_allowed(line: str, words: str) -> None:
    key = line.split(" =", maxsplit=1)[0]
    kept = [each for each in GOOD.split("[ranges]", maxsplit=1)[0].splitlines() if each.split(" =")[0] != key]
    with pytest.raises(UserError, match=words) as caught:
        parse_space("\n".join([*kept, line]), "mine.toml")
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_grid_has_magnitudes_of_every_motion() -> None:
    text = GOOD.split("[ranges]", maxsplit=1)[0].replace('magnitudes = "frozen"\n', "")
    whole = 'candidates = ["identity", "zoom", "rotate"]\nmagnitudes = "grid"\n[grid]\nzoom = [1.4]\n'
    kept = [each for each in text.splitlines() if not each.startswith(("candidates", "magnitudes"))]
    with pytest.raises(UserError, match=r"mine.toml: \[grid\] has no magnitudes of 'rotate'"):
        parse_space("\n".join([*kept, whole]), "mine.toml")
    assert len(parse_space("\n".join([*kept, f"{whole}rotate = [20.0, 40.0]"]), "mine.toml").operations) == 4


GRID = """
name = "grid"
version = 1
inputs = 1
nodes = 1
magnitudes = "grid"
candidates = ["identity", "translate_x", "zoom"]
[grid]
translate_x = [VALUES]
zoom = [1.4]
"""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("0.2, 0.2", "'translate_x 0.2' twice"),
        ("0.2, 0.20000001", "'translate_x 0.2' twice"),
        ("-0.0, 0.0", "'identity' and 'translate_x 0', which are the same"),
        ("0.2, 0.0", "'identity' and 'translate_x 0', which are the same"),
    ],
)
def test_a_grid_has_no_operation_twice(values: str, words: str) -> None:
    with pytest.raises(UserError, match=f"mine.toml: 'candidates' and 'grid' give the operations {words}"):
        parse_space(GRID.replace("VALUES", values), "mine.toml")
    assert len(parse_space(GRID.replace("VALUES", "0.2, -0.2"), "mine.toml").operations) == 4


def test_equal_magnitudes_in_another_order_of_steps_are_other_operations() -> None:
    text = GRID.replace('"identity", ', '"zoom + translate_x", "translate_x + zoom", ').replace("VALUES", "0.2")
    assert len(parse_space(text, "mine.toml").operations) == 4


def test_operations_are_bounded_before_they_are_counted_out() -> None:
    many = ", ".join(f"{0.001 * number:.3f}" for number in range(1, 900))
    text = GRID.replace("VALUES", many).replace('"zoom"]', '"zoom", "translate_x + zoom + translate_x"]')
    with pytest.raises(UserError, match=f"make {899**2 + 901:,} operations, but an edge has at most 1,000; give fewer"):
        parse_space(text, "mine.toml")


def test_the_largest_space_counts_and_describes_its_policies() -> None:
    """More than a float holds."""
    space = load_space("affine-one").with_changes(inputs=22, nodes=28, edges_per_node=2)
    assert len(space.edges) == 28 * 22 + 28 * 27 // 2 == 994
    words = describe_space(space.with_changes(inputs=1, nodes=44, edges_per_node=44))
    exact = len(space.operations) ** (44 * 45 // 2)
    power = math.log10(exact)
    assert power > 308
    mantissa, _, exponent = words.split(", ")[1].removesuffix(" possible policies").partition("e+")
    assert float(mantissa) == pytest.approx(10 ** (power % 1), abs=0.06)
    assert int(exponent) == int(power)


def test_a_fill_of_another_number_of_channels_is_refused_with_objects_too() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    train = TensorSplit(torch.zeros(4, 1, 12, 12, dtype=torch.uint8), torch.arange(4) % 2)
    space = load_space("affine-one").with_changes(fill=(0.5, 0.5))
    with pytest.raises(UserError, match="The fill of the space affine-one has 2 values for 1 channel; give 1 value"):
        find_policy(model, train, space=space, form="video", places="1")
    quick = SearchConfig(epochs=1, tune_epochs=0, batch=2)
    found = find_policy(model, train, space=space, form="folded", places="1", config=quick, progress=print)
    assert found.policy.fill == (0.5, 0.5)  # which the folded form does not read


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_space(path) == parse_space(GOOD, "own.toml")


def test_missing_keys_files_and_names_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no 'inputs'; add it"):
        parse_space('name = "a"\nversion = 1', "mine.toml")
    with pytest.raises(UserError, match="No search space file at"):
        load_space(tmp_path / "absent.toml")
    with pytest.raises(UserError, match="Unknown search space 'affine-sell'. Did you mean 'affine-cell'"):
        load_space("affine-sell")
