"""The curves of finished runs: measured values by epoch, and settings by step."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from experiments.runner.finished_runs import damaged
from experiments.runner.metrics_summary import GIVEN, MEASURED, Summary, summary_of
from experiments.training.exceptions import reason_of
from experiments.training.json_files import DamagedError
from experiments.training.writers import Record, column

Found = TypeVar("Found")

_OF_EPOCHS = ("train_loss", "test_error")


@dataclass(frozen=True)
class Curve:
    """A quantity along a run, or its mean over runs.

    Attributes:
      epoch: the positions in epochs, `(points,)`.
      step: the positions in updates, `(points,)`.
      values: the values, `(points,)`; NaN after a run has diverged.
      spread: the standard deviation over the runs, `(points,)`; 0 for a single run.
    """

    epoch: np.ndarray
    step: np.ndarray
    values: np.ndarray
    spread: np.ndarray


Curves = dict[str, Curve]


def curves_of(folder: Path) -> Curves:
    """Returns the curves of a finished run: quantities at the end of each epoch, and settings at some steps.

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
    """Returns the summary of a file. The time of its last change is part of the key of the cache."""
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


def mean_curves(runs: Iterable[Curves]) -> Curves:
    """Returns the mean and the spread of each quantity that all runs have, up to the end of the shortest run.

    A mean is NaN from the point on at which a run has diverged.
    """
    found = list(runs)
    names = set.intersection(*(set(curves) for curves in found))
    shared = {name: _cut([curves[name] for curves in found]) for name in names}
    return {name: _mean(curves) for name, curves in shared.items() if curves}


def _mean(curves: list[Curve]) -> Curve:
    values = np.stack([curve.values for curve in curves])
    with np.errstate(invalid="ignore"):  # the noise scale of an epoch may be infinite
        spread = np.std(values, axis=0, ddof=1) if len(curves) > 1 else np.zeros_like(values[0])
    epoch, step = (np.mean([getattr(curve, name) for curve in curves], axis=0) for name in ("epoch", "step"))
    return Curve(epoch, step, np.mean(values, axis=0), spread)


def _cut(curves: list[Curve]) -> list[Curve]:
    """Returns the curves up to the end of the shortest; none if they were read at different epochs."""
    length = min(len(curve.values) for curve in curves)
    cut = [_curve(curve.epoch[:length], curve.step[:length], curve.values[:length]) for curve in curves]
    is_whole = len({len(curve.values) for curve in curves}) == 1
    return cut if is_whole or all(np.array_equal(curve.epoch, cut[0].epoch) for curve in cut) else []


def _curve(epoch: np.ndarray, step: np.ndarray, values: np.ndarray) -> Curve:
    return Curve(epoch, step, values, np.zeros(len(values)))


def _measured(epochs: list[Record], values: np.ndarray) -> Curve:
    """Returns the values at the end of each epoch."""
    return _curve(column(epochs, "epoch"), column(epochs, "step"), values)


def _set(summary: Summary, name: str) -> Curve:
    """Returns the values at the first step of each epoch and at other steps; the last value holds to the end."""
    # the epochs of a plan that was decided during the run are the same for all seeds, and its steps are not
    starts = set(summary.starts) if summary.is_decided else None
    points = [record for record in summary.samples if starts is None or record["step"] in starts]
    end = summary.epochs[-1]
    return _curve(
        np.append(column(points, "epoch"), float(end["epoch"])),
        np.append(column(points, "step"), float(end["step"])),
        np.append(column(points, name), column(summary.samples[-1:], name)),
    )
