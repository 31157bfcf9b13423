"""The cases of the benchmark: models with their data sets, at the batch sizes of their training."""

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
      dataset: a function that returns the data set.
      batch_size: the number of examples per step.
      loop_target: the maximum time of the training loop, relative to the bare steps.
      step_targets: the maximum times of the steps of SAM and GSAM, relative to two gradients; None is no target.
      memory_targets: the maximum memory that the steps of SAM and GSAM, with momentum, use in addition to the memory of
        a gradient, in copies of the parameters.
      plan: the maximum time of a plan of five stages, relative to the sum of its steps, and the number of examples per
        stage; None if the plan is not measured.
      in_bfloat16: whether a step in bfloat16 is measured; a CPU has no bfloat16 arithmetic.
      thrifty_targets: the maximum times of the mean step of MSAM, of LookSAM and of SAM at every tenth step, relative
        to a step of SGD.
      worst_case_targets: the maximum time of the worst case, relative to its evaluations of loss and gradient, and its
        maximum memory, relative to a training step with four copies of the parameters; None if it is not measured.
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
        """Returns the loss of the model on one batch with the shapes of the data set."""
        shape = dataset.num_classes, dataset.image_shape, self.batch_size
        return benchmark_steps.create(self.model, *shape, is_training=is_training)

    def time_figure(self, subject: str, reference: str, target: float | None, seconds: Seconds) -> Figure:
        """Returns the time of a subject relative to its reference, both from one race."""
        amounts = tuple(seconds[subject]), tuple(seconds[reference])
        return Figure(self.model, self.batch_size, "time", subject, reference, target, "s", *amounts)


def noise() -> data.Dataset:
    """Returns 50,000 images of noise with CIFAR's size; reading and transforming them costs as much as for CIFAR."""
    return data.synthetic("cifar10", 50_000)


def digits() -> data.Dataset:
    """Returns the digits of scikit-learn."""
    return data.load("digits", seed=0)


_resnet18 = partial(Case, "resnet18", noise, loop_target=1.03, step_targets=(1.02, 1.03), memory_targets=(1.5, 3.0))

CASES: dict[str, tuple[Case, ...]] = {
    "resnet18": (_resnet18(32, plan=(1.05, 512), thrifty_targets=(1.03, 1.25, 1.15), worst_case_targets=(1.1, 1.0)),),
    "small_resnet": tuple(Case("small_resnet", digits, size, loop_target=1.3) for size in (16, 128)),
    "resnet18_accelerator": (_resnet18(128, in_bfloat16=True),),
}
"""The cases by name: those of a model, or of a model on an accelerator."""

ON_TWO_CORES = ("resnet18", "small_resnet")
"""The cases that are measured by default; they take an hour and a half on two cores."""
