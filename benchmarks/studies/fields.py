"""What one unit sees: effective fields of trained networks with and without motion, in both forms.

    python benchmarks/studies/fields.py

tiny-resnet on digit-pairs-left, every arm trained once with horizontal motion of 0.45 of the side, as `fieldshift train`
does; then `fieldshift compare-fields` measures them on the same test images. Writes `benchmarks/results/fields.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=50, help="images that a field is averaged over")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies/fields"), help="where the run folders go")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "fields.json")
    chosen = parser.parse_args()
    policy = chosen.runs / "policy.json"
    Policy.single("translate_x", 0.45, frames=3).save(policy)
    for arm in ARMS:
        run = chosen.runs / arm
        pipelines.train(
            data="digit-pairs-left", arm=arm, policy=None if arm in {"none", "replicate"} else str(policy),
            recipe=Recipe(epochs=chosen.epochs), out=str(run), resume=(run / "config.yaml").exists(),
            cluster=ClusterConfig(workers=0), tracking=UNTRACKED,
        )  # fmt: skip
    folder = chosen.runs / "compared"
    pipelines.compare_fields(
        runs=[str(chosen.runs / arm) for arm in ARMS], images=chosen.images, out=str(folder), tracking=UNTRACKED,
        resume=(folder / "config.yaml").exists(),
    )  # fmt: skip
    result = read_result(folder)
    contents = {
        "settings": {
            "data": "digit-pairs-left",
            "network": "tiny-resnet",
            "epochs": chosen.epochs,
            "images": chosen.images,
        },
        "machine": {"hardware": hardware(), "commit": commit(), **result["environment"]},
        "rows": plain(result["rows"]),
    }
    write_whole(chosen.out, json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    main()
