"""The sharpness of trained runs: what is measured, on what, and where it is kept."""

from experiments.measuring.runs import has_measured, measure_run, replay, watching
from experiments.measuring.settings import Sharpness

__all__ = ["Sharpness", "has_measured", "measure_run", "replay", "watching"]
