"""Effective fields of several networks on the same images: measured, tabulated, drawn and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import progress, say
from fieldshift.data import DataSet
from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy
from fieldshift.receptive_field import (
    EffectiveField,
    LayerField,
    Measures,
    Reshaped,
    check_comparable,
    effective,
    measures,
    theory,
)
from fieldshift.receptive_field.effective import region_of
from pipelines.field_records import field_key, field_metrics
from pipelines.field_subjects import Subject
from pipelines.fields import IMAGES, FieldResult
from pipelines.labels import card_labels
from pipelines.pages import MAPS, fields_view
from pipelines.placement import best_device
from pipelines.session import Session

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Looking:
    """How effective fields are looked at: test images or noise, how many, and which unit of which layer."""

    images: int = IMAGES
    noise: bool = False
    layer: str | None = None
    unit: tuple[int, int] | None = None

    def pictures(self, dataset: DataSet) -> tuple[Tensor, str]:
        """The images (B, C, H, W), and which they are, in words."""
        import torch

        count = self.images if self.noise else min(self.images, len(dataset.test))
        if count < 1:
            raise UserError(f"There are no test images in {dataset.name}; give --noise true, or other data.")
        if not self.noise:
            return dataset.test.gather(torch.arange(count))[0], f"{dataset.name} test"
        shape = (count, dataset.channels, *dataset.size)
        return torch.rand(shape, generator=torch.Generator().manual_seed(0)), "uniform noise"


@dataclass(frozen=True, kw_only=True)
class MeasuredField:
    """A map with its measures, the numbers of its column in the table, and the regions by theory where there are any.

    averaged: the measures of the mean over all frames, the same ones where there is one frame.
    """

    field: EffectiveField
    measures: Measures
    averaged: Measures
    numbers: dict[str, Any]
    regions: Reshaped | None


def compare_fields(
    session: Session, dataset: DataSet, subjects: Sequence[Subject], looking: Looking = Looking()
) -> FieldResult:
    """Measures, tabulates and draws the fields of networks on the same images.

    Subjects that stand for a number of frames are drawn against it; they are in the table where there are no others.
    """
    import pandas as pd

    from fieldshift.report import field_sheet, show

    finished = session.folder.finished_result()
    if finished is None:
        finished = session.folder.write_result(measure_and_draw(session, dataset, subjects, looking))
    show(field_sheet(finished["sheet"], title="Receptive field", notes=finished["notes"]))
    if finished.get("lengths"):  # older results have none
        say()
        show(field_sheet(finished["lengths"], title="Receptive field against T", notes=finished["notes"][:1]))
    say(f"  {session.path}")
    paths = {name: Path(path) for name, path in finished["figures"].items()}
    return FieldResult(session.path, pd.DataFrame(finished["rows"]), paths)


def measure_and_draw(
    session: Session, dataset: DataSet, subjects: Sequence[Subject], looking: Looking
) -> dict[str, Any]:
    """Maps, figures and MLflow runs of all subjects; returns what the result file says of them."""
    import pandas as pd

    pictures, kind = looking.pictures(dataset)
    compared = {"trained"} if len({subject.trained for subject in subjects}) > 1 else set()
    every: dict[str, MeasuredField] = {}
    with progress("effective fields", len(subjects)) as bar:
        for subject in subjects:
            every[subject.name] = found = measured(subject, pictures, kind, looking)
            check_comparable([next(iter(every.values())).field, found.field], compared)
            found.field.save(session.path / f"{file_name(subject.name)}.npz")
            bar.advance(note=subject.name)
    listed = [subject.name for subject in subjects if subject.frames is None] or list(every)
    shown = {name: every[name] for name in listed}
    lengths = {subject.frames: every[subject.name] for subject in subjects if subject.frames is not None}
    figures = drawn(session.path, shown, lengths, pictures[0], compared)
    rows = [{"network": name, **found.numbers} for name, found in shown.items()]
    session.run.log_table(pd.DataFrame(rows), "receptive_field")
    for path in figures.values():
        session.run.log_artifact(path)
    record(session, every, subjects)
    names = {name for found in every.values() for name in field_metrics(found.numbers)}
    session.keep(fields_view(session.mark, "accuracy" if subjects[0].card.task == "classification" else "mIoU", names))
    return {
        "rows": rows,
        "sheet": {name: found.numbers for name, found in shown.items()},
        "lengths": {f"T = {count}": found.numbers for count, found in lengths.items()} if shown != every else {},
        "measures": {name: found.measures.to_json() for name, found in every.items()},
        "measures_of_all_frames": {name: found.averaged.to_json() for name, found in every.items()},
        "regions": {name: found.regions.to_json() for name, found in every.items() if found.regions},
        "conditions": {name: found.field.conditions.to_json() for name, found in every.items()},
        "notes": notes_of(shown),
        "figures": {name: str(path) for name, path in figures.items()},
    }


def measured(subject: Subject, pictures: Tensor, kind: str, looking: Looking) -> MeasuredField:
    """The effective field of one network, and the numbers of its column in the table."""
    network, card, policy = subject.network(best_device()), subject.card, subject.motions
    field = effective(
        network, pictures, trained=subject.trained, policy=policy, layer=looking.layer, unit=looking.unit,
        images_kind=kind, mean=card.mean, std=card.std,
    )  # fmt: skip
    found = measures(field)
    averaged = found if field.all_frames is None else measures(field.all_frames)
    (layer,) = theory(network, card.size, layers=[field.conditions.layer])
    regions = regions_of(layer, policy, card.size, field.conditions.unit)
    fit = found.gaussian
    numbers = {
        **theoretical(layer, regions),
        "effective, reference frame: share through other frames": field.other_frames,
        "effective, reference frame: standard error of the share": field.other_frames_error,
        "effective, reference frame: side at 50 %, px": found.side[0.5],
        **{
            f"effective, reference frame: area at {fraction:.0%}, px^2".replace("%", " %"): area
            for fraction, area in found.area.items()
        },
        "effective, reference frame: 99 % area / theory": found.ratio_to_theory,
        **spread("effective, reference frame", found),
        "Gaussian fit: sigma along, px": None if fit is None else fit.along,
        "Gaussian fit: sigma across, px": None if fit is None else fit.across,
        "Gaussian fit: angle, degrees": None if fit is None else fit.angle,
        "centre of mass: row, px": found.moments.centre[0],
        "centre of mass: column, px": found.moments.centre[1],
        "mass of the map": field.mass,
        "mass: standard error": field.mass_standard_error,
        "effective, all frames: area at 50 %, px^2": averaged.area[0.5],
        **spread("effective, all frames", averaged),
    }
    return MeasuredField(field=field, measures=found, averaged=averaged, numbers=numbers, regions=regions)


def spread(whose: str, found: Measures) -> dict[str, Any]:
    """Spread and direction of a map by its second moments, named after whose map it is."""
    return {
        f"{whose}: sigma along, px": found.moments.along,
        f"{whose}: sigma across, px": found.moments.across,
        f"{whose}: anisotropy": found.moments.anisotropy,
        f"{whose}: angle, degrees": found.moments.angle,
    }


def regions_of(
    layer: LayerField, policy: AnyPolicy | None, size: tuple[int, int], unit: tuple[int, int]
) -> Reshaped | None:
    """What the motions make of the unit's field; None where it has no bounded one, or the motions cannot be undone."""
    if layer.size is None or layer.map_size is None:
        return None
    try:
        return region_of(layer, policy, size, unit)
    except UserError:  # the field's notes say why
        return None


def theoretical(layer: LayerField, regions: Reshaped | None) -> dict[str, Any]:
    """The field of a layer by theory, as a plain network and as its motions reshape it."""
    numbers: dict[str, Any] = {"theory: side, px": None if layer.size is None else layer.size[0]}
    for whose, region in (
        {} if regions is None else {"reference frame": regions.reference, "all frames": regions.fused}
    ).items():
        numbers |= {
            f"reshaped, {whose}: area, px^2": region.area,
            f"reshaped, {whose}: height, px": region.extent[0],
            f"reshaped, {whose}: width, px": region.extent[1],
            f"reshaped, {whose}: anisotropy": region.anisotropy,
            f"reshaped, {whose}: angle, degrees": region.angle,
        }
    return numbers


def notes_of(shown: dict[str, MeasuredField]) -> list[str]:
    """The conditions that all maps share, then what a reader of single ones has to be warned of."""
    conditions = next(iter(shown.values())).field.conditions
    states = dict.fromkeys("trained" if found.field.conditions.trained else "not trained" for found in shown.values())
    whose = " of the reference frame" * any(found.field.all_frames is not None for found in shown.values())
    where = f"layer {conditions.layer}, unit {conditions.unit}{whose}, {' and '.join(states)}"
    lines = [conditions.lines()[1], where]
    warned = dict.fromkeys(note for found in shown.values() for note in found.field.notes)
    unfitted: dict[str, list[str]] = {}
    for name, found in shown.items():
        if found.measures.gaussian is None:
            unfitted.setdefault(found.measures.gaussian_note, []).append(name)
    lines += [f"no Gaussian fit of {', '.join(names)}: {why}" for why, names in unfitted.items()]
    for note in warned:
        names = [name for name, found in shown.items() if note in found.field.notes]
        lines.append(note if len(names) == len(shown) else f"{', '.join(names)}: {note}")
    return lines


def drawn(
    folder: Path,
    shown: dict[str, MeasuredField],
    lengths: dict[int, MeasuredField],
    picture: Tensor,
    compared: set[str],
) -> dict[str, Path]:
    """The comparison on a common scale, or the one map there is, of the reference frame's unit and, where there are videos,
    of the mean over all frames; the regions of every policy; the field against T."""
    from fieldshift.receptive_field.figures import comparison_figure, effective_figure, reshaped_figure, save_figure
    from fieldshift.receptive_field.sweep_figure import sweep_figure

    maps = {name: found.field for name, found in shown.items()}
    averaged = {name: field.all_frames or field for name, field in maps.items()}
    if len(maps) > 1:
        figures = {"receptive-fields": comparison_figure(maps, example=picture, compared=compared)}
        if any(field.all_frames is not None for field in maps.values()):
            figures["all-frames"] = comparison_figure(averaged, example=picture, compared=compared)
    else:
        ((name, field),) = maps.items()
        regions = shown[name].regions
        region = None if regions is None else regions.reference
        figures = {"receptive-fields": effective_figure(field, example=picture, region=region)}
        if field.all_frames is not None:
            region = None if regions is None else regions.fused
            figures["all-frames"] = effective_figure(field.all_frames, example=picture, region=region)
    if len(lengths) > 1:
        figures["against-frames"] = sweep_figure({count: found.field for count, found in lengths.items()})
    moved = {
        found.regions.policy: name for name, found in reversed(shown.items()) if found.regions and moves(found.regions)
    }
    for name in moved.values():  # one of each policy
        regions = shown[name].regions
        assert regions is not None
        figures[f"reshaped-{file_name(name)}"] = reshaped_figure(regions, example=picture)
    written = {}
    for stem, figure in figures.items():
        for path in save_figure(figure, folder / stem):
            written[path.suffix[1:] if stem == "receptive-fields" else path.name] = path
    return written


def moves(regions: Reshaped) -> bool:
    """Whether the motions let the fused output see anything but the plain network's box."""
    return not bool((regions.fused.mask == regions.plain.mask).all())


def record(session: Session, every: dict[str, MeasuredField], subjects: Sequence[Subject]) -> None:
    """One MLflow run a map: its measures, its conditions as tags, and its picture on the scale of all."""
    from fieldshift.receptive_field.figures import brightest, map_picture

    highest = brightest([found.field for found in every.values()])
    for subject in subjects:
        found, labels = every[subject.name], card_labels(subject.card)
        run = session.child(
            field_key(subject.name), {**labels, "arm": subject.card.arm}, stage="receptive-field", name=f"{subject.name} field",
            folder=subject.folder,
        )  # fmt: skip
        run.log_metrics(field_metrics(found.numbers))
        run.set_tags(found.field.conditions.tags())
        run.log_image(MAPS, map_picture(found.field, highest), step=0)
        run.log_artifact(session.path / f"{file_name(subject.name)}.npz")
        run.close("FINISHED")


def file_name(name: str) -> str:
    """A network's name as a file's: letters, digits, and _-.= stay, anything else becomes a dash."""
    name = name.replace(" = ", "=")
    kept = "".join(character if character.isalnum() or character in "_-.=" else "-" for character in name)
    return "-".join(part for part in kept.split("-") if part)
