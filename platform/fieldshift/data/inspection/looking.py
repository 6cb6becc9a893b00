"""Decodes samples and collects their contribution to a data set's report."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from fieldshift.data.dataset import grey_levels
from fieldshift.data.files.headers import conversions
from fieldshift.data.files.listing import Listing
from fieldshift.data.files.reading import Reader, as_tensor, load_upright
from fieldshift.data.leaks import Thumbnails, hashed, thumbnails
from fieldshift.data.problems import BadFileError, Findings, Problem
from fieldshift.data.split import TensorSplit

BLOCK = 512


@dataclass(kw_only=True)
class PartLook:
    """The contents of one part (train or test) of a data set.

    samples: for each usable one, a hash of its pixels and its name; labels: its class (0 for segmentation). thumbs: their
    thumbnails. amounts: samples per class (K,), for segmentation pixels per mask value (256,). levels: (C, 256) counts
    of grey values, as a network sees the images. sizes: number of images stored with each (H, W). total: number of
    samples; looked_at: number decoded or found unusable.
    """

    amounts: Int64[Tensor, " labels"]
    levels: Int64[Tensor, "channels 256"]
    total: int
    looked_at: int
    samples: list[tuple[bytes, str]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    thumbs: list[Thumbnails] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)


@dataclass(frozen=True)
class FileLook:
    pixels: bytes
    size: tuple[int, int]
    levels: Int64[Tensor, "channels 256"]
    thumb: Thumbnails
    labels: Int64[Tensor, " 256"] | None
    notes: tuple[Problem, ...]


def look_at_files(
    listing: Listing, reader: Reader, classes: int, workers: int, findings: Findings, *, limit: int | None
) -> PartLook:
    """Decodes all (or the first `limit`) samples of `listing` with `workers` threads; problems go to `findings`."""
    count = len(listing) if limit is None else min(limit, len(listing))
    part = PartLook(
        amounts=torch.zeros(classes if listing.masks is None else 256, dtype=torch.int64),
        levels=torch.zeros(reader.channels, 256, dtype=torch.int64),
        total=len(listing),
        looked_at=count,
    )
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="fieldshift-inspect") as pool:
        # In blocks, since images decoded ahead wait in memory.
        for start in range(0, count, BLOCK):
            block = range(start, min(start + BLOCK, count))
            for place, look in zip(
                block, pool.map(lambda place: look_at_file(listing, place, reader), block), strict=True
            ):
                if isinstance(look, Problem):
                    findings.keep(look)
                    continue
                findings.notes.extend(look.notes)
                part.samples.append((look.pixels, listing.images[place]))
                part.labels.append(listing.targets[place])
                part.thumbs.append(look.thumb)
                part.sizes[look.size] += 1
                part.levels += look.levels
                if look.labels is None:
                    part.amounts[listing.targets[place]] += 1
                else:
                    part.amounts += look.labels
    return part


def look_at_file(listing: Listing, place: int, reader: Reader) -> FileLook | Problem:
    path = listing.images[place]
    try:
        notes = conversions(path, reader)
        if listing.masks is None:
            image, mask = load_upright(path, reader.channels, reader.pixel_limit), None
        else:
            image, mask = reader.whole_scene(path, listing.masks[place])
    except BadFileError as error:
        return error.problem
    seen = as_tensor(reader.fitted(image, Image.Resampling.BILINEAR, 0))
    labels = None if mask is None else torch.bincount(as_tensor(mask).flatten(), minlength=256)
    pixels = hashed(f"{image.mode}{image.size}".encode() + image.tobytes())
    return FileLook(
        pixels, image.size[::-1], grey_levels(seen[None]), thumbnails(as_tensor(image)[None]), labels, notes
    )


def look_at_arrays(name: str, split: TensorSplit, classes: int, *, limit: int | None) -> PartLook:
    """Collects all (or the first `limit`) samples of a split held as one tensor."""
    images, targets = split.images[:limit].cpu(), split.targets[:limit].cpu()
    if split.masks is None:
        amounts = torch.bincount(targets, minlength=classes)
    else:
        amounts = torch.bincount(split.masks[:limit].cpu().flatten(), minlength=256)
    return PartLook(
        amounts=amounts,
        levels=grey_levels(images),
        total=len(split),
        looked_at=len(images),
        samples=[(hashed(image.tobytes()), f"{name}[{place}]") for place, image in enumerate(images.numpy())],
        labels=targets.tolist() if split.masks is None else [0] * len(images),
        thumbs=[thumbnails(images)],
        sizes=Counter({(images.shape[2], images.shape[3]): len(images)}),
    )
