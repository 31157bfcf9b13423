"""The batch plan of a training run: the batch size of each update, and the position of each update in the data."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sam_optax.batch_plan.growing_stages import exponential_stages, polynomial_stages
from sam_optax.batch_plan.order import Batch, Reading, check_start, in_order
from sam_optax.batch_plan.plan_arithmetic import PlanArithmetic
from sam_optax.batch_plan.segments import segments
from sam_optax.batch_plan.stages import Stage, check_positive_integer, checked, parse, spelled


@dataclass(frozen=True)
class BatchPlan(PlanArithmetic):
    """The batch size of every update of a run, and the exact arithmetic between updates, examples and epochs.

    The stages are measured in passes over the data, in examples, or in updates. An update belongs to the stage in which
    it begins. With `n` examples, a batch never crosses the end of a pass: an epoch at batch size `b` has `⌊n/b⌋`
    updates if the last incomplete batch is dropped, and `⌈n/b⌉` if it is kept (`drop_last=False`). Plans in examples
    and in updates also describe a run on endless data; `num_examples` is then omitted. A token is an example of length
    one. `parse` reads the output of `str(plan)`. Increasing batch sizes are the subject of Harada and Iiduka (2024,
    https://arxiv.org/abs/2409.09984).

    Attributes:
      stages: the stages in order, each `(length, batch_size)`.
      unit: the unit of the lengths: "epochs", "examples" or "updates". Only epochs may be fractions.

    Raises:
      ValueError: If the unit is unknown, if there is no stage, or if a stage has no length or an empty batch.

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

      A single pass over a stream of text, in sequences:

      >>> plan = sam_optax.BatchPlan.parse("examples:1Mx64,3Mx256")
      >>> plan.total_steps(), plan.batch_size_at_step(20_000), plan.examples_at(20_000)
      (27344, 256, 2120000)
    """

    stages: tuple[Stage, ...]
    unit: str = "epochs"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", checked(self.stages, self.unit))

    def __str__(self) -> str:
        return spelled(self.unit, self.stages)

    @classmethod
    def from_stages(cls, stages: Iterable[tuple[float, int]], unit: str = "epochs") -> "BatchPlan":
        """The plan with the given stages `(length, batch_size)`; the batch sizes need not increase.

        Args:
          stages: the stages.
          unit: the unit of the lengths: "epochs", "examples" or "updates".

        Returns:
          The plan.

        Raises:
          ValueError: If the unit is unknown, if there is no stage, or if a stage has no length or an empty batch.

        Example:
          >>> print(BatchPlan.from_stages([(2, 64), (0.5, 32)]))
          2x64,0.5x32
          >>> plan = BatchPlan.from_stages([(100, 16), (50, 64)], unit="updates")
          >>> print(plan, plan.total_steps(), plan.examples_at(120))
          updates:100x16,50x64 150 2880
        """
        return cls(stages, unit)  # pyright: ignore[reportArgumentType] - __post_init__ converts it to a tuple

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
        return cls(exponential_stages(initial, factor, every, epochs, maximum))

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
        return cls(polynomial_stages(initial, power, every, epochs, maximum))

    @classmethod
    def parse(cls, text: str) -> "BatchPlan":
        """The plan that a string describes, with `length x size` for each stage.

        The unit is written before a colon: `updates:100x16,50x64`, `examples:250Mx64`. Without a unit, the lengths are
        epochs: `40x16,0.5x32`. The suffixes k, M, G and T multiply a length by 10³, 10⁶, 10⁹ and 10¹².

        Raises:
          ValueError: If the string has another form.

        Example:
          >>> BatchPlan.parse("40x16, 40x32").stages
          (Stage(length=40, batch_size=16), Stage(length=40, batch_size=32))
          >>> print(BatchPlan.parse("examples:1.5Mx64"))
          examples:1500000x64
        """
        unit, stages = parse(text)
        return cls(stages, unit)

    def rounded_to(self, multiple: int) -> "BatchPlan":
        """The plan with each size rounded to the nearest positive multiple, so that devices share batches evenly.

        A size halfway between two multiples takes the larger one.

        Example:
          >>> print(BatchPlan.parse("2x3,2x20,2x30").rounded_to(8))
          2x8,2x24,2x32
        """
        check_positive_integer("multiple", multiple)
        nearest = [max(1, (2 * s.batch_size + multiple) // (2 * multiple)) * multiple for s in self.stages]
        stages = tuple(Stage(s.length, size) for s, size in zip(self.stages, nearest, strict=True))
        return BatchPlan(stages, self.unit)

    def batches(
        self, num_examples: int, seed: int, start: int = 0, *, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Batch]:
        """The batches of a run: the examples of each update, in an order that the seed determines.

        Every pass has an order of its own, a batch never crosses the end of a pass, and the incomplete rest of a pass
        is dropped. The batches are a pure function of the arguments, so a run resumes with `start`.

        Args:
          num_examples: the number of examples of the data.
          seed: a non-negative integer that determines the order of every pass.
          start: the number of updates to skip because they were already made.
          process_index: the index of this process, if each process reads an equal part of every batch.
          process_count: the number of processes; it must divide every batch size.

        Returns:
          An iterator over `(indices, positions)`, both int64 `(batch,)`: the indices of the examples, and the positions
          in the data, `pass · num_examples + rank`, to seed the random draws of each example.

        Raises:
          ValueError: If an argument is out of its range, or if a batch is larger than the data.

        Example:
          >>> plan = BatchPlan.parse("updates:2x2,1x4")
          >>> [batch.positions.tolist() for batch in plan.batches(num_examples=10, seed=0)]
          [[0, 1], [2, 3], [4, 5, 6, 7]]
          >>> [len(batch.indices) for batch in plan.batches(num_examples=10, seed=0, start=1)]
          [2, 4]
        """
        check_positive_integer("num_examples", num_examples)
        found = segments(self.unit, self.stages, num_examples)
        check_start(start, found[-1].step + found[-1].steps)
        return in_order(found, Reading(int(num_examples), seed, start, process_index, process_count))
