"""Does the folded form help at equal compute? Every arm on one data set, several seeds, one search per seed and form.

    python benchmarks/studies/forms.py --data digit-pairs-left --seeds 5 --out benchmarks/results/forms-left.json

A search sees training images only; each arm then trains until it has spent the operations of `--epochs` passes of the
plain network, and is tested once, plain and (arms with a 2D augmentation) averaged over the plain image and four
augmented copies. Rows that the JSON file has already are kept, so a stopped study goes on. Search time is reported and
not part of the compute.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
import torchvision

from fieldshift.data import DataSet, LoadingConfig, load_dataset
from fieldshift.folding import AnyPolicy, still
from fieldshift.motions import Policy
from fieldshift.motions.placed import policy_from_json
from fieldshift.networks import NetworkConfig, video_network
from fieldshift.report.intervals import estimate, paired_difference
from fieldshift.run_folder import write_whole
from fieldshift.search import SearchConfig, load_space, random_policy, search, units_of
from fieldshift.training import (
    NetworkCard,
    Recipe,
    arm_named,
    equal_compute_epochs,
    evaluate_network,
    network_card,
    network_cost,
    objective_for,
    train_network,
)

ARMS = (
    "none", "affine", "dilated", "dilated+affine", "wide-field", "wide-field+affine", "das", "das-folded",
    "das-folded+affine", "random-policy-folded",
)  # fmt: skip
FRAMES, COPIES = 3, 4


class Study:
    """One data set with its searches and trained arms, kept in a JSON file."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen, self.out = chosen, chosen.out
        size = None if chosen.size is None else tuple(chosen.size)
        loading = LoadingConfig(
            size=size, train_limit=chosen.train_limit, test_limit=chosen.test_limit, root=chosen.root, workers=0
        )
        self.dataset: DataSet = load_dataset(
            chosen.data, loading=loading, root=chosen.root, train_limit=chosen.train_limit, test_limit=chosen.test_limit
        )
        self.objective = objective_for(self.dataset.task, len(self.dataset.classes), self.dataset.ignore_index)
        self.kept: dict[str, Any] = {"settings": self.settings(), "machine": machine(), "searches": {}, "rows": {}}
        if self.out.exists():
            earlier = json.loads(self.out.read_text())
            assert earlier["settings"] == self.kept["settings"], f"{self.out} is of another study; give another --out"
            self.kept = earlier

    def settings(self) -> dict[str, Any]:
        names = ("network", "temporal", "space", "epochs", "search_epochs", "size", "train_limit", "test_limit")
        data = Path(self.chosen.data.partition(":")[2]).name or self.chosen.data
        return {"data": data, "digest": self.dataset.digest, **{name: getattr(self.chosen, name) for name in names}}

    def card(self, arm: str, policy: AnyPolicy | None) -> NetworkCard:
        return network_card(
            self.dataset, self.chosen.data, arm_named(arm), network=self.chosen.network, temporal=self.chosen.temporal,
            policy=policy, architecture=NetworkConfig(),
        )  # fmt: skip

    def searched(self, form: str, seed: int) -> AnyPolicy:
        """The policy that a search of this seed found in this form."""
        key = f"{form}-{seed}"
        if key not in self.kept["searches"]:
            space = load_space(self.chosen.space)
            torch.manual_seed(seed)
            network = video_network(
                self.chosen.network, temporal=self.chosen.temporal, frames=1 if form == "folded" else FRAMES,
                num_classes=len(self.dataset.classes), task=self.dataset.task, in_channels=self.dataset.channels,
                small_images=NetworkConfig().takes_small_images(self.chosen.network, self.dataset.size),
                motions=still(space.groups) if form == "folded" else None,
            )  # fmt: skip
            started = time.process_time()
            found = search(
                network, self.dataset, space, SearchConfig(frames=FRAMES, epochs=self.chosen.search_epochs, batch=self.batch),
                objective=self.objective, normalise=self.card("none", None).plan().normalise, seed=seed,
            )  # fmt: skip
            policy = json.loads(found.policy.to_json())
            policy["found"]["data"] = self.kept["settings"]["data"]  # no path of one machine
            self.kept["searches"][key] = {"policy": policy, "cpu_seconds": time.process_time() - started}
            self.save()
            print(f"seed {seed}, {form}: {'; '.join(found.policy.describe())}", flush=True)
        return policy_from_json(json.dumps(self.kept["searches"][key]["policy"]))

    @property
    def batch(self) -> int:
        return 64 if self.dataset.task == "classification" else 12

    def trained(self, arm: str, seed: int) -> None:
        """Trains and tests one arm, if that is not done yet."""
        key = f"{arm}-{seed}"
        if key in self.kept["rows"]:
            return
        spec = arm_named(arm)
        policy: AnyPolicy | None = None
        if spec.frames == "random":
            network, space = (
                self.card("identity-folded", Policy.replicate(FRAMES)).build(),
                load_space(self.chosen.space),
            )
            units = units_of(space, [each.path for each in network.placements], network.stages)
            policy = random_policy(space, FRAMES, seed, units=units)
        elif spec.needs_policy:
            policy = self.searched(spec.form, seed)
        elif spec.frames == "replicated":
            policy = Policy.replicate(FRAMES)
        card, plain = self.card(arm, policy), self.card("none", None)
        torch.manual_seed(seed)
        network, plan = card.build(), card.plan()
        cost, budget = (self.cost(each) for each in (card, plain))
        epochs = equal_compute_epochs(self.chosen.epochs, cost, budget)
        started = time.process_time()
        train_network(
            network, self.dataset.train, plan=plan, recipe=Recipe(epochs=epochs, batch=self.batch), objective=self.objective,
            seed=seed,
        )  # fmt: skip
        seconds = time.process_time() - started
        found = evaluate_network(network, self.dataset.test, plan=plan, objective=self.objective, copies=COPIES)
        self.kept["rows"][key] = {
            "arm": arm, "seed": seed, "epochs": epochs, "flops": cost, "score": found.score, "score_tta": found.score_tta,
            "cpu_seconds": seconds,
        }  # fmt: skip
        self.save()
        print(f"  {key}: {found.score:.3f} {'' if found.score_tta is None else f'{found.score_tta:.3f}'}", flush=True)

    def cost(self, card: NetworkCard) -> int:
        return network_cost(card.build(), card.frames, card.channels, card.size).flops

    def save(self) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.out, json.dumps(self.kept, indent=1) + "\n")

    def report(self) -> None:
        """The table: mean, 95 % interval and the paired difference of the folded arms to each other arm."""
        scores = {}
        for arm in self.chosen.arms:
            rows = [row for row in self.kept["rows"].values() if row["arm"] == arm]
            averaged = "+" in arm or arm == "affine"
            scores[arm] = {
                row["seed"]: row["score_tta"] if averaged and row["score_tta"] else row["score"] for row in rows
            }
            if rows:
                found = estimate(list(scores[arm].values()))
                print(
                    f"{arm:24} {100 * found.mean:5.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})  n = {found.n}"
                )
        for method in (arm for arm in self.chosen.arms if arm.startswith("das-folded") and scores[arm]):
            for other in (arm for arm in self.chosen.arms if arm != method and scores[arm]):
                gap = paired_difference(scores[method], scores[other])
                print(f"{method} - {other}: {100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})")


def machine() -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "torch": torch.__version__, "torchvision": torchvision.__version__, "python": platform.python_version(),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": processor(), "commit": commit.stdout.strip(),
    }  # fmt: skip


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digit-pairs-left")
    parser.add_argument("--root", help="folder of published data sets")
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--test-limit", type=int)
    parser.add_argument("--network", default="tiny-resnet")
    parser.add_argument("--temporal", default="tsm")
    parser.add_argument("--space", default="affine-one")
    parser.add_argument(
        "--epochs", type=int, default=18, help="passes of the plain network whose operations all arms spend"
    )
    parser.add_argument("--search-epochs", type=int, default=12)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file for the raw numbers")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(chosen)
    for seed in range(chosen.seeds):
        for arm in chosen.arms:
            study.trained(arm, seed)
    study.report()


if __name__ == "__main__":
    main()
