"""The schedule of an epoch, computed in advance: the inputs of each step, and the steps after which a run is saved."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np

from sam_optax import BatchPlan

Schedules = dict[str, Callable[[Any], Any]]
"""The schedule of each hyperparameter: a function of the position in epochs."""

Perturb = Callable[[int], bool | None]
"""Maps the number of a step to whether it makes a second pass; None if its gradient decides."""

_LONGEST = 1000  # the largest number of steps whose metrics stay on the device
_EXAMPLES = 10_000
_MOST = 2**31 - 1


class ScheduledStep(NamedTuple):
    """The values that a step is given.

    Attributes:
      step: the number of the step.
      batch_size: the batch size of the step.
      position: the position of the step in epochs.
      hyperparameters: the hyperparameters of the step.
      perturb: whether the step makes a second pass; None if its gradient decides.
    """

    step: int
    batch_size: int
    position: float
    hyperparameters: dict[str, np.ndarray]
    perturb: bool | None


class EpochSchedule(NamedTuple):
    """The steps of an epoch, or some of them.

    Attributes:
      steps: the numbers of the steps.
      scheduled: the inputs of each step.
      later_sizes: the batch sizes that follow, in order.
    """

    steps: range
    scheduled: list[ScheduledStep]
    later_sizes: list[int]

    @property
    def next_size(self) -> int | None:
        """The next batch size that differs; None if it does not change any more."""
        size = self.scheduled[-1].batch_size
        return next((later for later in self.later_sizes if later != size), None)

    @classmethod
    def of(cls, epoch: int, schedules: Schedules, perturb: Perturb, plan: BatchPlan, num_examples: int) -> Self:
        """Returns all steps of an epoch; a plan that ends within it has fewer.

        Schedules are evaluated for all steps at once, even if some were made before the run was stopped: a vectorised
        function may round a number differently depending on its index in the vector.
        """
        steps = plan.updates_of_pass(epoch, num_examples)
        sizes = [plan.batch_size_at_step(step, num_examples) for step in steps]
        stage = bisect_right(plan.boundaries(num_examples), steps[-1])
        positions = [plan.epoch_at(step, num_examples) for step in steps]
        where = np.asarray(positions, np.float32)
        values = {name: np.broadcast_to(schedule(where), where.shape) for name, schedule in schedules.items()}
        given = ({name: value[i] for name, value in values.items()} for i in range(len(steps)))
        scheduled = list(map(ScheduledStep, steps, sizes, positions, given, map(perturb, steps)))
        return cls(steps, scheduled, [each.batch_size for each in plan.stages[stage + 1 :]])

    def cut(self, start: int, ends: list[int]) -> Iterator["EpochSchedule"]:
        """Yields the steps from `start` on, in parts of one batch size, which end at `ends` and have at most 1,000."""
        first, last = start, self.steps.stop
        changes = [b.step for a, b in pairwise(self.scheduled) if a.batch_size != b.batch_size]
        for end in sorted({*ends, *range(start, last, _LONGEST), *changes, last}):
            if first < end <= last:
                rest = self.scheduled[first - self.steps.start :]
                part, later = rest[: end - first], [step.batch_size for step in rest[end - first :]]
                yield EpochSchedule(range(first, end), part, later + self.later_sizes)
                first = end


@dataclass(frozen=True)
class Saving:
    """How a run is saved during training.

    Attributes:
      every: The number of updates between two saves. By default the run is saved at the end of each epoch; with small
        data sets, at the first end of an epoch after every 10,000 examples.
      keep: The number of saves that are kept; older ones are deleted.
    """

    every: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 1 <= value <= _MOST:
                raise ValueError(f"saving.{name} is {value}: give an integer from 1 to {_MOST}.")

    def due(self, epoch: int, steps: range, num_examples: int) -> list[int]:
        """Returns the updates of an epoch after which the run is saved.

        The result depends on the position alone, so that all processes agree.

        Args:
          epoch: the number of the epoch, from 0.
          steps: the numbers of its updates.
          num_examples: the number of examples in an epoch.

        Returns:
          The numbers of updates made at each save, in order.
        """
        if self.every is None:
            is_due = (epoch + 1) * num_examples // _EXAMPLES > epoch * num_examples // _EXAMPLES
            return [steps.stop] if is_due else []
        first = (steps.start // self.every + 1) * self.every
        return list(range(first, steps.stop + 1, self.every))
