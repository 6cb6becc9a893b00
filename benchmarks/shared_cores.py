"""What does a training cost a second one on the same cores, with OpenMP threads that soon sleep or long spin while they wait?

    python benchmarks/shared_cores.py [--full] [--batch 64]

Trains tiny-resnet on noise in new processes, each with as many threads as there are cores: one by itself, and two at once. The
threads wait as in a command of FieldShift, which sets GOMP_SPINCOUNT=1000 where nothing is set, and as torch's OpenMP library
lets them wait by itself: they spin longer, and may take the cores from the threads that they wait for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch
from record import Record, benchmark_parser

from fieldshift.networks import video_network

SECONDS, WARM_UP = 1.0, 2
SLEEPING: dict[str, str] = {"GOMP_SPINCOUNT": "1000"}
SPINNING: dict[str, str] = {}
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
"""Variables of the caller that would decide how threads wait, or how many there are."""


def milliseconds_per_step(batch: int) -> float:
    """Trains for some seconds, in this process."""
    torch.manual_seed(0)
    network = video_network("tiny-resnet", temporal="none", frames=1, num_classes=10, in_channels=1)
    optimizer = torch.optim.AdamW(network.parameters())
    images, targets = torch.rand(batch, 1, 1, 40, 40), torch.randint(10, (batch,))
    done, began = -WARM_UP, 0.0
    while done <= 0 or time.perf_counter() - began < SECONDS:
        if done == 0:
            began = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images)[:, 0], targets).backward()
        optimizer.step()
        done += 1
    return 1e3 * (time.perf_counter() - began) / done


def measured(batch: int, processes: int, waiting: dict[str, str]) -> float:
    """Milliseconds per step of the slowest of so many processes at once."""
    variables = {name: value for name, value in os.environ.items() if name not in VARIABLES} | waiting
    command = [sys.executable, __file__, "--batch", str(batch), "--one"]
    started = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    found = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit("A training of this benchmark ended with an error.")
    return max(map(float, found))


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--one", action="store_true", help="train in this process, and print the milliseconds per step")
    options = parser.parse_args()
    if options.one:
        print(milliseconds_per_step(options.batch))
        return
    record = Record("shared_cores", __doc__, vars(options))
    table = f"tiny-resnet, {options.batch} images of 40 x 40, a thread per core in each process"
    for case, processes, goals in (("one training", 1, {}), ("two at once", 2, {"at_most": 1.0})):
        pairs = [
            (measured(options.batch, processes, SLEEPING), measured(options.batch, processes, SPINNING))
            for _ in range(5 if options.full else 1)
        ]
        ours, theirs = zip(*pairs, strict=True)
        record.row(table, f"{case}, a step", ours, unit="ms", peer="threads that spin long", theirs=theirs, **goals)
    record.finish()


if __name__ == "__main__":
    main()
