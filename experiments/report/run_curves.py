"""The curves of finished runs: measured values by epoch, and settings by step."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from experiments.runner.finished_runs import Run, damaged
from experiments.runner.metrics_summary import GIVEN, MEASURED, Summary, summary_of
from experiments.training.exceptions import reason_of
from experiments.training.json_files import DamagedError
from experiments.training.writers import Record, column

Found = TypeVar("Found")

_OF_EPOCHS = ("train_loss", "test_error")


class Curve(NamedTuple):
    """A quantity along a run.

    Attributes:
      epoch: where it was read, in epochs, `(points,)`.
      step: where it was read, in updates, `(points,)`.
      values: what was read, `(points,)`; NaN where a run has diverged.
    """

    epoch: np.ndarray
    step: np.ndarray
    values: np.ndarray


Curves = dict[str, Curve]


def curves_of(folder: Path) -> Curves:
    """The curves of a finished run: measured quantities at the end of each epoch, settings at many of its steps.

    The test error is in percent. `noise_scale` is what decided on the batch size, if it was decided during the run.

    Args:
      folder: the folder of the run.

    Raises:
      ValueError: If `metrics.jsonl` is damaged.
    """
    return _read(folder, _curves)


def summary_in(folder: Path) -> Summary:
    """Returns the epochs of a finished run and the settings of some of its steps.

    Args:
      folder: the folder of the run.

    Raises:
      ValueError: If `metrics.jsonl` is damaged.
    """
    return _read(folder, _summary)


def examples_of(run: Run) -> int:
    """The number of examples in all updates of a run."""
    return run.plan.examples_used(run.result.updates, run.config.epoch_size)


def _read(folder: Path, function: Callable[[Path, int], Found]) -> Found:
    metrics = folder / "metrics.jsonl"
    try:
        return function(metrics, metrics.stat().st_mtime_ns)
    except DamagedError as error:
        raise damaged(folder, error.reason) from error
    except (OSError, ValueError, LookupError) as error:
        raise damaged(folder, reason_of(error)) from error


@functools.cache
def _summary(metrics: Path, _modified: int) -> Summary:
    """The summary of a file; the time of its last change keeps the cache from growing stale."""
    return summary_of(metrics)


@functools.cache
def _curves(metrics: Path, modified: int) -> Curves:
    summary = _summary(metrics, modified)
    names = (*(["noise_scale"] if summary.is_decided else []), *_OF_EPOCHS, *MEASURED)
    curves = {
        name: _measured(summary.epochs, column(summary.epochs, name) * (100 if name == "test_error" else 1))
        for name in names
        if all(name in record for record in summary.epochs)
    }
    given = [name for name in GIVEN if summary.samples and all(name in record for record in summary.samples)]
    return curves | {name: _set(summary, name) for name in given}


def mean_curves(runs: Sequence[Curves]) -> Curves:
    """The mean curve of each quantity that all runs have, as far as all go; NaN where one of them is."""
    names = set.intersection(*(set(curves) for curves in runs))
    shared = {name: _shared([curves[name] for curves in runs]) for name in names}
    return {
        name: Curve(*(np.mean(part, axis=0) for part in zip(*curves, strict=True)))
        for name, curves in shared.items()
        if curves
    }


def _shared(curves: Sequence[Curve]) -> list[Curve]:
    """The curves, cut to the shortest; none, where they were read at other epochs."""
    length = min(len(curve.values) for curve in curves)
    cut = [Curve(*(part[:length] for part in curve)) for curve in curves]
    is_whole = len({len(curve.values) for curve in curves}) == 1
    return cut if is_whole or all(np.array_equal(curve.epoch, cut[0].epoch) for curve in cut) else []


def _measured(epochs: list[Record], values: np.ndarray) -> Curve:
    """The values at the end of each epoch."""
    return Curve(column(epochs, "epoch"), column(epochs, "step"), values)


def _set(summary: Summary, name: str) -> Curve:
    """The values at the first step of each epoch and at other steps; the last value holds to the end."""
    # the epochs of a plan that was decided during the run are the same for all seeds, and its steps are not
    starts = set(summary.starts) if summary.is_decided else None
    points = [record for record in summary.samples if starts is None or record["step"] in starts]
    end = summary.epochs[-1]
    return Curve(
        np.append(column(points, "epoch"), float(end["epoch"])),
        np.append(column(points, "step"), float(end["step"])),
        np.append(column(points, name), column(summary.samples[-1:], name)),
    )
