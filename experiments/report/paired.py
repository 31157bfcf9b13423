"""Differences between groups, seed by seed.

Runs of one seed share initialisation, split and data order, so their difference varies less than they do.
"""

import statistics
from collections.abc import Callable, Collection
from itertools import combinations
from typing import NamedTuple

from scipy import special

from experiments.report.groups import Group
from experiments.report.parts import METHOD, STRATEGY
from experiments.runner.finished_runs import Run

CONFIDENCE = 0.95
DIRECT = "Of the pairs that differ in strategy alone, or in method alone."
_ROUNDING = 1e-9  # percentage points

Value = Callable[[Run], float]


class Difference(NamedTuple):
    """The mean paired difference of a figure, `first − second`; of test errors in percentage points.

    Attributes:
      first: a group.
      second: the group that it is compared with.
      seeds: how many seeds both have.
      mean: of the differences.
      low: the lower end of its 95% t interval.
      high: the upper end.
      diverged: how many of the runs have diverged.
    """

    first: Group
    second: Group
    seeds: int
    mean: float
    low: float
    high: float
    diverged: int

    @property
    def direction(self) -> str:
        """`lower` or `higher` where the interval leaves 0 out, else a dash; or why nothing can be said.

        Differences that are all alike have no spread to infer from: errors are counts, so that happens by chance.
        """
        if self.diverged:
            return f"diverged: {self.diverged}"
        if self.high - self.low < _ROUNDING:
            return "no spread"
        if self.low <= 0 <= self.high:
            return "–"
        return "lower" if self.high < 0 else "higher"

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out, and something may be inferred from it."""
        return self.direction in ("lower", "higher")

    @property
    def is_direct(self) -> bool:
        """Whether the two differ in their strategy alone, or in their method, with its hyperparameters, alone."""
        return is_direct_pair(self.first, self.second)


def is_direct_pair(first: Group, second: Group) -> bool:
    """Whether two groups differ in their strategy alone, or in their method, with its hyperparameters, alone."""
    return _kind(first, second) < 2


def error(run: Run) -> float:
    """The test error, in %."""
    return 100 * run.result.test_error


def differences(groups: list[Group]) -> list[Difference]:
    """Each pair of groups that share two seeds or more, the later less the earlier: strategies first, then methods."""
    pairs = sorted(combinations(groups, 2), key=lambda pair: _kind(*pair))
    return [difference(after, before) for before, after in pairs if len(shared_seeds(before, after)) > 1]


def difference(first: Group, second: Group, value: Value = error, among: Collection[int] | None = None) -> Difference:
    """The mean `d` of the differences of `n` shared seeds, and `d ± t(97.5%, n − 1) · s/√n`.

    Args:
      first: a group.
      second: another one, which shares two seeds or more with it.
      value: what is compared.
      among: the seeds that count, two shared ones or more; None is all.
    """
    seeds = [seed for seed in shared_seeds(first, second) if among is None or seed in among]
    paired = [value(first.by_seed[seed]) - value(second.by_seed[seed]) for seed in seeds]
    mean, spread = statistics.mean(paired), statistics.stdev(paired)
    half = special.stdtrit(len(paired) - 1, (1 + CONFIDENCE) / 2) * spread / len(paired) ** 0.5
    diverged = sum(group.by_seed[seed].diverged for group in (first, second) for seed in seeds)
    return Difference(first, second, len(paired), mean, mean - half, mean + half, diverged)


def shared_seeds(*groups: Group) -> list[int]:
    """The seeds that all of them have."""
    return sorted(set.intersection(*(set(group.by_seed) for group in groups)))


def _kind(first: Group, second: Group) -> int:
    if _differ_only_in(STRATEGY, first, second):
        return 0
    return 1 if _differ_only_in(METHOD, first, second) else 2


def _differ_only_in(names: tuple[str, ...], first: Group, second: Group) -> bool:
    others = second.config.settings
    return all(name in names or value == others[name] for name, value in first.config.settings.items())
