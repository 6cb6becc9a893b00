"""Images and masks of a set of scenes: their locations, and which belong together by name."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from fieldshift.data.files.folder_names import (
    MASK_WORDS,
    PICTURE_WORDS,
    NameIndex,
    core_of,
    is_mask_word,
    is_picture_word,
    name_key,
    role_of,
)
from fieldshift.data.files.formats import without_ending
from fieldshift.data.files.listing import image_files, only, subfolders
from fieldshift.data.own.folder_layout import peek
from fieldshift.data.problems import Findings
from fieldshift.errors import UserError

MASKS = "SegmentationClass"
IMAGES = "JPEGImages"
NOT_IMAGES = tuple(
    name_key(name) for name in (MASKS, "SegmentationObject", "Annotations", "ImageSets", "splits", "lists")
)
# Names of masks relative to their images': first words added to the image's own name, then both without such words.
TIERS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((), MASK_WORDS), ((*PICTURE_WORDS, *MASK_WORDS), (*PICTURE_WORDS, *MASK_WORDS))
)  # fmt: skip


@dataclass(frozen=True)
class SceneFiles:
    """Images by name (the path below their folder, without ending), and the mask of each that has one.

    mask_folder: the name of the folder of masks. alone: masks without an image. renamed: an example of a mask and an image
    whose names differ, if any. unmasked: folders of parts without a folder of masks.
    """

    images: dict[str, str]
    masks: dict[str, str]
    mask_folder: str
    alone: list[str]
    renamed: tuple[str, str] | None
    unmasked: tuple[str, ...] = ()

    @property
    def index(self) -> NameIndex:
        return NameIndex({stem: stem for stem in self.images})

    def words(self) -> str:
        return "" if self.renamed is None else f", named such as {self.renamed[0]} for {self.renamed[1]}"

    def hint(self) -> str:
        """The remedy if no image has a mask."""
        if self.images and self.alone:
            image = Path(next(iter(self.images.values()))).name
            return (f"the names differ: {image} and {Path(self.alone[0]).name}; a mask needs its image's name, or that "
                    "name with _mask, _gt, _label or _seg.")  # fmt: skip
        return f"add some to {IMAGES} and {self.mask_folder}."


def scene_files(root: Path, findings: Findings) -> SceneFiles:
    """The scenes below `root`. Raises UserError where the folder of images or of masks is ambiguous."""
    found = subfolders(root, root, findings, joined=False)
    pair = image_and_mask_folder(root, found)
    unmasked: list[str] = []
    folders = [] if pair is None else [("", *pair)]
    if pair is None:
        for name, paths in found.items():
            role, rest = role_of(name)
            if role is not None and not rest:
                part = only(paths)
                inner = image_and_mask_folder(part, subfolders(part, root, findings, joined=False))
                if inner is None:
                    unmasked.append(name)
                else:
                    folders.append((f"{name}/", *inner))
        if not folders:
            raise UserError(
                f"{root} has no folder {MASKS} with masks; lay it out as {IMAGES}/NAME.jpg, {MASKS}/NAME.png."
            )
    images: dict[str, str] = {}
    masks: dict[str, str] = {}
    for prefix, image_folder, mask_folder in folders:
        images |= {prefix + stem: path for stem, path in by_stem(image_folder, root, findings).items()}
        masks |= {prefix + stem: path for stem, path in by_stem(mask_folder, root, findings).items()}
    paired, renamed = paired_masks(images, masks)
    used = set(paired.values())
    alone = [path for path in masks.values() if path not in used]
    for path in alone:
        findings.note("no image", path, "is a mask that belongs to no image", "give it the name of its image")
    return SceneFiles(images, paired, folders[0][2].name, alone, renamed, tuple(unmasked))


def image_and_mask_folder(root: Path, found: dict[str, list[Path]]) -> tuple[Path, Path] | None:
    """The folders of images and of masks among `found`, None without a folder of masks. Raises UserError for several."""
    by_key = {name_key(name): paths for name, paths in found.items()}
    masks = by_key.get(name_key(MASKS))
    if masks is None:
        candidates = [paths for name, paths in found.items() if is_mask_word(name) and any(map(any_picture, paths))]
        if len(candidates) > 1:
            there = ", ".join(paths[0].name for paths in candidates)
            raise UserError(f"{root} has more than one folder of masks ({there}); rename the right one to {MASKS}.")
        if not candidates:
            return None
        masks = candidates[0]
    if name_key(IMAGES) in by_key:
        return only(by_key[name_key(IMAGES)]), only(masks)
    others = {name: paths for name, paths in found.items() if paths != masks and name_key(name) not in NOT_IMAGES}
    pictures = [paths for name, paths in others.items() if is_picture_word(name)]
    chosen = pictures if len(pictures) == 1 else list(others.values())
    if len(chosen) != 1:
        there = f"the folders {', '.join(others)}" if others else "no image folder"
        raise UserError(f"{root} has {there} beside {masks[0].name}; rename the one with the images to {IMAGES}.")
    return only(chosen[0]), only(masks)


def any_picture(folder: Path) -> bool:
    here = peek([folder])
    return bool(here.pictures) or any(peek([folder / name]).pictures for name in here.folders)


def by_stem(folder: Path, root: Path, findings: Findings) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in image_files(folder, root, findings):
        stem = without_ending(Path(path).relative_to(folder).as_posix())
        if stem in found:
            findings.add("two of a name", path, f"has the name of {found[stem]}", "rename or delete one of them")
        else:
            found[stem] = path
    return found


def paired_masks(images: dict[str, str], masks: dict[str, str]) -> tuple[dict[str, str], tuple[str, str] | None]:
    """The mask of every image that has one, and an example of a pair with different names.

    A mask matches its image's name exactly, else up to case and Unicode form, else up to words for mask
    (s1_mask, gt-s1) or picture; never where two would match.
    """
    index = NameIndex(masks)
    paired = {stem: index[stem] for stem in images if stem in index}
    renamed = None
    for image_words, mask_words in TIERS:
        left = [stem for stem in images if stem not in paired]
        used = set(paired.values())
        free = unique({stem: core(stem, mask_words) for stem, path in masks.items() if path not in used})
        wanted = unique({stem: core(stem, image_words) for stem in left})
        for key, stem in wanted.items():
            if key in free:
                paired[stem] = masks[free[key]]
                renamed = renamed or (Path(masks[free[key]]).name, Path(images[stem]).name)
    return {stem: paired[stem] for stem in images if stem in paired}, renamed


def core(stem: str, words: tuple[str, ...]) -> str:
    folder, _, name = stem.rpartition("/")
    inner = core_of(name, words)
    return f"{name_key(folder)}/{inner}" if inner else ""


def unique(cores: dict[str, str]) -> dict[str, str]:
    owners: dict[str, list[str]] = defaultdict(list)
    for stem, key in cores.items():
        owners[key].append(stem)
    return {key: stems[0] for key, stems in owners.items() if key and len(stems) == 1}
