"""Receptive fields: of a network by theory, of a policy on the image, and of trained networks by gradients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshift.console import say
from fieldshift.data import LoadingOverrides
from fieldshift.errors import UserError
from fieldshift.experiment.policy_source import PolicySource, check_policy, policy_of_form, read_policy, video_policy
from fieldshift.experiment.session import Destination, Session, open_session
from fieldshift.forms import Form, check_form, check_length
from fieldshift.networks import NetworkConfig
from fieldshift.run_folder import check_folder
from fieldshift.tracking import TrackingConfig
from fieldshift.tracking.store import check_store
from pipelines.describing import AskedNetwork
from pipelines.options import check_data_of, check_network_name

if TYPE_CHECKING:
    import pandas as pd

    from fieldshift.data import DataSet
    from fieldshift.experiment import Experiment
    from fieldshift.folding import AnyPolicy
    from pipelines.field_subjects import Subject
    from pipelines.sweeping import FrameSweep

IMAGES = 50
NARROW = "-narrow"
"""The end of the names of figures for narrow screens."""

# The arms whose fields a study shows: the plain network, larger kernels, equal frames, and the searched motions.
SHOWN_ARMS = ("none", "wide-field", "replicate", "no-shift", "das", "das-folded")


@dataclass(frozen=True)
class FieldResult:
    """Receptive fields: a table with one row per network or layer, and the files of maps and figures."""

    folder: Path | None
    table: pd.DataFrame
    figures: dict[str, Path]


def receptive_field(  # noqa: PLR0913 - the options of a command
    *,
    network: str,
    form: Form = "video",
    temporal: str = "none",
    frames: int = 1,
    policy: PolicySource = None,
    layers: list[str] | None = None,
    all: bool = False,
    classes: int = 10,
    channels: int = 3,
    size: int = 224,
    architecture: NetworkConfig = NetworkConfig(),
    json: bool = False,
    out: str | None = None,
    resume: bool = False,
) -> FieldResult:
    """Computes the theoretical receptive field of a network, layer by layer, and reshaped by a policy's motions.

    It needs no data. `fieldshift compare-fields` measures the fields of trained networks by gradients.

    Args:
        network: network name, any other classifier or detector (only its backbone) of torchvision, or your own as
            package.module:function.
        form: how the network reads the policy's motions: as a video, or folded into one frame.
        temporal: temporal module of the network; none with a policy means tsm.
        frames: frames of the network's video; 1 with a policy means as many as the policy has.
        policy: policy file whose motions reshape the network's field.
        layers: names of layers to show, by default all; a single one is also drawn and reshaped.
        all: list also the layers without parameters that do not change the field.
        classes: classes of the network.
        channels: image channels of the network.
        size: height and width of the network's image in pixels.
        architecture: further settings of the network.
        json: print the theory as JSON.
        out: run folder, with the figures; none by default.
        resume: write again into a folder that holds the same network's theory.
    """
    check_form(form)
    check_length(frames, "--frames")
    check_network_name(network)
    if form == "folded" and policy is None:
        raise UserError("--form folded moves channels by a policy's motions, but there is none; give --policy FILE.")
    policy = policy_of_form(policy, form)
    check_policy(policy)
    check_folder(out, "receptive-field", {}, resume)

    from pipelines.field_theory import network_theory, shown_theory

    motions = read_policy(policy)
    if motions is not None and form == "video":
        motions = video_policy(motions, "--policy")
    asked = AskedNetwork(
        name=network,
        temporal=temporal,
        frames=frames,
        classes=classes,
        channels=channels,
        size=size,
        architecture=architecture,
    )
    found = network_theory(asked, form, motions, layers)
    return shown_theory(found, layers, as_json=json, out=out, resume=resume, every=all)


def compare_fields(  # noqa: PLR0913 - the options of a command
    *,
    runs: list[str],
    motions: list[str] | None = None,
    before: bool = False,
    noise: bool = False,
    images: int = IMAGES,
    unit: list[int] | None = None,
    layers: list[str] | None = None,
    data: str | None = None,
    loading: LoadingOverrides = LoadingOverrides(),
    tracking: TrackingConfig = TrackingConfig(),
    out: str | None = None,
    resume: bool = False,
) -> FieldResult:
    """Compares the effective receptive fields of trained networks, measured by gradients on the same images.

    Args:
        runs: folders of trained networks, their MLflow run ids, or a frame sweep's folder.
        motions: measure the runs under each of these instead of their own motions: own, plain (equal frames), a motion
            such as rotate=30, a chain such as translate_x=0.3,zoom=1.2, or a policy file. Folded runs: own and plain.
        before: measure every run also before its training.
        noise: take uniform noise instead of test images.
        images: number of images that an effective field is averaged over.
        unit: row and column of the unit in the layer's map; by default the centre.
        layers: the one layer to measure at, by default the last feature map.
        data: data with the same classes; by default those of the first run.
        loading: loading options that differ from the first run's training.
        tracking: where the comparison is recorded, and where MLflow run ids are looked up.
        out: run folder, with the figures; by default runs/compare-fields.
        resume: print the finished comparison in that folder.
    """
    if images < 1:
        raise UserError(f"--images is {images}, but an effective field needs at least 1 image.")
    if not runs:
        raise UserError("--runs is empty; give folders of trained networks.")
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise UserError("--runs names a folder twice; give each once.")
    layer, at = one_layer(layers), one_unit(unit)
    asked = {"motions": motions, "before": before, "noise": noise, "images": images, "unit": unit, "layers": layers}
    check_folder(out, "compare-fields", asked, resume)
    check_store(tracking)

    from pipelines.field_maps import FieldSettings, measure_fields
    from pipelines.field_subjects import subjects_of
    from pipelines.run_data import different_data, load_as_in_run

    settings = FieldSettings(images=images, noise=noise, layer=layer, unit=at)
    subjects = subjects_of(runs, tracking, motions=motions, before=before)
    first = subjects[0]
    check_last_layers(subjects, layer, at)
    folders = list(dict.fromkeys(subject.folder for subject in subjects if subject.folder is not None))
    check_data_of(str(folders[0]), first.card.data, data, loading)
    found = load_as_in_run(folders[0], first.card, loading, data)
    dataset = found.dataset
    if tuple(dataset.size) != tuple(first.card.size):
        raise UserError(
            f"The test images are {dataset.size[0]} x {dataset.size[1]} px, but {first.name} was trained on "
            f"{first.card.size[0]} x {first.card.size[1]} px; give --loading.size as in training."
        )
    for line in (*found.notes, *different_data(folders)):
        say(line)
    config = {
        "runs": [run if not Path(run).exists() else str(Path(run).absolute()) for run in runs],
        **asked,
        **({} if data is None else {"data": data}),
        "loading": found.loading,
        "tracking": tracking,
    }
    tags = {"data": data or first.card.data}
    destination = Destination(out=out, resume=resume, tracking=tracking)
    with open_session("compare-fields", destination, config=config, tags=tags, dataset=dataset) as session:
        return measure_fields(session, dataset, subjects, settings)


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


def check_last_layers(subjects: list[Subject], layer: str | None, unit: tuple[int, int] | None) -> None:
    """Raises UserError unless every network has the layer, or, where none is asked for, the same last one, and the unit."""
    from fieldshift.receptive_field.examples import check_layers, check_unit
    from fieldshift.receptive_field.theory import theory

    last: dict[str, str] = {}
    for subject in {id(each.card): each for each in reversed(subjects)}.values():  # once under all its motions
        built = subject.card.build(pretrained=False)
        check_layers(built, None if layer is None else [layer])
        last[subject.name] = built.feature_layer
        if unit is not None:
            (field,) = theory(built, subject.card.size, [layer or built.feature_layer])
            if field.map_size is not None:
                check_unit(unit, field.map_size, field.name)
    (first, wanted), *others = reversed(last.items())
    for name, own in others:
        if layer is None and own != wanted:
            raise UserError(
                f"These runs cannot be compared: the layer is {wanted} for {first} and {own} for {name}; "
                "give --layers NAME, a layer that all have."
            )


def run_fields(
    session: Session,
    experiment: Experiment,
    dataset: DataSet,
    policy: AnyPolicy,
    trained: dict[str, Path],
    *,
    sweep: FrameSweep | None = None,
) -> FieldResult:
    """A study's receptive fields: those of its trained arms, and of the searched policy where none was trained.

    sweep: a frame sweep, the fields of whose networks are drawn against T.
    """
    from fieldshift.experiment.cards import MOVED_ARMS, arm_card
    from fieldshift.training import load_network
    from pipelines.field_maps import measure_fields
    from pipelines.field_subjects import Subject, lengths_of

    subjects = [
        Subject(name=arm, card=load_network(folder)[1], folder=folder)
        for arm in SHOWN_ARMS
        if (folder := trained.get(arm)) is not None
    ]
    if not subjects:
        say("  no trained networks: fields of networks with fresh weights")
        subjects = [
            Subject(name=arm, card=arm_card(experiment, dataset, arm, policy, None), folder=None, seed=experiment.seed)
            for arm in ("none", MOVED_ARMS[experiment.form])
        ]
    for frames, folder in ({} if sweep is None else lengths_of(sweep.rows)).items():
        subjects.append(Subject(name=f"T = {frames}", card=load_network(folder)[1], folder=folder, frames=frames))
    return measure_fields(session, dataset, subjects)
