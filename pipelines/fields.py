"""Receptive fields: of a network by theory, of a policy on the image, and of trained networks by gradients."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshift.console import say
from fieldshift.data import DataSet, LoadingConfig
from fieldshift.errors import UserError, unknown_name
from fieldshift.motions import Policy
from fieldshift.networks import NetworkConfig
from fieldshift.receptive_field import EffectiveField, effective, measures, reshaped, theory
from fieldshift.tracking import TrackingConfig
from fieldshift.training import load_network
from pipelines.problem import PolicySource, Problem, read_policy
from pipelines.session import Session, open_session

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.networks import VideoNetwork

IMAGES = 50
# The arms whose fields a study shows: the plain network, larger kernels, equal frames, and the searched motions.
SHOWN_ARMS = ("none", "wide-field", "replicate", "no-shift", "das")


@dataclass(frozen=True)
class FieldResult:
    """Receptive fields: a table with a row a network, and the files of maps and figures."""

    folder: Path | None
    table: pd.DataFrame
    figures: dict[str, Path]


def receptive_field(
    *,
    runs: list[str] | None = None,
    network: str | None = None,
    temporal: str = "none",
    frames: int = 1,
    policy: PolicySource = None,
    layers: list[str] | None = None,
    classes: int = 10,
    channels: int = 3,
    size: int = 224,
    images: int = IMAGES,
    json: bool = False,
    out: str | None = None,
    resume: bool = False,
    loading: LoadingConfig = LoadingConfig(),
    tracking: TrackingConfig = TrackingConfig(),
) -> FieldResult:
    """Shows receptive fields: a network's by theory (--network), or those of trained runs by gradients (--runs A B C).

    Args:
        runs: folders of trained networks; their effective fields are compared on the same test images.
        network: network name; its theoretical field, layer by layer, needs no data.
        temporal: temporal module of that network.
        frames: frames of that network's video.
        policy: policy file whose motions reshape that network's field.
        layers: names of layers to show; by default every layer with a field of its own.
        classes: classes of that network.
        channels: image channels of that network.
        size: height and width of the image in pixels.
        images: test images that an effective field is averaged over.
        json: print the theory as JSON.
        out: run folder of a comparison of runs; by default runs/receptive-field.
        resume: print the finished comparison in that folder.
        loading: how files are read.
        tracking: where a comparison is recorded.
    """
    if (runs is None) == (network is None):
        raise UserError("Give either --network NAME for a network's theory, or --runs FOLDER ... for trained networks.")
    if network is not None:
        return network_theory(
            network, temporal, frames, read_policy(policy), layers, classes, channels, size, as_json=json
        )
    if images < 1:
        raise UserError(f"--images is {images}, but an effective field needs at least 1 image.")
    folders = named_folders(runs or [])
    loaded = {name: load_network(folder) for name, folder in folders.items()}
    cards = [card for _, card in loaded.values()]
    if len({(card.data, card.task) for card in cards}) > 1:
        raise UserError(
            "The runs were trained on different data: "
            + ", ".join(f"{card.data} ({card.task})" for card in cards)
            + "; "
            "their effective fields are comparable on the same images only."
        )
    first = cards[0]
    problem = Problem(
        data=first.data,
        task=first.task,
        network=first.network,
        temporal="none",
        frames=1,
        architecture=first.architecture,
        loading=loading,
    )
    dataset = problem.load()
    config = {"runs": list(map(str, folders.values())), "images": images, "loading": loading, "tracking": tracking}
    tags = {"data": first.data}
    with open_session(
        "receptive-field", out=out, resume=resume, config=config, tracking=tracking, tags=tags
    ) as session:
        return compare_fields(session, dataset, folders, images=images)


def named_folders(runs: list[str]) -> dict[str, Path]:
    """Run folders by their last names, or by their whole paths where those are shared."""
    if len(set(runs)) < len(runs):
        raise UserError("--runs names a folder twice; give each once.")
    names = [Path(run).name for run in runs]
    return {name if names.count(name) == 1 else run: Path(run) for name, run in zip(names, runs, strict=True)}


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
) -> FieldResult:
    """Prints the theoretical field of every layer and of the whole feature extractor, reshaped by the policy if any."""
    import pandas as pd

    from fieldshift.networks import known_networks, video_network
    from fieldshift.receptive_field import feature_extractor
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
    whole = next((field for field in found if field.name == built.feature_layer), None) or feature_extractor(found)
    values: dict[str, Any] = {
        "network": name,
        "temporal": temporal,
        "frames": frames,
        "input_size": [size, size],
        "feature_extractor": whole.to_json(),
        "layers": [field.to_json() for field in found],
    }
    if policy is not None:
        values["reshaped"] = reshaped(policy, whole, size).to_json()
    rows = [
        {
            "layer": field.name,
            "size": "unbounded" if field.size is None else f"{field.size[0]} x {field.size[1]}",
            "stride": "-" if field.stride is None else f"{field.stride[0]:g}",
            "temporal reach": field.temporal_reach,
        }
        for field in [*found, whole]
    ]
    frame = pd.DataFrame(rows)
    if as_json:
        say(jsonlib.dumps(values, indent=2))
    else:
        show(
            Sheet.from_frame(
                frame.assign(layer=[*frame["layer"][:-1], "feature extractor"]),
                title=f"{name} at {size} x {size}, theory",
            )
        )
    return FieldResult(None, frame, {})


def run_fields(
    session: Session, problem: Problem, dataset: DataSet, policy: Policy, trained: dict[str, Path], *, seed: int
) -> FieldResult:
    """A study's receptive fields: those of its trained arms, and of the searched policy where none was trained."""
    import torch

    from fieldshift.training import save_network

    folders = {arm: folder for arm in SHOWN_ARMS if (folder := trained.get(arm)) is not None}
    if not folders:
        say("  no trained networks: fields of networks with fresh weights")
        for arm in ("none", "das"):
            card = problem.card(dataset, arm, policy, None, seed)
            torch.manual_seed(seed)
            folders[arm] = session.path / "untrained" / arm
            save_network(folders[arm], card.build(), card)
    return compare_fields(session, dataset, folders, images=IMAGES, trained=bool(trained))


def compare_fields(
    session: Session, dataset: DataSet, folders: dict[str, Path], *, images: int, trained: bool = True
) -> FieldResult:
    """Measures, tabulates and draws the fields of trained networks on the same test images."""
    import numpy as np
    import pandas as pd
    import torch

    from fieldshift.report import field_sheet, show

    finished = session.folder.finished_result()
    if finished is None:
        count = min(images, len(dataset.test))
        pictures, _ = dataset.test.gather(torch.arange(count))
        fields, rows, sheets = {}, [], {}
        for name, folder in folders.items():
            field, numbers = measured(folder, pictures, dataset.name, trained)
            fields[name] = field
            field.save(session.path / f"{name.strip('/').replace('/', '-')}.npz")
            sheets[name] = numbers
            rows.append({"network": name, **numbers})
        figures = drawn(session.path, fields, pictures[0])
        for name, field in fields.items():
            run = session.child(f"receptive-field-{name}", {"arm": name, "stage": "receptive-field"})
            numeric = {f"receptive_field/{slug(key)}": value for key, value in sheets[name].items() if number(value)}
            run.log_metrics(numeric)
            run.set_tags({f"conditions.{i}": line for i, line in enumerate(field.conditions.lines())})
            picture = field.values / field.values.max()
            run.log_image("receptive_field/effective", np.asarray(picture.sqrt() * 255, dtype=np.uint8), 0)
            for path in figures.values():
                run.log_artifact(path)
            run.close("FINISHED")
        notes = next(iter(fields.values())).conditions.lines()[1:2]
        finished = session.folder.write_result(
            {
                "rows": rows,
                "sheet": sheets,
                "notes": notes,
                "figures": {name: str(path) for name, path in figures.items()},
            }
        )
    show(field_sheet(finished["sheet"], title="Receptive field of the last feature map", notes=finished["notes"]))
    say(f"  {session.path}")
    paths = {name: Path(path) for name, path in finished["figures"].items()}
    return FieldResult(session.path, pd.DataFrame(finished["rows"]), paths)


def measured(folder: Path, pictures: Any, kind: str, trained: bool) -> tuple[EffectiveField, dict[str, Any]]:
    """The effective field of one trained network and the numbers of its column in the table."""
    network, card = load_network(folder)
    plan = card.plan()
    policy = None if plan.as_images else plan.policy
    field = effective(
        network, pictures, trained=trained, policy=policy, images_kind=f"{kind} test", mean=card.mean, std=card.std
    )
    found = measures(field)
    return field, {
        **theoretical(network, policy, card.size),
        "effective: side at 50 %, px": found.side[0.5],
        "effective: area at 50 %, px^2": found.area[0.5],
        "effective: area at 99 %, px^2": found.area[0.99],
        "effective: sigma along, px": found.moments.along,
        "effective: sigma across, px": found.moments.across,
        "effective: anisotropy": found.moments.anisotropy,
        "effective: angle, degrees": found.moments.angle,
    }


def theoretical(network: VideoNetwork, policy: Policy | None, size: tuple[int, int]) -> dict[str, Any]:
    """The field of the last feature map by theory, as a plain network and as its motions reshape it."""
    layer = next(field for field in theory(network, size) if field.name == network.feature_layer)
    numbers: dict[str, Any] = {"theory: side, px": None if layer.size is None else layer.size[0]}
    if layer.size is not None:
        region = reshaped(policy or Policy.replicate(1), layer, size).fused
        numbers |= {
            "reshaped: area, px^2": region.area,
            "reshaped: height, px": region.extent[0],
            "reshaped: width, px": region.extent[1],
        }
    return numbers


def drawn(folder: Path, fields: dict[str, EffectiveField], picture: Any) -> dict[str, Path]:
    """The comparison on a common scale, or the one map there is, as PNG and as SVG."""
    from fieldshift.receptive_field.figures import comparison_figure, effective_figure, save_figure

    if len(fields) > 1:
        figure = comparison_figure(fields, example=picture)
    else:
        figure = effective_figure(next(iter(fields.values())), example=picture)
    return {path.suffix[1:]: path for path in save_figure(figure, folder / "receptive-fields")}


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def slug(words: str) -> str:
    """A measure's name as MLflow takes it."""
    kept = "".join(character if character.isalnum() else " " for character in words)
    return "_".join(kept.split())
