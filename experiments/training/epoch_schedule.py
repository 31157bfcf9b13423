"""What each step of an epoch is given, known before the epoch, and where the host interrupts it."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np

from sam_optax import BatchPlan

Schedules = dict[str, Callable[[Any], Any]]
"""Each hyperparameter as a function of the position in epochs."""

Perturb = Callable[[int], bool | None]
"""From the number of a step to whether it makes a second pass; None if its gradient decides."""

_LONGEST = 1000  # steps whose metrics stay on the device


class ScheduledStep(NamedTuple):
    """What a step is given.

    Attributes:
      step: its number.
      position: where it stands, in epochs.
      hyperparameters: of the step.
      perturb: whether it makes a second pass; None where its gradient decides.
    """

    step: int
    position: float
    hyperparameters: dict[str, np.ndarray]
    perturb: bool | None


class EpochSchedule(NamedTuple):
    """The steps of an epoch, or some of them.

    Attributes:
      epoch: its number, from 0.
      batch_size: of its steps.
      steps: their numbers.
      scheduled: what each of them is given.
      next_size: the batch size of the next stage; None in the last.
    """

    epoch: int
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
        scheduled = [
            ScheduledStep(step, position, {name: value[i] for name, value in values.items()}, perturb(step))
            for i, (step, position) in enumerate(zip(steps, positions, strict=True))
        ]
        return cls(epoch, size, steps, scheduled, next_size)

    def cut(self, start: int, ends: list[int]) -> Iterator[Self]:
        """The steps from `start` on, cut at the `ends` that lie within them, and so that no part is long."""
        first, last = start, self.steps.stop
        for end in sorted({*ends, *range(start, last, _LONGEST), last}):
            if first < end <= last:
                part = self.scheduled[first - self.steps.start : end - self.steps.start]
                yield self._replace(steps=range(first, end), scheduled=part)
                first = end
