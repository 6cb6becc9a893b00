"""Own scenes with masks in the folder layout of Pascal VOC, or with folders of images and of masks: `voc:PATH`."""

from __future__ import annotations

from pathlib import Path

import torch

from fieldshift.data.collection import FileCollection
from fieldshift.data.files.class_files import class_table
from fieldshift.data.files.folder_names import NameIndex, name_key, role_of
from fieldshift.data.files.formats import without_ending
from fieldshift.data.files.listing import Listing, only
from fieldshift.data.files.mask_decoding import RunMasks
from fieldshift.data.loading import LoadingConfig
from fieldshift.data.names import existing_folder
from fieldshift.data.own.mask_census import census
from fieldshift.data.own.scene_files import SceneFiles, scene_files
from fieldshift.data.own.scene_lists import Parts, listed_parts
from fieldshift.data.partition import stratified
from fieldshift.data.problems import Findings
from fieldshift.errors import UserError


def scene_collection(
    path: str, loading: LoadingConfig, findings: Findings, *, seed: int, of_run: RunMasks | None = None
) -> FileCollection:
    """Collects scenes of `JPEGImages` (or the single other image folder) and their masks in `SegmentationClass`.

    Lists (ImageSets/Segmentation/train.txt, trainval.txt, val.txt, test.txt) or folders of these names define the parts;
    with both val and test, the test scenes are used. Without them a seeded share (loading.test_share) of the scenes with
    masks is held out. Mask contents and class names: docs/own-data.md; `of_run`: what they mean for an earlier run. Raises
    UserError for ambiguous layouts, and for problems that would make a score meaningless (`ACCEPTABLE`).
    """
    root = existing_folder(path, "data")
    files = scene_files(root, findings)
    parts = listed_parts(root, loading, findings) or foldered_parts(root, files, loading, findings)
    if parts is None:
        every = sorted(files.masks)
        for stem in sorted(set(files.images) - set(files.masks)):
            findings.note(
                "no mask",
                files.images[stem],
                f"has no mask in {files.mask_folder}",
                "add one if the image should be used",
            )
        parts = Parts(every, None, "")
    check_tested(parts, files, root)
    found = {"train": matched(parts.train, files, root, findings)}
    drawn = ""
    if parts.test is None:
        whole = found["train"]
        kept, held = stratified(torch.zeros(len(whole), dtype=torch.int64), 1 - loading.test_share, seed)
        found = {"train": whole.kept(kept.tolist()), "test": whole.kept(held.tolist())}
        listed = f"{parts.protocol}; " if parts.protocol else "no list or folder of parts; "
        drawn = f"a share of {loading.test_share} held out to test on, seed {seed}"
        protocol = f"{listed}{drawn}"
    else:
        found["test"], protocol = matched(parts.test, files, root, findings), parts.protocol
        found["train"] = apart(found["train"], found["test"], findings)
    for part, listing in found.items():
        if not len(listing):
            raise UserError(f"{root} has no scene with a mask to {part} on; {files.hint()}")
    counted = census(found, root, class_table(root), loading, findings, of_run=of_run, drawn=bool(drawn))
    return FileCollection(
        name=f"voc:{path}",
        task="segmentation",
        classes=counted.decoding.classes,
        train=counted.parts["train"],
        test=counted.parts["test"],
        protocol=f"{protocol}; masks: {counted.decoding.words}{files.words()}",
        masks=counted.decoding.table,
        meaning=counted.decoding.meaning,
        is_own=True,
        drawn=drawn,
    )


def foldered_parts(root: Path, files: SceneFiles, loading: LoadingConfig, findings: Findings) -> Parts | None:
    """The parts given by the folders of the scenes (train/..., val/...), None if they are not parts."""
    tops: dict[str, list[str]] = {}
    for stem in sorted(files.images):
        tops.setdefault(stem.partition("/")[0] if "/" in stem else "", []).append(stem)
    roles = {top: role_of(top) for top in (*tops, *files.unmasked)}
    by_role = {role: [top for top in roles if roles[top] == (role, "")] for role in ("train", "test", "val")}
    by_key: dict[str, list[Path]] = {}
    for top in filter(None, tops):
        by_key.setdefault(name_key(top), []).append(root / top)
    named_parts = {
        option: [only(by_key.get(name_key(str(name)), [Path()])).name for name in getattr(loading, option) or ()]
        for option in ("train_parts", "test_parts")
    }
    for option, found in named_parts.items():
        if "" in found:
            given = next(name for name, top in zip(getattr(loading, option), found, strict=True) if not top)
            raise UserError(f"loading.{option} names '{given}', but {root} has no lists, and its folders of scenes are "
                            f"{', '.join(filter(None, tops)) or 'none'}; leave it out, or name one.")  # fmt: skip
    for role, found in by_role.items():
        if len(found) > 1 and not any(named_parts.values()):
            raise UserError(f"{root} has more than one folder named after its {role} part ({', '.join(found)}); name the parts "
                            "with --loading.train_parts and --loading.test_parts.")  # fmt: skip
    train = named_parts["train_parts"] or [top for top in by_role["train"] if top not in named_parts["test_parts"]][:1]
    if not train:
        if tested := [*by_role["test"], *by_role["val"], *named_parts["test_parts"]]:
            raise UserError(f"{root} has no folder train beside {', '.join(tested)}; add it, or name the folders to learn "
                            "from in --loading.train_parts.")  # fmt: skip
        return None
    held_out = named_parts["test_parts"] or [top for top in (*by_role["test"], *by_role["val"]) if top not in train][:1]
    for top in sorted({*tops, *files.unmasked} - {*train, *held_out}):
        findings.note("not used", root / top if top else root, "holds scenes that are in no part that is used",
                      "move them elsewhere, or into a part")  # fmt: skip
    learned = [stem for top in train for stem in tops.get(top, [])]
    if not held_out:
        return Parts(learned, None, f"{shown(train)} alone")
    tested = [stem for top in held_out for stem in tops.get(top, [])]
    return Parts(learned, tested, f"trained on {shown(train)}, tested on {shown(held_out)}")


def shown(tops: list[str]) -> str:
    return " and ".join(f"{top}/" for top in tops)


def check_tested(parts: Parts, files: SceneFiles, root: Path) -> None:
    """Raises UserError if no test scene has a mask, as in competitions."""
    if parts.test is None or not parts.protocol:
        return
    index = files.index
    if not any(scene_named(name, index) in files.masks for name in parts.test):
        raise UserError(f"{root} ({parts.protocol}) has no mask for any scene to test on, so nothing can be scored; give "
                        "--loading.test_parts with the name of a part that has masks (such as val), or remove that part to "
                        "hold out a share of the scenes.")  # fmt: skip


def scene_named(name: str, index: NameIndex) -> str | None:
    """The scene named by a line of a list: its name, or a path to its image, with or without ending."""
    for tried in (name, without_ending(name), without_ending(name.rpartition("/")[2])):
        if tried in index:
            return index[tried]
    return None


def matched(names: list[str], files: SceneFiles, root: Path, findings: Findings) -> Listing:
    listing = Listing([], [], [])
    assert listing.masks is not None
    index = files.index
    for name in names:
        stem = scene_named(name, index)
        if stem is None:
            findings.add("missing file", root / name, "is listed but has no image", "add it or remove it from the list")
        elif stem not in files.masks:
            findings.add("missing mask", files.images[stem], f"has no mask in {files.mask_folder}",
                         "add it or remove it from the list")  # fmt: skip
        else:
            listing.images.append(files.images[stem])
            listing.masks.append(files.masks[stem])
            listing.targets.append(0)
    return listing


def apart(train: Listing, test: Listing, findings: Findings) -> Listing:
    """`train` without the test scenes."""
    tested = set(test.images)
    for image in train.images:
        if image in tested:
            findings.add("in both parts", image, "is listed for both training and test", "remove it from one list")
    return train.kept([place for place, image in enumerate(train.images) if image not in tested])
