"""Studies: which runs they consist of, and how these are done, each once."""

from experiments.studying.cell import Cell
from experiments.studying.comparison import Comparison
from experiments.studying.grid import Grid
from experiments.studying.running import Options, run_all
from experiments.studying.selection import Selection
from experiments.studying.tuning import Tuning

__all__ = ["Cell", "Comparison", "Grid", "Options", "Selection", "Tuning", "run_all"]
