"""The readings of a comparison: what every arm may spend, which decides for how many epochs it trains."""

from __future__ import annotations

EQUAL_EPOCHS = "equal epochs"
EQUAL_COMPUTE = "equal compute"
SEARCH_INCLUDED = "equal compute, search included"
READINGS = (EQUAL_EPOCHS, EQUAL_COMPUTE, SEARCH_INCLUDED)
"""The recipe's epochs; the operations of the video arms' training; these and the operations of the dearest search."""
