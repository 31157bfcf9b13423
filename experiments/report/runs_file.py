"""The file of all runs: a line each, with what tells them apart and what came out."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.report.protocols import worst_cases
from experiments.runner.finished_runs import Run
from experiments.training.atomic_write import write_whole

_FIGURES = ("test_error", "test_loss", "train_loss", "updates", "gradient_evaluations")
_ALWAYS = ("method", "batch_plan", "lr_schedule", "seed")


def write_runs(runs: Sequence[Run], path: Path) -> None:
    """Write a line a run, as comma-separated values; what is not known is empty.

    Args:
      runs: what was run.
      path: of the file; what it held is written anew.
    """
    settings = [run.config.settings for run in runs]
    names = [name for name in settings[0] if name in _ALWAYS or len({each[name] for each in settings}) > 1]
    sharpness = [_sharpness(run) for run in runs]
    measured = list(dict.fromkeys(name for found in sharpness for name in found))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *_FIGURES, *measured])
    for run, values, found in zip(runs, settings, sharpness, strict=True):
        figures = [getattr(run.result, name) for name in _FIGURES]
        writer.writerow(
            map(_plain, [*(values[name] for name in names), *figures, *(found.get(name) for name in measured)])
        )
    write_whole(path, text.getvalue())


def _sharpness(run: Run) -> dict[str, float | None]:
    """The worst cases after the last epoch, by the way and the radius."""
    return {
        ", ".join([f"sharpness at {rho:.3g}", way.title]): record.sharpness
        for way, radii in worst_cases(run).items()
        for rho, record in radii.items()
    }


def _plain(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
