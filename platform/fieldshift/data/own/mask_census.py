"""The contents of all masks of a set, read once and cached: how to decode them, and their problems."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldshift.data.cache import cached_arrays
from fieldshift.data.files.class_files import ClassTable
from fieldshift.data.files.content import FileContents
from fieldshift.data.files.listing import Listing
from fieldshift.data.files.mask_decoding import Decoding, RunMasks, decode, listed
from fieldshift.data.files.mask_files import COLOUR, PALETTE, PALETTE_COLOURS, StoredMask
from fieldshift.data.files.mask_palettes import IGNORED_NUMBER, classes_are_colours, colour_of
from fieldshift.data.files.reading import load_scene_mask, reading_digest, unknown_labels
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.problems import UNTESTED, BadFileError, Findings, Problem
from fieldshift.data.samples import names_below
from fieldshift.data.split import IGNORE
from fieldshift.errors import UserError

MOST_CODES = 1024
MOST_IGNORED = 0.5


@dataclass(frozen=True)
class MaskLook:
    """One mask: its storage, the pixels of each code, whether it was turned with its image, or its problem.

    palette: of a palette mask, the packed colour of each number that it contains.
    """

    storage: str
    codes: Counter[int]
    is_turned: bool
    palette: dict[int, int]
    problem: Problem | None = None

    def by_colours(self, of_classes: Mapping[int, int]) -> MaskLook:
        """The same, with the colours as codes if it is a palette mask."""
        if self.storage != PALETTE:
            return self
        codes: Counter[int] = Counter()
        for number, pixels in self.codes.items():
            codes[colour_of(number, self.palette[number], of_classes)] += pixels
        return replace(self, storage=PALETTE_COLOURS, codes=codes)


@dataclass(frozen=True)
class Census:
    """The usable scenes of each part, and how their masks are decoded."""

    parts: dict[str, Listing]
    decoding: Decoding


def census(
    parts: dict[str, Listing],
    root: Path,
    named: ClassTable | None,
    loading: LoadingConfig,
    findings: Findings,
    *,
    of_run: RunMasks | None = None,
    drawn: bool = False,
) -> Census:
    """Reads every mask of the parts "train" and "test". Unusable ones go to `findings`: they stop the run or are left out.

    of_run: the meaning that the masks of a run had, which is kept unless the class file has another; of the run's own data with
    a drawn test part, new scenes that it has no meaning for are left out. Raises UserError where decoding the masks would be
    a guess, and for problems that make scores meaningless.
    """
    file, of_run = named, of_run if of_run is not None and of_run.holds(named) else None
    if of_run is not None:
        named = of_run.named(named, root)
    looks = {part: looks_at(listing, loading) for part, listing in parts.items()}
    usable: dict[str, list[int]] = {}
    for part, found in looks.items():
        for look in found:
            if look.problem is not None:
                findings.keep(look.problem)
        usable[part] = [place for place, look in enumerate(found) if look.problem is None]
        require(usable[part], part, root, findings)
    used = used_colours(parts, looks, usable)
    if classes_are_colours(used, named, str(root)):
        of_classes = (named and named.colours) or {}
        looks = {part: [look.by_colours(of_classes) for look in found] for part, found in looks.items()}
    seen: dict[str, Counter[int]] = {}
    for part, place in places(usable):
        look = looks[part][place]
        seen.setdefault(look.storage, Counter()).update(look.codes)
        if look.is_turned:
            masks = parts[part].masks or []
            findings.note(
                "turned mask",
                masks[place],
                "is turned like its image (EXIF)",
                "no action needed if intended",
            )
    decoding = decode(seen, named, str(root), of_run)
    if of_run is not None:
        note_other_meaning(decoding, seen, file, root, findings)
        note_new_numbers(of_run, decoding, seen, root, findings)
        decoding = replace(decoding, words=f"{decoding.words} (as in the training)")
    known = of_run.scenes if of_run is not None and drawn else None
    decoding = without_unnamed(decoding, parts, looks, usable, root, findings, known=known)
    check_amounts(pixels_of(decoding, looks, usable), decoding.classes, str(root), None if named is None else named.path,
                  ignored_codes(decoding), findings, trains=of_run is None)  # fmt: skip
    return Census({part: parts[part].kept(usable[part]) for part in parts}, decoding)


def note_other_meaning(
    decoding: Decoding, seen: Mapping[str, Counter[int]], named: ClassTable | None, root: Path, findings: Findings
) -> None:
    """Notes it where the masks by themselves would have another meaning than in the training."""
    try:
        alone = decode(seen, named, str(root))
    except UserError:
        return
    for storage, counts in seen.items():
        ours, theirs = (dict(dict(each.table.pairs).get(storage, ())) for each in (decoding, alone))
        if any(ours.get(code) != theirs.get(code) for code in counts):
            findings.note("mask numbers", root, f"has masks that are read as in the training ({decoding.words}), not as they "
                          f"would be by themselves ({alone.words})", "write labels.csv (name,value) if they mean something "
                          "else")  # fmt: skip
            return


def note_new_numbers(
    of_run: RunMasks, decoding: Decoding, seen: Mapping[str, Counter[int]], root: Path, findings: Findings
) -> None:
    for storage, found in decoding.meaning.pairs:  # in which greys that are colours are not
        if storage != COLOUR and (words := of_run.new_classes(found, seen.get(storage, ()))):
            findings.note("new mask numbers", root, f"has masks with {words}, in {storage}: {decoding.words}",
                          "write labels.csv (name,value) if they mean something else")  # fmt: skip


def used_colours(
    parts: dict[str, Listing], looks: dict[str, list[MaskLook]], usable: dict[str, list[int]]
) -> dict[tuple[int, int], str]:
    """The numbers and colours that the usable palette masks contain, with the first file of each."""
    used: dict[tuple[int, int], str] = {}
    for part, place in places(usable):
        masks = parts[part].masks or []
        for entry in looks[part][place].palette.items():
            used.setdefault(entry, masks[place])
    return used


def places(usable: dict[str, list[int]]) -> Iterator[tuple[str, int]]:
    return ((part, place) for part, found in usable.items() for place in found)


def require(found: list[int], part: str, root: Path, findings: Findings) -> None:
    if not found:
        why = f" ({findings.problems[0].path} {findings.problems[0].what})" if findings.problems else ""
        raise UserError(f"{root} has no usable scene with a mask to {part} on{why}; add or correct some.")


def without_unnamed(
    decoding: Decoding,
    parts: dict[str, Listing],
    looks: dict[str, list[MaskLook]],
    usable: dict[str, list[int]],
    root: Path,
    findings: Findings,
    *,
    known: frozenset[str] | None,
) -> Decoding:
    """Handles codes without a class: accepted ones are ignored, else their scenes are left out, or the run stops.

    known: the scenes of an earlier run; others, which it does not use, are left out.
    """
    classes = {storage: {code for code, _ in pairs} for storage, pairs in decoding.table.pairs}

    def wrong_at(part: str, place: int) -> Problem | None:
        look, path = looks[part][place], (parts[part].masks or [])[place]
        codes = sorted(set(look.codes) - classes.get(look.storage, set()))
        return unknown_labels(path, codes, look.storage).problem if codes else None

    strange = {(part, place): wrong for part, place in places(usable) if (wrong := wrong_at(part, place)) is not None}
    if "unnamed-label" not in findings.accepted:
        left_out = {
            at for at in strange if findings.skip or (known is not None and name_at(parts, root, *at) not in known)
        }
        for at in sorted(left_out):
            wrong = strange.pop(at)
            if findings.skip:
                findings.keep(wrong)
            else:
                findings.note(wrong.kind, wrong.path, f"{wrong.what}, and is left out", wrong.remedy)
        for part, found in usable.items():
            found[:] = [place for place in found if (part, place) not in left_out]
            require(found, part, root, findings)
    if not strange:
        return decoding
    problem = next(iter(strange.values()))
    count = f" (so do {len(strange) - 1} more of {sum(map(len, usable.values()))})" if len(strange) > 1 else ""
    findings.stop("unnamed-label", problem.path, problem.what + count,
                  f"{problem.remedy}, or leave such scenes out with --loading.skip_unreadable")  # fmt: skip
    return replace(decoding, table=replace(decoding.table, others=IGNORE))


def name_at(parts: dict[str, Listing], root: Path, part: str, place: int) -> str:
    """The name of a scene as a run records it."""
    return names_below(str(root), [parts[part].images[place]])[0]


def pixels_of(
    decoding: Decoding, looks: dict[str, list[MaskLook]], usable: dict[str, list[int]]
) -> dict[str, NDArray[np.int64]]:
    """The pixels of each label (256,) in each part."""
    pixels = {part: np.zeros(256, dtype=np.int64) for part in usable}
    pairs = {storage: dict(found) for storage, found in decoding.table.pairs}
    for part, place in places(usable):
        look = looks[part][place]
        for code, count in look.codes.items():
            pixels[part][pairs[look.storage].get(code, IGNORE)] += count
    return pixels


def check_amounts(
    pixels: dict[str, NDArray[np.int64]],
    names: tuple[str, ...],
    where: str,
    named: Path | None,
    ignored: list[int],
    findings: Findings,
    *,
    trains: bool,
) -> None:
    """Reports classes without pixels and parts that are mostly ignored.

    named: the file that names the classes. trains: whether a network is to learn the classes from these masks.
    """
    absent = [name for label, name in enumerate(names) if trains and not pixels["train"][label]]
    if absent and named is None:
        findings.stop("empty-class", where, f"has no training mask of class number {listed(absent)}",
                      "number the classes from 0 without gaps, or name them in classes.txt")  # fmt: skip
    elif absent:
        findings.stop("empty-class", named, f"names {listed(absent)}, of which no training mask has a pixel",
                      "add a scene that has some, or remove the name (and renumber masks that hold class numbers)")  # fmt: skip
    untested = [name for label, name in enumerate(names) if name not in absent and not pixels["test"][label]]
    if untested:
        findings.note(UNTESTED, where, f"has no test mask with {listed(untested)}",
                      "add some, or its score is meaningless")  # fmt: skip
    for part, amounts in pixels.items():
        share = float(amounts[IGNORE] / max(1, amounts.sum()))
        if share > MOST_IGNORED:
            findings.stop("ignored-pixels", where, f"ignores {100 * share:.0f} % of the pixels of its {part} masks",
                          f"check what {listed(ignored) or 'a value without a class'} means in the masks")  # fmt: skip


def ignored_codes(decoding: Decoding) -> list[int]:
    codes = {code for _, found in decoding.table.pairs for code, label in found if label == IGNORE}
    return sorted({IGNORE if code == IGNORED_NUMBER else code for code in codes})


def looks_at(listing: Listing, loading: LoadingConfig) -> list[MaskLook]:
    """Reads every mask of the listing; cached as long as no file of it changes."""
    masks = listing.masks or []
    pairs = list(zip(listing.images, masks, strict=True))
    files = [path for pair in pairs for path in pair]
    state = list(zip(files, FileContents(loading.workers).of(files), strict=True))

    def look() -> dict[str, NDArray[np.generic]]:
        with ThreadPoolExecutor(max(1, loading.workers), thread_name_prefix="fieldshift-masks") as pool:
            rows = list(pool.map(lambda pair: look_at(pair[0], pair[1], loading.pixel_limit), pairs))
        return {"rows": np.frombuffer(json.dumps(rows).encode("utf-8", "surrogatepass"), dtype=np.uint8)}

    stored = cached_arrays(f"masks-{reading_digest(loading.pixel_limit, state)}", look)["rows"]
    return [
        MaskLook(storage, Counter({int(code): count for code, count in codes.items()}), turned,
                 {int(number): colour for number, colour in palette.items()},
                 None if problem is None else Problem(*problem))
        for storage, codes, turned, palette, problem in json.loads(stored.tobytes().decode("utf-8", "surrogatepass"))
    ]  # fmt: skip


Row = tuple[str, dict[str, int], bool, dict[str, int], list[str] | None]


def look_at(image: str, mask: str, pixel_limit: int) -> Row:
    try:
        stored, turned = load_scene_mask(image, mask, pixel_limit)
    except BadFileError as error:
        found = error.problem
        return "", {}, False, {}, [found.kind, found.path, found.what, found.remedy]
    counts = code_counts(stored)
    palette = {str(number): stored.palette[number] for number in counts} if stored.storage == PALETTE else {}
    return stored.storage, {str(code): count for code, count in counts.items()}, turned, palette, None


def code_counts(mask: StoredMask) -> dict[int, int]:
    """The pixels of each code; in a mask with very many colours all but the most frequent are counted as the code -1."""
    if mask.codes.dtype == np.uint8:
        amounts = np.bincount(mask.codes.reshape(-1), minlength=256)
        return {code: int(amounts[code]) for code in np.flatnonzero(amounts).tolist()}
    codes, counts = np.unique(mask.codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    kept = {int(codes[place]): int(counts[place]) for place in order[:MOST_CODES]}
    rest = int(counts[order[MOST_CODES:]].sum())
    return {**kept, -1: rest} if rest else kept
