"""The house itself: names that must not be shadowed, imports that point one way, a wheel that works elsewhere."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("platform", "pipelines", "search_spaces", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=240, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment,
    )  # fmt: skip


def test_platform_folder_is_no_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "tests" / "platform" / "__init__.py").exists()


def test_import_platform_from_the_root_is_the_standard_library() -> None:
    done = run(sys.executable, "-c", "import platform; print(platform.__file__, platform.machine())", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout.split()[0]


def test_no_file_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): count for path in SOURCES if (count := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "misc"])
def test_no_module_has_a_name_that_says_nothing(word: str) -> None:
    assert [path for path in SOURCES if word in path.relative_to(ROOT).with_suffix("").parts] == []


def test_no_test_imports_from_another_or_slices_a_command_line() -> None:
    """What tests share is a fixture of a conftest or a module of its own; parts of command lines have names."""
    found = []
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != "tests":
            continue
        tree = ast.parse(path.read_text())
        words = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Tuple)
            and any(isinstance(each, ast.Starred) or ast.unparse(each)[1:3] == "--" for each in node.value.elts)
            for target in node.targets if isinstance(target, ast.Name)
        }  # fmt: skip
        for node in ast.walk(tree):
            imported = isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2]
            if imported and (imported.startswith("test_") or imported == "conftest"):
                found.append(f"{path.name} imports from {imported}")
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.slice, ast.Slice)
                and isinstance(node.value, ast.Name)
            ):
                found += [f"{path.name} slices {node.value.id}"] * (node.value.id in words)
    assert found == []


def test_nothing_in_the_platform_imports_the_pipelines_but_the_command_line() -> None:
    importers = {
        path.relative_to(ROOT / "platform").as_posix()
        for path in (ROOT / "platform").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipelines"))
        or (isinstance(node, ast.Import) and any(name.name.startswith("pipelines") for name in node.names))
    }
    assert importers == {"fieldshift/cli.py"}


@pytest.mark.timeout(280)
def test_the_wheel_installed_elsewhere_runs_the_readmes_commands(tmp_path: Path) -> None:
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f"fieldshift/report/{name}" for name in ("page.html.jinja", "page.css")} <= packed
    home = tmp_path / "elsewhere"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").stdout.strip()
    # The dependencies are those of this environment; the code is the wheel's and nothing else's.
    installed = run(sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", purelib, wheel)
    assert installed.returncode == 0, installed.stderr
    here = [path for path in sys.path if path.endswith("site-packages")]
    (Path(purelib) / "dependencies.pth").write_text("\n".join(here) + "\n")
    where = run(python, "-c", "import fieldshift, pipelines, search_spaces; print(fieldshift.__file__)", cwd=tmp_path)
    assert where.returncode == 0, where.stderr
    assert where.stdout.startswith(purelib)
    spaces = run(
        python, "-c", "from fieldshift.search import load_space; print(load_space('affine-cell').name)", cwd=tmp_path
    )
    assert spaces.stdout.strip() == "affine-cell", spaces.stderr
    examples = [
        "--version",
        "study --form folded --arms none das-folded --seeds 1 --stages search compare report --cluster.trials_at_once 0 "
        "--loading.train_limit 48 --loading.test_limit 16 --recipe.epochs 1 --recipe.batch 16 --search.epochs 1 "
        "--search.tune_epochs 0 --search.batch 16 --tracking.enabled false --out runs/study",
        "preview --policy runs/study --out frames.gif",
    ]
    for example in examples:
        done = run(python, "-m", "fieldshift.cli", *example.split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "frames.gif").exists()
    assert (tmp_path / "runs" / "study" / "report.html").exists()
    helped = run(python, "-m", "fieldshift.cli", "--help", cwd=tmp_path)
    assert helped.returncode == 0
    assert "receptive-field" in helped.stdout


def test_a_docstring_says_what_a_thing_is_or_does() -> None:
    """A first sentence never begins with a question word: "The cost of ...", not "What ... costs"."""
    asking = {"How", "What", "When", "Where", "Which", "Who", "Whose", "Why"}
    found = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] in {"platform", "pipelines", "search_spaces"}
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node))
        if text.split(maxsplit=1)[0] in asking
    ]
    assert found == []
