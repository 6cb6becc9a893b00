"""The two forms in which a network receives a policy's motions."""

from __future__ import annotations

from typing import Literal, get_args

from fieldshift.errors import unknown_name

Form = Literal["video", "folded"]
"""video: T frames, each moved, with temporal modules between them (the paper's). folded: one frame whose channels move."""
FORMS: tuple[Form, ...] = get_args(Form)


def check_form(form: str) -> None:
    """Raises UserError unless the form is one of FORMS."""
    if form not in FORMS:
        raise unknown_name("form", form, FORMS)
