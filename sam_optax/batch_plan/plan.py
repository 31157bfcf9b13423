"""The batch plan of a training run: the batch size of each epoch, and the epoch of each update."""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from numbers import Integral, Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Stage(NamedTuple):
    """A part of a run with one batch size.

    Attributes:
      epochs: its length, in passes over the data.
      batch_size: the number of examples per update.
    """

    epochs: int
    batch_size: int


@dataclass(frozen=True)
class BatchPlan:
    """A batch size for every epoch, and the exact arithmetic between epochs and updates.

    With `n` examples, an epoch at batch size `b` has `⌊n/b⌋` updates if the last incomplete batch is dropped, and
    `⌈n/b⌉` if it is kept (`drop_last=False`). `parse` reads the output of `str(plan)`. Increasing batch sizes are the
    subject of Harada and Iiduka (2024, https://arxiv.org/abs/2409.09984).

    Attributes:
      stages: the stages in order, each `(epochs, batch_size)`.

    Raises:
      ValueError: If there is no stage, or if a stage has no epoch or an empty batch.

    Example:
      The plan of the paper, on CIFAR's 50,000 images:

      >>> import sam_optax
      >>> plan = sam_optax.BatchPlan.exponential(initial=16, factor=2, every=40, epochs=200)
      >>> print(plan)
      40x16,40x32,40x64,40x128,40x256
      >>> plan.total_steps(50_000), sam_optax.BatchPlan.constant(128, epochs=200).total_steps(50_000)
      (242120, 78000)
      >>> plan.batch_size_at(epoch=40), plan.epoch_at(step=125_000, num_examples=50_000)
      (32, 40.0)
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        try:
            stages = tuple(Stage(*stage) for stage in self.stages)
        except TypeError as error:
            raise ValueError(f"stages is {self.stages!r}: give a sequence of (epochs, batch_size).") from error
        if not stages:
            raise ValueError("stages is empty: a plan needs at least one stage (epochs, batch_size).")
        for stage in stages:
            check_positive_integer("epochs", stage.epochs)
            check_positive_integer("batch_size", stage.batch_size)
        object.__setattr__(self, "stages", tuple(Stage(int(n), int(size)) for n, size in stages))

    def __str__(self) -> str:
        return ",".join(f"{stage.epochs}x{stage.batch_size}" for stage in self.stages)

    @classmethod
    def from_stages(cls, stages: Iterable[tuple[int, int]]) -> "BatchPlan":
        """The plan with the given stages `(epochs, batch_size)`; the batch sizes need not increase.

        Example:
          >>> print(BatchPlan.from_stages([(2, 64), (3, 32)]))
          2x64,3x32
        """
        return cls(stages)  # pyright: ignore[reportArgumentType] - __post_init__ converts it to a tuple

    @classmethod
    def constant(cls, batch_size: int, epochs: int) -> "BatchPlan":
        """The plan with one batch size.

        Example:
          >>> print(BatchPlan.constant(128, epochs=200))
          200x128
        """
        return cls((Stage(epochs, batch_size),))

    @classmethod
    def exponential(
        cls, initial: int, factor: float, every: int, epochs: int, maximum: int | None = None
    ) -> "BatchPlan":
        """The growing plan whose stage k has the batch size `min(round(initial · factorᵏ), maximum)`.

        Args:
          initial: the first batch size.
          factor: the growth from stage to stage, at least 1.
          every: the epochs of a stage; the last stage may be shorter.
          epochs: the total number of epochs.
          maximum: the largest batch size, or None.

        Returns:
          The plan.

        Raises:
          ValueError: If an argument is out of its range, or if the plan would shrink.

        Example:
          >>> print(BatchPlan.exponential(initial=8, factor=2, every=10, epochs=35, maximum=32))
          10x8,10x16,10x32,5x32
        """
        if not isinstance(factor, Real) or not math.isfinite(factor) or factor < 1:
            raise ValueError(f"factor is {factor!r}: give a number of at least 1, so that the batch does not shrink.")
        return cls._growing(lambda k: initial * factor**k, initial, every, epochs, maximum)

    @classmethod
    def polynomial(cls, initial: int, power: float, every: int, epochs: int, maximum: int | None = None) -> "BatchPlan":
        """The growing plan whose stage k has the batch size `min(round(initial · (1 + k)^power), maximum)`.

        Args:
          initial: the first batch size.
          power: the exponent, at least 0.
          every: the epochs of a stage; the last stage may be shorter.
          epochs: the total number of epochs.
          maximum: the largest batch size, or None.

        Returns:
          The plan.

        Raises:
          ValueError: If an argument is out of its range, or if the plan would shrink.

        Example:
          >>> print(BatchPlan.polynomial(initial=8, power=2, every=10, epochs=30))
          10x8,10x32,10x72
        """
        if not isinstance(power, Real) or not math.isfinite(power) or power < 0:
            raise ValueError(f"power is {power!r}: give a number of at least 0, so that the batch does not shrink.")
        return cls._growing(lambda k: initial * (1 + k) ** power, initial, every, epochs, maximum)

    @classmethod
    def parse(cls, text: str) -> "BatchPlan":
        """The plan that a string describes, with `epochs x size` for each stage, such as `40x16,40x32`.

        Example:
          >>> BatchPlan.parse("40x16, 40x32").stages
          (Stage(epochs=40, batch_size=16), Stage(epochs=40, batch_size=32))
        """
        if not isinstance(text, str):
            raise ValueError(f"batch plan is {text!r}: give a string of epochs x size, such as 40x16,40x32.")
        pieces = text.split(",")
        matches = [re.fullmatch(r"\s*([0-9]+)x([0-9]+)\s*", piece) for piece in pieces]
        for piece, match in zip(pieces, matches, strict=True):
            if match is None:
                raise ValueError(
                    f"batch plan {text!r} has the stage {piece!r}: write each as epochs x size, such as 40x16,40x32."
                )
        return cls(tuple(Stage(int(match[1]), int(match[2])) for match in matches if match))

    @classmethod
    def _growing(
        cls, size: Callable[[int], float], initial: int, every: int, epochs: int, maximum: int | None
    ) -> "BatchPlan":
        for name, value in {"initial": initial, "every": every, "epochs": epochs}.items():
            check_positive_integer(name, value)
        if maximum is not None:
            check_positive_integer("maximum", maximum)
            if maximum < initial:
                raise ValueError(f"maximum is {maximum}, below initial, {initial}: give at least {initial}.")
        ceiling = math.inf if maximum is None else maximum
        lengths = [min(every, epochs - start) for start in range(0, epochs, every)]
        sizes = [min(_or_infinity(size, k), ceiling) for k in range(len(lengths))]
        if math.inf in sizes:
            raise ValueError(
                f"maximum is None, and the batch size overflows a float within {epochs} epochs: give a maximum."
            )
        return cls(tuple(Stage(n, round(size)) for n, size in zip(lengths, sizes, strict=True)))

    @property
    def epochs(self) -> int:
        """The total number of epochs."""
        return sum(stage.epochs for stage in self.stages)

    def rounded_to(self, multiple: int) -> "BatchPlan":
        """The plan with each size rounded to the nearest positive multiple, so that devices share batches evenly.

        A size halfway between two multiples takes the larger one.

        Example:
          >>> print(BatchPlan.parse("2x3,2x20,2x30").rounded_to(8))
          2x8,2x24,2x32
        """
        check_positive_integer("multiple", multiple)
        nearest = [max(1, (2 * s.batch_size + multiple) // (2 * multiple)) * multiple for s in self.stages]
        return BatchPlan(tuple(Stage(s.epochs, size) for s, size in zip(self.stages, nearest, strict=True)))

    def batch_size_at(self, epoch: float) -> int:
        """The batch size at `epoch`, `0 ≤ epoch < epochs`; fractions are positions inside an epoch."""
        if not 0 <= epoch < self.epochs:
            raise ValueError(f"epoch is {epoch!r}: give a number of at least 0 and below {self.epochs}, the epochs.")
        return self.stages[bisect_right(self._epoch_starts(), epoch) - 1].batch_size

    def total_steps(self, num_examples: int, drop_last: bool = True) -> int:
        """The total number of updates on `num_examples` examples."""
        return self._step_starts(num_examples, drop_last)[-1]

    def boundaries(self, num_examples: int, drop_last: bool = True) -> tuple[int, ...]:
        """The updates at which the second and later stages begin."""
        return tuple(self._step_starts(num_examples, drop_last)[1:-1])

    def epoch_at(self, step: int, num_examples: int, drop_last: bool = True) -> float:
        """The position in epochs, a whole number at each epoch's start, after `step` updates of this plan."""
        starts = self._step_starts(num_examples, drop_last)
        if not 0 <= step <= starts[-1]:
            raise ValueError(f"step is {step!r}: this plan has {starts[-1]} updates on {num_examples} examples.")
        stage = min(bisect_right(starts, step), len(self.stages)) - 1
        steps_per_epoch = self._steps_per_epoch(num_examples, drop_last)[stage]
        whole, rest = divmod(step - starts[stage], steps_per_epoch)
        return self._epoch_starts()[stage] + whole + rest / steps_per_epoch

    def schedule(
        self, schedule_over_epochs: Callable[[Any], Any], num_examples: int, drop_last: bool = True
    ) -> Callable[[Any], Any]:
        """Converts a schedule over epochs into a schedule over updates.

        A learning rate then depends on the examples seen, not on how the batch grows. The stage of an update is found
        by an integer search, and only the fraction of an epoch is a floating-point number.

        Args:
          schedule_over_epochs: from a position in epochs (a fraction inside an epoch) to a value.
          num_examples: the number of examples of an epoch.
          drop_last: whether the last incomplete batch of an epoch is dropped.

        Returns:
          A traceable schedule from the number of updates to a value, which is constant after the last update.

        Raises:
          ValueError: If a batch is larger than the data, or if the number of updates does not fit into 32 bits.

        Example:
          >>> import optax
          >>> plan = BatchPlan.parse("1x10,1x20")
          >>> rate = plan.schedule(optax.linear_schedule(1.0, 0.0, transition_steps=2), num_examples=100)
          >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 11, 15)]
          [1.0, 0.75, 0.5, 0.4, 0.0]
        """
        starts = self._step_starts(num_examples, drop_last)
        if starts[-1] > np.iinfo(np.int32).max:
            raise ValueError(
                f"this plan has {starts[-1]} updates on {num_examples} examples: at most 2³¹ − 1 are supported."
            )
        step_starts = np.asarray(starts, np.int32)
        epoch_starts = np.asarray(self._epoch_starts(), np.int32)
        steps_per_epoch = np.asarray(self._steps_per_epoch(num_examples, drop_last), np.int32)

        def at_step(step: jax.Array) -> Any:
            count = jnp.clip(jnp.asarray(step, jnp.int32), 0, step_starts[-1])
            stage = jnp.searchsorted(step_starts[1:-1], count, side="right")
            length = jnp.asarray(steps_per_epoch)[stage]
            whole, rest = jnp.divmod(count - jnp.asarray(step_starts)[stage], length)
            return schedule_over_epochs(jnp.asarray(epoch_starts)[stage] + whole + rest / length)

        return at_step

    def _epoch_starts(self) -> list[int]:
        """The epoch at which each stage begins."""
        return [0, *accumulate(stage.epochs for stage in self.stages)][:-1]

    def _step_starts(self, num_examples: int, drop_last: bool) -> list[int]:
        """The update at which each stage begins, followed by the total number of updates."""
        per_epoch = self._steps_per_epoch(num_examples, drop_last)
        return [0, *accumulate(s.epochs * n for s, n in zip(self.stages, per_epoch, strict=True))]

    def _steps_per_epoch(self, num_examples: int, drop_last: bool) -> list[int]:
        check_positive_integer("num_examples", num_examples)
        largest = max(stage.batch_size for stage in self.stages)
        if largest > num_examples:
            raise ValueError(
                f"batch size {largest} of the plan {self} is larger than the data, {num_examples} examples: "
                "make the batch smaller."
            )
        return [(num_examples + (0 if drop_last else s.batch_size - 1)) // s.batch_size for s in self.stages]


def _or_infinity(size: Callable[[int], float], k: int) -> float:
    """`size(k)`, or infinity if that is too large for a float."""
    try:
        return size(k)
    except OverflowError:
        return math.inf


def check_positive_integer(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}: give a positive integer.")
