"""Receptive fields: theoretical, reshaped by a policy on the original image, and measured by gradients."""

from fieldshift.receptive_field.effective import effective
from fieldshift.receptive_field.effective_map import Conditions, EffectiveField, check_comparable
from fieldshift.receptive_field.measured_field import MeasuredField, measured_field
from fieldshift.receptive_field.measures import Ellipse, Measures, measures
from fieldshift.receptive_field.probe import Support, probe
from fieldshift.receptive_field.reshaped import Region, Reshaped, reshaped
from fieldshift.receptive_field.theory import LayerField, feature_extractor, theory

__all__ = [
    "Conditions",
    "EffectiveField",
    "Ellipse",
    "LayerField",
    "MeasuredField",
    "Measures",
    "Region",
    "Reshaped",
    "Support",
    "check_comparable",
    "effective",
    "feature_extractor",
    "measured_field",
    "measures",
    "probe",
    "reshaped",
    "theory",
]
