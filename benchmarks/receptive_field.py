"""How long receptive fields take: the theory, the reshaped region, the effective field.

    python benchmarks/receptive_field.py [--images 50] [--threads 2] [--quick]

Prints wall and processor seconds beside the aims: theory of ResNet-152 in 2 s, the reshaped region of a policy of 16
frames in 1 s, the effective field of ResNet-50 at 224 px over 50 images in 60 s on two cores. --quick measures the
effective field over 4 images and says so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torchvision
from peak_memory import state_peak

from fieldshift.motions import Policy
from fieldshift.networks import video_network
from fieldshift.receptive_field import effective, feature_extractor, reshaped, theory

SIZE = 224


def timed(name: str, aim: float | None, work: Callable[[], object]) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    against = "" if aim is None else f"   aim {aim:g} s"
    print(f"{name:<64} {wall:7.2f} s wall {processor:7.2f} s processor{against}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = 4 if arguments.quick else arguments.images

    deep = torchvision.models.resnet152(weights=None)
    timed("theory, ResNet-152, every layer", 2.0, lambda: theory(deep, SIZE))

    frames = 16
    video = video_network("resnet50", temporal="tsm", frames=frames, num_classes=10)
    policy = Policy.chain([("translate_x", 0.4), ("rotate", 30.0)], frames=frames)
    timed(f"theory, ResNet-50 + TSM, T = {frames}", None, lambda: theory(video, SIZE))
    field = feature_extractor(theory(video, SIZE), video.feature_layer)
    timed(f"reshaped region, T = {frames}, from the layer's field", 1.0, lambda: reshaped(policy, field, SIZE))
    timed(f"reshaped region, T = {frames}, without end", None, lambda: reshaped(policy, field, SIZE, clip=False))

    network = torchvision.models.resnet50(weights=None)
    noise = torch.rand(images, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    aim = 60.0 if images == 50 else None
    timed(
        f"effective field, ResNet-50, {SIZE} px, {images} images", aim, lambda: effective(network, noise, trained=False)
    )

    tiny = video_network("tiny-resnet", temporal="tsm", frames=3, num_classes=10, in_channels=1)
    small = torch.rand(50, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    three = Policy.single("translate_x", 0.45, frames=3)
    timed(
        "effective field, tiny-resnet + TSM, T = 3, 40 px, 50 images",
        None,
        lambda: effective(tiny, small, trained=False, policy=three),
    )
    state_peak()


if __name__ == "__main__":
    main()
