"""Studies: the runs of a study, and how each of them is executed exactly once."""

from experiments.study.grid import Comparison, Grid
from experiments.study.run_spec import RunOptions, RunSpec, is_done
from experiments.study.selection import Selection
from experiments.study.study_runs import run_all
from experiments.study.tuning import Tuning

__all__ = ["Comparison", "Grid", "RunOptions", "RunSpec", "Selection", "Tuning", "is_done", "run_all"]
