"""Builds video networks from a name or from any 2D network."""

from __future__ import annotations

from torch import nn

from fieldshift.errors import UserError, unknown_name
from fieldshift.networks.classifiers import Backbone, classifier, described, dilate_last_stage, replace_input
from fieldshift.networks.foreign import foreign_network
from fieldshift.networks.given import check_network, check_options
from fieldshift.networks.insertion import MotionsAt, insert
from fieldshift.networks.names import FUSIONS, backbone_of, is_foreign, is_import_path, known_networks, unknown_network
from fieldshift.networks.pretrained import load_weights
from fieldshift.networks.recomputation import recompute_stages
from fieldshift.networks.segmenters import segmenter
from fieldshift.networks.temporal import temporal_kind
from fieldshift.networks.video import VideoNetwork


def video_network(
    name: str | nn.Module,
    *,
    temporal: str = "tsm",
    frames: int,
    num_classes: int,
    task: str = "classification",
    in_channels: int = 3,
    ratio: float | None = None,
    fusion: str = "mean-logits",
    weights: str | None = None,
    wide_field: bool = False,
    dilated: bool = False,
    small_images: bool = False,
    auxiliary: bool = False,
    interleave: bool | None = None,
    places: str | None = None,
    feature_layer: str | None = None,
    recompute: bool = False,
    motions: MotionsAt | None = None,
) -> VideoNetwork:
    """Builds a 2D network, inserts temporal modules and wraps it: the result maps (B, T, C, H, W) to logits.

    `name` is one of `known_networks(task)`, another classifier of torchvision, an import path `package.module:function`
    (`foreign_network`), or a network of your own, (N, C, H, W) -> (N, K) or (N, K, H, W), which is then changed in
    place; where these have no residual blocks of a known family, `places` is required. `temporal` names an entry of
    `TEMPORAL`, `ratio` is the share of channels it moves (1/8 per direction for TSM, 1/4 for GSM and GSF), `places` a shell
    pattern of module names to insert at instead of every residual block ("layer3.*.conv1"), `interleave` the channel
    interleave of GSM and GSF (by default on, but off with pretrained `weights` and in a module given as an object [D]).
    `weights` is an entry of torchvision ("DEFAULT") or a file; `.weights_report` lists what matched. `wide_field`
    enlarges the receptive field, `dilated` does so by dilating the last stage only, and `small_images` adapts the stem to
    32 x 32; `auxiliary` adds a segmenter's auxiliary head; `recompute` saves the memory of activations for a second forward
    pass. `feature_layer` names the last feature map of your own network. With `frames=1` no temporal module is
    inserted: it is the 2D network [D]. With `motions` (see `fieldshift.folding`) the network is in folded form: it reads
    the image as a video of one frame, so `frames` is 1. Raises UserError for unknown values and for options that do not
    apply to this network.
    """
    check_options(places, temporal=temporal, ratio=ratio, interleave=interleave)
    kind = temporal_kind(temporal)
    if interleave is None and (weights is not None or isinstance(name, nn.Module)) and kind.takes_interleave:
        interleave = False
    if frames < 1 or num_classes < 1 or in_channels < 1:
        raise UserError(
            f"frames = {frames}, num_classes = {num_classes}, in_channels = {in_channels}, but each must be at least 1."
        )
    if motions is not None and frames != 1:
        raise UserError(f"A folded network reads one frame, but frames is {frames}; give frames = 1, or no motions.")
    if fusion not in FUSIONS:
        raise unknown_name("fusion", fusion, FUSIONS)
    known = known_networks(task)
    if auxiliary and task != "segmentation":
        raise UserError("auxiliary=True adds a segmenter's auxiliary head, but the task is classification; omit it.")
    if isinstance(name, nn.Module):
        backbone = _own(name, feature_layer, wide_field or dilated or small_images or auxiliary)
        name = body = type(name).__name__
    elif name not in known:
        if not is_foreign(name, task):
            raise unknown_network(name, task)
        body = name
        own = foreign_network(name, num_classes=num_classes, in_channels=in_channels)
        backbone = _own(own, feature_layer, wide_field or dilated or small_images or auxiliary)
        if in_channels != 3 and not is_import_path(name):
            replace_input(backbone, in_channels)
    elif feature_layer is not None:
        raise UserError(
            f"feature_layer='{feature_layer}' is for networks of your own; '{name}' has a known one, omit it."
        )
    elif task == "classification":
        body = name
        backbone = classifier(
            name, num_classes=num_classes, in_channels=in_channels, wide_field=wide_field, small_images=small_images
        )
    else:
        body = backbone_of(name)
        backbone = segmenter(
            name,
            num_classes=num_classes,
            in_channels=in_channels,
            wide_field=wide_field,
            small_images=small_images,
            auxiliary=auxiliary,
        )
    network = backbone.network
    if dilated:
        dilate_last_stage(backbone, body)
    placements = insert(
        network, kind, frames=frames, ratio=ratio, interleave=interleave, places=places, motions=motions
    )
    report = None
    if weights is not None:
        report = load_weights(
            network,
            weights,
            name=name,
            body=body,
            first_conv=backbone.first_conv,
            num_classes=num_classes,
            wide_field=wide_field,
        )
    if recompute:
        recompute_stages(network, backbone.stages)
    return VideoNetwork(
        network,
        name=name,
        task=task,
        frames=frames,
        temporal=temporal,
        num_classes=num_classes,
        fusion=fusion,
        feature_layer=backbone.feature_layer,
        placements=placements,
        stages=backbone.stages,
        form="video" if motions is None else "folded",
        weights_report=report,
    )


def _own(network: nn.Module, feature_layer: str | None, wants_changes: bool) -> Backbone:
    """Describes a network that the user built."""
    if wants_changes:
        raise UserError(
            "wide_field, dilated, small_images and auxiliary change networks that are built by name; build your own network "
            "accordingly and omit them."
        )
    check_network(network)
    convolutions = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    if feature_layer is None and (hasattr(network, "layer4") or hasattr(network, "trunk_output")):
        return described(network)
    if feature_layer is not None and feature_layer not in dict(network.named_modules()):
        raise unknown_name("feature_layer", feature_layer, [path for path, _ in network.named_children()])
    stages = tuple(path for path, child in network.named_children() if isinstance(child, nn.Sequential))
    return Backbone(
        network=network, feature_layer=feature_layer or convolutions[-1], first_conv=convolutions[0], stages=stages
    )
