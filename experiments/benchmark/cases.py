"""What is measured: models with their data, at the batch sizes that they are trained with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from experiments import data
from experiments.benchmark import benchmark_steps
from experiments.benchmark.ratios import Figure, Seconds


@dataclass(frozen=True)
class Case:
    """A model at a batch size.

    Attributes:
      model: a name of `experiments.models`.
      dataset: makes its data.
      batch_size: examples of a step.
      loop_target: what the training loop may cost, in bare steps.
      step_targets: what the steps of SAM and GSAM may cost, in units of two gradients; None is no target.
      memory_targets: what the steps of SAM and GSAM, with momentum, may hold in addition to what a gradient holds, in
        copies of the parameters.
      plan: what a plan of five stages may cost, in the sum of its steps, and the examples of a stage; None where it is
        not measured.
      in_bfloat16: whether a step in bfloat16 is measured, for which a CPU has no arithmetic.
      thrifty_targets: what the mean step of MSAM, of LookSAM and of SAM at every tenth step may cost, in steps of SGD.
      worst_case_targets: what the worst case may cost in time, in evaluations of loss and gradient, and in memory, in
        training steps with four copies of the parameters; None where it is not measured.
    """

    model: str
    dataset: Callable[[], data.Dataset]
    batch_size: int
    loop_target: float
    step_targets: tuple[float | None, float | None] = (None, None)
    memory_targets: tuple[float | None, float | None] = (None, None)
    plan: tuple[float, int] | None = None
    in_bfloat16: bool = False
    thrifty_targets: tuple[float | None, float | None, float | None] = (None, None, None)
    worst_case_targets: tuple[float, float] | None = None

    def problem(self, dataset: data.Dataset, *, is_training: bool = True) -> benchmark_steps.Problem:
        """The loss of the model on one batch of the shape of the data."""
        shape = dataset.num_classes, dataset.image_shape, self.batch_size
        return benchmark_steps.create(self.model, *shape, is_training=is_training)

    def time_figure(self, subject: str, reference: str, target: float | None, seconds: Seconds) -> Figure:
        """The seconds of a subject in those of its reference, of one race."""
        amounts = tuple(seconds[subject]), tuple(seconds[reference])
        return Figure(self.model, self.batch_size, "time", subject, reference, target, "s", *amounts)


def noise() -> data.Dataset:
    """50,000 images of noise, of CIFAR's size: reading and moving them costs what it costs there."""
    return data.made_up("cifar10", 50_000)


def digits() -> data.Dataset:
    """The digits of scikit-learn."""
    return data.load("digits", seed=0)


_resnet18 = partial(Case, "resnet18", noise, loop_target=1.03, step_targets=(1.02, 1.03), memory_targets=(1.5, 3.0))

CASES: dict[str, tuple[Case, ...]] = {
    "resnet18": (_resnet18(32, plan=(1.05, 512), thrifty_targets=(1.03, 1.25, 1.15), worst_case_targets=(1.1, 1.0)),),
    "small_resnet": tuple(Case("small_resnet", digits, size, loop_target=1.3) for size in (16, 128)),
    "resnet18_accelerator": (_resnet18(128, in_bfloat16=True),),
}
"""What can be measured, by name: the cases of a model, or of a model on an accelerator."""

ON_TWO_CORES = ("resnet18", "small_resnet")
"""What is measured by default; it takes an hour on two cores."""
