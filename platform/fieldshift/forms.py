"""The two forms in which a network receives a policy's motions."""

from __future__ import annotations

from typing import Literal, get_args

from fieldshift.errors import UserError, unknown_name

Form = Literal["video", "folded"]
"""video: T frames, each moved, with temporal modules between them (the paper's). folded: one frame whose channels move."""
FORMS: tuple[Form, ...] = get_args(Form)

MOST_FRAMES = 1000
"""Frames of a video: each costs a pass over the image, and beyond these, neighbours differ by less than a pixel."""


def check_length(frames: int, name: str, verb: str = "is") -> None:
    """Raises UserError, which begins with `name` and `verb`, unless a video can have so many frames."""
    if frames < 1:
        raise UserError(f"{name} {verb} {frames}, but a video has at least 1 frame.")
    if frames > MOST_FRAMES:
        raise UserError(f"{name} {verb} {frames:,}, but a video has at most {MOST_FRAMES:,} frames; give fewer.")


def check_form(form: str) -> None:
    """Raises UserError unless the form is one of FORMS."""
    if form not in FORMS:
        raise unknown_name("form", form, FORMS)
