"""Differences between groups, paired by seed, and what may be concluded from them.

Runs of one seed share the initialisation, the split and the order of the data, so their difference varies less than
each of them.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from experiments.cli.tables import ratio, signed
from experiments.report.groups import METHOD, Group, Study
from experiments.sharpness.columns import ProtocolColumns, headline, protocols_of
from experiments.study import labels

CONFIDENCE = 0.95
FEWEST_SEEDS = 3  # for a conclusion
LEARNED = 0.2  # the training accuracy below which nothing is concluded from a group
_ROUNDING = 1e-9  # percentage points


class Answer(Enum):
    """The conclusion of a comparison: whether the first group has a lower value. The values are symbols in tables."""

    YES = "✓"
    NO = "✗"
    OPEN = "?"


@dataclass(frozen=True)
class Measure:
    """A quantity by which groups are compared; lower is better.

    Attributes:
      title: the name, with its unit: `test error, points`.
      column: the column of the table of runs.
      is_ratio: whether two values are compared by their ratio, as for sharpness, which varies by orders of magnitude.
    """

    title: str
    column: str
    is_ratio: bool = False

    @property
    def name(self) -> str:
        """The name without the unit: `sharpness at ρ 0.0002`."""
        return self.title.removesuffix(", points").removesuffix(", ratio").replace(", ρ", " at ρ")

    @property
    def best(self) -> str:
        """The word for the group with the lowest value of several."""
        return "flattest" if self.is_ratio else "best"

    def values(self, group: Group, seeds: Sequence[int] | None = None) -> np.ndarray:
        """Returns the values of some seeds or of all: percentages, or logarithms if a ratio is compared."""
        values = group.values(self.column, seeds)
        return np.log(np.where(values > 0, values, np.nan)) if self.is_ratio else 100 * values

    def is_known(self, group: Group) -> bool:
        """Returns whether all runs of the group have a value, and a positive one if it is compared by its ratio."""
        return not np.isnan(self.values(group)).any()

    def compare(self, first: Group, second: Group, among: Collection[int] | None = None) -> "Difference | None":
        """Returns the paired difference; None if no seed of `among` is shared, or if a value is unknown."""
        seeds = [seed for seed in shared_seeds(first, second) if among is None or seed in among]
        if not seeds or not (self.is_known(first) and self.is_known(second)):
            return None
        return difference(first, second, self, seeds)

    def effect(self, found: "Difference") -> str:
        """Returns the mean difference in words: `−0.85 points`, or `×0.350` for a ratio."""
        return f"×{ratio(math.exp(found.mean))}" if self.is_ratio else f"{signed(found.mean)} points"

    def interval(self, found: "Difference") -> str:
        """Returns the interval in words: `−1.20 to −0.50`; empty with fewer than three seeds."""
        if not math.isfinite(found.low):
            return ""
        ends = (found.low, found.high)
        return " to ".join(ratio(math.exp(end)) if self.is_ratio else signed(end) for end in ends)


TEST_ERROR = Measure("test error, points", "test_error")


@dataclass(frozen=True, eq=False)
class Difference:
    """The mean paired difference `first − second` of a measure.

    Attributes:
      first: the first group.
      second: the group that it is compared with.
      measure: what was compared.
      seeds: the number of seeds that both have.
      mean: the mean difference, in percentage points; of a ratio, the mean difference of logarithms.
      low: the lower end of its 95% t interval; NaN with fewer than three seeds.
      high: the upper end.
      diverged: the number of these runs that have diverged.
      learned: the training accuracy below which nothing is concluded from a group.
    """

    first: Group
    second: Group
    measure: Measure
    seeds: int
    mean: float
    low: float
    high: float
    diverged: int
    learned: float = LEARNED

    @property
    def obstacle(self) -> str:
        """Why nothing may be concluded, whatever the interval; empty if there is no such reason.

        Equal differences have no spread to infer from: errors are counts, so that happens by chance.
        """
        if self.diverged:
            return f"{self.diverged} of the runs diverged"
        if self.seeds < FEWEST_SEEDS:
            return f"fewer than {FEWEST_SEEDS} seeds"
        if min(self.first.accuracy, self.second.accuracy) < self.learned:
            return f"training accuracy below {self.learned:.0%}"
        return "no spread" if self.high - self.low < _ROUNDING else ""

    @property
    def is_inconclusive(self) -> bool:
        """Whether the interval contains 0, and nothing else prevents a conclusion."""
        return self.answer is Answer.OPEN and not self.obstacle

    @property
    def answer(self) -> Answer:
        """Whether the first group has the lower value: yes or no if the interval excludes 0, otherwise open."""
        if self.obstacle or self.low <= 0 <= self.high:
            return Answer.OPEN
        return Answer.YES if self.high < 0 else Answer.NO


def difference(first: Group, second: Group, measure: Measure, seeds: Sequence[int]) -> Difference:
    """Returns the paired difference over these seeds, with the interval of a paired t-test."""
    paired = measure.values(first, seeds) - measure.values(second, seeds)
    mean, low, high = float(paired.mean()), math.nan, math.nan
    if len(paired) >= FEWEST_SEEDS:
        low = high = mean
        if np.ptp(paired) >= _ROUNDING:
            test: Any = stats.ttest_1samp(paired, 0.0)
            interval = test.confidence_interval(CONFIDENCE)
            low, high = float(interval.low), float(interval.high)
    diverged = int(sum(group.values("diverged", seeds).sum() for group in (first, second)))
    return Difference(first, second, measure, len(paired), mean, low, high, diverged)


def measures_of(study: Study) -> list[Measure]:
    """Returns the test error, and the sharpness at the paper's radius and at the largest other one, if measured."""
    found = [TEST_ERROR]
    for protocol, radii in list(protocols_of([group.runs for group in study.groups]).items())[:1]:
        first = headline(radii)
        others = [max(rho for rho in radii if rho != first)] if len(radii) > 1 else []
        found += [sharpness_at(protocol, rho) for rho in (first, *others)]
    return found


def sharpness_at(protocol: ProtocolColumns, rho: float) -> Measure:
    """Returns the sharpness at a radius as a measure."""
    title = ", ".join([f"sharpness, ρ {rho:.3g}", *protocol.departures, "ratio"])
    return Measure(title, protocol.column(rho), is_ratio=True)


def direct_pairs(groups: Sequence[Group]) -> list[Difference]:
    """Returns the differences in test error, later minus earlier, of groups that differ in strategy or in method."""
    pairs = sorted((pair for pair in combinations(groups, 2) if is_direct_pair(*pair)), key=_is_of_methods)
    found = [TEST_ERROR.compare(after, before) for before, after in pairs]
    return [each for each in found if each is not None]


def is_direct_pair(first: Group, second: Group) -> bool:
    """Returns whether two groups differ only in their strategy, or only in their method with its hyperparameters."""
    names = _differing(first, second)
    return all(map(_is_strategy, names)) or names <= set(METHOD)


def shared_seeds(*groups: Group) -> list[int]:
    """Returns the seeds that all groups have."""
    return sorted(set.intersection(*(set(group.seeds) for group in groups)))


def _is_of_methods(pair: tuple[Group, Group]) -> bool:
    return not all(map(_is_strategy, _differing(*pair)))


def _is_strategy(name: str) -> bool:
    return labels.is_strategy(name) or name == "learning_rate"


def _differing(first: Group, second: Group) -> set[str]:
    others = second.config.settings
    return {name for name, value in first.config.settings.items() if value != others[name]}
