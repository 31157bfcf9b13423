"""The rows of the paper's tables, and the studies of data sets that need no download of gigabytes, by name."""

from experiments.presets.rows import NAMES, Published, Row, load

__all__ = ["NAMES", "Published", "Row", "load"]
