"""Networks that read an image as a video: temporal modules inside 2D backbones, classifiers, segmenters, fusion."""

from fieldshift.networks.config import NetworkConfig
from fieldshift.networks.construction import known_networks, video_network
from fieldshift.networks.description import count_parameters, describe, describe_lines, flops_per_image
from fieldshift.networks.foreign import check_answer, is_foreign, unknown_network
from fieldshift.networks.fusion import FUSIONS, Fusion, align, frame_validity
from fieldshift.networks.gate import GSF, GSM
from fieldshift.networks.insertion import Placement, insert
from fieldshift.networks.pretrained import WeightsReport, check_weights
from fieldshift.networks.recomputation import recompute_stages
from fieldshift.networks.segmenters import backbone_of
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
    "check_weights",
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
