"""Where a run writes what it measures: anything with `write` and `close`."""

from experiments.training.writers.json_lines import JsonLines, plain, read
from experiments.training.writers.tensorboard import TensorBoard
from experiments.training.writers.writer import Record, Writer

__all__ = ["JsonLines", "Record", "TensorBoard", "Writer", "plain", "read"]
