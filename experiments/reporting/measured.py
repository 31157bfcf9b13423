"""What was measured of single runs, a line a record."""

import os
from collections.abc import Callable, Iterable, Sequence

from experiments.cli.tables import Rows
from experiments.reporting.ways import Way
from experiments.runner.finished_runs import Run
from experiments.training.writers import Record


def measured_rows(runs: Iterable[Run], kinds: Sequence[str]) -> Rows:
    """A row a run, measure and radius: what was measured of the trained network.

    Args:
      runs: what was measured.
      kinds: the measures, of `VALUES`.
    """
    heading = ("run", "measure", "radius", "way", "value")
    records = [
        (run, record)
        for run in runs
        for kind in kinds
        for record in run.sharpness
        if record["kind"] == kind and record["epoch"] == run.plan.epochs
    ]
    if not records:
        return [heading]
    root = os.path.commonpath([run.folder.resolve().parent for run, _ in records])
    return [heading, *((os.path.relpath(run.folder.resolve(), root), *_row(record)) for run, record in records)]


def _row(record: Record) -> tuple[str, ...]:
    kind = record["kind"]
    radius = f"{record['rho']:.3g}" if isinstance(record.get("rho"), float) else "–"
    return kind.replace("_", " "), radius, _way(record), VALUES[kind](record)


def _way(record: Record) -> str:
    """What is not as the paper has it."""
    if record["kind"] in ("worst_case", "curve"):
        return ", ".join(Way.of(record).departures)
    remarks = {"ℓ2": record.get("norm") == "l2", "adaptive": record.get("adaptive", False)}
    remarks |= {
        "normalised logits": record["normalize_logits"],
        "BatchNorm re-estimated": record["reestimate_batchnorm"],
    }
    return ", ".join(remark for remark, holds in remarks.items() if holds)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _range(values: Iterable[float | None]) -> str:
    finite = [value for value in values if value is not None]
    return f"{min(finite):.3g} to {max(finite):.3g}" if finite else "not finite"


VALUES: dict[str, Callable[[Record], str]] = {
    "worst_case": lambda of: f"{_number(of['sharpness'])} (first order {_number(of['first_order'])})",
    "curve": lambda of: f"{_range(of['sharpness'])}, at radii {_range(of['rho'])}",
    "average_case": lambda of: f"{_number(of['sharpness'])} ± {_number(of['standard_error'])}",
    "surrogate_gap": lambda of: _number(of["gap"]),
    "top_eigenvalue": lambda of: _number(of["eigenvalue"]),
    "trace": lambda of: f"{_number(of['value'])} ± {_number(of['standard_error'])}",
    "landscape": lambda of: f"loss {_range(value for row in of['loss'] for value in row)}",
}
"""How the value of each measure is written."""
