"""Predefined studies by name: the rows of the paper's tables, and studies on data sets with small downloads."""

from experiments.presets.published_results import published_of
from experiments.presets.rows import NAMES, Published, Row, load

__all__ = ["NAMES", "Published", "Row", "load", "published_of"]
