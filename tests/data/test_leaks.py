"""Test samples that are in train too."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fieldshift.data import inspect_data, load_dataset
from fieldshift.data.leaks import LEAST_CORRELATION, almost_equal, thumbnails


def pictures(count: int, seed: int, side: int = 48) -> torch.Tensor:
    """Smooth coloured pictures, as photographs are, (N, 3, H, W) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    made = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)) for image in coarse]
    return torch.from_numpy(np.stack(made).transpose(0, 3, 1, 2).copy())


def stored_anew(image: torch.Tensor, quality: int, side: int) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).resize((side, side)).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(file)).transpose(2, 0, 1).copy())


def test_copies_that_were_stored_anew_are_paired() -> None:
    train, strangers = pictures(60, 0), pictures(40, 1)
    brighter = (train[7].float() * 0.9 + 20).clamp(0, 255).to(torch.uint8)
    copies = [stored_anew(train[3], 90, 48), stored_anew(train[11], 90, 96), brighter]
    test = torch.cat([thumbnails(strangers), *(thumbnails(copy[None]) for copy in copies)])
    assert almost_equal(thumbnails(train), test) == [(3, 40), (11, 41), (7, 42)]


def test_pairs_are_those_of_every_correlation_worked_out() -> None:
    generator = torch.Generator().manual_seed(0)
    base = pictures(30, 2, 16)
    noise = torch.randn(base.shape, generator=generator) * torch.linspace(0, 12, 30).view(-1, 1, 1, 1)
    noisy = (base + noise).clamp(0, 255).to(torch.uint8)
    train, test = thumbnails(base), thumbnails(noisy)
    table = np.corrcoef(train.numpy(), test.numpy())[:30, 30:]
    expected = [(int(column.argmax()), place) for place, column in enumerate(table.T)
                if column.max() >= LEAST_CORRELATION]  # fmt: skip
    assert 5 < len(expected) < 30
    assert almost_equal(train, test) == expected


def test_images_without_structure_are_left_out() -> None:
    flat = torch.full((3, 1, 20, 20), 90, dtype=torch.uint8)
    assert almost_equal(thumbnails(flat), thumbnails(flat)) == []
    assert almost_equal(thumbnails(flat[:0]), thumbnails(flat)) == []


def test_the_report_names_equal_and_almost_equal_samples(tmp_path: Path) -> None:
    images = pictures(24, 3)
    for place, image in enumerate(images):
        folder = tmp_path / "data" / ("train" if place < 16 else "test") / f"c{place % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{place:02}.png")
    first = tmp_path / "data" / "train" / "c0" / "00.png"
    test = tmp_path / "data" / "test" / "c0"
    (test / "same.png").write_bytes(first.read_bytes())
    Image.open(first).save(test / "anew.jpg", quality=92)
    report = inspect_data(f"folder:{tmp_path / 'data'}")
    assert report.duplicates == ((str(first), str(test / "same.png")),)
    assert report.near == ((str(first), str(test / "anew.jpg")),)
    assert any("almost equal to one in train" in line for line in report.lines())
    assert load_dataset(f"folder:{tmp_path / 'data'}").record()["leaked"] == 1


def test_equal_arrays_are_counted(tmp_path: Path) -> None:
    images = pictures(12, 4, 8).permute(0, 2, 3, 1).numpy()
    labels = np.arange(12) % 3
    np.savez(tmp_path / "a.npz", train_images=images[:9], train_labels=labels[:9], test_images=images[7:],
             test_labels=labels[7:])  # fmt: skip
    assert load_dataset(f"npz:{tmp_path / 'a.npz'}").leaked == 2
