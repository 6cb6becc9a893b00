"""The table of a segmentation run's predicted maps: one row per test image."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from fieldshift.data import Split
from fieldshift.training.map_quality import MapQuality
from fieldshift.whole_file import whole_file
from fieldshift.wording import printable

MAPS = "maps.csv"


def write_maps(folder: Path, maps: Sequence[MapQuality], split: Split) -> None:
    """Writes `maps.csv` into `folder`: overlap, boundary F-score and extra components, one row per test image.

    With the path of the image, where the split reads files.
    """
    names = getattr(split, "files", None)
    columns = [field.name for field in fields(MapQuality)]
    with whole_file(folder / MAPS) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*columns, *(["file"] if names else [])])
        writer.writeheader()
        writer.writerows(asdict(each) | ({"file": printable(names(each.index)[0])} if names else {}) for each in maps)


def read_maps(folder: Path) -> list[MapQuality]:
    """Reads the `maps.csv` of a folder; an empty list if there is none."""
    file = folder / MAPS
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            MapQuality(
                index=int(row["index"]), overlap=float(row["overlap"]), boundary=float(row["boundary"]),
                extra_components=int(row["extra_components"]),
            )
            for row in csv.DictReader(stream)
        ]  # fmt: skip


def map_means(maps: Sequence[MapQuality]) -> dict[str, float]:
    """The means over images of the boundary F-score and of the extra components; empty without maps."""
    if not maps:
        return {}
    return {
        "boundary_f": sum(each.boundary for each in maps) / len(maps),
        "extra_components": sum(each.extra_components for each in maps) / len(maps),
    }
