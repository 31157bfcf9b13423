"""The finished runs in some folders, and their curves: measured values by epoch, and settings by step."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.config import Config
from experiments.runner import sharpness_records
from experiments.runner.run import UNFINISHED, plan_of, result_of
from experiments.training.exceptions import printable, reason_of
from experiments.training.json_files import DamagedError
from experiments.training.progress import term_names
from experiments.training.records import Result, SharpnessRecord
from experiments.training.writers import Record, read
from sam_optax import BatchPlan

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


def read_curves(metrics: Path) -> Curves:
    """The curves of a run, as far as it has them: at the end of each epoch, or at many of its steps what is set.

    The test error is in percent. `noise_scale` is what decided on the batch size, where it was decided on the way.
    """
    epochs, steps = (list(read(metrics, kind)) for kind in ("epoch", "step"))
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


def column(records: Sequence[Record], name: str) -> np.ndarray:
    """A field of all records, NaN where it is null or left out."""
    values: list[Any] = [record.get(name) for record in records]
    return np.asarray([np.nan if value is None else value for value in values], np.float64)


class Run(NamedTuple):
    """A run that came to its end.

    Attributes:
      folder: where it is.
      config: what was run.
      result: what came out.
      curves: what was measured, epoch by epoch.
      sharpness: the records of its sharpness; none where it was not measured.
    """

    folder: Path
    config: Config
    result: Result
    curves: Curves
    sharpness: list[SharpnessRecord]

    @property
    def diverged(self) -> bool:
        """Whether its loss was not finite at the end."""
        return self.result.diverged

    @property
    def plan(self) -> BatchPlan:
        """The batch size of each epoch, also where it was decided on the way."""
        return plan_of(self.config, self.result)

    @property
    def examples(self) -> int:
        """How many examples it went through, in all its epochs."""
        updates = np.diff(self.curves["test_error"].step, prepend=0)
        plan = self.plan
        sizes = [plan.batch_size_at(epoch) for epoch in range(plan.epochs)]
        return int(np.dot(updates, sizes))


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """All finished runs in the folders and below them, each once, in the order of their names.

    Raises:
      ValueError: If a folder is not there or holds no run, if a run is damaged, or if two of one config differ.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not os.path.isdir(folder):
            raise ValueError(f"{folder} is no folder: give folders that hold runs.")
        inside = [path for path in sorted(folder.rglob("result.json")) if (path.parent / "config.json").is_file()]
        finished = [path.parent for path in inside if not any(part.endswith(UNFINISHED) for part in path.parts)]
        if not finished:
            raise ValueError(f"{folder} holds no finished run: give a folder that experiments.train has filled.")
        found |= {run.resolve(): _read(run) for run in finished}
    if not found:
        raise ValueError("runs is empty: give one folder or more that hold runs.")
    return _counted_once(found.values())


def _read(folder: Path) -> Run:
    measured = sharpness_records.read(folder)
    try:
        config = Config.load(folder / "config.json")
        run = Run(folder, config, result_of(folder), read_curves(folder / "metrics.jsonl"), measured)
        complete = run.plan.epochs > 0 and run.curves["test_error"].step[-1] == run.result.updates
    except DamagedError as error:
        raise _left_out(folder, error.reason) from error
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise _left_out(folder, reason_of(error)) from error
    if not complete:
        raise _left_out(folder, "metrics.jsonl and result.json disagree")
    return run


def _left_out(folder: Path, reason: str) -> ValueError:
    said = f"{folder} holds a run that was damaged, or made by another version: take it out ({reason})."
    return ValueError(printable(said))


def _counted_once(runs: Iterable[Run]) -> list[Run]:
    """A run is a pure function of its config, and two sweeps may both have it: twice it would count as two seeds.

    What was measured of either was measured of it.
    """
    first: dict[Config, Run] = {}
    for run in runs:
        same = first.setdefault(run.config.effective, run)
        if same.result.test_error != run.result.test_error:
            raise ValueError(f"{same.folder} and {run.folder} have one config and two results: give one of them.")
        measured = sharpness_records.united(run.sharpness, same.sharpness)
        first[run.config.effective] = same._replace(sharpness=measured)
    return list(first.values())
