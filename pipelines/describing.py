"""Descriptions: a network in numbers, and the known data sets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fieldshift.console import say, table
from fieldshift.errors import UserError
from fieldshift.experiment.options import check_folded
from fieldshift.experiment.placement import best_device
from fieldshift.experiment.policy_source import PolicySource, check_policy, policy_of_form, read_policy
from fieldshift.forms import Form, check_form, check_length
from fieldshift.networks import NetworkConfig, is_foreign, known_networks, unknown_network
from fieldshift.wording import counted

if TYPE_CHECKING:
    from fieldshift.networks import VideoNetwork
    from fieldshift.networks.insertion import MotionsAt

FRAMES = 3  # without a policy


def describe(  # noqa: PLR0913 - the options of a command
    *,
    network: str = "tiny-resnet",
    temporal: str = "tsm",
    frames: int | None = None,
    form: Form = "video",
    policy: PolicySource = None,
    task: str = "classification",
    classes: int = 10,
    channels: int = 3,
    size: int = 224,
    speed: bool = True,
    architecture: NetworkConfig = NetworkConfig(),
) -> dict[str, Any]:
    """Describes a video network: parameters, FLOPs, temporal modules, receptive field, images per second.

    Args:
        network: network name, or your own as package.module:function.
        temporal: temporal module: none, tsm, tsm-inplace, tsm-causal, gsm, gsf or conv3d.
        frames: frames of the video; in the folded form they decide the step between neighbouring frames. By default 3, or as
            many as the policy has.
        form: video (T moved frames) or folded (one frame, whose channels move).
        policy: policy file with the motions of the folded network; by default motions that move nothing.
        task: classification or segmentation.
        classes: number of classes.
        channels: image channels.
        size: height and width of the images in pixels.
        speed: measure images per second, of this network and of the 2D network (some seconds).
        architecture: further settings of the network.
    """
    if frames is not None:
        check_length(frames, "--frames")
    if size < 1:
        raise UserError(f"--size is {size}, but an image has at least 1 pixel a side.")
    if network not in known_networks(task) and not is_foreign(network, task):
        raise unknown_network(network, task)
    architecture.check_names(network, temporal)
    check_form(form)
    if form == "folded":
        check_folded(temporal, FRAMES if frames is None else frames)
    elif policy is not None:
        raise UserError("--policy applies to --form folded only: motions do not change a video network; leave it out.")
    policy = policy_of_form(policy, form)
    check_policy(policy)
    if frames is None:
        motion = read_policy(policy)
        frames = FRAMES if motion is None else motion.frames

    from fieldshift.networks import check_answer, describe_lines
    from fieldshift.networks import describe as describe_network

    motions = folded_motions(policy, frames) if form == "folded" else None
    read = 1 if form == "folded" else frames
    asked = AskedNetwork(
        name=network,
        temporal=temporal,
        frames=read,
        task=task,
        classes=classes,
        channels=channels,
        size=size,
        architecture=architecture,
    )
    built = build_network(asked, motions)
    if is_foreign(network):
        check_answer(built.network, network, (2 * read, channels, size, size), classes, maps=task == "segmentation")
    facts = describe_network(built, (size, size)) | {"receptive_field": field_of(built, size)}
    for line in describe_lines(built, (size, size)):
        say(line)
    say(f"receptive field of {built.feature_layer}: {facts['receptive_field']}")
    if speed:
        plain = NetworkConfig(
            small_images=architecture.small_images, auxiliary=architecture.auxiliary, dilated=architecture.dilated
        )
        image = build_network(replace(asked, temporal="none", frames=1, architecture=plain))
        facts["speed"] = measured_speed(built, image, size)
    return facts


@dataclass(frozen=True, kw_only=True)
class AskedNetwork:
    """A network as a command without data names it, for images of `size` x `size` pixels."""

    name: str
    temporal: str
    frames: int
    classes: int
    channels: int
    size: int
    architecture: NetworkConfig
    task: str = "classification"


def build_network(asked: AskedNetwork, motions: MotionsAt | None = None) -> VideoNetwork:
    """The video network that is asked for; folded where `motions` are given."""
    from fieldshift.networks import video_network
    from fieldshift.networks.smallest import check_batch_and_size

    size, architecture = (asked.size, asked.size), asked.architecture
    built = video_network(
        asked.name,
        temporal=asked.temporal,
        frames=asked.frames,
        num_classes=asked.classes,
        task=asked.task,
        in_channels=asked.channels,
        ratio=architecture.ratio,
        fusion=architecture.fusion,
        weights=architecture.weights,
        auxiliary=architecture.auxiliary,
        interleave=architecture.interleave,
        places=architecture.places,
        dilated=architecture.dilated,
        recompute=architecture.recompute,
        small_images=architecture.takes_small_images(asked.name, size),
        motions=motions,
    )
    check_batch_and_size(
        built.network, asked.name, images=1, rows=asked.frames, channels=asked.channels, size=size, training=False
    )
    return built


def folded_motions(source: PolicySource, frames: int) -> MotionsAt:
    """The motions of a policy with that number of frames; without one, those that move nothing."""
    from fieldshift.folding import motions_of
    from fieldshift.motions import Policy

    return motions_of((read_policy(source) or Policy.replicate(frames)).with_frames(frames))


def field_of(network: VideoNetwork, size: int) -> str:
    """The theoretical field of the last feature map, in words, with what moved channels add in a folded network."""
    from fieldshift.receptive_field import reshaped, theory
    from fieldshift.receptive_field.theory import gates_note

    field = theory(network, size, layers=[network.feature_layer])[0]
    beside = f", and the whole image through {field.unbounded_by}" if field.unbounded_by else ""
    beside += f"; {note}" if (note := gates_note(network)) else ""
    if field.unknown_by:
        return f"unknown, since {field.unknown_by} has no rule"
    if field.moved and field.size is not None:
        height, width = reshaped(None, field, size).fused.extent
        moved = f"{height:.0f} x {width:.0f} px of an image of {size} x {size} px"
        beside = f", with the motions at {len(field.moved)} places {moved}{beside}"
    if field.size is None:
        return f"unbounded, by {field.unbounded_by}"
    stride = "" if field.stride is None else f", stride {field.stride[0]:g} px"
    return f"{field.size[0]} x {field.size[1]} px{stride}{beside}"


def measured_speed(network: VideoNetwork, plain: VideoNetwork, size: int) -> dict[str, Any]:
    """Prints and returns images per second and FLOPs of the fused video network and of the 2D network."""
    import torch

    from fieldshift.networks import flops_per_image, images_per_second

    device = best_device()
    place = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"the CPU, {counted(torch.get_num_threads(), 'thread')}"
    )
    rows = {
        "video": (
            network.to(device),
            "folded, 1 frame" if network.form == "folded" else f"{network.frames} frames fused",
        ),
        "image": (plain.to(device), "the 2D network, 1 frame"),
    }
    found: dict[str, Any] = {"device": place}
    for name, (each, words) in rows.items():
        rate, flops = images_per_second(each, (size, size)), flops_per_image(each, (size, size))
        found |= {f"{name}_images_per_second": rate, f"{name}_flops": flops}
        say(f"{rate:.4g} images/s at {flops / 1e9:.3f} GFLOP per image: {words}, one image at a time on {place}")
    return found


def datasets(*, root: str | None = None) -> list[dict[str, Any]]:
    """Lists the data sets that --data accepts, with the folders where they are expected.

    Args:
        root: folder of published data sets; by default FIELDSHIFT_DATA, else the cache folder.
    """
    from fieldshift.data import catalogue
    from fieldshift.data.cache import data_root

    rows = catalogue(root)
    heading = ("name", "task", "classes", "size", "samples", "here", "licence")
    here = {row.name: "yes" if row.present else "no *" if row.downloads else "no" for row in rows}
    table(
        heading,
        [(row.name, row.task, str(row.classes), row.size, row.samples, here[row.name], row.licence) for row in rows],
    )
    say("* fetched with --loading.download")
    say(f"published data sets are expected below {data_root(root)} (--loading.root, or FIELDSHIFT_DATA):")
    for row in rows:
        if row.looked_in:
            say(f"  {row.name}: {' or '.join(row.looked_in)}")
    say("own data: folder:PATH (one folder per class), npz:PATH (MedMNIST names), voc:PATH (VOC layout with masks)")
    return [asdict(row) for row in rows]
