"""Does it matter how a search decides? Perturbation (loss, score), magnitude and random on one trained supernet each.

    python benchmarks/studies/selection.py --data digit-pairs-left --seeds 5 --out benchmarks/results/selection-left.json

For every seed the supernet is trained once, as `fieldshift search` does by default; every rule decides on that same
supernet; and the network is then trained with the policy that the rule ended in, as `fieldshift train` does, and tested.
The right answer is known: horizontal motion on digit-pairs-left, vertical motion on digit-pairs-top.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import pipelines
from fieldshift.cluster import ClusterConfig
from fieldshift.data import DataSet, load_dataset
from fieldshift.folding import AnyPolicy
from fieldshift.motions import Policy
from fieldshift.networks import NetworkConfig
from fieldshift.search import SearchConfig, load_space
from fieldshift.search.learning import alpha_half_in_order, learn_one_pass
from fieldshift.search.run import SearchRun
from fieldshift.search.selection import Selector
from fieldshift.tracking import TrackingConfig
from fieldshift.training import Recipe, arm_named, network_card, objective_for
from fieldshift.whole_file import write_whole

RULES: dict[str, dict[str, Any]] = {
    "perturbation, loss": {"selection": "perturbation", "criterion": "loss"},
    "perturbation, score": {"selection": "perturbation", "criterion": "score"},
    "magnitude": {"selection": "magnitude"},
    "random": {"selection": "random"},
}
RIGHT = {"digit-pairs-left": "translate_x", "digit-pairs-top": "translate_y"}
FRAMES, SPACE, EPOCHS = 3, "affine-one", 6


def decided(dataset: DataSet, seed: int, config: SearchConfig) -> dict[str, tuple[AnyPolicy, float]]:
    """The policy of each rule, and the margin that it was chosen by, all on one supernet."""
    card = network_card(
        dataset, dataset.name, arm_named("replicate"), network="tiny-resnet", temporal="tsm",
        policy=Policy.replicate(FRAMES), architecture=NetworkConfig(),
    )  # fmt: skip
    torch.manual_seed(seed)
    run = SearchRun.start(
        card.build(), dataset, load_space(SPACE), config, normalise=card.plan().normalise, device="cpu", seed=seed,
        objective=objective_for(dataset.task, len(dataset.classes)),
    )  # fmt: skip
    for _ in range(config.epochs):
        learn_one_pass(run)
        run.state.passes += 1
        run.state.epoch += 1
    found = {}
    for name, rule in RULES.items():
        selector = Selector(
            supernet=run.supernet, batches=partial(alpha_half_in_order, run), objective=run.plain_objective,
            config=replace(config, **rule), seed=seed,
        )  # fmt: skip
        decision = selector.choose_operation(0)
        found[name] = run.policy(), decision.margin
        run.cell.decided[0] = None
    return found


def trained(policy: AnyPolicy, data: str, seed: int, folder: Path) -> float:
    """The test score of a network trained with the policy."""
    policy.save(folder / "policy.json")
    result = pipelines.train(
        data=data, policy=str(folder / "policy.json"), seed=seed, recipe=Recipe(epochs=EPOCHS), out=str(folder / "run"),
        cluster=ClusterConfig(workers=0), tracking=TrackingConfig(enabled=False),
    )  # fmt: skip
    return float(result.row["score"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digit-pairs-left", choices=sorted(RIGHT))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file for the raw numbers")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    dataset, config = load_dataset(chosen.data), SearchConfig(frames=FRAMES)
    rows: list[dict[str, Any]] = []
    for seed in range(chosen.seeds):
        started, scores = time.perf_counter(), {}
        for rule, (policy, margin) in decided(dataset, seed, config).items():
            step = policy.parts[0].edges[0].steps[0]
            key = (step.op, step.magnitude)
            if key not in scores:
                with tempfile.TemporaryDirectory() as folder:
                    scores[key] = trained(policy, chosen.data, seed, Path(folder))
            rows.append({"seed": seed, "rule": rule, "op": step.op, "magnitude": step.magnitude, "margin": margin,
                         "right": step.op == RIGHT[chosen.data], "score": scores[key]})  # fmt: skip
            print(rows[-1], flush=True)
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    print(f"{chosen.data}, {chosen.seeds} seeds, {SPACE}, T = {FRAMES}, right: {RIGHT[chosen.data]}")
    for rule in RULES:
        own = [row for row in rows if row["rule"] == rule]
        scores_of = [row["score"] for row in own]
        spread = statistics.stdev(scores_of) if len(own) > 1 else float("nan")
        print(f"  {rule:20} right {sum(row['right'] for row in own)} of {len(own)}   test accuracy "
              f"{100 * statistics.mean(scores_of):.1f} % (standard deviation {100 * spread:.1f})")  # fmt: skip
    if chosen.out is not None:
        machine = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
        write_whole(chosen.out, json.dumps({"data": chosen.data, "machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
