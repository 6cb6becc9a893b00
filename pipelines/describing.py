"""What there is: a network in numbers, and the data sets that can be named."""

from __future__ import annotations

from typing import Any

from fieldshift.console import say, table
from fieldshift.errors import UserError, unknown_name


def describe(
    *,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    frames: int = 3,
    task: str = "classification",
    classes: int = 10,
    channels: int = 3,
    size: int = 224,
    ratio: float | None = None,
) -> dict[str, Any]:
    """Says what a video network consists of: parameters, FLOPs, temporal modules, receptive field.

    Args:
        network: network name.
        temporal: temporal module.
        frames: frames of the video.
        task: classification or segmentation.
        classes: number of classes.
        channels: image channels.
        size: height and width of the images in pixels.
        ratio: share of channels that the temporal module uses; by default the module's own.
    """
    from fieldshift.networks import TEMPORAL, describe as describe_network
    from fieldshift.networks import known_networks, video_network

    if frames < 1:
        raise UserError(f"--frames is {frames}, but a video has at least 1 frame.")
    if network not in known_networks(task):
        raise unknown_name("network", network, known_networks(task))
    if temporal not in TEMPORAL:
        raise unknown_name("temporal module", temporal, TEMPORAL)
    built = video_network(
        network, temporal=temporal, frames=frames, num_classes=classes, task=task, in_channels=channels, ratio=ratio
    )
    return describe_network(built, (size, size))


def datasets() -> list[dict[str, Any]]:
    """Lists the data sets that --data knows, and where each is looked for."""
    from rich.table import Table

    from fieldshift.data import catalogue

    rows = catalogue()
    shown = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(str(value) for value in row.values()))
    table(shown)
    say("own data: folder:PATH (one folder a class), npz:PATH (MedMNIST names), voc:PATH (VOC layout with masks)")
    return rows
