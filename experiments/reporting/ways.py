"""The ways in which sharpness was measured, and the radii: what has to be the same for values to be compared."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from experiments.runner.finished_runs import Run
from experiments.training.writers import Record

PAPERS_RADIUS = 0.0002

Radii = dict[float, Record]
"""What was measured at each radius, to three digits."""


class Way(NamedTuple):
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
    def of(cls, record: Record) -> "Way":
        """The way of a record of the worst case, or of a curve of it."""
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


def worst_cases(run: Run, epoch: int | None = None) -> dict[Way, Radii]:
    """The worst cases after an epoch; None is the last one. A radius that was measured twice counts as it was last."""
    at = run.plan.epochs if epoch is None else epoch
    found: dict[Way, Radii] = {}
    for record in run.sharpness:
        if record["kind"] == "worst_case" and record["epoch"] == at:
            found.setdefault(Way.of(record), {})[float(f"{record['rho']:.3g}")] = record
    return found


def common(runs: Sequence[Run]) -> dict[Way, list[float]]:
    """The ways and radii, in increasing order, that all runs were measured with."""
    each = [worst_cases(run) for run in runs]
    shared = set.intersection(*(set(found) for found in each))
    radii = {way: sorted(set.intersection(*(set(found[way]) for found in each))) for way in shared}
    return {way: radii[way] for way in in_order(way for way in radii if radii[way])}


def most_common(groups: Iterable[Sequence[Run]]) -> dict[Way, list[float]]:
    """The ways and radii of the groups, those of most groups first, then those nearest the paper's."""
    counts: Counter[Way] = Counter()
    radii: dict[Way, set[float]] = {}
    for runs in groups:
        for way, of_group in common(runs).items():
            counts[way] += 1
            radii.setdefault(way, set()).update(of_group)
    return {way: sorted(radii[way]) for way in in_order(counts, counts)}


def in_order(ways: Iterable[Way], counts: Mapping[Way, int] | None = None) -> list[Way]:
    """Ways that are counted most often first, then those nearest the paper's, then those of most examples."""
    known = counts or {}
    return sorted(ways, key=lambda way: (-known.get(way, 0), len(way.departures), -way.examples, way))


def headline(radii: Sequence[float]) -> float:
    """The radius of the paper if it is there, else the smallest one."""
    return PAPERS_RADIUS if PAPERS_RADIUS in radii else min(radii)
