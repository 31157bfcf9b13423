"""Studies: which runs they consist of, and how these are done, each once."""

from experiments.study.grid import Comparison, Grid
from experiments.study.run_spec import Cell
from experiments.study.selection import Selection
from experiments.study.study_runs import Options, run_all
from experiments.study.tuning import Tuning

__all__ = ["Cell", "Comparison", "Grid", "Options", "Selection", "Tuning", "run_all"]
