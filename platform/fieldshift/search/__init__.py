"""Differentiable Augmentation Search: spaces, the relaxed cell, the bilevel step, selection, the visible loop."""

from fieldshift.search.cell import RelaxedCell
from fieldshift.search.config import SearchConfig
from fieldshift.search.derivation import random_policy
from fieldshift.search.folded_cell import units_of
from fieldshift.search.loop import SearchResult, search
from fieldshift.search.session import check_search
from fieldshift.search.space import Space, load_space

__all__ = [
    "RelaxedCell",
    "SearchConfig",
    "SearchResult",
    "Space",
    "check_search",
    "load_space",
    "random_policy",
    "search",
    "units_of",
]
