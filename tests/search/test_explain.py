"""What is said about a policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldshift.cli import main
from fieldshift.errors import UserError
from fieldshift.motions import Policy
from fieldshift.report.figures.explained import explained
from fieldshift.search import load_space, random_policy
from fieldshift.search.explain import close_decisions, explain
from fieldshift.search.journal import collapse_warning

FOUND = {
    "by": "fieldshift search",
    "space": "affine-one",
    "space_version": 1,
    "data": "digit-pairs-left",
    "seed": 3,
    "settings": {"selection": "perturbation", "criterion": "loss"},
    "decisions": [
        {
            "kind": "option",
            "at": "edge 0->1",
            "chosen": ["translate_x 0.45"],
            "harm": {"identity": -0.01, "translate_x 0.45": 0.31, "zoom 2": 0.06, "rotate 30": 0.01, "rotate 60": 0.0},
            "margin": 0.25,
            "whole": {"loss": 1.9, "score": 0.4},
        }
    ],
}


def test_a_searched_policy_says_what_was_chosen_against_what_and_by_what_margin() -> None:
    policy = Policy.single("translate_x", 0.45, frames=3, found=FOUND)
    text = "\n".join(explain(policy))
    assert "translate_x by 0.45 of the width" in text
    assert "in the space affine-one (version 1), data digit-pairs-left, seed 3" in text
    assert "the increase of the loss when the candidate is removed" in text
    assert (
        "translate_x 0.45 (0.31) against zoom 2 (0.06), rotate 30 (0.01), rotate 60 (0) and 1 more; margin 0.25" in text
    )
    assert "tie" not in text


def test_the_picture_has_the_graph_and_below_it_the_decisions() -> None:
    alone = explained(Policy.single("translate_x", 0.45, frames=3))
    whole = explained(Policy.single("translate_x", 0.45, frames=3, found=FOUND))
    assert whole.height > alone.height
    below = np.asarray(whole.convert("L"))[alone.height :]
    assert (below < 128).mean() > 0.005


def test_a_margin_within_two_standard_errors_may_be_chance() -> None:
    made = FOUND["decisions"][0]  # type: ignore[index]
    texts = []
    for error in (0.2, 0.01):
        found = {**FOUND, "decisions": [{**made, "margin_error": error}]}  # type: ignore[dict-item]
        texts.append(explain(Policy.single("translate_x", 0.45, frames=3, found=found))[-1])
    assert "margin 0.25 (standard error 0.2: this may be chance)" in texts[0]
    assert "margin 0.25 (standard error 0.01)" in texts[1]


def test_a_changed_policy_and_an_unfinished_search_are_named() -> None:
    policy = Policy.single("translate_x", 0.45, frames=3, found=FOUND)
    found = {**FOUND, "digest": policy.digest(), "phase": "done"}
    for magnitude, phase, changed, unfinished in ((0.45, "done", 0, 0), (0.3, "done", 1, 0), (0.45, "options", 0, 1)):
        text = "\n".join(explain(Policy.single("translate_x", magnitude, frames=3, found={**found, "phase": phase})))
        assert ("The policy was changed after its search" in text) == changed
        assert ("Its search is not finished" in text) == unfinished


def test_a_choice_that_may_be_chance_is_named_where_the_search_ends() -> None:
    made = FOUND["decisions"][0]  # type: ignore[index]
    for error, lines in ((0.2, 1), (0.01, 0), (None, 0)):
        found = {**FOUND, "decisions": [{**made, "margin_error": error}]}  # type: ignore[dict-item]
        said = close_decisions(Policy.single("translate_x", 0.45, frames=3, found=found))
        assert len(said) == lines
        assert all(line.startswith("edge 0->1: the choice of translate_x 0.45 may be chance") for line in said)


def test_a_tie_is_called_one() -> None:
    decision = {"at": "edge 0->1", "chosen": ["zoom"], "harm": {"zoom": 0.2, "rotate": 0.2}, "margin": 0.0}
    policy = Policy.single("zoom", 1.5, frames=3, found={**FOUND, "decisions": [decision]})
    assert "(a tie)" in explain(policy)[-1]


GOOD: dict[str, Any] = {"at": "edge 0->1", "chosen": ["zoom"], "harm": {"zoom": 0.2, "rotate": 0.1}, "margin": 0.1}
EDITED: dict[str, tuple[Any, str]] = {
    "text": ("x", "`decisions` of `found` is 'x', but must be a list"),
    "number": (3, "`decisions` of `found` is 3, but must be a list"),
    "object": ({"a": 1}, "`decisions` of `found` is {'a': 1}, but must be a list"),
    "list of texts": (["x"], "decision 1 of `found` is 'x', but must be an object with at, chosen and harm"),
    "empty": ([{}], "decision 1 of `found` has no at, but must have a text"),
    "second": ([GOOD, None], "decision 2 of `found` is None, but must be an object with"),
    "at": ([{**GOOD, "at": 3}], "decision 1 of `found` has the at 3, but must have a text"),
    "chosen": ([{**GOOD, "chosen": "zoom"}], "has the chosen 'zoom', but must have a list of names"),
    "chosen numbers": ([{**GOOD, "chosen": [1]}], "has the chosen [1], but must have a list of names"),
    "nothing chosen": ([{**GOOD, "chosen": []}], "has the chosen [], but must have a list of names"),
    "harm": ([{**GOOD, "harm": [1]}], "has the harm [1], but must have an object of finite numbers by name"),
    "harm texts": ([{**GOOD, "harm": {"zoom": "x"}}], "has the harm {'zoom': 'x'}, but must have an object of"),
    "no harm": ([{**GOOD, "harm": {}}], "has the harm {}, but must have an object of"),
    "margin": ([{**GOOD, "margin": "x"}], "has the margin 'x', but must have a finite number"),
    "margin error": (
        [{**GOOD, "margin_error": [1]}],
        "has the margin_error [1], but must have a finite number or none",
    ),
    "long": ([{**GOOD, "at": ["x" * 500]}], "..., but must have a text"),
}


@pytest.mark.parametrize("name", EDITED)
def test_decisions_that_were_edited_are_named_with_the_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decisions, words = EDITED[name]
    policy = Policy.single("zoom", 1.5, frames=3, found={**FOUND, "decisions": decisions})
    file = policy.save(tmp_path / "policy.json")
    assert main(["explain", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fieldshift: {file}: ")
    assert words in said
    assert said.endswith("; restore it or remove `decisions`.\n")
    assert said.count("\n") == 1
    assert len(said) < 400
    assert close_decisions(policy) == []
    with pytest.raises(UserError, match="restore it or remove `decisions`"):
        explained(policy)


@pytest.mark.parametrize("settings", ["x", 3, [], {"selection": ["perturbation"]}, {"criterion": {}}])
@pytest.mark.parametrize("passes", ["x", [], 2.5, None])
def test_other_fields_of_a_record_may_hold_anything(
    settings: Any, passes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        "by": 3,
        "space": [],
        "digest": {},
        "phase": 1,
        "passes": passes,
        "settings": settings,
        "decisions": [GOOD],
    }
    file = Policy.single("zoom", 1.5, frames=3, found=found).save(tmp_path / "policy.json")
    assert json.loads(file.read_text())["found"] == found
    assert main(["explain", str(file)]) == 0
    assert "edge 0->1: zoom (0.2) against rotate (0.1); margin 0.1." in capsys.readouterr().out


def test_policies_without_a_record_are_described_all_the_same() -> None:
    assert "no record" in explain(Policy.single("zoom", 1.5, frames=3))[-1]
    assert any("no motion" in line for line in explain(Policy.replicate(3)))
    drawn = explain(random_policy(load_space("affine-one"), frames=3, seed=1))
    assert "Found by random in the space affine-one" in "\n".join(drawn).replace(", in", " in")


def test_a_collapse_to_the_identity_is_said_with_advice() -> None:
    assert collapse_warning({"search/identity_share": 0.2}) is None
    assert collapse_warning({}) is None
    warning = collapse_warning({"search/identity_share": 0.8})
    assert warning is not None
    assert "80%" in warning
    assert "search.alpha_learning_rate" in warning
