"""The sharpness of trained runs: what is measured, on what, and where it is kept."""

from experiments.sharpness.measure_runs import has_measured, measure_finished_run, measure_run, replay, watching
from experiments.sharpness.measures import SharpnessSettings

__all__ = ["SharpnessSettings", "has_measured", "measure_finished_run", "measure_run", "replay", "watching"]
