"""The schedule of an epoch, known beforehand: what each step is given, and after which steps the run is saved."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from sam_optax import BatchPlan

Schedules = dict[str, Callable[[Any], Any]]
"""Each hyperparameter as a function of the position in epochs."""

Perturb = Callable[[int], bool | None]
"""From the number of a step to whether it makes a second pass; None if its gradient decides."""

_LONGEST = 1000  # steps whose metrics stay on the device
_EXAMPLES = 10_000
_MOST = 2**31 - 1


class ScheduledStep(NamedTuple):
    """The values that a step is given.

    Attributes:
      step: the number of the step.
      position: the position of the step in epochs.
      hyperparameters: the hyperparameters of the step.
      perturb: whether the step makes a second pass; None if its gradient decides.
    """

    step: int
    position: float
    hyperparameters: dict[str, np.ndarray]
    perturb: bool | None


class EpochSchedule(NamedTuple):
    """The steps of an epoch, or some of them.

    Attributes:
      batch_size: of its steps.
      steps: their numbers.
      scheduled: what each of them is given.
      next_size: the batch size of the next stage; None in the last.
    """

    batch_size: int
    steps: range
    scheduled: list[ScheduledStep]
    next_size: int | None

    @classmethod
    def of(cls, epoch: int, schedules: Schedules, perturb: Perturb, plan: BatchPlan, num_examples: int) -> Self:
        """All steps of an epoch.

        Schedules are read for all of them at once, also where some were made before the run was stopped: a vectorised
        function may round by the place of a number in its vector.
        """
        sizes = [stage.batch_size for stage in plan.stages for _ in range(stage.epochs)]
        size, first = sizes[epoch], sum(num_examples // size for size in sizes[:epoch])
        next_size = next((later for later in sizes[epoch:] if later != size), None)
        steps = range(first, first + num_examples // size)
        positions = [plan.epoch_at(step, num_examples) for step in steps]
        where = np.asarray(positions, np.float32)
        values = {name: np.broadcast_to(schedule(where), where.shape) for name, schedule in schedules.items()}
        given = ({name: value[i] for name, value in values.items()} for i in range(len(steps)))
        scheduled = list(map(ScheduledStep, steps, positions, given, map(perturb, steps)))
        return cls(size, steps, scheduled, next_size)

    def cut(self, start: int, ends: list[int]) -> Iterator[Self]:
        """The steps from `start` on, cut at the `ends` that lie within them, and so that no part is long."""
        first, last = start, self.steps.stop
        for end in sorted({*ends, *range(start, last, _LONGEST), last}):
            if first < end <= last:
                part = self.scheduled[first - self.steps.start : end - self.steps.start]
                yield self._replace(steps=range(first, end), scheduled=part)
                first = end


@dataclass(frozen=True)
class Saving:
    """How a run is saved on its way.

    Attributes:
      every: Every how many updates; left out, at the end of each epoch, of small data sets at the first end after
        another 10,000 examples.
      keep: How many saves are kept, the last ones.
    """

    every: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 1 <= value <= _MOST:
                raise ValueError(f"saving.{name} is {value}: give an integer from 1 to {_MOST}.")

    def due(self, epoch: int, steps: range, num_examples: int) -> list[int]:
        """After which updates of an epoch a run is saved: a function of the position, so that all processes agree.

        Args:
          epoch: the number of the epoch, from 0.
          steps: its updates.
          num_examples: examples an epoch.

        Returns:
          The numbers of updates made, in order.
        """
        if self.every is None:
            is_due = (epoch + 1) * num_examples // _EXAMPLES > epoch * num_examples // _EXAMPLES
            return [steps.stop] if is_due else []
        first = (steps.start // self.every + 1) * self.every
        return list(range(first, steps.stop + 1, self.every))
