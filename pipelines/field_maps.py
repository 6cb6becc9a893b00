"""Effective fields of several networks on the same images: measured, tabulated, drawn and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import progress, say
from fieldshift.data import DataSet
from fieldshift.errors import UserError
from fieldshift.experiment.labels import card_labels
from fieldshift.experiment.placement import best_device
from fieldshift.experiment.session import Session
from fieldshift.receptive_field import MeasuredField, Reshaped, check_comparable, measured_field
from fieldshift.tracking.views import SHOWN_PICTURE
from pipelines.field_records import field_key, field_metrics
from pipelines.field_subjects import Subject
from pipelines.fields import IMAGES, NARROW, FieldResult
from pipelines.pages import MAPS, fields_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FieldSettings:
    """Settings of effective fields: test images or noise, their number, and the unit and layer."""

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


def measure_fields(
    session: Session, dataset: DataSet, subjects: Sequence[Subject], settings: FieldSettings = FieldSettings()
) -> FieldResult:
    """Measures, tabulates and draws the fields of networks on the same images.

    Subjects of a frame sweep are drawn against the number of frames; they are in the table if there are no others.
    """
    import pandas as pd

    from fieldshift.report import field_sheet, show

    finished = session.folder.finished_result()
    if finished is None:
        finished = session.folder.write_result(measure_and_draw(session, dataset, subjects, settings))
    show(field_sheet(finished["sheet"], title="Receptive field", notes=finished["notes"]))
    if finished.get("lengths"):  # older results have none
        say()
        show(field_sheet(finished["lengths"], title="Receptive field against T", notes=finished["notes"][:1]))
    paths = {name: Path(path) for name, path in finished["figures"].items()}
    say(f"  {paths.get('png', session.path)}")
    return FieldResult(session.path, pd.DataFrame(finished["rows"]), paths)


def measure_and_draw(
    session: Session, dataset: DataSet, subjects: Sequence[Subject], settings: FieldSettings
) -> dict[str, Any]:
    """Makes maps, figures and MLflow runs of all subjects; returns the content of the result file."""
    import pandas as pd

    pictures, kind = settings.pictures(dataset)
    compared = {"trained"} if len({subject.trained for subject in subjects}) > 1 else set()
    every: dict[str, MeasuredField] = {}
    with progress("effective fields", len(subjects)) as bar:
        for subject in subjects:
            every[subject.name] = found = measured(subject, pictures, kind, settings)
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
    score = "accuracy" if subjects[0].card.task == "classification" else "mIoU"
    session.keep(fields_view(session.mark, score, names, count=len(every)))
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


def measured(subject: Subject, pictures: Tensor, kind: str, settings: FieldSettings) -> MeasuredField:
    """The effective field of one subject on these pictures."""
    return measured_field(
        subject.network(best_device()),
        pictures,
        size=subject.card.size,
        trained=subject.trained,
        policy=subject.motions,
        layer=settings.layer,
        unit=settings.unit,
        images_kind=kind,
        mean=subject.card.mean,
        std=subject.card.std,
    )


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
    """The comparison on a common scale, or the only map, of the reference frame's unit and, for videos,
    of the mean over all frames; the field against T, all of them also for narrow screens; the regions of every policy."""
    from fieldshift.receptive_field.figure_frame import save_figure
    from fieldshift.receptive_field.figures import reshaped_figure

    for stem, figure in figures_of_maps(shown, lengths, picture, compared, narrow=True).items():
        save_figure(figure, folder / f"{stem}{NARROW}", ("png",))
    figures = figures_of_maps(shown, lengths, picture, compared)
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


def figures_of_maps(
    shown: dict[str, MeasuredField],
    lengths: dict[int, MeasuredField],
    picture: Tensor,
    compared: set[str],
    *,
    narrow: bool = False,
) -> dict[str, Figure]:
    """The figures of effective maps by the names of their files."""
    from fieldshift.receptive_field.figures import comparison_figure, effective_figure
    from fieldshift.receptive_field.sweep_figure import sweep_figure

    maps = {name: found.field for name, found in shown.items()}
    averaged = {name: field.all_frames or field for name, field in maps.items()}
    if len(maps) > 1:
        draw = partial(comparison_figure, example=picture, compared=compared, narrow=narrow)
        figures = {"receptive-fields": draw(maps)}
        if any(field.all_frames is not None for field in maps.values()):
            figures["all-frames"] = draw(averaged)
    else:
        ((name, field),) = maps.items()
        regions = shown[name].regions
        region = None if regions is None else regions.reference
        figures = {"receptive-fields": effective_figure(field, example=picture, region=region, narrow=narrow)}
        if field.all_frames is not None:
            region = None if regions is None else regions.fused
            figures["all-frames"] = effective_figure(field.all_frames, example=picture, region=region, narrow=narrow)
    if len(lengths) > 1:
        fields = {count: found.field for count, found in lengths.items()}
        figures["against-frames"] = sweep_figure(fields, narrow=narrow)
    return figures


def moves(regions: Reshaped) -> bool:
    """Returns whether the motions make the fused output depend on other pixels than the plain network's box."""
    return not bool((regions.fused.mask == regions.plain.mask).all())


def record(session: Session, every: dict[str, MeasuredField], subjects: Sequence[Subject]) -> None:
    """Records one MLflow run per map: its measures, its conditions as tags, and its picture on the common scale."""
    from fieldshift.receptive_field.figures import brightest, map_picture

    highest = brightest([found.field for found in every.values()])
    for subject in subjects:
        found, labels = every[subject.name], card_labels(subject.card)
        run = session.child(
            field_key(subject.name),
            {**labels, "arm": subject.card.arm},
            stage="receptive-field",
            name=f"{subject.name} field",
            folder=subject.folder,
        )
        run.log_metrics(field_metrics(found.numbers))
        run.set_tags(found.field.conditions.tags())
        run.log_image(MAPS, map_picture(found.field, highest), shown=SHOWN_PICTURE)
        run.log_artifact(session.path / f"{file_name(subject.name)}.npz")
        run.close("FINISHED")


def file_name(name: str) -> str:
    """A network's name as a file's: letters, digits, and _-.= stay, anything else becomes a dash."""
    name = name.replace(" = ", "=")
    kept = "".join(character if character.isalnum() or character in "_-.=" else "-" for character in name)
    return "-".join(part for part in kept.split("-") if part)
