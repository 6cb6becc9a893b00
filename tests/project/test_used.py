"""Every public function, class, method and constant is used by the program itself, or is documented as part of its API."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fieldshift
import pipelines
from tests.documents import PAGES

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"fieldshift": ROOT / "platform", "pipelines": ROOT, "search_spaces": ROOT}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """The names that a module defines, imports and uses."""

    tree: ast.Module
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)

    def definitions(self) -> Iterator[tuple[str, ast.stmt]]:
        """The public names defined at the top of the module."""
        for node in self.tree.body:
            if isinstance(node, Function | ast.ClassDef):
                yield node.name, node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from ((target.id, node) for target in targets if isinstance(target, ast.Name))


def modules() -> dict[str, Module]:
    """The modules of the program by their dotted names, and the benchmarks, which are programs of their own."""
    found = {}
    files = [(path, above) for package, above in SOURCES.items() for path in (above / package).rglob("*.py")]
    files += [(path, ROOT) for path in (ROOT / "benchmarks").rglob("*.py")]
    for path, above in files:
        name = ".".join(path.relative_to(above).with_suffix("").parts).removesuffix(".__init__")
        found[name] = Module(ast.parse(path.read_text(encoding="utf-8")))
    for module in found.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module.imported |= {each.asname or each.name: (node.module, each.name) for each in node.names}
            elif isinstance(node, ast.Import):
                module.imported |= {each.asname: (each.name, "") for each in node.names if each.asname}
    return found


def home(known: dict[str, Module], module: str, name: str) -> tuple[str, str]:
    """The module that defines a name, where a package only passes it on."""
    while module in known and name in known[module].imported:
        module, name = known[module].imported[name]
    return module, name


def used_names(known: dict[str, Module]) -> set[tuple[str, str]]:
    """The (module, name) pairs that a module other than a package's list of exports refers to."""
    used = set()
    for name, module in known.items():
        inside = dict.fromkeys(each for each, _ in module.definitions())
        for owner in [*module.tree.body]:
            defined = owner.name if isinstance(owner, Function | ast.ClassDef) else ""
            for node in ast.walk(owner):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                    if node.id in module.imported:
                        used.add(home(known, *module.imported[node.id]))
                    elif node.id in inside and node.id != defined:
                        used.add((name, node.id))
                elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    above, part = module.imported.get(node.value.id, ("", ""))
                    used.add(home(known, f"{above}.{part}".strip("."), node.attr))
    return used


def documented() -> set[str]:
    """The words of all code in the documents."""
    code = [
        piece
        for path in PAGES
        for found in re.findall(r"```.*?\n(.*?)```|`([^`\n]+)`", path.read_text(encoding="utf-8"), re.DOTALL)
        for piece in found
    ]
    return set(re.findall(r"[A-Za-z_]\w*", "\n".join(code)))


def is_called_by_a_library(known: dict[str, Module], module: Module, node: ast.ClassDef) -> bool:
    """Whether a class derives from one of a library, which may call its methods."""
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    local = {name: each for name, each in module.definitions() if isinstance(each, ast.ClassDef)}
    for base in bases:
        if isinstance(base, ast.Name) and base.id in local:
            if is_called_by_a_library(known, module, local[base.id]):
                return True
        elif isinstance(base, ast.Name) and base.id in module.imported:
            above, name = home(known, *module.imported[base.id])
            if above not in known:
                return above.partition(".")[0] not in {"typing", "abc"}
            classes = {each.name: each for each in known[above].tree.body if isinstance(each, ast.ClassDef)}
            if is_called_by_a_library(known, known[above], classes[name]):
                return True
        elif isinstance(base, ast.Attribute):
            return True
    return False


def reached(known: dict[str, Module]) -> set[str]:
    """The attributes that the program reads: by a dot, by `getattr`, or in a template."""
    found = set()
    for module in known.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                found |= {each.value for each in node.args if isinstance(each, ast.Constant)}
    for template in (ROOT / "platform").rglob("*.jinja"):
        found |= set(re.findall(r"\.(\w+)", template.read_text(encoding="utf-8")))
    return found


def methods(known: dict[str, Module]) -> Iterator[tuple[str, str]]:
    """The public methods of all classes that no library calls, as (module, "Class.method")."""
    for name, module in known.items():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not is_called_by_a_library(known, module, node):
                yield from ((name, f"{node.name}.{each.name}") for each in node.body if isinstance(each, Function))


def test_nothing_public_is_used_by_tests_alone() -> None:
    known = modules()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].values()
    api = {*fieldshift.__all__, *pipelines.__all__, *documented(), *(each.partition(":")[2] for each in scripts)}
    used = used_names(known)
    attributes = reached(known)
    program = {name: module for name, module in known.items() if name.partition(".")[0] in SOURCES}
    unused = [
        f"{module}.{name}"
        for module, each in program.items()
        for name, _ in each.definitions()
        if not name.startswith("_") and name not in api and (module, name) not in used
    ]
    unused += [
        f"{module}.{name}"
        for module, name in methods(program)
        if not (method := name.partition(".")[2]).startswith("_") and method not in attributes | api
    ]
    assert unused == []


def test_what_only_a_test_uses_is_found() -> None:
    source = "LIMIT = 3\n\ndef used():\n    return LIMIT\n\ndef unused():\n    return unused()\n\nprint(used())\n"
    module = Module(ast.parse(source))
    assert used_names({"m": module}) == {("m", "LIMIT"), ("m", "used")}
