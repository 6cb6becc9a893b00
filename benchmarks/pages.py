"""Writes the pages that are made of the committed raw numbers: no measured number of a table is typed.

    python benchmarks/pages.py            # writes benchmarks/README.md, docs/{results,scaling}.md, pictures, README's table
    python benchmarks/pages.py --check    # status 1 where a page differs from its numbers

The sentences of docs/results.md are in `studies/results.md.jinja`; some name settings of the studies.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(HERE / "studies")]

import chart  # noqa: E402
import combination  # noqa: E402
import figures  # noqa: E402
import headline  # noqa: E402
import lengths  # noqa: E402
import repeats  # noqa: E402
import scaling  # noqa: E402
import study as studies  # noqa: E402
import tables  # noqa: E402
import targets  # noqa: E402
from record import goal, interval, ratio_words, shown, with_unit  # noqa: E402

from fieldshift.training.cost import BACKWARD_FACTOR  # noqa: E402
from fieldshift.wording import counted  # noqa: E402

BEGIN, END = "<!-- made by benchmarks/pages.py -->", "<!-- end -->"


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    readme = ROOT / "README.md"
    return {
        HERE / "README.md": rendered("speed.md.jinja"),
        ROOT / "docs" / "results.md": rendered("studies/results.md.jinja"),
        ROOT / "docs" / "scaling.md": rendered("scaling.md.jinja"),
        readme: with_table(readme.read_text()),
    }


def rendered(template: str) -> str:
    return environment().get_template(template).render()


@functools.cache
def environment() -> Environment:
    """The templates with what they show: every file of results is read once."""
    full = result(full_name("scaling"))
    made = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    made.tests["in_table"] = lambda cell, table: cell.startswith(f"{table}-")
    committed = {name: tables.Study.load(name) for name in studies.names()}
    profiled = json.loads(result("profiles-full").read_text())["rows"]
    made.globals.update(
        studies=committed, chart=chart.chart(committed), share=functools.partial(share_of_time, profiled),
        selection_share=selection_share(committed["ablations"].cells["default"]),
        benchmarks=benchmarks(), goals_met=goals_met, title_of=title_of,
        speed_tables=speed_tables, tables=tables, headline=headline, lengths=lengths, repeats=repeats, targets=targets,
        combination=combination,
        configurations=configurations(), selection=selection(),
        fields=json.loads(result("fields").read_text()), scaling=scaled(full if full.exists() else result("scaling")),
        faults=fault_table(result("faults")), counted=counted, folded_steps=folded_steps(result("folded_shift-full")),
        gpu_steps=folded_steps_on_gpu(result("folded_step-cuda")),
    )  # fmt: skip
    return made


def benchmarks() -> list[dict[str, Any]]:
    """The records of the benchmarks of speed and memory: of each the full form where it was run, else the short one."""
    names = {file.stem for file in (HERE / "results").glob("*.json")}
    found = [json.loads(result(name).read_text()) for name in sorted(names) if full_name(name) not in names]
    return [contents for contents in found if "benchmark" in contents]


def full_name(name: str) -> str:
    """The name of the record of the full form on the same kind of machine."""
    on = "-cuda" if name.endswith("-cuda") else ""
    return f"{name.removesuffix(on)}-full{on}"


def result(name: str) -> Path:
    return HERE / "results" / f"{name}.json"


def speed_tables(benchmark: dict[str, Any]) -> dict[str, str]:
    """The tables of a benchmark by their titles, one row per measurement."""
    rows: dict[str, list[list[str]]] = {}
    for row in benchmark["rows"]:
        peer = f"{row['peer']}: {with_unit(row['theirs'], row['unit'])}" if row["theirs"] else ""
        ours = with_unit(row["ours"], row["unit"])
        rows.setdefault(row["table"], []).append([row["case"], ours, peer, ratio_words(row), goal(row)])
    return {title: tables.markdown(["case", "ours", "peer", "ratio", "goal"], cells) for title, cells in rows.items()}


def title_of(benchmark: dict[str, Any]) -> str:
    on_gpu = not benchmark["machine"]["hardware"].startswith("no GPU")
    return f"{benchmark['benchmark']}{', on a GPU' if on_gpu else ''}"


def folded_steps(file: Path) -> dict[str, tuple[str, str]]:
    """The least and the largest time of a training step with a motion against the plain one, by network."""
    found: dict[str, list[float]] = {}
    for row in json.loads(file.read_text())["rows"]:
        if row["case"].startswith(("translate", "zoom", "rotate")) and row["peer"] == "plain step":
            found.setdefault(row["table"].partition(",")[0], []).append(row["ratio"])
    return {network: (f"{min(each):.2f}", f"{max(each):.2f}") for network, each in found.items()}


def folded_steps_on_gpu(file: Path) -> dict[str, str]:
    """The time of a training step of the folded form against the plain one on a GPU, by its case, precision first."""
    rows = [row for row in json.loads(file.read_text())["rows"] if row["table"].startswith("after ")]
    return {f"{row['table'].rpartition(', ')[2]}, {row['case']}": f"{row['ratio']:.2f}" for row in rows}


def goals_met(records: list[dict[str, Any]]) -> str:
    """How many goals are met, undecided and not met, and one row per goal that is not met; without earlier versions."""
    counts, missed = dict.fromkeys(("met", "undecided", "NOT met"), 0), []
    judged = [(each, row) for each in records for row in each["rows"] if not row["table"].startswith("before ")]
    bare = sum(interval(row) is None for _, row in judged for _ in filter(None, goal(row).split(", ")))
    for record, row in judged:
        for words in filter(None, goal(row).split(", ")):
            wanted, _, word = words.partition(": ")
            counts[word] += 1
            if word == "NOT met":
                found = ratio_words(row) or with_unit(row["ours"], row["unit"])
                missed.append([title_of(record), row["table"], row["case"], row["peer"] or "-", found, wanted])
    summary = ", ".join(f"{count} {word}" for word, count in counts.items())
    words = f"Of {sum(counts.values())} goals: {summary}. {bare} were judged without an interval."
    return f"{words}\n\n" + tables.markdown(["benchmark", "table", "case", "peer", "measured", "goal"], missed)


def share_of_time(rows: list[dict[str, Any]], loop: str, network: str, *operators: str) -> str:
    """The share of the time of all operators in a profiled loop that some of them take, in percent."""
    found = {row["case"]: row["ours"][0] for row in rows if row["table"].startswith(f"{loop}: folded {network},")}
    return f"{100 * sum(found[name] for name in operators) / found['all operators']:.0f} %"


def selection_share(cell: tables.Cell) -> str:
    """The share of a search's passes that score operations; a step of the network is three passes, one of alpha two."""
    cost = cell.numbers["searches"][0]["policy"]["found"]["cost"]
    return f"{100 * cost['scored'] / (3 * cost['weights'] + 2 * cost['alpha'] + cost['scored']):.0f} %"


def configurations() -> dict[str, dict[str, Any]]:
    return {name: studies.configuration(name) for name in studies.names()}


def selection() -> dict[str, dict[str, dict[str, float]]]:
    """Of each data set and rule: the share of searches with the right direction, and the mean score of their networks."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for file in sorted((HERE / "results").glob("selection-*.json")):
        rows = json.loads(file.read_text())["rows"]
        found[file.stem.removeprefix("selection-")] = {
            rule: {
                "right": sum(row["right"] for row in rows if row["rule"] == rule),
                "searches": sum(row["rule"] == rule for row in rows),
                "score": statistics.mean(row["score"] for row in rows if row["rule"] == rule),
            }
            for rule in dict.fromkeys(row["rule"] for row in rows)
        }
    return found


def scaled(file: Path) -> dict[str, Any] | None:
    """What the page on scaling shows of its record; None where nothing was measured."""
    if not file.exists():
        return None
    contents = json.loads(file.read_text())
    kept: dict[str, dict[str, dict[str, Any]]] = {}
    for row in contents["rows"]:
        kept.setdefault(row["table"], {})[row["case"]] = row
    options, predicted = contents["settings"], {}
    for title, cases in kept.items():
        if "operations of a forward pass" in cases:
            form = title.partition(",")[2].partition(":")[0].strip()
            gflop, millions = (cases[name]["ours"][0] for name in ("operations of a forward pass", "parameters"))
            step = scaling.step_of(gflop, options["images_per_gpu"], options["teraflops"])
            predicted[form] = {
                "gflop": shown(gflop), "parameters": shown(millions), "step": shown(1e3 * step),
                "megabytes": shown(scaling.BYTES_PER_NUMBER * millions),
                "table": tables.markdown(scaling.HEADS, scaling.rows_of(options, step, 1e6 * millions)),
            }  # fmt: skip
    timed = {title: cases for title, cases in kept.items() if "step of two workers" in cases}
    repetitions = {len(cases["step of two workers"]["ours"]) for cases in timed.values()}
    return {
        **options, "file": file.stem,
        "machine": contents["machine"], "repetitions": max(repetitions), "images": f"{options['images']:,}",
        "factor": BACKWARD_FACTOR, "network": scaling.IMAGENET[0], "predicted": predicted,
        "measured": tables.markdown(scaling.MEASURED, [scaling.cells_of(title, each) for title, each in timed.items()]),
        "verdicts": [scaling.verdict(title, each) for title, each in timed.items()],
    }  # fmt: skip


def fault_table(file: Path) -> str:
    """The faults that `tests/faults` has tried on a cluster, and what became of the runs."""
    rows = json.loads(file.read_text())["faults"] if file.exists() else []
    cells = [
        [row["fault"], row["stage"], str(row["faults"]), f"{row['held']} of {row['runs']}", row["outcome"]]
        for row in rows
    ]
    return tables.markdown(["fault", "stage", "times", "runs as they should be", "in these"], cells)


def with_table(page: str) -> str:
    """README with the table of the digit pairs, and what it says, between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{rendered('studies/readme.md.jinja').strip()}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    chosen = parser.parse_args()
    different = {page: text for page, text in pages().items() if not page.exists() or page.read_text() != text}
    for page, text in different.items():
        if chosen.check:
            print(
                f"{page.relative_to(ROOT)} differs from its numbers; run python benchmarks/pages.py.", file=sys.stderr
            )
        else:
            page.write_text(text)
            print(page.relative_to(ROOT))
    if not chosen.check:
        figures.draw_object_size(tables.Study.load("object-size"), ROOT / "docs" / "pictures" / "object-size.png")
    return 1 if chosen.check and different else 0


if __name__ == "__main__":
    sys.exit(main())
