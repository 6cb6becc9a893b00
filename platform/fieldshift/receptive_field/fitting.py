"""Selects layers whose field fits into the image: a larger one covers all of it, whatever the motions."""

from __future__ import annotations

from collections.abc import Sequence

from fieldshift.networks.insertion import Inserted
from fieldshift.receptive_field.theory import LayerField


def fits(field: LayerField, size: tuple[int, int]) -> bool:
    """Whether a layer gives a map whose units see less than the whole image of that size (H, W), only through windows."""
    if field.size is None or field.map_size is None or field.unbounded_by or field.unknown_by:
        return False
    return field.size[0] <= size[0] and field.size[1] <= size[1]


def last_fitting(fields: Sequence[LayerField], size: tuple[int, int]) -> LayerField | None:
    """The block (a module with submodules) with the largest field that fits; among equal ones the outermost and last.

    Any layer if no block fits; None if no field fits.
    """
    parents = {field.name.rpartition(".")[0] for field in fields}
    parents -= {
        field.name for field in fields if field.kind == Inserted.__name__
    }  # a layer, with a temporal module at it
    fitting = [field for field in fields if field.name and fits(field, size)]
    chosen = [field for field in fitting if field.name in parents] or fitting
    if not chosen:
        return None
    return max(reversed(chosen), key=lambda field: (_area(field), -field.name.count(".")))


def fitting_note(fields: Sequence[LayerField], size: tuple[int, int]) -> str:
    """Suggests a layer to use instead of one whose field is larger than the image."""
    found = last_fitting(fields, size)
    if found is None or found.size is None:
        return "no layer's field fits into it"
    return f"{found.name}, {found.size[0]} x {found.size[1]} px, is the last that fits: --layers {found.name}"


def _area(field: LayerField) -> int:
    assert field.size is not None
    return field.size[0] * field.size[1]
