"""Every block of code in README.md and the pages of docs/ is run, with small limits, or says why not and is parsed.

A page's blocks run in their order in a folder of their own, the shell's in this process. The folder has what a reader has by
then: `pictures/`, as the page on own data writes them, and the runs `runs/study` and `runs/train`.
"""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import pipelines
from fieldshift.cli import main
from fieldshift.cluster import ClusterConfig
from fieldshift.data import LoadingConfig
from fieldshift.search import SearchConfig, load_space
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe
from tests.documents import PAGES, ROOT, TEXT, Block, blocks, check_command, spans

pytestmark = pytest.mark.filterwarnings("ignore:.*type hint is inferred as AnyType")  # MLflow warns of its own types

OWN_DATA = ROOT / "docs" / "how-to" / "own-data.md"
FEW = ["--loading.train_limit", "48", "--loading.test_limit", "16"]
TRAINING = ["--recipe.epochs", "1", "--recipe.batch", "16"]
SEARCHING = ["--search.epochs", "1", "--search.tune_epochs", "0", "--search.batch", "16"]
HERE = ["--cluster.trials_at_once", "0"]
UNTRACKED = ["--tracking.enabled", "false"]
LIMITS = {
    "train": [*FEW, *TRAINING, *UNTRACKED],
    "search": [*FEW, *SEARCHING, *UNTRACKED],
    "study": [*FEW, *TRAINING, *SEARCHING, *HERE, "--arms", "none", "das", "das-folded", "--seeds", "1",
              "--stages", "search", "compare", "report", *UNTRACKED],
    "tune": [*FEW, *TRAINING, *HERE, *UNTRACKED, "--samples", "1"],
    "evaluate": ["--loading.test_limit", "16"],
    "compare-fields": ["--images", "2", *UNTRACKED],
}  # fmt: skip
"""Options that are added to the commands of the pages, so that they take seconds."""

RUN = [page for page in PAGES if any(block.reason is None and block.language not in TEXT for block in blocks(page))]
STUDY = pipelines.study


def small_study(**options: Any) -> Any:
    """`pipelines.study` with the same limits."""
    limits = {
        "arms": ["none", "das-folded"], "form": "folded", "seeds": 1, "stages": ["search", "compare"],
        "loading": LoadingConfig(train_limit=48, test_limit=16), "recipe": Recipe(epochs=1, batch=16),
        "search": SearchConfig(epochs=1, tune_epochs=0, batch=16), "cluster": ClusterConfig(trials_at_once=0),
        "tracking": TrackingConfig(enabled=False),
    }  # fmt: skip
    inspect.signature(STUDY).bind(**options)
    return STUDY(**{"out": "runs/from-python", **options, **limits})


def run_shell(block: Block) -> None:
    for words in block.lines:
        assert words[0] == "fieldshift", f"{words} is not run: say why above the block"
        expanded = [
            each for word in words[1:] for each in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
        ]
        assert main([*expanded, *LIMITS.get(expanded[0], [])]) == 0, " ".join(words)


def run_block(block: Block) -> None:
    if block.title:
        Path(block.title).write_text(block.code)
    if block.language == "bash":
        run_shell(block)
    elif block.language == "python":
        loader = [(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))]
        exec(compile(block.code, str(block.page), "exec"), {"loader": loader, "__name__": block.page.stem})
    elif block.language == "toml":
        assert load_space(block.title or "").name == Path(block.title or "").stem
    else:
        assert block.language == "yaml"
        assert yaml.safe_load(block.code)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a study and a trained network."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_block(next(block for block in blocks(OWN_DATA) if block.language == "python"))
        assert main(["study", "--out", "runs/study", *LIMITS["study"], "--tracking.enabled", "true"]) == 0
        assert main(["train", "--out", "runs/train", *LIMITS["train"]]) == 0
    return folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_order(
    page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = set(re.findall(r"--out (runs/\S+)", page.read_text(encoding="utf-8")))
    for run in ("runs/study", "runs/train"):
        if run not in written:
            shutil.copytree(world / run, tmp_path / run)
    if page != OWN_DATA:
        shutil.copytree(world / "pictures", tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(pipelines.__dict__, "study", small_study)
    for block in blocks(page):
        if block.reason is None and block.language not in TEXT:
            run_block(block)


def test_every_block_has_a_language_and_what_is_not_run_has_a_reason_and_parses() -> None:
    reasons = []
    makefile = (ROOT / "Makefile").read_text()
    for block in (block for page in PAGES for block in blocks(page)):
        assert block.language in {"bash", "python", "toml", "yaml", *TEXT}, f"{block.page.name}: {block.code[:40]}"
        if block.reason is None:
            continue
        reasons.append(block.reason)
        assert block.language == "bash", "only commands may be left out"
        assert subprocess.run(["bash", "-n", "-c", block.code], check=False).returncode == 0
        for words in block.lines:
            if words[0] == "fieldshift":
                check_command(words[1:])
            elif words[0] == "make":
                assert f"\n{words[1]}:" in makefile
    assert 0 < len(reasons) < 20
    assert all(len(reason.split()) >= 3 for reason in reasons)


def test_commands_within_the_text_parse() -> None:
    found = [words for page in PAGES for words in spans(page)]
    assert len({words[1] for words in found}) >= 8
    for words in found:
        check_command(words[1:])


def test_an_unmarked_block_that_cannot_be_run_is_found() -> None:
    block = Block(Path("page.md"), None, "bash", None, "make study\n")
    with pytest.raises(AssertionError, match="say why above the block"):
        run_shell(block)
