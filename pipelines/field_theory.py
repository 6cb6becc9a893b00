"""One network's receptive field by theory: every layer's, the whole feature extractor's, and a policy's regions."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.experiment.policy_source import plain_policy
from fieldshift.folding import AnyPolicy, motions_of
from fieldshift.forms import Form
from fieldshift.networks.insertion import MotionsAt
from fieldshift.networks.names import is_foreign, is_import_path, known_detectors, known_networks, unknown_network
from fieldshift.receptive_field import LayerField, Region, Reshaped, feature_extractor, reshaped, theory
from fieldshift.receptive_field.fitting import fits, fitting_note, last_fitting
from fieldshift.receptive_field.theory import gates_note, unknown_note
from fieldshift.run_folder import held_run_folder
from fieldshift.tasks import TASKS
from fieldshift.wording import counted
from pipelines.describing import AskedNetwork, build_network
from pipelines.fields import FieldResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

REACH = "temporal reach"
"""The column of the frames that a layer reads on each side; left out where no layer reads another frame."""


@dataclass(frozen=True, kw_only=True)
class NetworkTheory:
    """The theoretical fields of one network.

    Attributes:
        asked: the network, with the temporal module and the frames that its policy decides.
        form: how the network reads the policy's motions.
        policy: the motions that reshape the drawn field, None without.
        network: the built network.
        layers: the fields of all layers, or of those asked for.
        whole: the field of the whole feature extractor.
        drawn: the layer that is drawn and reshaped.
        everything: the fields of all layers.
        regions: the drawn field reshaped by the policy, None without one.
        notes: notes on the numbers.
    """

    asked: AskedNetwork
    form: Form
    policy: AnyPolicy | None
    network: nn.Module
    layers: list[LayerField]
    whole: LayerField
    drawn: LayerField
    everything: list[LayerField]
    regions: Reshaped | None
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The theory as JSON holds it."""
        values: dict[str, Any] = {
            "network": self.asked.name,
            "form": self.form,
            "temporal": self.asked.temporal,
            "frames": self.asked.frames,
            "input_size": [self.asked.size, self.asked.size],
            "notes": self.shown_notes,
            "feature_extractor": self.whole.to_json(),
            "drawn": self.drawn.name,
            "layers": [field.to_json() for field in self.layers],
        }
        return values if self.regions is None else values | {"reshaped": self.regions.to_json()}

    @property
    def shown_notes(self) -> list[str]:
        """The notes of table and JSON, with the drawn layer where it is not the feature extractor."""
        if self.drawn is self.whole:
            return self.notes
        what = "the figure and the reshaped field are" if self.regions is not None else "a figure (--out FOLDER) is"
        return [*self.notes, f"{what} that of {self.drawn.name}"]


def network_theory(
    asked: AskedNetwork, form: Form, policy: AnyPolicy | None, layers: list[str] | None
) -> NetworkTheory:
    """The theoretical field of every layer and of the whole feature extractor, reshaped by the policy if any.

    Drawn and reshaped is the one layer that is asked for, else the feature extractor, or the last layer that fits where
    that is larger than the image.
    """
    lengths: list[str] = []
    motions: MotionsAt | None = None
    if policy is not None:
        if asked.frames not in (1, policy.frames):
            lengths.append(
                f"the policy was made with {counted(policy.frames, 'frame')} and is used with {asked.frames}: its steps differ"
            )
            policy = policy.with_frames(asked.frames)
        temporal = "tsm" if asked.temporal == "none" else asked.temporal
        asked = replace(asked, temporal=temporal, frames=1 if form == "folded" else policy.frames)
        motions = motions_of(policy) if form == "folded" else None
    built = network_of(asked, motions)
    size = asked.size
    everything = theory(built, size)
    found = everything if layers is None else theory(built, size, layers=layers)
    whole = whole_field(built, asked.name, everything, size)
    drawn = drawn_layer(everything, found, whole, size, asked=layers is not None)
    return NetworkTheory(
        asked=asked,
        form=form,
        policy=policy,
        network=built,
        layers=found,
        whole=whole,
        drawn=drawn,
        everything=everything,
        regions=None if policy is None else reshaped(policy, drawn, size),
        notes=[*lengths, *theory_notes(built, whole, everything, size), *filter(None, [unknown_note(everything)])],
    )


def shown_theory(
    found: NetworkTheory, layers: list[str] | None, *, as_json: bool, out: str | None, resume: bool, every: bool
) -> FieldResult:
    """Prints a theory as a table or JSON, and writes it with its figures into the folder `out`, if any.

    every: whether the printed table has the layers without parameters that leave the field as it is.
    """
    import pandas as pd

    from fieldshift.receptive_field.theory_figure import theory_figure

    asked = found.asked
    figure = None
    if out is not None:
        image = (asked.size, asked.size)
        figure = theory_figure(found.everything, found.drawn, image, name=asked.name, notes=found.notes)
    rows = [layer_row(field, field.name or "the whole network") for field in found.layers]
    last = layer_row(found.whole, "feature extractor")
    if not any(row.get(REACH) for row in (*rows, last)):  # a column of zeros
        rows, last = [without_reach(row) for row in rows], without_reach(last)
    if as_json:
        say(jsonlib.dumps(found.to_json(), indent=2), whole=True)
    else:
        show_tables(
            found, rows if every or layers is not None else informative_rows(found.network, found.layers, rows), last
        )
    table = pd.DataFrame([*rows, last])
    if out is None or figure is None:
        return FieldResult(None, table, {})
    folder, figures = write_theory(found, layers, figure, out, resume=resume)
    if not as_json:
        say(f"  {folder}")
    return FieldResult(folder, table, figures)


def show_tables(found: NetworkTheory, rows: list[dict[str, Any]], last: dict[str, Any]) -> None:
    """Prints the layers' fields, and the regions on the image where a policy reshapes them."""
    import pandas as pd

    from fieldshift.report import Sheet, show

    asked, hidden = found.asked, len(found.layers) - len(rows)
    left_out = [f"left out: {hidden} layers without parameters that leave the field as it is; --all lists them"]
    title = f"{asked.name} at {asked.size} x {asked.size}, theory"
    notes = [*found.shown_notes, *left_out * (hidden > 0)]
    show(Sheet.from_frame(pd.DataFrame([*rows, last]), title=title, notes=notes))
    if found.regions is not None and found.policy is not None:
        still = "no motion" if found.form == "folded" else "equal frames"
        motions = "; ".join(found.policy.describe()) or still
        title = f"The field of {found.drawn.name} on the image, reshaped by {motions}"
        show(Sheet.from_frame(pd.DataFrame(region_rows(found.regions)), title=title))


def write_theory(
    found: NetworkTheory, layers: list[str] | None, figure: Figure, out: str, *, resume: bool
) -> tuple[Path, dict[str, Path]]:
    """Writes result.json, the figures and, with a policy, the masks of the regions; returns the folder and the figures."""
    from fieldshift.receptive_field.figure_frame import save_figure

    asked = found.asked
    config = {
        "network": asked.name,
        "form": found.form,
        "temporal": asked.temporal,
        "frames": asked.frames,
        "size": asked.size,
        "channels": asked.channels,
        "layers": layers,
        "policy": plain_policy(found.policy),
        "architecture": asked.architecture,
    }
    with held_run_folder(out, "receptive-field", config, resume) as folder:
        figures = {path.name: path for path in save_figure(figure, folder.path / "theory")}
        if found.regions is not None:
            figures |= write_regions(folder.path, found.regions)
        folder.write_result({**found.to_json(), "figures": {key: str(path) for key, path in figures.items()}})
    return folder.path, figures


def network_of(asked: AskedNetwork, motions: MotionsAt | None = None) -> nn.Module:
    """The network that is asked for: a video network; a detector's backbone or an own network unchanged.

    Raises UserError for a name that is unknown, and for frames with a network whose places are not named.
    """
    from fieldshift.networks.foreign import detection_backbone, foreign_network

    name, temporal, frames = asked.name, asked.temporal, asked.frames
    asked.architecture.check_temporal(temporal)
    task = next((task for task in TASKS if name in known_networks(task)), None)
    if name in known_detectors():
        if temporal != "none" or frames > 1:
            raise UserError(
                f"Of the detector '{name}' only the backbone is analysed, which reads single images; leave out "
                "--temporal, --frames and --policy."
            )
        return detection_backbone(name)
    if task is None and not is_foreign(name):
        raise unknown_network(name)
    if is_import_path(name) and temporal == "none" and frames == 1:
        return foreign_network(name, num_classes=asked.classes, in_channels=asked.channels)
    return build_network(replace(asked, task=task or "classification"), motions)


def whole_field(network: nn.Module, name: str, fields: list[LayerField], size: int) -> LayerField:
    """The field of the feature extractor: of the layer that is known to be its last, else of the last bounded map."""
    layer = None if is_foreign(name) else getattr(network, "feature_layer", None)
    if layer is None:
        return feature_extractor(fields)
    return next((field for field in fields if field.name == layer), None) or theory(network, size, layers=[layer])[0]


def drawn_layer(
    everything: list[LayerField], found: list[LayerField], whole: LayerField, size: int, *, asked: bool
) -> LayerField:
    """The layer that is drawn and reshaped."""
    if asked and len(found) == 1:
        return found[0]
    if fits(whole, (size, size)):
        return whole
    return last_fitting(everything, (size, size)) or whole


def informative_rows(network: nn.Module, fields: list[LayerField], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of layers that have parameters or change the field: pooling has none, but does."""
    kept: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    for field, row in zip(fields, rows, strict=True):
        seen = {key: value for key, value in row.items() if key != "layer"}
        module = network.get_submodule(field.name)
        if seen != before or next(module.parameters(), None) is not None:
            kept.append(row)
        before = seen
    return kept


def without_reach(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != REACH}


def layer_row(field: LayerField, name: str) -> dict[str, Any]:
    """A layer's row in the table; beside a global operation the size is what windows see."""
    reach = "-" if field.temporal_reach is None else field.temporal_reach
    beside: dict[str, Any] = {"moved at": f"{len(field.moved)} places"} if field.form == "folded" else {REACH: reach}
    windows = f"unknown ({field.unknown_by})" if field.unknown_by else ""
    windows = windows if field.size is None else f"{field.size[0]} x {field.size[1]}"
    return {
        "layer": name,
        "size": " and ".join(filter(None, [windows, f"unbounded ({field.unbounded_by})" if field.unbounded_by else ""]))
        or "-",
        "stride": "-" if field.stride is None else f"{field.stride[0]:g}",
        "first pixel": "-" if field.start is None else f"{field.start[0]}, {field.start[1]}",
        **beside,
    }


def theory_notes(network: nn.Module, whole: LayerField, everything: list[LayerField], size: int) -> list[str]:
    """Notes on the numbers: a probed network, gates that are left out, a field larger than the image."""
    notes = [note for note in (whole.note, gates_note(network)) if note]
    if whole.size is not None and max(whole.size) > size:
        field = f"{whole.size[0]} x {whole.size[1]}"
        notes.append(
            f"clipped: the feature extractor's field, {field} px, is larger than the image, {size} x {size} px; "
            f"{fitting_note(everything, (size, size))}"
        )
    return notes


def region_rows(regions: Reshaped) -> list[dict[str, Any]]:
    """The regions as rows: the plain network's, each frame's and the fused output's; the folded network's one."""

    def row(name: str, region: Region) -> dict[str, Any]:
        return {
            "region": name,
            "area, px²": f"{region.area:.0f}",
            "height, px": f"{region.extent[0]:.1f}",
            "width, px": f"{region.extent[1]:.1f}",
            "anisotropy": f"{region.anisotropy:.2f}",
            "angle, degrees": f"{region.angle:.1f}",
        }

    own = regions.reference_frame
    frames = [row(f"frame {t}{' (reference)' * (t == own)}", region) for t, region in enumerate(regions.frames)]
    return [row("plain", regions.plain), *frames, row("folded" if regions.form == "folded" else "fused", regions.fused)]


def write_regions(folder: Path, regions: Reshaped) -> dict[str, Path]:
    """The figure as PNG and SVG, and the masks as regions.npz: plain, fused, and of a video frames."""
    import numpy as np

    from fieldshift.receptive_field.figure_frame import save_figure
    from fieldshift.receptive_field.figures import reshaped_figure

    paths = {path.suffix[1:]: path for path in save_figure(reshaped_figure(regions), folder / "reshaped")}
    masks = {"plain": regions.plain.mask.numpy(), "fused": regions.fused.mask.numpy()}
    if regions.frames:
        masks["frames"] = np.stack([region.mask.numpy() for region in regions.frames])
    np.savez_compressed(folder / "regions.npz", allow_pickle=False, **masks)
    return paths
