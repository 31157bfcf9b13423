"""The summary of a run's `metrics.jsonl`: its epochs with the means of what its steps measured, and some of its steps.

A run whose folder was restored from a file of finished runs has this summary in place of its steps.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.training.progress import term_names
from experiments.training.writers import Record, column, read

MEASURED = ("grad_norm", "perturbed_grad_norm", "cosine", "surrogate_gap")
"""The quantities that are measured at each step. The record of an epoch has their means."""

GIVEN = ("batch_size", "learning_rate", "rho")
"""The settings of a step, of which some steps have a sample."""

_SAMPLES = 256  # steps of a run whose settings are sampled, in addition to the first step of each epoch


class Summary(NamedTuple):
    """The summary of a run.

    Attributes:
      epochs: the records of the epochs, each with the mean over its steps of each quantity of `MEASURED` that all steps
        have. Each has a `noise_scale` if the batch plan was decided during the run.
      samples: the settings of some steps, in order: of the first step of each epoch, of the last step, and of others
        between them. Each has the `step`, the `epoch` as a position, and the settings of `GIVEN` that all steps have.
    """

    epochs: list[Record]
    samples: list[Record]

    @property
    def is_decided(self) -> bool:
        """Whether the batch plan was decided during the run."""
        return "noise_scale" in self.epochs[0]

    @property
    def starts(self) -> list[int]:
        """The number of the first step of each epoch."""
        return [0, *(record["step"] for record in self.epochs[:-1])]

    def records(self) -> list[Record]:
        """Returns the lines of `metrics.jsonl` from which `summary_of` reads this summary."""
        return [*self.epochs, *self.samples]


def summary_of(metrics: Path) -> Summary:
    """Reads the steps of a run and summarises them, or reads the summary if the file has one.

    Raises:
      DamagedError, OSError: As for `writers.read`.
      ValueError, LookupError: If the records do not fit one another.
    """
    records = list(read(metrics, "epoch", "step", "sample"))
    epochs, steps, samples = (
        [each for each in records if each["kind"] == kind] for kind in ("epoch", "step", "sample")
    )
    if not steps:
        return Summary(epochs, samples)
    if is_decided := term_names("clean")[0] in steps[0]:
        epochs = [{**record, "noise_scale": record.get("noise_scale")} for record in epochs]
    for name in MEASURED:
        if all(name in record for record in steps):
            means = _means(epochs, steps, column(steps, name))
            epochs = [{**record, name: mean} for record, mean in zip(epochs, means, strict=True)]
    return Summary(epochs, _samples(steps, Summary(epochs, []).starts, 0 if is_decided else _SAMPLES))


def _means(epochs: list[Record], steps: list[Record], values: np.ndarray) -> list[float]:
    """Returns the mean of each epoch over the steps that measured a value; NaN if no step did."""
    ends = [record["step"] for record in epochs[:-1]]
    counted = np.isfinite(values) | ~_without_second_pass(steps)
    parts = zip(np.split(values, ends), np.split(counted, ends), strict=True)
    return [float(part[counts].mean()) if any(counts) else float("nan") for part, counts in parts]


def _without_second_pass(steps: list[Record]) -> np.ndarray:
    """Returns which steps made no second pass: their clean gradient is known, and the angle between both is not."""
    known = np.isfinite(column(steps, "grad_norm")) if "grad_norm" in steps[0] else np.zeros(len(steps), bool)
    return known & (np.isnan(column(steps, "cosine")) if "cosine" in steps[0] else False)


def _samples(steps: list[Record], starts: list[int], count: int) -> list[Record]:
    names = ["step", "epoch", *(name for name in GIVEN if all(name in record for record in steps))]
    last = len(steps) - 1
    numbers = np.union1d([*starts, last], np.linspace(0, last, count).astype(int))
    return [{"kind": "sample", **{name: steps[number][name] for name in names}} for number in numbers]
