"""Values of labels that are no class."""

UNLABELLED = 255
SUGGESTED = 128
"""From here to 254, in what a training is given: class c, suggested by clusters and not painted, is SUGGESTED + c."""
MAX_TRUTH = 252
"""Highest value of a truth; above it are codes for what is left out."""
