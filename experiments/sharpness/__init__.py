"""Measures the sharpness of trained networks and writes it into the folders of their runs."""

from experiments.sharpness.measure_runs import has_measured, measure_finished_run, measure_run, replay, watching
from experiments.sharpness.measures import SharpnessSettings

__all__ = ["SharpnessSettings", "has_measured", "measure_finished_run", "measure_run", "replay", "watching"]
