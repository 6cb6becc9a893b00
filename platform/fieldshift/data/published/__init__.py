"""Data sets with a name: published ones and the built-in pairs of digits."""
