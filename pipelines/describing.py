"""What there is: a network in numbers, and the data sets that can be named."""

from __future__ import annotations

from dataclasses import asdict
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
    from fieldshift.networks import TEMPORAL, NetworkConfig, describe_lines, known_networks, video_network
    from fieldshift.networks import describe as describe_network

    if frames < 1:
        raise UserError(f"--frames is {frames}, but a video has at least 1 frame.")
    if network not in known_networks(task):
        raise unknown_name("network", network, known_networks(task))
    if temporal not in TEMPORAL:
        raise unknown_name("temporal module", temporal, TEMPORAL)
    built = video_network(
        network, temporal=temporal, frames=frames, num_classes=classes, task=task, in_channels=channels, ratio=ratio,
        small_images=NetworkConfig().takes_small_images(network, (size, size)),
    )  # fmt: skip
    for line in describe_lines(built, (size, size)):
        say(line)
    return describe_network(built, (size, size))


def datasets(*, root: str | None = None) -> list[dict[str, Any]]:
    """Lists the data sets that --data knows, and where each is looked for.

    Args:
        root: folder that published data sets are looked for in; by default FIELDSHIFT_DATA, else the cache folder.
    """
    from rich.table import Table

    from fieldshift.data import catalogue

    rows = catalogue(root)
    shown = Table("name", "task", "classes", "size", "samples", "present", "licence", box=None, pad_edge=False)
    for row in rows:
        there = "yes" if row.present else "no, can be downloaded" if row.downloads else "no"
        shown.add_row(row.name, row.task, str(row.classes), row.size, row.samples, there, row.licence)
    table(shown)
    for row in rows:
        if not row.present and row.looked_in:
            say(f"{row.name} is looked for in {', '.join(row.looked_in)}")
    say("own data: folder:PATH (one folder a class), npz:PATH (MedMNIST names), voc:PATH (VOC layout with masks)")
    return [asdict(row) for row in rows]
