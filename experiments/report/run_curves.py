"""The curves of finished runs: measured values by epoch, and settings by step."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.runner.finished_runs import Run, damaged
from experiments.training.exceptions import reason_of
from experiments.training.json_files import DamagedError
from experiments.training.progress import term_names
from experiments.training.writers import Record, column, read

_SAMPLES = 256  # steps at which a picture reads what is set


_OF_EPOCHS = ("train_loss", "test_error")
_OF_STEPS = ("grad_norm", "perturbed_grad_norm", "cosine", "surrogate_gap")
_SET = ("batch_size", "learning_rate", "rho")  # before a step, and not measured in it


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
    metrics = folder / "metrics.jsonl"
    try:
        return _curves(metrics, metrics.stat().st_mtime_ns)
    except DamagedError as error:
        raise damaged(folder, error.reason) from error
    except (OSError, ValueError, LookupError) as error:
        raise damaged(folder, reason_of(error)) from error


def examples_of(run: Run) -> int:
    """The number of examples in all updates of a run."""
    return run.plan.examples_used(run.result.updates, run.config.epoch_size)


@functools.cache
def _curves(metrics: Path, _modified: int) -> Curves:
    """The curves in a file; the time of its last change keeps the cache from growing stale."""
    records = list(read(metrics, "epoch", "step"))
    epochs, steps = ([record for record in records if record["kind"] == kind] for kind in ("epoch", "step"))
    is_decided = term_names("clean")[0] in steps[0]  # on the way, by the noise
    curves = {"noise_scale": _measured(epochs, column(epochs, "noise_scale"))} if is_decided else {}
    for name in _OF_EPOCHS:
        if all(name in record for record in epochs):
            curves[name] = _measured(epochs, column(epochs, name) * (100 if name == "test_error" else 1))
    for name in (*_OF_STEPS, *_SET):
        if all(name in record for record in steps):
            values = column(steps, name)
            if name in _SET:
                # of a plan that was decided on the way, epochs alone are the same from seed to seed
                curves[name] = _set(epochs, steps, values, 0 if is_decided else _SAMPLES)
            else:
                curves[name] = _measured(epochs, values, np.isfinite(values) | ~_skipped(steps))
    return curves


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


def _measured(epochs: list[Record], values: np.ndarray, counted: np.ndarray | None = None) -> Curve:
    """At the end of each epoch: its own value, or the mean over those of its steps that count; NaN where none does."""
    ends = [record["step"] for record in epochs]
    if counted is not None and len(values) != len(ends):
        parts = zip(np.split(values, ends[:-1]), np.split(counted, ends[:-1]), strict=True)
        values = np.asarray([part[counts].mean() if any(counts) else np.nan for part, counts in parts])
    return Curve(column(epochs, "epoch"), column(epochs, "step"), values)


def _set(epochs: list[Record], steps: list[Record], values: np.ndarray, samples: int) -> Curve:
    """At the first step of each epoch and at others between; the last value holds to the end."""
    starts = [0, *(record["step"] for record in epochs[:-1])]
    at = np.union1d(starts, np.linspace(0, len(steps) - 1, samples).astype(int))
    where = column(steps, "epoch")[at], column(steps, "step")[at]
    ends = (float(epochs[-1]["epoch"]), float(epochs[-1]["step"]))
    epoch, step = (np.append(places, end) for places, end in zip(where, ends, strict=True))
    return Curve(epoch, step, np.append(values[at], values[-1]))


def _skipped(records: list[Record]) -> np.ndarray:
    """Which steps made no second pass: the clean gradient is known there, and the angle between both is not."""
    known = np.isfinite(column(records, "grad_norm")) if "grad_norm" in records[0] else np.zeros(len(records), bool)
    return known & (np.isnan(column(records, "cosine")) if "cosine" in records[0] else False)
