"""The file of all runs: a line each, with what tells them apart and what came out."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.runner.finished_runs import Run
from experiments.sharpness.protocol import worst_cases
from experiments.training.atomic_write import write_whole

_FIGURES = ("test_error", "test_loss", "train_loss", "updates", "gradient_evaluations")
_ALWAYS = ("method", "batch_plan", "lr_schedule", "seed")


def write_runs(runs: Sequence[Run], path: Path) -> None:
    """Write a line a run, as comma-separated values; what is not known is empty.

    Args:
      runs: what was run.
      path: of the file; what it held is written anew.
    """
    names = [field.name for field in dataclasses.fields(Config) if _is_told(field.name, runs)]
    sharpness = [_sharpness(run) for run in runs]
    measured = list(dict.fromkeys(name for found in sharpness for name in found))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *_FIGURES, *measured])
    for run, found in zip(runs, sharpness, strict=True):
        settings = [getattr(run.config, name) for name in names]
        figures = [getattr(run.result, name) for name in _FIGURES]
        writer.writerow(map(_plain, [*settings, *figures, *(found.get(name) for name in measured)]))
    write_whole(path, text.getvalue())


def _is_told(name: str, runs: Sequence[Run]) -> bool:
    return name in _ALWAYS or len({getattr(run.config, name) for run in runs}) > 1


def _sharpness(run: Run) -> dict[str, float | None]:
    """The worst cases after the last epoch, by the way and the radius."""
    return {
        ", ".join([f"sharpness at {rho:.3g}", way.title]): record.sharpness
        for way, radii in worst_cases(run).items()
        for rho, record in radii.items()
    }


def _plain(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
