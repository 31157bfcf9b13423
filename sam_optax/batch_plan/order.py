"""The order of the examples: a permutation for each pass over the data, cut into the batches of a plan."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from sam_optax.batch_plan.segments import Segment
from sam_optax.batch_plan.stages import check_positive_integer


class Batch(NamedTuple):
    """The examples of an update.

    Attributes:
      indices: the indices of the examples in the data, int64 `(batch,)`.
      positions: their positions, `pass · num_examples + rank`, int64 `(batch,)`; no two examples of a run share one.
    """

    indices: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class Reading:
    """Which batches are read, and which part of them.

    Attributes:
      num_examples: the number of examples of a pass.
      seed: determines the order of every pass.
      start: the number of updates to skip.
      process_index: the index of this process.
      process_count: the number of processes that share every batch.

    Raises:
      ValueError: If the seed is negative or not an integer, or if the process does not exist.
    """

    num_examples: int
    seed: int
    start: int
    process_index: int
    process_count: int

    def __post_init__(self) -> None:
        if not _is_count(self.seed):
            raise ValueError(f"seed is {self.seed!r}: give an integer of at least 0.")
        check_positive_integer("process_count", self.process_count)
        if not _is_count(self.process_index) or self.process_index >= self.process_count:
            raise ValueError(
                f"process_index is {self.process_index!r}: give an integer of at least 0 and below process_count, "
                f"{self.process_count}."
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def check_start(start: int, total: int) -> None:
    """Raises `ValueError` unless `start` is a number of updates of a plan with `total` updates."""
    if not _is_count(start) or start > total:
        raise ValueError(f"start is {start!r}: give an integer from 0 to {total}, the updates of the plan.")


@functools.lru_cache(maxsize=4)
def order_of_pass(num_examples: int, seed: int, number: int) -> np.ndarray:
    """The order of the examples in pass `number`: a permutation, int64 `(num_examples,)`, which is read-only.

    It sorts random numbers. NumPy guarantees that the raw numbers of Philox never change, but not that its methods
    which shuffle never change. The last orders are cached, so that a loader may ask for one batch at a time.
    """
    draws = np.random.Philox(np.random.SeedSequence((seed, number))).random_raw(num_examples)
    order = np.argsort(draws, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def in_order(segments: Sequence[Segment], reading: Reading) -> Iterator[Batch]:
    """The batches of the segments from `reading.start` on.

    Raises:
      ValueError: If the processes cannot share a batch equally.
    """
    for size in {each.batch_size for each in segments}:
        if size % reading.process_count:
            raise ValueError(
                f"process_count is {reading.process_count}, and the plan has a batch of {size}: give a number that "
                "divides every batch size, or use plan.rounded_to(process_count)."
            )
    return _in_order(segments, reading)


def _in_order(segments: Sequence[Segment], reading: Reading) -> Iterator[Batch]:
    for segment in segments:
        own = segment.batch_size // reading.process_count
        for step in range(max(segment.step, reading.start), segment.step + segment.steps):
            first = segment.offset(step) + reading.process_index * own
            number, rank = divmod(first, reading.num_examples)
            order = order_of_pass(reading.num_examples, reading.seed, number)
            yield Batch(order[rank : rank + own], np.arange(first, first + own))
