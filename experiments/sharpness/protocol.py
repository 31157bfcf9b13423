"""Describes how sharpness was measured, and formats the measured values of runs as a table."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.cli.tables import Rows
from experiments.runner.finished_runs import Run
from experiments.training import records


class SharpnessProtocol(NamedTuple):
    """The settings with which a worst case was measured, except for the radius."""

    norm: str
    adaptive: bool
    steps: int
    restarts: int
    examples: int
    measured_batch_size: int
    normalize_logits: bool
    reestimate_batchnorm: bool

    @classmethod
    def of(cls, record: records.WorstCase | records.WorstCaseCurve) -> "SharpnessProtocol":
        """Returns the protocol of a record."""
        line = record.line()
        return cls(*(line[name] for name in cls._fields))

    @property
    def departures(self) -> list[str]:
        """The settings that differ from the paper's, except for the number of examples."""
        departures = {
            "ℓ2": self.norm != "linf",
            "adaptive": self.adaptive,
            f"{self.steps} steps": self.steps != 20,
            f"{self.restarts} starts": self.restarts != 1,
            f"batches of {self.measured_batch_size}": self.measured_batch_size != 128,
            "normalised logits": self.normalize_logits,
            "BatchNorm re-estimated": self.reestimate_batchnorm,
        }
        return [departure for departure, holds in departures.items() if holds]

    @property
    def title(self) -> str:
        """The settings that differ from the paper's, and the number of examples."""
        return ", ".join([*self.departures, f"{self.examples} examples"])


def measured_rows(runs: Iterable[Run], kinds: Sequence[str]) -> Rows:
    """Returns the measured values of trained networks as a table with one row per run, measure and radius.

    Args:
      runs: the measured runs.
      kinds: the measures, a subset of `MEASURES`.
    """
    heading = ("run", "measure", "radius", "settings", "value")
    found = [
        (run, record)
        for run in runs
        for kind in kinds
        for record in run.sharpness
        if record.kind == kind and record.epoch == run.epochs
    ]
    if not found:
        return [heading]
    root = os.path.commonpath([run.folder.resolve().parent for run, _ in found])
    return [heading, *((os.path.relpath(run.folder.resolve(), root), *_row(record)) for run, record in found)]


def _row(record: records.SharpnessRecord) -> tuple[str, ...]:
    is_single = isinstance(record, records.WorstCase | records.AverageCase | records.SurrogateGap)
    return record.kind.replace("_", " "), f"{record.rho:.3g}" if is_single else "–", _way(record), _value(record)


def _way(record: records.SharpnessRecord) -> str:
    """Returns the settings of a record that differ from the paper's, as text."""
    if isinstance(record, records.WorstCase | records.WorstCaseCurve):
        return ", ".join(SharpnessProtocol.of(record).departures)
    is_ball = isinstance(record, records.AverageCase)
    departures = {
        "ℓ2": is_ball and record.norm == "l2",
        "adaptive": is_ball and record.adaptive,
        "normalised logits": record.normalize_logits,
        "BatchNorm re-estimated": record.reestimate_batchnorm,
    }
    return ", ".join(departure for departure, holds in departures.items() if holds)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _range(values: Iterable[float | None]) -> str:
    finite = [value for value in values if value is not None]
    return f"{min(finite):.3g} to {max(finite):.3g}" if finite else "not finite"


def _value(record: records.SharpnessRecord) -> str:
    """Returns the value of a measure as text."""
    match record:
        case records.WorstCase(sharpness=value, first_order=first_order):
            return f"{_number(value)} (first order {_number(first_order)})"
        case records.WorstCaseCurve(sharpness=values, rho=radii):
            return f"{_range(values)}, at radii {_range(radii)}"
        case (
            records.AverageCase(sharpness=value, standard_error=error)
            | records.Trace(value=value, standard_error=error)
        ):
            return f"{_number(value)} ± {_number(error)}"
        case records.SurrogateGap(gap=value) | records.TopEigenvalue(eigenvalue=value):
            return _number(value)
        case records.Landscape(loss=rows):
            return f"loss {_range(value for row in rows for value in row)}"
    raise TypeError(f"{type(record).__name__} is not a record of sharpness: use one of `records.SHARPNESS`.")
