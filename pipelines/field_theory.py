"""One network's receptive field by theory: every layer's, the whole feature extractor's, and a policy's regions."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.errors import UserError
from fieldshift.folding import AnyPolicy, motions_of
from fieldshift.forms import Form
from fieldshift.networks import NetworkConfig
from fieldshift.networks.insertion import MotionsAt
from fieldshift.networks.names import is_foreign, is_import_path, known_detectors, known_networks, unknown_network
from fieldshift.receptive_field import LayerField, Region, Reshaped, feature_extractor, reshaped, theory
from fieldshift.receptive_field.fitting import fits, fitting_note, last_fitting
from fieldshift.receptive_field.theory import gates_note, unknown_note
from fieldshift.run_folder import open_run_folder
from fieldshift.tasks import TASKS
from pipelines.describing import build_network
from pipelines.fields import FieldResult

if TYPE_CHECKING:
    from torch import nn


def network_theory(
    name: str,
    form: Form,
    temporal: str,
    frames: int,
    policy: AnyPolicy | None,
    layers: list[str] | None,
    classes: int,
    channels: int,
    size: int,
    architecture: NetworkConfig,
    *,
    as_json: bool,
    out: str | None,
    resume: bool,
    every: bool = False,
) -> FieldResult:
    """Prints the theoretical field of every layer and of the whole feature extractor, reshaped by the policy if any.

    out: a folder for result.json and the figures and, with a policy, the masks of the regions; none without it. every:
    whether the printed table has the layers without parameters that leave the field as it is. Drawn and reshaped is the
    one layer that is asked for, else the feature extractor, or the last layer that fits where that is larger than the image.
    """
    import pandas as pd

    from fieldshift.receptive_field.figures import save_figure
    from fieldshift.receptive_field.theory_figure import theory_figure
    from fieldshift.report import Sheet, show

    lengths: list[str] = []
    motions: MotionsAt | None = None
    if policy is not None:
        if frames not in (1, policy.frames):
            lengths.append(
                f"the policy was made with {policy.frames} frames and is used with {frames}: its steps differ"
            )
            policy = policy.with_frames(frames)
        frames, temporal = policy.frames, "tsm" if temporal == "none" else temporal
        if form == "folded":
            frames, motions = 1, motions_of(policy)
    built = looked_at(name, temporal, frames, classes, channels, size, architecture, motions)
    everything = theory(built, size)
    found = everything if layers is None else theory(built, size, layers=layers)
    whole = whole_field(built, name, everything, size)
    shown = drawn_layer(everything, found, whole, size, asked=layers is not None)
    regions = None if policy is None else reshaped(policy, shown, size)
    notes = [*lengths, *theory_notes(built, whole, everything, size), *filter(None, [unknown_note(everything)])]
    figure = None if out is None else theory_figure(everything, shown, (size, size), name=name, notes=notes)
    if shown is not whole:
        notes.append(f"drawn{' and reshaped' * (regions is not None)}: {shown.name}")
    values: dict[str, Any] = {
        "network": name,
        "form": form,
        "temporal": temporal,
        "frames": frames,
        "input_size": [size, size],
        "notes": notes,
        "feature_extractor": whole.to_json(),
        "drawn": shown.name,
        "layers": [field.to_json() for field in found],
    }
    if regions is not None:
        values["reshaped"] = regions.to_json()
    rows = [layer_row(field, field.name or "the whole network") for field in found]
    last = layer_row(whole, "feature extractor")
    table = pd.DataFrame([*rows, last])
    if as_json:
        say(jsonlib.dumps(values, indent=2), whole=True)
    else:
        listed = rows if every or layers is not None else told(built, found, rows)
        hidden = len(rows) - len(listed)
        folded = [f"left out: {hidden} layers without parameters that leave the field as it is; --all lists them"]
        frame = pd.DataFrame([*listed, last])
        show(
            Sheet.from_frame(frame, title=f"{name} at {size} x {size}, theory", notes=[*notes, *folded * (hidden > 0)])
        )
        if regions is not None and policy is not None:
            still = "no motion" if form == "folded" else "equal frames"
            title = f"The field of {shown.name} on the image, reshaped by {'; '.join(policy.describe()) or still}"
            show(Sheet.from_frame(pd.DataFrame(region_rows(regions)), title=title))
    if out is None or figure is None:
        return FieldResult(None, table, {})
    config = {key: values[key] for key in ("network", "form", "temporal", "frames")} | {
        "size": size,
        "channels": channels,
    }
    config |= {"layers": layers, "policy": None if policy is None else jsonlib.loads(policy.to_json())}
    config |= {"architecture": architecture}
    folder = open_run_folder(out, "receptive-field", config, resume)
    figures = {path.name: path for path in save_figure(figure, folder.path / "theory")}
    if regions is not None:
        figures |= write_regions(folder.path, regions)
    folder.write_result({**values, "figures": {key: str(path) for key, path in figures.items()}})
    if not as_json:
        say(f"  {folder.path}")
    return FieldResult(folder.path, table, figures)


def looked_at(
    name: str,
    temporal: str,
    frames: int,
    classes: int,
    channels: int,
    size: int,
    architecture: NetworkConfig,
    motions: MotionsAt | None = None,
) -> nn.Module:
    """The network whose theory is asked for: a video network; a detector's backbone or a network of one's own as it is.

    Raises UserError for a name that is unknown, and for frames with a network whose places are not named.
    """
    from fieldshift.networks.foreign import detection_backbone, foreign_network

    architecture.check_temporal(temporal)
    task = next((task for task in TASKS if name in known_networks(task)), None)
    if name in known_detectors():
        if temporal != "none" or frames > 1:
            raise UserError(
                f"Of the detector '{name}' the backbone alone is looked at, which reads single images; leave out "
                "--temporal, --frames and --policy."
            )
        return detection_backbone(name)
    if task is None and not is_foreign(name):
        raise unknown_network(name)
    if is_import_path(name) and temporal == "none" and frames == 1:
        return foreign_network(name, num_classes=classes, in_channels=channels)
    return build_network(
        name, temporal, frames, task or "classification", classes, channels, (size, size), architecture, motions
    )


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


def told(network: nn.Module, fields: list[LayerField], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
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


def layer_row(field: LayerField, name: str) -> dict[str, Any]:
    """A layer's row in the table; beside a global operation the size is what windows see."""
    reach = "-" if field.temporal_reach is None else field.temporal_reach
    beside: dict[str, Any] = (
        {"moved at": f"{len(field.moved)} places"} if field.form == "folded" else {"temporal reach": reach}
    )
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
    """What to know about the numbers: a network that was probed, gates left out, a field larger than the image."""
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
            "area, px^2": f"{region.area:.0f}",
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

    from fieldshift.receptive_field.figures import reshaped_figure, save_figure

    paths = {path.suffix[1:]: path for path in save_figure(reshaped_figure(regions), folder / "reshaped")}
    masks = {"plain": regions.plain.mask.numpy(), "fused": regions.fused.mask.numpy()}
    if regions.frames:
        masks["frames"] = np.stack([region.mask.numpy() for region in regions.frames])
    np.savez_compressed(folder / "regions.npz", allow_pickle=False, **masks)
    return paths
