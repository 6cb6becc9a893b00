"""Splits of files: decoded once where they fit, ahead of their use, with the same result for any number of threads."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from fieldshift.data import BadFileError, LoadingConfig, TensorSplit, batches, halves, load_dataset
from fieldshift.data.files.reading import Reader
from fieldshift.data.files.streaming import FileStore, StreamedSplit

Draw = Callable[..., Image.Image]


@pytest.fixture
def files(tmp_path: Path, picture: Draw) -> list[str]:
    paths = [tmp_path / f"{number:02}.png" for number in range(23)]
    for number, path in enumerate(paths):
        picture(number, (8, 6)).save(path)
    return [str(path) for path in paths]


def split_of(files: list[str], workers: int = 2, memory: int = 1) -> StreamedSplit:
    reader = Reader(size=(6, 8), channels=3, pixel_limit=10**6, fitting="crop")
    store = FileStore(files, None, reader, workers=workers, memory=memory)
    return StreamedSplit(store, torch.arange(len(files)), torch.arange(len(files)) % 2)


def epoch(
    split: StreamedSplit, number: int = 0, **settings: int
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    return list(batches(split, 5, seed=0, epoch=number, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("memory", [0, 1])
def test_threads_and_memory_change_nothing_but_time(files: list[str], workers: int, memory: int) -> None:
    plain = [split_of(files, workers=0, memory=0).store.reader.image(path) for path in files]
    split = split_of(files, workers, memory)
    for number in range(2):
        seen = []
        for images, targets, indices in epoch(split, number):
            assert torch.equal(images, torch.stack([plain[place] for place in indices]))
            assert torch.equal(targets, indices % 2)
            seen += indices.tolist()
        assert sorted(seen) == list(range(23))
    assert split.store.pending == {}


def test_what_fits_is_decoded_once(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = Reader.image
    monkeypatch.setattr(Reader, "image", lambda self, path: opened.append(path) or read(self, path))
    split = split_of(files)
    assert split.streams
    for number in range(3):
        epoch(split, number)
    assert sorted(opened) == files
    assert not split.streams
    opened.clear()
    thrifty = split_of(files, memory=0)
    for number in range(3):
        epoch(thrifty, number)
    assert len(opened) == 3 * 23
    assert thrifty.streams


def test_decoding_runs_at_most_two_batches_ahead(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    start = FileStore.start
    monkeypatch.setattr(FileStore, "start", lambda self, places: asked.extend(places) or start(self, places))
    stream = batches(split_of(files, memory=0), 5, seed=0, epoch=0)
    next(stream)
    assert len(set(asked)) == 15


def test_halves_share_what_has_been_decoded(files: list[str]) -> None:
    split = split_of(files)
    one, two = (split.subset(part) for part in halves(split, seed=0))
    one.gather(torch.arange(len(one)))
    assert not one.streams
    assert two.streams
    two.gather(torch.arange(len(two)))
    assert not split.streams
    place = int(two.positions[3])
    assert two.files(3) == (files[place], None)
    assert torch.equal(two.gather(torch.tensor([3]))[0][0], split.store.reader.image(files[place]))


def test_repeated_and_no_indices_are_gathered(files: list[str]) -> None:
    split = split_of(files)
    images, targets = split.gather(torch.tensor([4, 4, 1, 4]))
    assert torch.equal(images[0], images[3])
    assert targets.tolist() == [0, 0, 1, 0]
    empty, none = split.gather(torch.empty(0, dtype=torch.int64))
    assert empty.shape == (0, 3, 6, 8)
    assert len(none) == 0


def test_a_small_set_becomes_one_tensor(files: list[str]) -> None:
    split = split_of(files)
    held = split.subset(torch.tensor([3, 8])).to("cpu")
    assert not held.streams
    assert torch.equal(held.gather(torch.arange(2))[0], split.gather(torch.tensor([3, 8]))[0])
    large = split_of(files, memory=0)
    assert large.to("cpu") is large


@pytest.mark.parametrize("workers", [0, 2])
def test_a_split_in_memory_shares_its_pixels_with_the_cache(workers: int, files: list[str]) -> None:
    """Whole or in part, and decoded in several portions."""
    many = files * 30  # more than are decoded at once
    split = split_of(many, workers)
    held, part = split.to("cpu"), split.subset(torch.tensor([600, 2, 25])).to("cpu")
    assert isinstance(held, TensorSplit)
    assert isinstance(part, TensorSplit)
    assert split.store.kept is not None
    assert held.pixels.data_ptr() == part.pixels.data_ptr() == split.store.kept[0].data_ptr()
    for number, found in ((600, part.images[0]), (2, part.images[1]), (25, part.images[2]), (600, held.images[600])):
        assert torch.equal(found, split.store.reader.image(many[number]))
    assert part.targets.tolist() == [number % 2 for number in (600, 2, 25)]
    assert len(pickle.dumps(part)) < 10_000  # its own pixels only
    assert torch.equal(pickle.loads(pickle.dumps(part)).images, part.images)
    assert split.store.pending == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_spoils_during_training_is_named(files: list[str], workers: int) -> None:
    split = split_of(files, workers, memory=0)
    Path(files[7]).write_bytes(b"")
    with pytest.raises(BadFileError, match=r"07.png has 0 bytes"):
        epoch(split)
    # What was decoded beside it is not lost or mixed up.
    images, _ = split.gather(torch.tensor([6, 8]))
    assert torch.equal(images[0], split.store.reader.image(files[6]))


def test_folders_stream_through_ranks(image_folder: Path) -> None:
    made = load_dataset(f"folder:{image_folder}", loading=LoadingConfig(workers=2, memory=0))
    whole = torch.cat([indices for _, _, indices in batches(made.train, 4, seed=0, epoch=0)])
    parts = [list(batches(made.train, 4, seed=0, epoch=0, rank=rank, world=2)) for rank in (0, 1)]
    again = torch.cat([part[number][2] for number in range(2) for part in parts])
    assert torch.equal(whole, again)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers": -1}, "0 or more threads"),
        ({"size": (1, 5)}, "at least 2 pixels"),
        ({"channels": 2}, "1 \\(grey\\), 3"),
        ({"memory": -1}, "0 or more MiB"),
        ({"test_share": 1.0}, "above 0 and below 1"),
        ({"pixel_limit": 0}, "must be 1 to"),
        ({"pixel_limit": 10**9}, "make larger images smaller"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LoadingConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_named_before_it_is_needed(files: list[str], workers: int) -> None:
    split_of(files, workers).subset(torch.arange(4, 20)).ready()
    Path(files[2]).write_bytes(b"not in the part")
    Path(files[17]).write_bytes(b"no image")
    with pytest.raises(BadFileError, match=r"17\.png cannot be decoded"):
        split_of(files, workers).subset(torch.arange(4, 20)).ready()
