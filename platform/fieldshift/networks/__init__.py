"""Networks that read an image as a video: temporal modules inside 2D backbones, classifiers, segmenters, fusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldshift.deferral import load_on_use

if TYPE_CHECKING:
    from fieldshift.networks.config import NetworkConfig
    from fieldshift.networks.construction import video_network
    from fieldshift.networks.description import count_parameters, describe, describe_lines, flops_per_image
    from fieldshift.networks.foreign import check_answer
    from fieldshift.networks.fusion import Fusion, align, frame_validity
    from fieldshift.networks.gate import GSF, GSM
    from fieldshift.networks.insertion import Inserted, Placement, insert
    from fieldshift.networks.names import FUSIONS, backbone_of, is_foreign, known_networks, unknown_network
    from fieldshift.networks.pretrained import WeightsReport
    from fieldshift.networks.recomputation import recompute_stages
    from fieldshift.networks.shift import TSM
    from fieldshift.networks.speed import images_per_second
    from fieldshift.networks.streaming import Stream, predict_in_chunks
    from fieldshift.networks.temporal import TEMPORAL, TemporalConv, TemporalKind, temporal_kind
    from fieldshift.networks.video import VideoNetwork

__all__ = [
    "FUSIONS",
    "GSF",
    "GSM",
    "TEMPORAL",
    "TSM",
    "Fusion",
    "Inserted",
    "NetworkConfig",
    "Placement",
    "Stream",
    "TemporalConv",
    "TemporalKind",
    "VideoNetwork",
    "WeightsReport",
    "align",
    "backbone_of",
    "check_answer",
    "count_parameters",
    "describe",
    "describe_lines",
    "flops_per_image",
    "frame_validity",
    "images_per_second",
    "insert",
    "is_foreign",
    "known_networks",
    "predict_in_chunks",
    "recompute_stages",
    "temporal_kind",
    "unknown_network",
    "video_network",
]

load_on_use(__name__)
