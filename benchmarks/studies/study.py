"""Runs a study: one `fieldshift compare` per cell of a table, from a committed configuration.

    python benchmarks/studies/study.py digit-pairs
    python benchmarks/studies/study.py camvid --data camvid=PATH --cells tiny-96
    python benchmarks/studies/study.py --list

A configuration is a TOML file beside this script: the question, the options of `fieldshift compare` that all cells share,
and those of each cell, which replace the shared ones. In a value, `{NAME}` stands for the path given as `--data NAME=PATH`,
`{NAME@32}` for the first pictures of that file at 32 x 32 pixels, `{NAME-held-out}` for a folder in VOC's layout with a
fifth of its training scenes held out, `{left-held-out}` and `{top-held-out}` for scenes made of training digits alone, and
`{motion translate_x 0.45}` for a policy of that motion (`data_files.py`).

`--set recipe.epochs=1 loading.train_limit=2000` tries a study with other options; its numbers then go to the folder of the
runs, not to the committed ones.

A stopped study continues where it stopped: finished cells are not run again. The raw numbers of every cell, with
hardware, versions and commit, go to `benchmarks/results/STUDY.json`, cell by cell, without paths of this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pipelines
from fieldshift.command_parser import command_parser
from fieldshift.errors import RunFailedError, UserError, unknown_name
from fieldshift.report import hardware
from fieldshift.run_folder import plain, read_result
from fieldshift.whole_file import write_whole
from pipelines.comparison import Comparison

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
COMMIT_FILE = "commit"
HELD_OUT = ("left-held-out", "top-held-out")
NOT_KEPT = ("folder", "history", "key")
"""Columns of a row that belong to one machine, or that are of no use without the run folder."""

sys.path[:0] = [str(HERE), str(HERE.parent)]  # the studies' own networks and data, and what benchmarks share

from data_files import held_out_file, held_out_scenes, motion_file, resized_file  # noqa: E402
from record import commit  # noqa: E402


def names() -> list[str]:
    """The studies that have a configuration."""
    return sorted(file.stem for file in HERE.glob("*.toml"))


def configuration(study: str) -> dict[str, Any]:
    """The question, the shared options and the cells of a study. Raises UserError for an unknown name."""
    if study not in names():
        raise unknown_name("study", study, names())
    return tomllib.loads((HERE / f"{study}.toml").read_text())


def merged(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The shared options with the cell's own in place of those of the same name, at every depth."""
    nested = {name: merged(shared.get(name, {}), value) for name, value in own.items() if isinstance(value, dict)}
    return {**shared, **own, **nested}


def filled(value: Any, paths: dict[str, str]) -> Any:
    """A value with the paths of the data in place of their names."""
    if isinstance(value, dict):
        return {name: filled(each, paths) for name, each in value.items()}
    if not isinstance(value, str) or "{" not in value:
        return value
    name = value.partition("{")[2].partition("}")[0]
    return value.replace(f"{{{name}}}", path_of(name, paths))


def nested(words: list[str]) -> dict[str, Any]:
    """Options as OPTION=VALUE, with dots between the names of a group and its option; values as in TOML, else text."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"--set {word} has no value; write it as OPTION=VALUE.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        for key in reversed(name.split(".")):
            value = {key: value}
        found = merged(found, value)
    return found


def path_of(name: str, paths: dict[str, str]) -> str:
    """The path that a name between braces stands for. Raises UserError where it was not given."""
    if name in paths:
        return paths[name]
    if name in HELD_OUT:
        return str(held_out_file(name.removesuffix("-held-out")))
    if name.startswith("motion "):
        operation, magnitude = name.split()[1:]
        return str(motion_file(operation, magnitude))
    file, resized, side = name.removesuffix("-held-out").partition("@")
    if file not in paths:
        raise UserError(f"This study reads the data set '{file}'; give its path with --data {file}=PATH.")
    if name.endswith("-held-out"):
        return str(held_out_scenes(paths[file]))
    return str(resized_file(paths[file], int(side))) if resized else paths[file]


def compared(options: dict[str, Any], run: Path) -> Comparison:
    """The comparison of one cell, as the command line would run it; a stopped one is resumed, a finished one read."""
    parser = command_parser("compare", pipelines.compare)
    settings = {**options, "out": str(run), "resume": (run / "config.yaml").exists()}
    values = vars(parser.instantiate(parser.parse_object(settings)))
    values.pop("config", None)
    comparison: Comparison = pipelines.compare(**values)
    return comparison


def raw_numbers(run: Path, comparison: Comparison) -> dict[str, Any]:
    """What the tables, the verdict and the budget of a finished comparison are made of."""
    result = read_result(run)
    config = {name: value for name, value in result["config"].items() if name not in {"cluster", "tracking"}}
    config["loading"] = {name: value for name, value in config["loading"].items() if name != "root"}
    config["data"] = data_name(config["data"])
    config["space"] = Path(config["space"]).name
    config["trials_at_once"] = result["config"]["cluster"]["trials_at_once"]
    searches = [{name: value for name, value in each.items() if name != "folder"} for each in result["searches"]]
    for each in searches:
        each["policy"]["found"]["data"] = data_name(each["policy"]["found"]["data"])
    return {
        "config": config,
        "machine": {**result["environment"], "hardware": hardware(), "commit": (run / COMMIT_FILE).read_text().strip()},
        "finished": result["finished"],
        "data": result["data"],
        "searches": searches,
        "randaugment": result["randaugment"],
        "budget": result["budget"],
        "rows": [{name: value for name, value in row.items() if name not in NOT_KEPT} for row in result["rows"]],
        "summary": plain(comparison.summary.to_dict("records")),
        "claims": plain(comparison.claims.to_dict("records")),
        "verdict": comparison.verdict.splitlines(),
        "failed": comparison.failed,
    }


def data_name(data: str) -> str:
    """The data set's name; of own data the last folder or file alone."""
    kind, colon, path = data.partition(":")
    return f"{kind}:{Path(path).name}" if colon else data


def keep_commit(run: Path) -> None:
    """Records, when a run begins, the commit it is made with, and whether files differ from it."""
    if not (run / COMMIT_FILE).exists():
        write_whole(run / COMMIT_FILE, f"{commit()}\n")


def keep(folder: Path, study: str, question: str, cell: str, numbers: dict[str, Any]) -> None:
    """Writes the raw numbers of a cell into the study's file, beside those of its other cells."""
    file = folder / f"{study}.json"
    cells = json.loads(file.read_text())["cells"] if file.exists() else {}
    cells[cell] = numbers
    order = [name for name in configuration(study)["cells"] if name in cells]
    write_whole(
        file, json.dumps({"question": question, "cells": {name: cells[name] for name in order}}, indent=1) + "\n"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", help="a configuration beside this script, without .toml")
    parser.add_argument("--list", action="store_true", help="list the studies, their questions and their cells")
    parser.add_argument("--cells", nargs="+", action="extend", help="the cells to run; by default all")
    parser.add_argument(
        "--data", nargs="+", action="extend", default=[], metavar="NAME=PATH", help="paths of the data sets"
    )
    parser.add_argument("--at-once", type=int, default=2, help="trials at the same time, one core each; 0 uses no Ray")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="OPTION=VALUE",
        help="other options, for a trial of a study",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), help="where the run folders go")
    chosen = parser.parse_args(argv)
    try:
        return listed() if chosen.list or chosen.study is None else run_cells(chosen)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def listed() -> int:
    for study in names():
        settings = configuration(study)
        print(f"{study}: {settings['question']}\n    cells: {', '.join(settings['cells'])}")
    return 0


def run_cells(chosen: argparse.Namespace) -> int:
    settings = configuration(chosen.study)
    for cell in chosen.cells or settings["cells"]:
        if cell not in settings["cells"]:
            raise unknown_name("cell", cell, settings["cells"])
    paths = {"studies": str(HERE), **dict(each.partition("=")[::2] for each in chosen.data)}
    overrides = nested(chosen.set)
    unfinished = []
    for cell in chosen.cells or settings["cells"]:
        print(f"== {chosen.study}: {cell}", flush=True)
        try:
            options = filled(merged(settings["options"], settings["cells"][cell]), paths)
            options = merged(options, overrides)
            options["cluster"] = {"trials_at_once": chosen.at_once}
            options["tracking"] = {"enabled": False}
            run = chosen.runs / chosen.study / cell
            keep_commit(run)
            comparison = compared(options, run)
        except (UserError, RunFailedError) as error:
            print(f"error: {cell}: {error}", file=sys.stderr)
            unfinished.append(cell)
            continue
        numbers = raw_numbers(run, comparison)
        keep(chosen.runs if overrides else RESULTS, chosen.study, settings["question"], cell, numbers)
        if comparison.failed:
            unfinished.append(cell)
    if unfinished:
        print(f"not finished: {', '.join(unfinished)}", file=sys.stderr)
    return 2 if unfinished else 0


if __name__ == "__main__":
    sys.exit(main())
