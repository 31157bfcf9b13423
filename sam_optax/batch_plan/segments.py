"""The exact arithmetic between updates, examples and epochs.

A plan consists of segments: runs of updates with one batch size, in which every block of updates takes the same number
of examples. A block is a pass over the data, or the part of a pass that belongs to a stage. All numbers are Python
integers and fractions, so that no position is rounded.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax.batch_plan.stages import Stage, check_positive_integer, exact, spelled


class Segment(NamedTuple):
    """Consecutive updates of one stage.

    Attributes:
      stage: the index of the stage.
      step: the number of the first update.
      steps: the number of updates, a multiple of `block`.
      start: the offset of the first update in the data, in examples.
      batch_size: the number of examples per update.
      block: the number of updates of a block.
      stride: the number of examples from the start of a block to the start of the next one.
      num_examples: the number of examples of a pass; None if the data are endless.
    """

    stage: int
    step: int
    steps: int
    start: int
    batch_size: int
    block: int
    stride: int
    num_examples: int | None

    def offset(self, step: int) -> int:
        """The offset in the data at which an update begins; after the last update, the offset at which it ends."""
        whole, rest = divmod(step - self.step, self.block)
        return self.start + whole * self.stride + rest * self.batch_size

    def examples_used(self, step: int, *, drop_last: bool) -> int:
        """The number of examples in the updates of this segment before `step`, without those that were dropped."""
        updates = min(max(step - self.step, 0), self.steps)
        if drop_last:
            return updates * self.batch_size
        whole, rest = divmod(updates, self.block)
        return whole * self.stride + rest * self.batch_size

    @property
    def first_epoch(self) -> float:
        """The position of the first update in epochs; a whole number is an `int`."""
        position = Fraction(self.start, self.num_examples or 1)
        return position.numerator if position.denominator == 1 else float(position)

    @property
    def epochs_of_block(self) -> float:
        """The length of a block in epochs."""
        return self.stride / (self.num_examples or 1)

    def epoch(self, step: int) -> float:
        """The position of an update in epochs, interpolated linearly within a block."""
        whole, rest = divmod(step - self.step, self.block)
        return self.first_epoch + whole * self.epochs_of_block + rest / self.block * self.epochs_of_block


@functools.lru_cache(maxsize=64)
def segments(
    unit: str, stages: tuple[Stage, ...], num_examples: int | None, *, drop_last: bool = True
) -> tuple[Segment, ...]:
    """The segments of a plan, in order; they are cached, since each question about an update needs them.

    An update belongs to the stage in which it begins, so its batch may reach into the next stage. No batch crosses the
    end of a pass.

    Args:
      unit: the unit of the lengths of the stages.
      stages: the stages.
      num_examples: the number of examples of a pass; None if the data are endless, for plans in examples or updates.
      drop_last: whether the incomplete rest of a pass is dropped, instead of being a smaller batch.

    Raises:
      ValueError: If the plan needs `num_examples`, if a batch is larger than the data, or if a stage has no update.
    """
    _check_examples(unit, stages, num_examples)
    size = None if num_examples is None else int(num_examples)
    found: list[Segment] = []
    walk = _Walk(size, drop_last)
    end = Fraction(0)
    for index, stage in enumerate(stages):
        end += exact(stage.length) * (size if unit == "epochs" and size else 1)
        of_stage = list(walk.stage(index, stage.batch_size, end, in_updates=unit == "updates"))
        if not of_stage:
            raise ValueError(
                f"stage {index + 1} of the plan {spelled(unit, stages)} has no update, because the update before it "
                "ends after the stage, or less than a batch is left of the data: make the stage longer."
            )
        found += of_stage
    return tuple(found)


def _check_examples(unit: str, stages: Sequence[Stage], num_examples: int | None) -> None:
    if num_examples is None and unit != "epochs":
        return
    check_positive_integer("num_examples", num_examples)
    largest = max(stage.batch_size for stage in stages)
    if num_examples is not None and largest > num_examples:
        raise ValueError(
            f"batch size {largest} of the plan {spelled(unit, stages)} is larger than the data, {num_examples} "
            "examples: make the batch smaller."
        )


class _Walk:
    """The position of a run, as its stages are carried out one after the other."""

    def __init__(self, num_examples: int | None, drop_last: bool) -> None:
        self._size, self._drop_last = num_examples, drop_last
        self._step, self._offset = 0, 0

    def stage(self, index: int, batch_size: int, end: Fraction, *, in_updates: bool) -> Iterator[Segment]:
        """Yields the segments of a stage that ends at `end`, in updates or in examples since the start of the run."""
        while (left := end - (self._step if in_updates else self._offset)) > 0:
            wanted = int(left) if in_updates else -int(-left // batch_size)
            if self._size is None:
                yield self._made(index, batch_size, wanted, 1, batch_size)
            elif self._offset % self._size == 0 and (passes := self._whole_passes(left, batch_size, in_updates)):
                updates = self._updates(self._size, batch_size)
                yield self._made(index, batch_size, passes * updates, updates, self._size)
            else:
                yield from self._rest_of_pass(index, batch_size, wanted, self._size)

    def _rest_of_pass(self, index: int, batch_size: int, wanted: int, size: int) -> Iterator[Segment]:
        """Yields the updates that fit into the current pass, if any, and ends the pass if the stage needs more."""
        room = size - self._offset % size
        updates = self._updates(room, batch_size)
        if wanted < updates or (wanted == updates and wanted * batch_size < room):
            yield self._made(index, batch_size, wanted, wanted, wanted * batch_size)
        elif updates:
            yield self._made(index, batch_size, updates, updates, room)
        else:
            self._offset += room

    def _whole_passes(self, left: Fraction, batch_size: int, in_updates: bool) -> int:
        """The number of whole passes until the end of the stage."""
        size = self._size or 1
        return int(left // (self._updates(size, batch_size) if in_updates else size))

    def _updates(self, examples: int, batch_size: int) -> int:
        """The number of updates on the examples that are left of a pass."""
        return examples // batch_size if self._drop_last else -(-examples // batch_size)

    def _made(self, index: int, batch_size: int, steps: int, block: int, stride: int) -> Segment:
        segment = Segment(index, self._step, steps, self._offset, batch_size, block, stride, self._size)
        self._step += steps
        self._offset = segment.offset(self._step)
        return segment


def traced_position(found: Sequence[Segment], *, in_epochs: bool) -> Callable[[Any], jax.Array]:
    """A traceable function from the number of updates to the position in epochs or in examples.

    The segment of an update is found by an integer search. The position is constant after the last update.

    Args:
      found: the segments of a plan with fewer than 2³¹ updates.
      in_epochs: whether the position is in epochs, instead of examples.
    """
    total = found[-1].step + found[-1].steps
    steps, blocks = (np.asarray([getattr(each, name) for each in found], np.int32) for name in ("step", "block"))
    starts = [each.first_epoch if in_epochs else each.start for each in found]
    of_blocks = [each.epochs_of_block if in_epochs else each.stride for each in found]
    batch_sizes = [each.batch_size for each in found]

    def at_step(step: Any) -> jax.Array:
        count = jnp.clip(jnp.asarray(step, jnp.int32), 0, total)
        index = jnp.searchsorted(steps[1:], count, side="right")
        block = jnp.asarray(blocks)[index]
        start, of_block, size = (jnp.asarray(each, float)[index] for each in (starts, of_blocks, batch_sizes))
        parts = (*jnp.divmod(count - jnp.asarray(steps)[index], block), block)
        whole, rest, block = (each.astype(start.dtype) for each in parts)
        return start + whole * of_block + (rest / block * of_block if in_epochs else rest * size)

    return at_step
