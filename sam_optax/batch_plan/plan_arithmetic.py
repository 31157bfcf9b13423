"""The arithmetic of a batch plan: its length, and the position and the batch size of each update."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import jax.numpy as jnp
import numpy as np

from sam_optax.batch_plan.segments import Segment, segments, traced_position
from sam_optax.batch_plan.stages import Stage, as_index, check_positive_integer, exact, spelled, whole_epochs


class PlanArithmetic:
    """Converts between updates, examples and epochs of a plan.

    In each method, `num_examples` is the number of examples of a pass over the data; None means endless data, for
    plans in examples and updates. `drop_last` is whether the incomplete rest of a pass is dropped.

    Attributes:
      stages: the stages in order.
      unit: the unit of their lengths.
    """

    stages: tuple[Stage, ...]
    unit: str

    @property
    def length(self) -> float:
        """The total length in the unit of the plan; a whole number is an `int`."""
        total = sum(exact(stage.length) for stage in self.stages)
        return int(total) if total == int(total) else float(total)

    @property
    def epochs(self) -> int:
        """The total number of epochs of a plan in epochs.

        Raises:
          ValueError: If the plan is in another unit, or if the number is a fraction.
        """
        if self.unit != "epochs":
            text = spelled(self.unit, self.stages)
            raise ValueError(
                f"the plan {text} is in {self.unit}, and its number of epochs depends on the data: use "
                "plan.epoch_at(plan.total_steps(num_examples), num_examples)."
            )
        return whole_epochs(self.length)

    def batch_size_at(self, epoch: float) -> int:
        """The batch size at `epoch`, `0 ≤ epoch < epochs`; fractions are positions inside an epoch.

        Example:
          >>> from sam_optax import BatchPlan
          >>> BatchPlan.parse("2x10,1x20").batch_size_at(2.5)
          20
        """
        if self.unit != "epochs" or not 0 <= epoch < self.length:
            remedy = (
                f"give a number of at least 0 and below {self.length}, the epochs"
                if self.unit == "epochs"
                else f"the plan is in {self.unit}, so use batch_size_at_step"
            )
            raise ValueError(f"epoch is {epoch!r}: {remedy}.")
        starts = [float(start) for start in accumulate((exact(stage.length) for stage in self.stages), initial=0)]
        return self.stages[bisect_right(starts[:-1], epoch) - 1].batch_size

    def batch_size_at_step(self, step: int, num_examples: int | None = None, drop_last: bool = True) -> int:
        """The batch size of update `step`. With `drop_last=False`, the last batch of an epoch can be smaller.

        Example:
          >>> from sam_optax import BatchPlan
          >>> BatchPlan.parse("updates:100x16,50x64").batch_size_at_step(100)
          64
        """
        segment, _ = self._segment(self._segments(num_examples, drop_last), step, num_examples)
        return segment.batch_size

    def total_steps(self, num_examples: int | None = None, drop_last: bool = True) -> int:
        """The total number of updates, on `num_examples` examples or, if it is None, on endless data.

        Example:
          >>> from sam_optax import BatchPlan
          >>> BatchPlan.parse("examples:1000x64").total_steps()
          16
        """
        last = self._segments(num_examples, drop_last)[-1]
        return last.step + last.steps

    def boundaries(self, num_examples: int | None = None, drop_last: bool = True) -> tuple[int, ...]:
        """The updates at which the second and later stages begin.

        Example:
          >>> from sam_optax import BatchPlan
          >>> BatchPlan.parse("2x10,1x20").boundaries(num_examples=100)
          (20,)
        """
        first = {each.stage: each.step for each in reversed(self._segments(num_examples, drop_last))}
        return tuple(first[stage] for stage in range(1, len(self.stages)))

    def examples_at(self, step: int, num_examples: int | None = None, drop_last: bool = True) -> int:
        """The offset in the data at which update `step` begins: the number of examples before it.

        With `num_examples`, the offset is `pass · num_examples + rank`, where `rank` is the position in the order of
        the pass. It includes the examples that were dropped at the ends of earlier passes.

        Example:
          >>> from sam_optax import BatchPlan
          >>> plan = BatchPlan.parse("updates:100x16,50x64")
          >>> plan.examples_at(120), plan.examples_at(120, num_examples=1000)
          (2880, 2896)
        """
        segment, update = self._segment(self._segments(num_examples, drop_last), step, num_examples)
        return segment.offset(update)

    def examples_used(self, step: int, num_examples: int | None = None, drop_last: bool = True) -> int:
        """The number of examples in the first `step` updates, without those that were dropped at the ends of passes.

        Example:
          >>> from sam_optax import BatchPlan
          >>> plan = BatchPlan.parse("2x30")
          >>> plan.examples_used(4, num_examples=100), plan.examples_at(4, num_examples=100)
          (120, 130)
        """
        found = self._segments(num_examples, drop_last)
        _, update = self._segment(found, step, num_examples)
        return sum(each.examples_used(update, drop_last=drop_last) for each in found)

    def passes(self, num_examples: int, drop_last: bool = True) -> int:
        """The number of passes over the data in which the plan has updates; the last one may be incomplete.

        Example:
          >>> from sam_optax import BatchPlan
          >>> BatchPlan.parse("updates:25x10").passes(num_examples=100)
          3
        """
        last = self.total_steps(num_examples, drop_last) - 1
        return self.examples_at(last, num_examples, drop_last) // int(num_examples) + 1

    def updates_of_pass(self, number: int, num_examples: int, drop_last: bool = True) -> range:
        """The updates of pass `number`, which is counted from 0.

        Example:
          >>> from sam_optax import BatchPlan
          >>> BatchPlan.parse("updates:25x10").updates_of_pass(2, num_examples=100)
          range(20, 25)
        """
        passes, updates = self.passes(num_examples, drop_last), range(self.total_steps(num_examples, drop_last))
        index = as_index("number", number)
        if not 0 <= index < passes:
            raise ValueError(f"number is {number!r}: this plan has {passes} passes over {num_examples} examples.")
        offset = partial(self.examples_at, num_examples=num_examples, drop_last=drop_last)
        first, last = (bisect_left(updates, each * int(num_examples), key=offset) for each in (index, index + 1))
        return range(first, last)

    def epoch_at(self, step: int, num_examples: int, drop_last: bool = True) -> float:
        """The position in epochs, a whole number at each epoch's start, after `step` updates of this plan.

        Example:
          >>> from sam_optax import BatchPlan
          >>> BatchPlan.parse("updates:100x10").epoch_at(15, num_examples=100)
          1.5
        """
        check_positive_integer("num_examples", num_examples)
        segment, update = self._segment(self._segments(num_examples, drop_last), step, num_examples)
        return segment.epoch(update)

    def position_at(self, step: int, num_examples: int | None = None, drop_last: bool = True) -> float:
        """The position in the unit of the plan after `step` updates: epochs, examples or updates.

        Example:
          >>> from sam_optax import BatchPlan
          >>> BatchPlan.parse("2x10").position_at(5, num_examples=100)
          0.5
          >>> BatchPlan.parse("examples:200x10").position_at(5)
          50
        """
        segment, update = self._segment(self._segments(num_examples, drop_last), step, num_examples)
        return {"epochs": segment.epoch, "examples": segment.offset, "updates": int}[self.unit](update)

    def schedule(
        self, schedule_over_plan: Callable[[Any], Any], num_examples: int | None = None, drop_last: bool = True
    ) -> Callable[[Any], Any]:
        """Converts a schedule over the unit of the plan into a schedule over updates.

        A learning rate over epochs or examples then depends on the number of examples so far, not on how the batch
        grows. The stage of an update is found by an integer search, and only the position in it is a floating-point
        number.

        Args:
          schedule_over_plan: from a position in epochs (a fraction inside an epoch), examples or updates to a value.
          num_examples: the number of examples of an epoch; None if the data are endless.
          drop_last: whether the last incomplete batch of an epoch is dropped.

        Returns:
          A traceable schedule from the number of updates to a value, which is constant after the last update.

        Raises:
          ValueError: If a batch is larger than the data, or if the number of updates does not fit into 32 bits.

        Example:
          >>> import optax
          >>> from sam_optax import BatchPlan
          >>> plan = BatchPlan.parse("1x10,1x20")
          >>> rate = plan.schedule(optax.linear_schedule(1.0, 0.0, transition_steps=2), num_examples=100)
          >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 11, 15)]
          [1.0, 0.75, 0.5, 0.4, 0.0]
        """
        found = self._segments(num_examples, drop_last)
        total = found[-1].step + found[-1].steps
        if total > np.iinfo(np.int32).max:
            raise ValueError(f"this plan has {total} updates{_on(num_examples)}: at most 2³¹ − 1 are supported.")
        if self.unit == "updates":
            return lambda step: schedule_over_plan(jnp.clip(jnp.asarray(step, jnp.int32), 0, total))
        position = traced_position(found, in_epochs=self.unit == "epochs")
        return lambda step: schedule_over_plan(position(step))

    def _segments(self, num_examples: int | None, drop_last: bool) -> tuple[Segment, ...]:
        return segments(self.unit, self.stages, num_examples, drop_last=drop_last)

    def _segment(self, found: tuple[Segment, ...], step: int, num_examples: int | None) -> tuple[Segment, int]:
        """The segment of an update, the last one for the end of the plan, and the number of the update as an `int`."""
        total, update = found[-1].step + found[-1].steps, as_index("step", step)
        if not 0 <= update <= total:
            raise ValueError(f"step is {step!r}: this plan has {total} updates{_on(num_examples)}.")
        return found[bisect_right(found, update, key=lambda each: each.step) - 1], update


def _on(num_examples: int | None) -> str:
    return "" if num_examples is None else f" on {num_examples} examples"
