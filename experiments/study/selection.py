"""Matches the budgets of a study's runs, and selects the runs that one command executes.

Runs are matched by epochs, updates or gradient evaluations, so that they can be compared. A command selects runs by
name, or one of several parts of about equal cost.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from experiments.config.checks import MOST_RUNS
from experiments.study.run_spec import RunSpec
from sam_optax import BatchPlan

MATCHES = ("epochs", "updates", "gradients")
SAM_EVALUATIONS = 2  # gradient evaluations of an update of SAM
TOLERANCE = 0.05  # budgets within this relative difference count as equal


def matched(
    match: str, plan: BatchPlan, evaluations: float, reference: BatchPlan, epoch_size: int
) -> tuple[BatchPlan, str]:
    """Lengthens or shortens a plan so that its budget equals that of the reference.

    Args:
      match: the budget. `epochs`: the plan is not changed. `updates`: as many updates as the reference makes.
        `gradients`: as many gradient evaluations as SAM makes with the reference, so that a method with one gradient
        evaluation per update makes twice the updates.
      plan: the plan of the run.
      evaluations: the number of gradient evaluations per update of the run's method.
      reference: the increasing plan, which makes the most updates.
      epoch_size: the number of examples of an epoch.

    Returns:
      The plan, and what was matched by changing it: `epochs` if it was not changed. All stages are scaled by the same
      factor and rounded to whole epochs, at least one, so each stage deviates by at most half an epoch, or by up to
      one if it would have none. A plan that agrees within 5% is not changed.
    """
    if match == "epochs":
        return plan, "epochs"
    updates, by = budget(match, evaluations, reference, epoch_size)
    longer = updates / plan.total_steps(epoch_size)
    if abs(longer - 1) <= TOLERANCE:
        return plan, "epochs"
    stages = [(max(1, round(longer * stage.epochs)), stage.batch_size) for stage in plan.stages]
    return BatchPlan.from_stages(stages), by


def budget(match: str, evaluations: float, reference: BatchPlan, epoch_size: int) -> tuple[int, str]:
    """Returns the number of updates that a match, `updates` or `gradients`, requires. See `matched` for the arguments.

    Returns:
      The number of updates, and what it matches: `gradients`, or `updates` if both are equal.
    """
    factor = {"updates": 1.0, "gradients": SAM_EVALUATIONS / evaluations}[match]
    return round(factor * reference.total_steps(epoch_size)), "updates" if factor == 1 else "gradients"


@dataclass(frozen=True)
class Selection:
    """The runs of a study to execute.

    Attributes:
      only: Patterns of the names of the runs' folders, in which * matches anything, for example 'sam-*-0'. The default
        is all runs.
      part: One of several parts of about equal cost, for the jobs of a cluster: 2/8 is the second of eight.
    """

    only: tuple[str, ...] = ()
    part: str = "1/1"

    def __post_init__(self) -> None:
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", self.part)
        if not found or not 1 <= int(found[1]) <= int(found[2]) <= MOST_RUNS:
            raise ValueError(f"part is {self.part!r}: give one part of several, such as 2/8, of at most {MOST_RUNS}.")

    @property
    def is_whole(self) -> bool:
        """Whether all runs are selected."""
        return self == Selection()

    def of(self, specs: list[RunSpec], cost: Callable[[RunSpec], float]) -> list[RunSpec]:
        """Returns the selected runs, in the order of `specs`.

        Runs are assigned to parts in order of decreasing cost, each to the part with the lowest total cost so far. The
        parts are the same on every machine and do not depend on which runs are complete.

        Args:
          specs: all runs of the study.
          cost: returns the cost of a run, in any unit.

        Raises:
          ValueError: If a pattern of `only` matches no run.
        """
        named = [spec for spec in specs if not self.only or any(fnmatchcase(spec.folder.name, x) for x in self.only)]
        for pattern in self.only:
            if not any(fnmatchcase(spec.folder.name, pattern) for spec in specs):
                examples = ", ".join(spec.folder.name for spec in specs[:3])
                raise ValueError(f"only has {pattern!r}: no run has this name. Names are {examples}, ....")
        index, parts = map(int, self.part.split("/"))
        loads, mine = [0.0] * parts, set()
        for spec in sorted(named, key=cost, reverse=True):
            least = loads.index(min(loads))
            loads[least] += cost(spec)
            if least == index - 1:
                mine.add(spec.folder)
        return [spec for spec in named if spec.folder in mine]
