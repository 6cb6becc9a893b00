"""Measures the inference speed of a network: images per second, fused over all frames."""

from __future__ import annotations

import time

import torch

from fieldshift.networks.video import VideoNetwork

SECONDS = 2.0
FEWEST, MOST = 3, 50


def images_per_second(network: VideoNetwork, size: tuple[int, int], *, batch: int = 1) -> float:
    """Images per second of the network in evaluation mode on its device, with fused output, on random pixels.

    `size` is (H, W) in pixels; an image counts with all its T frames. The median of 3 to 50 passes over `batch` images, for
    about two seconds after an uncounted first pass; computing the frames is not included. Uses torch's current threads.
    """
    first = next(network.parameters())
    channels = network.image_channels
    video = torch.rand(batch, network.frames, channels, *size, device=first.device, dtype=first.dtype)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    taken: list[float] = []
    try:
        with torch.no_grad():
            while len(taken) <= FEWEST or (sum(taken[1:]) < SECONDS and len(taken) <= MOST):
                started = time.perf_counter()
                network.fuse(network(video))
                if first.device.type == "cuda":
                    torch.cuda.synchronize(first.device)
                taken.append(time.perf_counter() - started)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return batch / float(torch.tensor(taken[1:]).median())
