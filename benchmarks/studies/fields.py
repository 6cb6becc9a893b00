"""What one unit sees: effective fields of trained networks with and without motion, in both forms.

    python benchmarks/studies/fields.py

tiny-resnet on digit-pairs-left, every arm trained once per seed with horizontal motion of 0.45 of the side, as `fieldshift
train` does; then `fieldshift compare-fields` measures those of a seed on the same test images. Writes
`benchmarks/results/fields.json`. A stopped study continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pipelines
from fieldshift.cluster import ClusterConfig
from fieldshift.motions import Policy
from fieldshift.report import hardware
from fieldshift.run_folder import plain, read_result
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe
from fieldshift.whole_file import write_whole

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]

from record import commit  # noqa: E402

ARMS = ("none", "replicate", "no-shift", "das", "das-folded")
UNTRACKED = TrackingConfig(enabled=False)


def measured(chosen: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The result of `fieldshift compare-fields` for the networks of a seed, which it trains first."""
    folder = chosen.runs / f"seed{seed}"
    policy = folder / "policy.json"
    Policy.single("translate_x", 0.45, frames=3).save(policy)
    for arm in ARMS:
        run = folder / arm
        pipelines.train(
            data="digit-pairs-left", arm=arm, policy=None if arm in {"none", "replicate"} else str(policy), seed=seed,
            recipe=Recipe(epochs=chosen.epochs), out=str(run), resume=(run / "config.yaml").exists(),
            cluster=ClusterConfig(workers=0), tracking=UNTRACKED,
        )  # fmt: skip
    compared = folder / "compared"
    pipelines.compare_fields(
        runs=[str(folder / arm) for arm in ARMS], images=chosen.images, out=str(compared), tracking=UNTRACKED,
        resume=(compared / "config.yaml").exists(),
    )  # fmt: skip
    return read_result(compared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=50, help="images that a field is averaged over")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies/fields"), help="where the run folders go")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "fields.json")
    chosen = parser.parse_args()
    rows, environment = [], {}
    for seed in range(chosen.seeds):
        result = measured(chosen, seed)
        rows += [{"seed": seed, **row} for row in plain(result["rows"])]
        environment = result["environment"]
    contents = {
        "settings": {
            "data": "digit-pairs-left",
            "network": "tiny-resnet",
            "epochs": chosen.epochs,
            "images": chosen.images,
            "seeds": chosen.seeds,
        },
        "machine": {"hardware": hardware(), "commit": commit(), **environment},
        "rows": rows,
    }
    write_whole(chosen.out, json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    main()
