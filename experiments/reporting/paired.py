"""Differences between groups, seed by seed.

Runs of one seed share initialisation, split and data order, so their difference varies less than they do.
"""

import statistics
from itertools import combinations
from typing import NamedTuple

from scipy import stats

from experiments.reporting.groups import Group

CONFIDENCE = 0.95


class Difference(NamedTuple):
    """The mean paired difference in test error, `first − second`, in percentage points.

    Attributes:
      first: a group.
      second: the group that it is compared with.
      seeds: how many seeds both have.
      mean: of the differences.
      low: the lower end of its 95% t interval.
      high: the upper end.
    """

    first: Group
    second: Group
    seeds: int
    mean: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def is_direct(self) -> bool:
        """Whether the two differ in their strategy alone, or in their method alone."""
        return self.first.row == self.second.row or self.first.column == self.second.column


def differences(groups: list[Group]) -> list[Difference]:
    """Each pair of groups that share two seeds or more, the later less the earlier: strategies first, then methods."""
    pairs = sorted(combinations(groups, 2), key=lambda pair: _kind(*pair))
    return [difference(after, before) for before, after in pairs if len(_shared_seeds(before, after)) > 1]


def difference(first: Group, second: Group) -> Difference:
    """The mean `d` of the differences of `n` shared seeds, and `d ± t(97.5%, n − 1) · s/√n`."""
    seeds = _shared_seeds(first, second)
    errors = [[100 * group.by_seed[seed].result["test_error"] for seed in seeds] for group in (first, second)]
    paired = [one - other for one, other in zip(*errors, strict=True)]
    mean, spread = statistics.mean(paired), statistics.stdev(paired)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(paired) - 1) * spread / len(paired) ** 0.5
    return Difference(first, second, len(paired), mean, mean - half, mean + half)


def _shared_seeds(first: Group, second: Group) -> list[int]:
    return sorted(first.by_seed.keys() & second.by_seed.keys())


def _kind(first: Group, second: Group) -> int:
    if first.row == second.row:
        return 0
    return 1 if first.column == second.column else 2
