"""How sharpness was measured, and the measured values of single runs.

Values are compared only where protocol and radius are the same.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from experiments.cli.tables import Rows
from experiments.runner.finished_runs import Run
from experiments.training.writers import Record

PAPERS_RADIUS = 0.0002

Radii = dict[float, Record]
"""What was measured at each radius, to three digits."""


class SharpnessProtocol(NamedTuple):
    """How a worst case was measured, the radius apart."""

    norm: str
    adaptive: bool
    steps: int
    restarts: int
    examples: int
    measured_batch_size: int
    normalize_logits: bool
    reestimate_batchnorm: bool

    @classmethod
    def of(cls, record: Record) -> "SharpnessProtocol":
        """The protocol of a record of the worst case, or of a curve of it."""
        return cls(*(record[name] for name in cls._fields))

    @property
    def departures(self) -> list[str]:
        """What is not as the paper has it, the number of examples apart."""
        remarks = {
            "ℓ2": self.norm != "linf",
            "adaptive": self.adaptive,
            f"{self.steps} steps": self.steps != 20,
            f"{self.restarts} starts": self.restarts != 1,
            f"batches of {self.measured_batch_size}": self.measured_batch_size != 128,
            "normalised logits": self.normalize_logits,
            "BatchNorm re-estimated": self.reestimate_batchnorm,
        }
        return [remark for remark, holds in remarks.items() if holds]

    @property
    def title(self) -> str:
        """What is not as the paper has it, and the number of examples."""
        return ", ".join([*self.departures, f"{self.examples} examples"])


def worst_cases(run: Run, epoch: int | None = None) -> dict[SharpnessProtocol, Radii]:
    """The worst cases after an epoch; None is the last one. A radius that was measured twice counts as it was last."""
    at = run.plan.epochs if epoch is None else epoch
    found: dict[SharpnessProtocol, Radii] = {}
    for record in run.sharpness:
        if record["kind"] == "worst_case" and record["epoch"] == at:
            found.setdefault(SharpnessProtocol.of(record), {})[float(f"{record['rho']:.3g}")] = record
    return found


def common(runs: Sequence[Run]) -> dict[SharpnessProtocol, list[float]]:
    """The protocols and radii, in increasing order, that all runs were measured with."""
    each = [worst_cases(run) for run in runs]
    shared = set.intersection(*(set(found) for found in each))
    radii = {protocol: sorted(set.intersection(*(set(found[protocol]) for found in each))) for protocol in shared}
    return {protocol: radii[protocol] for protocol in in_order(protocol for protocol in radii if radii[protocol])}


def most_common(groups: Iterable[Sequence[Run]]) -> dict[SharpnessProtocol, list[float]]:
    """The protocols and radii of the groups, those of most groups first, then those nearest the paper's."""
    counts: Counter[SharpnessProtocol] = Counter()
    radii: dict[SharpnessProtocol, set[float]] = {}
    for runs in groups:
        for protocol, of_group in common(runs).items():
            counts[protocol] += 1
            radii.setdefault(protocol, set()).update(of_group)
    return {protocol: sorted(radii[protocol]) for protocol in in_order(counts, counts)}


def in_order(
    protocols: Iterable[SharpnessProtocol], counts: Mapping[SharpnessProtocol, int] | None = None
) -> list[SharpnessProtocol]:
    """Protocols that are counted most often first, then those nearest the paper's, then those of most examples."""
    known = counts or {}
    return sorted(
        protocols,
        key=lambda protocol: (-known.get(protocol, 0), len(protocol.departures), -protocol.examples, protocol),
    )


def headline(radii: Sequence[float]) -> float:
    """The radius of the paper if it is there, else the smallest one."""
    return PAPERS_RADIUS if PAPERS_RADIUS in radii else min(radii)


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
        return ", ".join(SharpnessProtocol.of(record).departures)
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
