"""A trained network on disk: `weights.safetensors` and `network.json`, enough to use it anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from fieldshift.data import Augmentation, DataSet, LoadingConfig
from fieldshift.data.augmentation.arms import augmentation
from fieldshift.data.files.pictures import picture_reader
from fieldshift.data.files.reading import Reader, fitting_of
from fieldshift.data.names import COVERS
from fieldshift.errors import UserError, one_line
from fieldshift.folding import AnyPolicy, motions_of
from fieldshift.forms import Form
from fieldshift.motions.placed import PlacedPolicy, policy_from_json
from fieldshift.networks import TEMPORAL, NetworkConfig, VideoNetwork, video_network
from fieldshift.networks.config import SMALL_SIDE
from fieldshift.networks.insertion import MotionsAt
from fieldshift.seals import file_digest
from fieldshift.training.arms import Arm, arm_named
from fieldshift.training.card_file import ALIGN, SCHEMA, VERSION, WEIGHTS, read_card
from fieldshift.training.frames import FramePlan
from fieldshift.whole_file import whole_file, write_whole

WEIGHTS_DIGEST = "weights_sha256"


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """Everything except the weights that defines a trained network.

    Attributes:
        data: the data set it was trained on, as given to `load_dataset`.
        task: classification or segmentation.
        classes: names, in the order of the logits.
        channels: image channels it reads.
        size: (H, W) of the training images in pixels.
        mean: channel means in [0, 1] that it normalises with, after the motions.
        std: channel standard deviations in [0, 1], likewise.
        ignore_index: the label without a class in masks, or None.
        network: name for `video_network`.
        temporal: temporal module inside it.
        architecture: settings it is built with; `small_images` is resolved, not None.
        arm: the arm of `fieldshift.training.arms` it was trained as.
        policy: the motions, as the policy file's JSON object; None if it reads plain images.
        form: how the network reads the motions: as a video, or folded into one frame.
        augmentation: RandAugment's `num_ops` and `magnitude` of the training where they were chosen; empty for the defaults.
    """

    data: str
    task: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ignore_index: int | None = None
    network: str
    temporal: str
    architecture: NetworkConfig = field(default_factory=NetworkConfig)
    arm: str = "none"
    policy: dict[str, Any] | None = None
    form: Form = "video"
    augmentation: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def from_plain(values: dict[str, Any]) -> NetworkCard:
        """The card from the plain values of `asdict` or JSON; fields unknown to this version are ignored."""
        known = {each.name for each in fields(NetworkCard)}
        known_values = {name: value for name, value in values.items() if name in known}
        for name in ("classes", "size", "mean", "std"):
            known_values[name] = tuple(known_values[name])
        settings = {each.name for each in fields(NetworkConfig)}
        given = known_values.get("architecture", {})
        known_values["architecture"] = NetworkConfig(
            **{name: value for name, value in given.items() if name in settings}
        )
        return NetworkCard(**known_values)

    @property
    def frames(self) -> int:
        """Number of frames in the video that the network reads."""
        as_images = arm_named(self.arm).frames == "searched-as-images"
        return 1 if self.policy is None or as_images or self.form == "folded" else int(self.policy["frames"])

    @property
    def policy_frames(self) -> int:
        """Number of frames of the policy's video: as `frames`, but in the folded form they determine the step."""
        return int(self.policy["frames"]) if self.form == "folded" and self.policy is not None else self.frames

    @property
    def mapped(self) -> int:
        """Number of classes of the maps; 0 for classification."""
        return len(self.classes) if self.task == "segmentation" else 0

    @property
    def motions(self) -> AnyPolicy | None:
        """The policy, for either form."""
        return None if self.policy is None else policy_from_json(json.dumps(self.policy))

    def plan(self) -> FramePlan:
        """The conversion of images to the network's input."""
        arm, policy = arm_named(self.arm), None if self.form == "folded" else self.motions
        assert not isinstance(policy, PlacedPolicy), "motions at places have no video"
        return FramePlan(
            policy=policy,
            as_images=arm.frames == "searched-as-images",
            augmentation=arm_augmentation(arm, self.size, self.augmentation),
            mean=self.mean,
            std=self.std,
            outside=255 if self.ignore_index is None else self.ignore_index,
        )

    def reader(self, pixel_limit: int = LoadingConfig().pixel_limit) -> Reader:
        """The reader of single pictures, which brings them to the size and channels of the training as its files were."""
        return picture_reader(
            self.channels, self.size, pixel_limit, fitting=fitting_of(self.task), cover=COVERS.get(self.data, 1.0)
        )

    def build_without_memory(self) -> VideoNetwork:
        """The network as shapes only, on the meta device; on the CPU if building it needs numbers (RegNet's widths)."""
        try:
            motions = self.motions_at()
            with torch.device("meta"):
                return self.build(pretrained=False, motions=motions)
        except NotImplementedError:
            return self.build(pretrained=False)

    def motions_at(self) -> MotionsAt | None:
        """The motions of the network's places in the folded form; None in the form video."""
        return motions_of(self.motions) if self.form == "folded" and self.motions is not None else None

    def build(self, *, pretrained: bool = True, motions: MotionsAt | None = None) -> VideoNetwork:
        """Builds the network with newly drawn weights, replaced by pretrained ones if the card names some.

        `motions` are those of `motions_at`, if they are already computed.
        """
        arm, config = arm_named(self.arm), self.architecture
        gated = TEMPORAL[self.temporal].takes_interleave
        return video_network(
            self.network,
            temporal=self.temporal,
            frames=self.frames,
            num_classes=len(self.classes),
            task=self.task,
            in_channels=self.channels,
            ratio=config.ratio if self.temporal != "none" else None,
            fusion=config.fusion,
            weights=config.weights if pretrained else None,
            wide_field=arm.wide_field,
            dilated=arm.dilated or config.dilated,
            small_images=bool(config.small_images),
            auxiliary=config.auxiliary,
            interleave=(config.interleave if config.weights is None else bool(config.interleave)) if gated else None,
            places=config.places if self.temporal != "none" else None,
            recompute=config.recompute,
            motions=motions or self.motions_at(),
        )


def arm_augmentation(arm: Arm, size: tuple[int, int], numbers: Mapping[str, int] | None = None) -> Augmentation | None:
    """The arm's 2D augmentation; AutoAugment's policy is CIFAR-10's for images of at most 64 px, else ImageNet's.

    `numbers` are RandAugment's, where they are not the defaults.
    """
    if arm.augmentation == "none":
        return None
    if numbers:
        return augmentation(arm.augmentation, num_ops=numbers["num_ops"], magnitude=numbers["magnitude"])
    if arm.augmentation == "autoaugment":
        return augmentation(arm.augmentation, policy="cifar10" if max(size) <= SMALL_SIDE else "imagenet")
    return augmentation(arm.augmentation)


def network_card(
    dataset: DataSet,
    spec: str,
    arm: Arm,
    *,
    network: str,
    temporal: str,
    policy: AnyPolicy | None,
    architecture: NetworkConfig = NetworkConfig(),
) -> NetworkCard:
    """The card of a network that `arm` trains on `dataset`; the arm determines whether the temporal module is included."""
    size = (dataset.size[0], dataset.size[1])
    return NetworkCard(
        data=spec,
        task=dataset.task,
        classes=tuple(dataset.classes),
        channels=dataset.channels,
        size=size,
        mean=tuple(dataset.mean),
        std=tuple(dataset.std),
        ignore_index=dataset.ignore_index,
        network=network,
        temporal=temporal if arm.shift else "none",
        architecture=replace(architecture.anywhere(), small_images=architecture.takes_small_images(network, size)),
        arm=arm.name,
        policy=None if policy is None else json.loads(policy.to_json()),
        form=arm.form,
    )


def save_network(folder: Path, network: VideoNetwork, card: NetworkCard, *, align: bool | None = None) -> None:
    """Writes `weights.safetensors` and `network.json` into `folder`, the JSON last: it marks the pair as complete.

    `align`, whether maps are fused in the reference frame, is written where no config.yaml next to the files has it.
    """
    from safetensors.torch import save

    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with whole_file(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(weights))
        digest = file_digest(temporary)
    fused = {} if align is None else {ALIGN: align}
    text = json.dumps({"schema": SCHEMA, "version": VERSION, **asdict(card), **fused, WEIGHTS_DIGEST: digest}, indent=2)
    write_whole(folder / "network.json", text + "\n")


def load_network(folder: Path, device: torch.device | str = "cpu") -> tuple[VideoNetwork, NetworkCard]:
    """Loads the trained network of a run folder, in evaluation mode, and its card. Raises UserError if there is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    values, weights = read_card(folder), folder / WEIGHTS
    try:
        card = NetworkCard.from_plain(values)
        network = card.build(pretrained=False)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder / 'network.json'} describes a network that cannot be built ({one_line(error, 200)}); train again."
        ) from None
    try:
        if values.get(WEIGHTS_DIGEST) not in (None, file_digest(weights)):
            raise UserError(
                f"{weights} has changed since network.json next to it was written (SHA-256); train again or restore it."
            )
        state = load_file(weights)
        shifted = card.temporal != "none" and card.frames == 1 and card.form == "video"
        if shifted and any("wrapped" in name.split(".") for name in state.keys() - network.state_dict().keys()):
            raise UserError(
                f"{weights} is of a version in which {card.temporal} changed a video of one frame; now that is the 2D "
                "network, so the run's scores cannot be reproduced: train again."
            )
        network.load_state_dict(state)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights} cannot be read ({one_line(error, 200)}); train again or restore it.") from None
    except RuntimeError:  # torch names every tensor that does not fit
        raise UserError(
            f"{weights} belongs to another network than network.json next to it; train again or restore it."
        ) from None
    return network.to(device).eval(), card
