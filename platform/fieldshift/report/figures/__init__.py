"""The figures of a study as matplotlib Figures, drawn without pyplot and without a display."""

from __future__ import annotations

from fieldshift.report.figures.policies import frame_captions, frame_strip, policy_graph
from fieldshift.report.figures.scores import accuracy_bars, frame_curve
from fieldshift.report.figures.searching import decision_chart, search_history

__all__ = [
    "accuracy_bars",
    "decision_chart",
    "frame_captions",
    "frame_curve",
    "frame_strip",
    "policy_graph",
    "search_history",
]
