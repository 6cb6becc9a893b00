"""Random command lines made from the commands' own signatures, and a guard under which no work begins.

    python -m tests.command_lines [--count 5000] [--seed 0]

Runs them in this process, in a temporary folder, up to the point where work would begin; every one has to end with
status 0 or 2 and, with 2, one line. Prints how many ended how, and the lines that did not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import socket
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints
from unittest import mock

from fieldshift.arguments import option_types
from fieldshift.cli import commands, main
from fieldshift.errors import UserError
from tests.mistakes import prepare

ODD = (
    "", " ", "null", "~", "true", "-", "--", "[", "]", "[red]", "[/b]", "{}", "{a: b}", "[1, 2", "a,b", "'", '"', "`", "$x$",
    "%s", "{0}", "#", "?x", "a?b#c", "..", ".", "/", "/nonexistent/x", "caf\u00e9", "caf\udce9", "\u202e", "\x07", "a\nb",
    "\U0001f600", "x" * 300, "folder:", "folder:nothing", "npz:x", "voc:..", "foldr:x", ":", "a:b", "os:getcwd", "*",
    "~nobody/x",
    "RUN", "TAKEN", "FILE", "POLICY", "nothing.png", "http://x", "sqlite:", "ftp://x", "0x10", "1e400", "NaN", "-inf", "1_000",
)  # fmt: skip
NUMBERS = (
    "0",
    "1",
    "2",
    "3",
    "-1",
    "10",
    "64",
    "1e9",
    "1e30",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "0.5",
    "1.5",
    "99999999999999999999999",
)
NAMES = (
    "digit-pairs-left", "digit-pairs-top", "cifar10", "tiny-resnet", "tiny-resnet-fcn", "resnet18", "vgg16", "fcn_resnet18",
    "tsm", "gsf", "none", "das", "affine", "affine-one", "affine-cell", "classification", "segmentation", "onnx", "DEFAULT",
    "equal epochs", "equal compute, search included",
    "search", "compare", "all", "rotate=30", "plain", "own", "frames.png", "study.yaml", "127.0.0.1:1", "auto",
    "http://127.0.0.1:1",
)  # fmt: skip


class WorkBeginsError(UserError):
    """What a command line that passed every check ends with under the guard."""


def refused(*_: object, **__: object) -> Any:
    raise ConnectionRefusedError(111, "Connection refused")


def begins(*_: object, **__: object) -> Any:
    raise WorkBeginsError("Work would begin here.")


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[dict[str, str]]:
    """Nothing is computed, started, asked over the network, or written outside `folder`, where relative paths lead.

    Yields the paths that stand for words such as RUN.
    """
    import fieldshift.data.inspection.inspect
    import fieldshift.experiment.dataset
    import fieldshift.experiment.options
    import fieldshift.tracking.server
    import fieldshift.training.saved
    import pipelines.checking
    import pipelines.describing
    import pipelines.field_subjects
    import pipelines.field_theory
    import pipelines.run_data

    files = prepare(folder)
    home = Path.cwd()
    variables = {
        "HOME": str(folder),
        "FIELDSHIFT_CACHE": str(folder / "cache"),
        "FIELDSHIFT_DATA": str(folder / "data"),
    }
    kept = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "RAY_TMPDIR"}}
    stops = [
        mock.patch.object(fieldshift.experiment.options.Experiment, "checked_dataset", begins),
        mock.patch.object(fieldshift.experiment.dataset, "load_data", begins),
        mock.patch.object(pipelines.describing, "build_network", begins),
        mock.patch.object(pipelines.field_theory, "network_theory", begins),
        mock.patch.object(pipelines.field_subjects, "trained_folder", begins),
        mock.patch.object(fieldshift.training.saved, "load_network", begins),
        mock.patch.object(fieldshift.training, "load_network", begins),
        mock.patch.object(fieldshift.data, "inspect_data", begins),
        mock.patch.object(fieldshift.tracking.server, "serving", begins),
        mock.patch("fieldshift.motions.policy.Policy.from_json", begins),
        mock.patch("fieldshift.cluster.connect.has_ray", return_value=True),
        mock.patch("fieldshift.experiment.placement.has_ray", return_value=True),
        mock.patch("fieldshift.cluster.connect._session", begins),
        mock.patch("fieldshift.cluster.connect.connect", begins),
        mock.patch("subprocess.Popen", begins),
        mock.patch.object(socket, "create_connection", refused),
        mock.patch.dict(os.environ, {**kept, **variables}, clear=True),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for stop in stops:
            stack.enter_context(stop)
        os.chdir(folder)
        stack.callback(os.chdir, home)
        yield files


def options_of(function: Any) -> dict[str, Any]:
    """Every option of a command with its type, those of groups by their whole names."""

    def unfolded(name: str, hint: Any) -> Iterator[tuple[str, Any]]:
        yield name, hint
        if is_dataclass(hint) and isinstance(hint, type):
            hints = get_type_hints(hint)
            for field in fields(hint):
                yield from unfolded(f"{name}.{field.name}", hints[field.name])

    return dict(item for name, hint in option_types(function).items() for item in unfolded(name, hint))


def command_line(seed: int, index: int, files: dict[str, str]) -> list[str]:
    """The random command line of this number."""
    import importlib

    draw = random.Random(f"{seed}-{index}")
    if draw.random() < 0.02:
        return [draw.choice(ODD)]
    command, home = draw.choice(list(commands().items()))
    function = getattr(importlib.import_module(home), command.replace("-", "_"))
    options = options_of(function)
    words = [command]
    for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        words += option(draw, options)
    if draw.random() < 0.2:
        words += [value(draw, str) for _ in range(draw.randint(1, 3))]
    needed = {"run": "RUN", "policy": "POLICY", "data": "digit-pairs-left", "address": "http://127.0.0.1:1"}
    for name in options.keys() & needed.keys():
        if draw.random() < 0.6 and f"--{name}" not in words:
            words += [f"--{name}", needed[name]]
    return [files.get(word, word) for word in words]


def option(draw: random.Random, options: dict[str, Any]) -> list[str]:
    name = draw.choice([*options, "config", "help", "print_config"])
    if draw.random() < 0.05:
        at = draw.randrange(len(name))
        name = name[:at] + draw.choice("abcxyz_.-=") + name[at + 1 :]
    hint = options.get(name, str)
    if draw.random() < 0.15:
        return [f"--{name}"]
    if draw.random() < 0.5:
        return [f"--{name}={value(draw, hint)}"]
    return [f"--{name}", *(value(draw, hint) for _ in range(draw.choice((1, 1, 1, 2, 3))))]


def value(draw: random.Random, hint: Any) -> str:
    """A value of the type of an option, or of any other."""
    if draw.random() < 0.4:
        return draw.choice(draw.choice((ODD, NUMBERS, NAMES)))
    kinds = {kind for part in (hint, *get_args(hint)) for kind in (part, *get_args(part))}
    choices = [part for kind in kinds if isinstance(kind, str) for part in [kind]]
    if choices:  # a Literal's
        return draw.choice(choices)
    if bool in kinds:
        return draw.choice(("true", "false", "yes", "1"))
    if int in kinds or float in kinds:
        return draw.choice(NUMBERS)
    return draw.choice(draw.choice((NAMES, ODD)))


@dataclass(frozen=True)
class Ending:
    """How a command line ended: its status, what it said, and the traceback where there was one."""

    words: list[str]
    status: int | None
    said: str
    trace: str = ""

    @property
    def is_right(self) -> bool:
        one_line = self.status == 0 or self.said.count("\n") == 1
        return self.status in {0, 2} and one_line and not self.trace


def ending_of(words: list[str]) -> Ending:
    """Runs a command line in this process."""
    out, error = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            status: int | None = main(words)
    except SystemExit as ended:  # --help and --print_config
        code = ended.code
        status = code if isinstance(code, int) else 0 if code is None else 1
    except BaseException:
        return Ending(words, None, error.getvalue(), traceback.format_exc())
    return Ending(words, status, error.getvalue())


def endings(seed: int, count: int, folder: Path) -> tuple[list[Ending], list[str]]:
    """How `count` random command lines end, and the files below `folder` that they made."""
    with guarded(folder) as files:
        before = {str(path) for path in folder.rglob("*")}
        found = [ending_of(command_line(seed, index, files)) for index in range(count)]
        made = sorted({str(path) for path in folder.rglob("*")} - before)
    return found, made


def report(seed: int, count: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        found, made = endings(seed, count, Path(name))
    began = sum(WORK in ending.said for ending in found)
    counts = Counter(str(ending.status) for ending in found)
    print(f"{count} command lines, seed {seed}: status {dict(sorted(counts.items()))}; {began} passed every check")
    wrong = [ending for ending in found if not ending.is_right]
    for ending in wrong[:40]:
        print(ascii(ending.words), ending.status, ascii(ending.said[:300]), ending.trace[-700:], sep="\n  ")
    print(f"{len(wrong)} ended otherwise than with 0, or 2 and one line; files made: {made or 'none'}")
    return 1 if wrong or made else 0


WORK = "Work would begin here."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(report(given.seed, given.count))
