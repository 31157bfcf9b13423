"""The figures that groups are compared by: the test error, and the sharpness at each radius."""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

from experiments.report import paired
from experiments.report.groups import Group, Study
from experiments.report.protocols import headline, worst_cases
from experiments.report.sharpness import protocols_of
from experiments.runner.finished_runs import Run
from experiments.sharpness.protocol import SharpnessProtocol


class Figure(NamedTuple):
    """A figure of a run, of which less is better.

    Attributes:
      title: what it is, with its unit.
      of: the figure of a run; None where it is not known, or is no number.
      is_ratio: whether two of them are compared by their ratio: sharpness goes over orders of magnitude.
    """

    title: str
    of: Callable[[Run], float | None]
    is_ratio: bool = False

    def is_known(self, group: Group) -> bool:
        """Whether all runs of the group have it, above 0 where ratios are made of it."""
        values = [self.of(run) for run in group.runs]
        return all(value is not None and (value > 0 or not self.is_ratio) for value in values)

    def mean(self, group: Group, seeds: Collection[int]) -> float:
        """The mean over the group's runs of these seeds, geometric where ratios are made of it."""
        mean = sum(self._scaled(group.by_seed[seed]) for seed in seeds) / len(seeds)
        return math.exp(mean) if self.is_ratio else mean

    def compare(self, first: Group, second: Group, among: Collection[int] | None = None) -> paired.Difference | None:
        """The paired difference, of logarithms where ratios are made; None where it is not known of two seeds.

        Args:
          first: a group.
          second: what it is compared with.
          among: the seeds that count; None is all.
        """
        shared = [seed for seed in paired.shared_seeds(first, second) if among is None or seed in among]
        if len(shared) < 2 or not (self.is_known(first) and self.is_known(second)):
            return None
        return paired.difference(first, second, self._scaled, among)

    def said(self, found: paired.Difference, seeds: int) -> str:
        """A difference in words: `−0.85 (−1.20 to −0.50)`, or as a ratio `×0.35 (0.28 to 0.44)`.

        Args:
          found: the difference.
          seeds: of the study; where fewer are behind the difference, that is told: `(−1.20 to −0.50; 3 seeds)`.
        """
        few = "" if found.seeds == seeds else f"; {found.seeds} seeds"
        if self.is_ratio:
            ratio, low, high = (f"{math.exp(value):.3g}" for value in (found.mean, found.low, found.high))
            return f"×{ratio} ({low} to {high}{few})"
        return f"{signed(found.mean)} ({signed(found.low)} to {signed(found.high)}{few})"

    def _scaled(self, run: Run) -> float:
        value = float(self.of(run) or 0.0)
        return math.log(value) if self.is_ratio else value


TEST_ERROR = Figure("test error, points", paired.error)


def figures_of(study: Study) -> list[Figure]:
    """The test error, and the sharpness at the paper's radius and at the largest other one, where it was measured."""
    found = [TEST_ERROR]
    for way, radii in list(protocols_of(study).items())[:1]:
        first = headline(radii)
        others = [max(rho for rho in radii if rho != first)] if len(radii) > 1 else []
        found += [sharpness_at(way, rho) for rho in (first, *others)]
    return found


def sharpness_at(way: SharpnessProtocol, rho: float) -> Figure:
    """The worst case at a radius."""
    title = ", ".join([f"sharpness, ρ {rho:.3g}", *way.departures, "ratio"])
    return Figure(title, lambda run: getattr(worst_cases(run).get(way, {}).get(rho), "sharpness", None), is_ratio=True)


def signed(value: float) -> str:
    """A number with its sign, to two digits."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")
