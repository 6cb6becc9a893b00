from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from fieldshift.errors import UserError
from fieldshift.folder_lock import locked
from fieldshift.run_folder import check_folder, config_digest, held_run_folder, open_run_folder, plain, read_result

CONFIG = {"data": "digits", "recipe": {"epochs": 3}, "cluster": {"workers": 0}}


def test_a_run_is_written_and_read_back(tmp_path: Path) -> None:
    folder = open_run_folder(tmp_path / "a", "train", CONFIG, resume=False)
    assert folder.finished_result() is None
    written = folder.write_result({"score": 0.5, "path": tmp_path, "bad": float("nan")})
    assert read_result(folder.path) == json.loads(json.dumps(written))
    assert written["bad"] is None
    assert written["environment"]["versions"]["torch"]


def test_the_same_run_goes_on_only_when_asked(tmp_path: Path) -> None:
    open_run_folder(tmp_path, "train", CONFIG, resume=False).write_result({"score": 1.0})
    with pytest.raises(UserError, match="already holds this run; add --resume"):
        open_run_folder(tmp_path, "train", CONFIG, resume=False)
    again = open_run_folder(tmp_path, "train", {**CONFIG, "cluster": {"workers": 4}}, resume=True)
    assert again.resumed
    assert again.finished_result()["score"] == 1.0  # type: ignore[index]


@pytest.mark.parametrize("left", [None, "config.yaml", "checkpoint.pt"])
def test_only_what_has_left_something_is_resumed(left: str | None, tmp_path: Path) -> None:
    """A mistyped --out holds nothing, nor does a run that was killed before its first file; the lock does not count."""
    if left == "config.yaml":
        open_run_folder(tmp_path, "train", CONFIG, resume=False)
    elif left is not None:
        (tmp_path / left).touch()
    with held_run_folder(tmp_path, "train", CONFIG, resume=True) as folder:
        assert folder.resumed == (left == "checkpoint.pt")


@pytest.mark.parametrize("resume", [True, False])
def test_another_configuration_is_refused_and_nothing_is_lost(tmp_path: Path, resume: bool) -> None:
    open_run_folder(tmp_path, "train", CONFIG, resume=False).write_result({"score": 1.0})
    other = {**CONFIG, "recipe": {"epochs": 4}}
    with pytest.raises(UserError, match=r"another configuration \(recipe.epochs is 3 there, 4 here\)"):
        open_run_folder(tmp_path, "train", other, resume=resume)
    with pytest.raises(UserError, match="the command train"):
        open_run_folder(tmp_path, "search", CONFIG, resume=resume)
    assert read_result(tmp_path)["score"] == 1.0


def test_a_switch_that_an_older_version_did_not_have_was_off(tmp_path: Path) -> None:
    open_run_folder(tmp_path, "train", CONFIG, resume=False).write_result({"score": 1.0})
    later = {**CONFIG, "recipe": {"epochs": 3, "shared": False, "limit": None}}
    assert open_run_folder(tmp_path, "train", later, resume=True).resumed
    for name, value in (("shared", True), ("limit", 0), ("limit", 0.0)):
        other = {**CONFIG, "recipe": {"epochs": 3, name: value}}
        with pytest.raises(UserError, match=rf"recipe.{name} is None there, {value} here"):
            open_run_folder(tmp_path, "train", other, resume=True)


@pytest.mark.parametrize(
    ("line", "said"), [("", "an earlier"), ("; semantics 1", "an earlier"), ("; semantics 99", "a later")]
)
def test_what_another_version_left_unfinished_is_refused_and_finished_it_is_read(
    tmp_path: Path, line: str, said: str
) -> None:
    open_run_folder(tmp_path, "train", CONFIG, resume=False)
    (tmp_path / "checkpoint.pt").touch()
    assert open_run_folder(tmp_path, "train", CONFIG, resume=True).resumed  # of this version it goes on
    check_folder(tmp_path, "train", CONFIG, resume=True)
    config = tmp_path / "config.yaml"
    first, _, rest = config.read_text().partition("\n")
    config.write_text(f"{first.rpartition('; semantics')[0]}{line}\n{rest}")
    left = config.read_bytes()
    for opened in (check_folder, open_run_folder):
        with pytest.raises(UserError, match=rf"was made by {said} version.*not finished; give another --out") as caught:
            opened(tmp_path, "train", CONFIG, resume=True)
        assert "\n" not in str(caught.value)
    assert config.read_bytes() == left
    (tmp_path / "result.json").write_text(json.dumps({"schema": "fieldshift.result", "version": 1, "score": 0.5}))
    check_folder(tmp_path, "train", CONFIG, resume=True)
    finished = open_run_folder(tmp_path, "train", CONFIG, resume=True).finished_result()
    assert finished is not None
    assert finished["score"] == 0.5


def test_default_folders_count_up_and_resume_takes_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        held_run_folder(None, "train", CONFIG, resume=False) as first,
        held_run_folder(None, "train", CONFIG, resume=False) as second,
    ):
        pass
    assert [first.path.name, second.path.name] == ["train", "train-2"]
    with held_run_folder(None, "train", CONFIG, resume=True) as latest:
        assert latest.path == second.path


def test_two_runs_that_start_at_once_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes its folder after this one has seen that there is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    whole = Path.mkdir
    with contextlib.ExitStack() as other:

        def after_another(path: Path, *given: Any, **named: Any) -> None:
            if path.name == "train" and not path.exists():
                whole(path)
                other.enter_context(locked(path))
            whole(path, *given, **named)

        monkeypatch.setattr(Path, "mkdir", after_another)
        with held_run_folder(None, "train", CONFIG, resume=False) as folder:
            assert folder.path == tmp_path / "runs" / "train-2"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="is a file; give a folder"),
        held_run_folder(tmp_path / "file", "train", CONFIG, resume=False),
    ):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "other"}'])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError):
        read_result(tmp_path)


def test_where_it_runs_takes_no_part_in_the_digest() -> None:
    assert config_digest(CONFIG) == config_digest({**CONFIG, "cluster": {"workers": 2}, "out": "x"})
    assert config_digest(CONFIG) != config_digest({**CONFIG, "data": "letters"})


def test_plain_values_are_json() -> None:
    import numpy as np
    import torch

    value = plain({"a": torch.tensor(1.5), "b": np.int64(3), "c": (1, Path("x")), "d": None})
    assert value == {"a": 1.5, "b": 3, "c": [1, "x"], "d": None}
    assert json.loads(json.dumps(value)) == value
