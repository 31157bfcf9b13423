"""The file of all epochs of all runs, from which learning curves can be drawn without the folders of the runs."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.report import labels
from experiments.report.run_curves import summary_in
from experiments.runner.finished_runs import Run
from experiments.training.atomic_write import write_whole

_OF_RUN = ("run", "seed", "method", "strategy", "batch_plan")
_FIGURES = ("train_loss", "train_error", "test_loss", "test_error")
_HEADING = (*_OF_RUN, "epoch", "step", "examples", "batch_size", *_FIGURES, "learning_rate")


def write_epochs(runs: Sequence[Run], path: Path) -> None:
    """Writes a row per run and epoch, as comma-separated values; unknown values and those that diverged are empty.

    `step` and `examples` are the numbers of updates and examples until the end of the epoch. `batch_size` is that of
    the last update of the epoch, and `learning_rate` that of its first update. Errors are fractions.

    Args:
      runs: the finished runs.
      path: the file; an existing one is replaced.

    Raises:
      ValueError: If the metrics of a run are damaged.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADING)
    for run in runs:
        writer.writerows(_rows(run))
    write_whole(path, text.getvalue())


def _rows(run: Run) -> Iterator[list[Any]]:
    config, summary = run.config, summary_in(run.folder)
    of_run = [run.folder.name, config.seed, config.method, labels.strategy(config), str(run.plan)]
    rates = {record["step"]: record.get("learning_rate") for record in summary.samples}
    for record, start in zip(summary.epochs, summary.starts, strict=True):
        step = record["step"]
        examples = run.plan.examples_used(step, config.epoch_size)
        figures = [record.get(name) for name in _FIGURES]
        values = [record["epoch"], step, examples, record.get("batch_size"), *figures, rates.get(start)]
        yield [*of_run, *(f"{value:.6g}" if isinstance(value, float) else value for value in values)]
