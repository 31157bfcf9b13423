"""The runs of a study that are matched with one another, and the runs that one call makes.

Runs are matched by epochs, updates or gradient evaluations, so that they can be compared. A call selects runs by name,
or one of several parts of about equal cost.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from experiments.config.checks import MOST_RUNS
from experiments.study.run_spec import RunSpec
from sam_optax import BatchPlan

MATCHES = ("epochs", "updates", "gradients")
_PASSES = 2  # of SAM
TOLERANCE = 0.05  # what is equal to this part needs no plan of its own


def matched(
    match: str, plan: BatchPlan, evaluations: float, reference: BatchPlan, epoch_size: int
) -> tuple[BatchPlan, str]:
    """The plan, with as many epochs as the match asks for.

    Args:
      match: `epochs`: the plan as it is. `updates`: as many updates as the reference makes. `gradients`: as many
        gradient evaluations as SAM makes along the reference, so that a method of one pass gets twice the updates.
      plan: of the cell.
      evaluations: of the gradient, by the cell's method, an update.
      reference: the increasing plan, which makes the most updates.
      epoch_size: the examples of an epoch.

    Returns:
      The plan, its stages in proportion, each of whole epochs; so updates agree to half an epoch a stage, or a whole
      one where a stage would have none. A plan that agrees to 5% stays as it is. And what was matched by changing the
      plan; `epochs` where it is as it was.
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
    """The number of updates that a match, `updates` or `gradients`, asks for; the arguments are those of `matched`.

    Returns:
      The number of updates, and what is matched by it: `gradients`, or `updates` where both are the same.
    """
    factor = {"updates": 1.0, "gradients": _PASSES / evaluations}[match]
    return round(factor * reference.total_steps(epoch_size)), "updates" if factor == 1 else "gradients"


@dataclass(frozen=True)
class Selection:
    """Which runs of a study are done.

    Attributes:
      only: Runs whose folder has one of these names, in which * stands for anything: 'sam-*-0'; left out, all.
      part: One of several parts of about equal cost, for the jobs of a cluster: 2/8 is the second of eight.
    """

    only: tuple[str, ...] = ()
    part: str = "1/1"

    def __post_init__(self) -> None:
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", self.part)
        if not found or not 1 <= int(found[1]) <= int(found[2]) <= MOST_RUNS:
            raise ValueError(f"part is {self.part!r}: give one of several, as 2/8, of at most {MOST_RUNS}.")

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self == Selection()

    def of(self, cells: list[RunSpec], cost: Callable[[RunSpec], float]) -> list[RunSpec]:
        """The runs that are selected, in their order.

        Runs go to the parts one by one, the dearest first, each to the part that has the least to do: the same on every
        machine, whatever was run already.

        Args:
          cells: all runs of the study.
          cost: of a run, in any unit.

        Raises:
          ValueError: If there are none.
        """
        named = [cell for cell in cells if not self.only or any(fnmatchcase(cell.folder.name, x) for x in self.only)]
        if not named:
            examples = ", ".join(cell.folder.name for cell in cells[:3])
            raise ValueError(f"only is {self.only}: no run has such a name, they are called {examples}, ....")
        index, parts = map(int, self.part.split("/"))
        loads, mine = [0.0] * parts, set()
        for cell in sorted(named, key=cost, reverse=True):
            least = loads.index(min(loads))
            loads[least] += cost(cell)
            if least == index - 1:
                mine.add(cell.folder)
        return [cell for cell in named if cell.folder in mine]
