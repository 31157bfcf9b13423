"""What runs show: tables, paired differences, pictures, and a page of all of them."""

from experiments.reporting.publish import publish
from experiments.runner.finished_runs import Run, find_runs

__all__ = ["Run", "find_runs", "publish"]
