"""Receptive fields: of a network by theory, of a policy on the image, and of trained networks by gradients."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.data import DataSet, LoadingOverrides
from fieldshift.errors import UserError, unknown_name
from fieldshift.motions import Policy
from fieldshift.networks import NetworkConfig
from fieldshift.receptive_field import LayerField, Region, Reshaped, reshaped, theory
from fieldshift.receptive_field.theory import check_layers, gates_note
from fieldshift.run_folder import open_run_folder
from fieldshift.tracking import TrackingConfig
from fieldshift.training import load_network
from pipelines.field_maps import IMAGES, FieldResult, Looking, compare_fields
from pipelines.field_subjects import Subject, lengths_of, subjects_of
from pipelines.problem import PolicySource, Problem, read_policy
from pipelines.run_data import different_data, load_as_in_run
from pipelines.session import Session, open_session

if TYPE_CHECKING:
    from fieldshift.networks import VideoNetwork
    from pipelines.sweeping import FrameSweep

__all__ = ["FieldResult", "receptive_field", "run_fields"]

# The arms whose fields a study shows: the plain network, larger kernels, equal frames, and the searched motions.
SHOWN_ARMS = ("none", "wide-field", "replicate", "no-shift", "das")


def receptive_field(
    *,
    runs: list[str] | None = None,
    motions: list[str] | None = None,
    before: bool = False,
    noise: bool = False,
    images: int = IMAGES,
    unit: list[int] | None = None,
    layers: list[str] | None = None,
    network: str | None = None,
    temporal: str = "none",
    frames: int = 1,
    policy: PolicySource = None,
    classes: int = 10,
    channels: int = 3,
    size: int = 224,
    json: bool = False,
    out: str | None = None,
    resume: bool = False,
    loading: LoadingOverrides = LoadingOverrides(),
    tracking: TrackingConfig = TrackingConfig(),
) -> FieldResult:
    """Shows receptive fields: a network's by theory (--network), or those of trained runs by gradients (--runs A B C).

    Args:
        runs: folders of trained networks, their MLflow run ids, or a frame sweep's folder; their effective fields are
            compared on the same images.
        motions: look at the runs under each of these instead of their own motions: own, plain (equal frames), a motion
            such as rotate=30, a chain such as translate_x=0.3,zoom=1.2, or a policy file.
        before: look at every run also before its training.
        noise: take uniform noise instead of test images.
        images: how many images an effective field is averaged over.
        unit: row and column of the unit in the layer's map; by default the centre.
        layers: names of layers to show by theory, by default all; with --runs the one layer to look at, by default the
            last feature map.
        network: network name; its theoretical field, layer by layer, needs no data.
        temporal: temporal module of that network.
        frames: frames of that network's video.
        policy: policy file whose motions reshape that network's field.
        classes: classes of that network.
        channels: image channels of that network.
        size: height and width of that network's image in pixels.
        json: print the theory as JSON.
        out: run folder; by default runs/receptive-field for runs, and none for theory alone.
        resume: print the finished comparison in that folder.
        loading: what is read in another way than in the first run's training.
        tracking: where a comparison is recorded, and where MLflow run ids are looked up.
    """
    if (runs is None) == (network is None):
        raise UserError("Give either --network NAME for a network's theory, or --runs FOLDER ... for trained networks.")
    if network is not None:
        if motions or before or noise or unit:
            raise UserError(
                "--motions, --before, --noise and --unit are for --runs; a network's theory takes --policy FILE."
            )
        return network_theory(
            network, temporal, frames, read_policy(policy), layers, classes, channels, size,
            as_json=json, out=out, resume=resume,
        )  # fmt: skip
    if policy is not None or json:
        raise UserError("--policy and --json are for --network; runs are looked at under other motions by --motions.")
    if images < 1:
        raise UserError(f"--images is {images}, but an effective field needs at least 1 image.")
    if not runs:
        raise UserError("--runs is empty; give folders of trained networks.")
    looking = Looking(images=images, noise=noise, layer=one_layer(layers), unit=one_unit(unit))
    subjects = subjects_of(runs, tracking, motions=motions, before=before)
    first = subjects[0]
    check_last_layers(subjects, looking.layer)
    folders = list(dict.fromkeys(subject.folder for subject in subjects if subject.folder is not None))
    found = load_as_in_run(folders[0], first.card, loading)
    dataset = found.dataset
    if tuple(dataset.size) != tuple(first.card.size):
        raise UserError(
            f"The test images are {dataset.size[0]} x {dataset.size[1]} px, but {first.name} was trained on "
            f"{first.card.size[0]} x {first.card.size[1]} px; give --loading.size as in training."
        )
    for line in (*found.notes, *different_data(folders)):
        say(line)
    config = {
        "runs": [run if not Path(run).exists() else str(Path(run).absolute()) for run in runs], "motions": motions,
        "before": before, "noise": noise, "images": images, "unit": unit, "layers": layers, "loading": found.loading,
        "tracking": tracking,
    }  # fmt: skip
    tags = {"data": first.card.data}
    with open_session(
        "receptive-field", out=out, resume=resume, config=config, tracking=tracking, tags=tags, dataset=dataset
    ) as session:
        return compare_fields(session, dataset, subjects, looking)


def one_layer(layers: list[str] | None) -> str | None:
    if layers and len(layers) > 1:
        raise UserError(f"--layers names {len(layers)} layers, but runs are compared at one; give one.")
    return layers[0] if layers else None


def one_unit(unit: list[int] | None) -> tuple[int, int] | None:
    if unit is None:
        return None
    if len(unit) != 2:
        raise UserError(f"--unit is {unit}, but a unit is a row and a column, such as --unit 3 4.")
    return unit[0], unit[1]


def check_last_layers(subjects: list[Subject], layer: str | None) -> None:
    """Raises UserError unless every network has the layer, or, where none is asked for, the same last one."""
    last: dict[str, str] = {}
    for subject in {id(each.card): each for each in reversed(subjects)}.values():  # once under all its motions
        built = subject.card.build(pretrained=False)
        check_layers(built, None if layer is None else [layer])
        last[subject.name] = built.feature_layer
    (first, wanted), *others = reversed(last.items())
    for name, own in others:
        if layer is None and own != wanted:
            raise UserError(
                f"These runs cannot be compared: the layer is {wanted} for {first} and {own} for {name}; "
                "give --layers NAME, a layer that all have."
            )


def network_theory(
    name: str,
    temporal: str,
    frames: int,
    policy: Policy | None,
    layers: list[str] | None,
    classes: int,
    channels: int,
    size: int,
    *,
    as_json: bool,
    out: str | None,
    resume: bool,
) -> FieldResult:
    """Prints the theoretical field of every layer and of the whole feature extractor, reshaped by the policy if any.

    out: a folder for result.json and, with a policy, for the figure and the masks of the regions; none without it.
    """
    import pandas as pd

    from fieldshift.networks import known_networks, video_network
    from fieldshift.report import Sheet, show

    task = next((task for task in ("classification", "segmentation") if name in known_networks(task)), None)
    if task is None:
        known = [*known_networks("classification"), *known_networks("segmentation")]
        raise unknown_name("network", name, known)
    if policy is not None:
        frames, temporal = policy.frames, "tsm" if temporal == "none" else temporal
    built = video_network(
        name, temporal=temporal, frames=frames, num_classes=classes, task=task, in_channels=channels,
        small_images=NetworkConfig().takes_small_images(name, (size, size)),
    )  # fmt: skip
    found = theory(built, size, layers=layers)
    whole = next((field for field in found if field.name == built.feature_layer), None)
    whole = whole or theory(built, size, layers=[built.feature_layer])[0]
    regions = None if policy is None else reshaped(policy, whole, size)
    notes = theory_notes(built, whole, size)
    values: dict[str, Any] = {
        "network": name,
        "temporal": temporal,
        "frames": frames,
        "input_size": [size, size],
        "notes": notes,
        "feature_extractor": whole.to_json(),
        "layers": [field.to_json() for field in found],
    }
    if regions is not None:
        values["reshaped"] = regions.to_json()
    rows = [layer_row(field, field.name) for field in found] + [layer_row(whole, "feature extractor")]
    table = pd.DataFrame(rows)
    if as_json:
        say(jsonlib.dumps(values, indent=2))
    else:
        show(Sheet.from_frame(table, title=f"{name} at {size} x {size}, theory", notes=notes))
        if regions is not None and policy is not None:
            title = (
                f"The field of {whole.name} on the image, reshaped by {'; '.join(policy.describe()) or 'equal frames'}"
            )
            show(Sheet.from_frame(pd.DataFrame(region_rows(regions)), title=title))
    if out is None:
        return FieldResult(None, table, {})
    config = {key: values[key] for key in ("network", "temporal", "frames")} | {"size": size, "channels": channels}
    config |= {"layers": layers, "policy": None if policy is None else jsonlib.loads(policy.to_json())}
    folder = open_run_folder(out, "receptive-field", config, resume)
    figures = {} if regions is None else write_regions(folder.path, regions)
    folder.write_result({**values, "figures": {key: str(path) for key, path in figures.items()}})
    if not as_json:
        say(f"  {folder.path}")
    return FieldResult(folder.path, table, figures)


def layer_row(field: LayerField, name: str) -> dict[str, Any]:
    """A layer's row in the table; beside a global operation the size is what windows see."""
    windows = "" if field.size is None else f"{field.size[0]} x {field.size[1]}"
    return {
        "layer": name,
        "size": " and ".join(filter(None, [windows, f"unbounded ({field.unbounded_by})" if field.unbounded_by else ""]))
        or "-",
        "stride": "-" if field.stride is None else f"{field.stride[0]:g}",
        "first pixel": "-" if field.start is None else f"{field.start[0]}, {field.start[1]}",
        "temporal reach": field.temporal_reach,
    }


def theory_notes(network: VideoNetwork, whole: LayerField, size: int) -> list[str]:
    """What to know about the numbers: a network that was probed, gates left out, a field larger than the image."""
    notes = [note for note in (whole.note, gates_note(network)) if note]
    if whole.size is not None and max(whole.size) > size:
        field = f"{whole.size[0]} x {whole.size[1]}"
        notes.append(
            f"clipped: the feature extractor's field, {field} px, is larger than the image, {size} x {size} px"
        )
    return notes


def region_rows(regions: Reshaped) -> list[dict[str, Any]]:
    """The regions as rows: the plain network's, each frame's and the fused output's."""

    def row(name: str, region: Region) -> dict[str, Any]:
        return {
            "region": name,
            "area, px^2": f"{region.area:.0f}",
            "height, px": f"{region.extent[0]:.1f}",
            "width, px": f"{region.extent[1]:.1f}",
            "anisotropy": f"{region.anisotropy:.2f}",
            "angle, degrees": f"{region.angle:.1f}",
        }

    frames = [row(f"frame {t}", region) for t, region in enumerate(regions.frames)]
    return [row("plain", regions.plain), *frames, row("fused", regions.fused)]


def write_regions(folder: Path, regions: Reshaped) -> dict[str, Path]:
    """The figure as PNG and SVG, and the masks as regions.npz (plain, frames, fused)."""
    import numpy as np

    from fieldshift.receptive_field.figures import reshaped_figure, save_figure

    paths = {path.suffix[1:]: path for path in save_figure(reshaped_figure(regions), folder / "reshaped")}
    masks = {"plain": regions.plain.mask.numpy(), "fused": regions.fused.mask.numpy()}
    frames = np.stack([region.mask.numpy() for region in regions.frames])
    np.savez_compressed(folder / "regions.npz", allow_pickle=False, frames=frames, **masks)
    return paths


def run_fields(
    session: Session,
    problem: Problem,
    dataset: DataSet,
    policy: Policy,
    trained: dict[str, Path],
    *,
    seed: int,
    sweep: FrameSweep | None = None,
) -> FieldResult:
    """A study's receptive fields: those of its trained arms, and of the searched policy where none was trained.

    sweep: a frame sweep, the fields of whose networks are drawn against T.
    """
    subjects = [
        Subject(name=arm, card=load_network(folder)[1], folder=folder)
        for arm in SHOWN_ARMS
        if (folder := trained.get(arm)) is not None
    ]
    if not subjects:
        say("  no trained networks: fields of networks with fresh weights")
        subjects = [
            Subject(name=arm, card=problem.card(dataset, arm, policy, None, seed), folder=None, seed=seed)
            for arm in ("none", "das")
        ]
    for frames, folder in ({} if sweep is None else lengths_of(sweep.rows)).items():
        subjects.append(Subject(name=f"T = {frames}", card=load_network(folder)[1], folder=folder, frames=frames))
    return compare_fields(session, dataset, subjects)
