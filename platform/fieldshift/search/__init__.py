"""Differentiable Augmentation Search: spaces, the relaxed cell, the bilevel step, selection and the search loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldshift.deferral import load_on_use

if TYPE_CHECKING:
    from fieldshift.search.cell import RelaxedCell
    from fieldshift.search.config import SearchConfig
    from fieldshift.search.derivation import random_policy
    from fieldshift.search.folded_cell import units_of
    from fieldshift.search.loop import FoundPolicy, search
    from fieldshift.search.own_model import find_policy
    from fieldshift.search.rules import RULES, Alternatives, SelectionRule, register_rule
    from fieldshift.search.space import Space, load_space
    from fieldshift.search.supernet import check_search

__all__ = [
    "RULES",
    "Alternatives",
    "FoundPolicy",
    "RelaxedCell",
    "SearchConfig",
    "SelectionRule",
    "Space",
    "check_search",
    "find_policy",
    "load_space",
    "random_policy",
    "register_rule",
    "search",
    "units_of",
]

load_on_use(__name__)
