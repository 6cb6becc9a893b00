"""The readings of a comparison: the budget of each arm, which sets its number of epochs; and the sources of given motions."""

from __future__ import annotations

EQUAL_EPOCHS = "equal epochs"
EQUAL_COMPUTE = "equal compute"
SEARCH_INCLUDED = "equal compute, search included"
READINGS = (EQUAL_EPOCHS, EQUAL_COMPUTE, SEARCH_INCLUDED)
"""The recipe's epochs; the operations of the video arms' training; these plus the operations of the most expensive search."""

GIVEN, UNSEARCHED = "a given policy", "a given policy that no search found"
"""The source of the motions of a comparison that did not search."""

UNMOVED = "unmoved"
"""Stands for the digest of a policy of identities, which have no magnitude."""

BUDGETS = {"equal-epochs": EQUAL_EPOCHS, "equal-compute": EQUAL_COMPUTE, "search-included": SEARCH_INCLUDED}
"""The budgets that commands take, each with the reading that tables and result files name it by."""
