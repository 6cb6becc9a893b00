"""The report of a study: statistics, tables, figures and one self-contained page.

`summarise` turns trials into means, intervals and paired differences; `verdict` states the conclusions; tables are
`Sheet`s, printed in the same way in a terminal and on the page; figures (`fieldshift.report.figures`) are matplotlib
Figures; `write_report` joins them into one HTML file.
"""

from __future__ import annotations

from fieldshift.report.blocks import (
    Code,
    Definitions,
    FigureBlock,
    Heading,
    KeyNumber,
    KeyNumbers,
    Paragraph,
    Points,
    Section,
    TableBlock,
)
from fieldshift.report.claims import claims, outcomes
from fieldshift.report.conditions import conditions_section, hardware, headline
from fieldshift.report.figures import (
    accuracy_bars,
    decision_chart,
    frame_curve,
    frame_strip,
    policy_graph,
    search_history,
)
from fieldshift.report.html import render_report, write_report
from fieldshift.report.intervals import Difference, Estimate, estimate, paired_difference
from fieldshift.report.sheet import Sheet, show
from fieldshift.report.statistics import summarise
from fieldshift.report.tables import comparison_sheets, cost_sheets, field_sheet, policy_sheet, sweep_sheet
from fieldshift.report.verdict import answers, caveats, verdict

__all__ = [
    "Code",
    "Definitions",
    "Difference",
    "Estimate",
    "FigureBlock",
    "Heading",
    "KeyNumber",
    "KeyNumbers",
    "Paragraph",
    "Points",
    "Section",
    "Sheet",
    "TableBlock",
    "accuracy_bars",
    "answers",
    "caveats",
    "claims",
    "comparison_sheets",
    "conditions_section",
    "cost_sheets",
    "decision_chart",
    "estimate",
    "field_sheet",
    "frame_curve",
    "frame_strip",
    "hardware",
    "headline",
    "outcomes",
    "paired_difference",
    "policy_graph",
    "policy_sheet",
    "render_report",
    "search_history",
    "show",
    "summarise",
    "sweep_sheet",
    "verdict",
    "write_report",
]
