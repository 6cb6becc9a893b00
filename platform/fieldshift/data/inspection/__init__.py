"""Inspection of a data set before training, and its report."""
