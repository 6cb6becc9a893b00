"""One experiment: the options that every command shares, and its sessions, placement, trials and budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldshift.deferral import load_on_use

if TYPE_CHECKING:
    from fieldshift.experiment.options import Experiment
    from fieldshift.experiment.session import Session, open_session
    from fieldshift.experiment.trial import Trial

__all__ = ["Experiment", "Session", "Trial", "open_session"]

load_on_use(__name__)
