"""Does the motion help, does the search, and does either form help at equal compute? All readings, on one data set.

    python benchmarks/studies/forms.py --data digit-pairs-left --out benchmarks/results/forms-left.json

Runs `fieldshift compare` with a search per seed and form in `--run` (a stopped run goes on from there, a finished one is
not made again), prints its tables and verdict, and writes the raw numbers with hardware, versions and configuration to
`--out`, without paths of this machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import pipelines
from fieldshift.cluster import ClusterConfig
from fieldshift.data import LoadingConfig
from fieldshift.readings import BUDGETS
from fieldshift.report import hardware
from fieldshift.run_folder import plain, read_result
from fieldshift.search import SearchConfig
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe
from fieldshift.whole_file import write_whole
from pipelines.comparison import Comparison

ARMS = (
    "none", "affine", "randaugment", "dilated", "dilated+affine", "wide-field", "replicate", "random-policy", "das",
    "das+affine", "random-policy-folded", "random-policy-folded+affine", "das-folded", "das-folded+affine",
)  # fmt: skip
COMMIT_FILE = "commit"
NOT_KEPT = ("folder", "history", "key")
"""What a row has that is of one machine, or of no use without its run folder."""


def raw_numbers(run: Path, comparison: Comparison) -> dict[str, Any]:
    """What is kept of a finished comparison: all that its tables, its verdict and its budget are made of."""
    result = read_result(run)
    config = {name: value for name, value in result["config"].items() if name not in {"cluster", "tracking"}}
    config["loading"] = {name: value for name, value in config["loading"].items() if name != "root"}
    config["data"] = data_name(config["data"])
    config["trials_at_once"] = result["config"]["cluster"]["trials_at_once"]
    searches = [{name: value for name, value in each.items() if name != "folder"} for each in result["searches"]]
    for each in searches:
        each["policy"]["found"]["data"] = data_name(each["policy"]["found"]["data"])
    return {
        "config": config,
        "machine": {"hardware": hardware(), "commit": (run / COMMIT_FILE).read_text().strip(), **result["environment"]},
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
    """Writes down, when a run begins, which commit it is made with, and whether files differ from it."""
    file = run / COMMIT_FILE
    if file.exists():
        return
    found, changed = (
        subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        ).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    )
    run.mkdir(parents=True, exist_ok=True)
    write_whole(file, f"{found}{' with changed files' if changed else ''}\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digit-pairs-left")
    parser.add_argument("--root", help="folder of published data sets")
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--test-limit", type=int)
    parser.add_argument("--network", default="tiny-resnet")
    parser.add_argument("--temporal", default="tsm")
    parser.add_argument("--space", default="affine-one")
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS))
    parser.add_argument("--epochs", type=int, default=6, help="of the video arms, and of all at equal epochs")
    parser.add_argument("--search-epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tta-copies", type=int, default=8, help="8: nine passes per image for every averaged arm")
    parser.add_argument("--tune-randaugment", type=int, default=0, help="samples; 0 takes torchvision's N and M")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=2, help="trials at the same time, one core each; 0 uses no Ray")
    parser.add_argument("--run", type=Path, help="run folder; by default runs/ and the name of --out")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file for the raw numbers")
    chosen = parser.parse_args(argv)
    run = chosen.run or Path("runs") / chosen.out.stem
    keep_commit(run)
    comparison = pipelines.compare(
        data=chosen.data, network=chosen.network, temporal=chosen.temporal, space=chosen.space, arms=chosen.arms,
        budgets=chosen.budgets, seeds=chosen.seeds, tta_copies=chosen.tta_copies,
        tune_randaugment=chosen.tune_randaugment, out=str(run), resume=(run / "config.yaml").exists(),
        search=SearchConfig(epochs=chosen.search_epochs, batch=chosen.batch),
        recipe=Recipe(epochs=chosen.epochs, batch=chosen.batch),
        loading=LoadingConfig(
            size=None if chosen.size is None else tuple(chosen.size), train_limit=chosen.train_limit,
            test_limit=chosen.test_limit, root=chosen.root,
        ),
        cluster=ClusterConfig(trials_at_once=chosen.at_once), tracking=TrackingConfig(enabled=False),
    )  # fmt: skip
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(chosen.out, json.dumps(raw_numbers(run, comparison), indent=1) + "\n")


if __name__ == "__main__":
    main()
