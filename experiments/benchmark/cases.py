"""What is measured: models with their data, at the batch sizes that they are trained at."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from experiments import data


@dataclass(frozen=True)
class Case:
    """A model at a batch size.

    Attributes:
      model: of `experiments.models`.
      dataset: makes its data.
      batch_size: examples a step.
      loop_target: what the training loop may cost, in bare steps.
      step_targets: what the steps of SAM and GSAM may cost, in units of two gradients; None is no target.
      worst_case_targets: what the worst case may cost in time, in evaluations of loss and gradient, and in memory, in
        training steps with four copies of the parameters; None where it is not measured.
      memory_targets: what the steps of SAM and GSAM, with momentum, may hold beside what a gradient holds, in copies of
        the parameters.
      plan: what a plan of five stages may cost, in the sum of its steps, and the examples of a stage; None where it is
        not measured.
      in_bfloat16: whether a step in bfloat16 is measured, which a CPU has no arithmetic for.
      thrifty_targets: what the mean step of MSAM, of LookSAM and of SAM at every tenth step may cost, in steps of SGD.
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


def noise() -> data.Dataset:
    """50,000 images of CIFAR's size and of noise: reading and moving them costs what it costs there."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, len(images), np.int32)
    mean, std = np.full(3, 127.5, np.float32), np.full(3, 73.9, np.float32)
    train, test = data.Split(images, labels), data.Split(images[:32], labels[:32])
    return data.Dataset(train, test, num_classes=10, mean=mean, std=std, crop_padding=4, flip=True)


def digits() -> data.Dataset:
    """The embedded images."""
    return data.load("digits", seed=0)


CASES: dict[str, tuple[Case, ...]] = {
    "resnet18": (
        Case(
            "resnet18",
            noise,
            batch_size=32,
            loop_target=1.03,
            step_targets=(1.02, 1.03),
            memory_targets=(1.5, 3.0),
            plan=(1.05, 512),
            thrifty_targets=(1.03, 1.25, 1.15),
            worst_case_targets=(1.1, 1.0),
        ),
    ),
    "small_resnet": tuple(Case("small_resnet", digits, size, loop_target=1.3) for size in (16, 128)),
    "resnet18_accelerator": (
        Case(
            "resnet18",
            noise,
            batch_size=128,
            loop_target=1.03,
            step_targets=(1.02, 1.03),
            memory_targets=(1.5, 3.0),
            in_bfloat16=True,
        ),
    ),
}
"""What can be measured, by name: the cases of a model, or of a model on an accelerator."""

ON_TWO_CORES = ("resnet18", "small_resnet")
"""What takes an hour there."""
