"""The loss curves of bf16, channels_last and, with --full, torch.compile beside the plain path's and the spread of its seeds.

    python benchmarks/precision.py [--full] [--epochs 4] [--temporal gsf] [--json]

Trains tiny-resnet on 64 small scenes, T = 3, once for each path with the same seed, and the plain path with three seeds.
A path is the plain one within noise where no epoch's loss is further from the plain curve than three seeds are from one
another. Seconds are those of all epochs, compilation included.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

import torch
from record import Record, benchmark_parser

from fieldshift.data import TensorSplit
from fieldshift.motions import Policy
from fieldshift.networks import TEMPORAL, video_network
from fieldshift.training import FramePlan, Recipe, objective_for, train_network

SEEDS = 3
CLASSES, SIDE, SAMPLES, FRAMES = 3, 16, 64, 3


def scenes() -> TensorSplit:
    """Noise with a brighter square whose place is the class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 120, (SAMPLES, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    targets = torch.arange(SAMPLES) % CLASSES
    for index, target in enumerate(targets.tolist()):
        images[index, 0, 5:10, 5 * target : 5 * target + 4] += 90
    return TensorSplit(images, targets)


def curve(recipe: Recipe, temporal: str, seed: int, device: torch.device) -> list[float]:
    """The training loss of every epoch."""
    torch.manual_seed(seed)
    network = video_network("tiny-resnet", temporal=temporal, frames=FRAMES, num_classes=CLASSES, in_channels=1)
    plan = FramePlan(policy=Policy.single("translate_x", 0.3, frames=FRAMES), mean=(0.3,), std=(0.2,))
    objective = objective_for("classification", CLASSES)
    done = train_network(
        network, scenes(), plan=plan, recipe=recipe, objective=objective, seed=seed, device=device
    )  # fmt: skip
    return [row["train/loss"] for row in done.history]


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--temporal", choices=[name for name in TEMPORAL if name != "none"], default="gsf")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    plain = Recipe(epochs=options.epochs, batch=16, learning_rate=5e-3, channels_last=False)
    paths = {
        "plain": plain,
        "plain again": plain,  # the first path also pays for what is set up once
        "channels_last": replace(plain, channels_last=True),
        "bf16": replace(plain, precision="bf16"),
    }
    if options.full or options.json:
        paths["compile"] = replace(plain, compile=True)  # compiling takes longer than all other paths together
    record = None if options.json else Record("precision", __doc__, vars(options))
    curves, seconds = {}, {}
    for name, recipe in paths.items():
        started = time.perf_counter()
        curves[name] = curve(recipe, options.temporal, 0, device)
        seconds[name] = time.perf_counter() - started
    seeds = [curves["plain"], *(curve(plain, options.temporal, seed, device) for seed in range(1, SEEDS))]
    noise = [max(losses) - min(losses) for losses in zip(*seeds, strict=True)]
    if record is None:
        print(json.dumps({"curves": curves, "noise": noise}))
        return
    table = f"tiny-resnet, {options.temporal}, T = {FRAMES}, {options.epochs} epochs, {device}"
    for name in paths:
        if not name.startswith("plain"):
            distance = [abs(mine - theirs) for mine, theirs in zip(curves[name], curves["plain"], strict=True)]
            case = f"{name}: farthest from the plain loss"
            record.row(table, case, distance, unit="", peer="spread of the seeds", theirs=noise, at_most=1.0)
            record.row(
                table,
                f"{name}: training",
                [seconds[name]],
                unit="s",
                peer="plain again",
                theirs=[seconds["plain again"]],
            )
    record.finish()


if __name__ == "__main__":
    main()
