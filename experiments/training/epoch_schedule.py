"""The course of an epoch: what each of its steps is told, known beforehand, and where the host looks up."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from sam_optax import BatchPlan

_LONGEST = 1000  # steps whose metrics stay on the device


class EpochSchedule(NamedTuple):
    """The steps of an epoch, or some of them.

    Attributes:
      epoch: its number, from 0.
      batch_size: of its steps.
      steps: their numbers.
      positions: where each stands, in epochs.
      hyperparameters: of each step.
      decisions: whether each makes a second pass; None where its gradient decides.
      next_size: the batch size of the next stage; None in the last.
    """

    epoch: int
    batch_size: int
    steps: range
    positions: list[float]
    hyperparameters: list[dict[str, np.ndarray]]
    decisions: list[bool | None]
    next_size: int | None

    @classmethod
    def of(
        cls,
        epoch: int,
        schedules: dict[str, Callable[[Any], Any]],
        perturb: Callable[[int], bool | None],
        plan: BatchPlan,
        num_examples: int,
    ) -> "EpochSchedule":
        """All steps of an epoch.

        Schedules are read for all of them at once, also where some were made before the run was stopped: a vectorised
        function may round by the place of a number in its vector.
        """
        size, next_size, first = plan.batch_size_at(epoch), None, 0
        before = epoch  # epochs that are not counted yet
        for stage in plan.stages:
            if before < 0 and next_size is None and stage.batch_size != size:
                next_size = stage.batch_size
            first += min(stage.epochs, max(before, 0)) * (num_examples // stage.batch_size)
            before -= stage.epochs
        steps = range(first, first + num_examples // size)
        positions = [plan.epoch_at(step, num_examples) for step in steps]
        decisions = [perturb(step) for step in steps]
        return cls(epoch, size, steps, positions, _read(schedules, positions), decisions, next_size)

    def cut(self, start: int, ends: list[int]) -> Iterator["EpochSchedule"]:
        """The steps from `start` on, cut at the `ends` that lie within them, and so that no part is long."""
        first, last = start, self.steps.stop
        for end in sorted({*ends, *range(start, last, _LONGEST), last}):
            if first < end <= last:
                yield self._part(range(first, end))
                first = end

    def _part(self, steps: range) -> "EpochSchedule":
        kept = slice(steps.start - self.steps.start, steps.stop - self.steps.start)
        return self._replace(
            steps=steps,
            positions=self.positions[kept],
            hyperparameters=self.hyperparameters[kept],
            decisions=self.decisions[kept],
        )


def _read(schedules: dict[str, Callable[[Any], Any]], positions: list[float]) -> list[dict[str, np.ndarray]]:
    """The hyperparameters at each position, evaluated all at once."""
    where = np.asarray(positions, np.float32)
    values = {name: np.broadcast_to(schedule(where), where.shape) for name, schedule in schedules.items()}
    return [{name: value[i] for name, value in values.items()} for i in range(len(positions))]
