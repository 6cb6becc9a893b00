"""How long receptive fields take: the theory, the reshaped region, the effective field.

    python benchmarks/receptive_field.py [--full] [--threads 2]

Wall seconds beside the aims: theory of ResNet-152 in 2 s, the reshaped region of a policy of 16
frames in 1 s, the effective field of ResNet-50 at 224 px over 50 images in 60 s on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from record import Record, benchmark_parser

from fieldshift.motions import Policy
from fieldshift.networks import video_network
from fieldshift.receptive_field import effective, feature_extractor, reshaped, theory

SIZE, IMAGES, FULL_IMAGES = 224, 20, 50


def timed(record: Record, repeats: int, name: str, aim: float | None, work: Callable[[], object]) -> None:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    record.row(f"{SIZE} px", name, taken, unit="s", at_most=aim)


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    record = Record("receptive_field", __doc__, vars(chosen))
    measure = partial(timed, record, 5 if chosen.full else 1)

    deep = torchvision.models.resnet152(weights=None)
    measure("theory, ResNet-152, every layer", 2.0, lambda: theory(deep, SIZE))

    frames = 16
    video = video_network("resnet50", temporal="tsm", frames=frames, num_classes=10)
    policy = Policy.chain([("translate_x", 0.4), ("rotate", 30.0)], frames=frames)
    measure(f"theory, ResNet-50 + TSM, T = {frames}", None, lambda: theory(video, SIZE))
    field = feature_extractor(theory(video, SIZE), video.feature_layer)
    measure(f"reshaped region, T = {frames}, from the layer's field", 1.0, lambda: reshaped(policy, field, SIZE))
    measure(f"reshaped region, T = {frames}, without end", None, lambda: reshaped(policy, field, SIZE, clip=False))

    network = torchvision.models.resnet50(weights=None)
    images = FULL_IMAGES if chosen.full else IMAGES
    noise = torch.rand(images, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    measure(
        f"effective field, ResNet-50, {images} images",
        60.0 * images / FULL_IMAGES,
        lambda: effective(network, noise, trained=False),
    )

    tiny = video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=10, in_channels=1)
    small = torch.rand(50, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    three = Policy.single("translate_x", 0.45, frames=3)
    measure(
        "effective field, tiny-resnet + TSM, T = 3, 40 px, 50 images",
        None,
        lambda: effective(tiny, small, trained=False, policy=three),
    )
    record.finish()


if __name__ == "__main__":
    main()
