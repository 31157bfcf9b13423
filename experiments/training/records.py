"""The records that a run writes, as dataclasses: steps, epochs, the result, sharpness, and the notes of a save.

Their type hints define what the files may hold. `json_files` reads and checks them, and `json_files.encode` makes the
mappings that writers take. If null is allowed, it represents a number that is not finite.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from experiments.training.json_files import Count, Field, NotNegative, PositiveCount, Share, encode
from experiments.training.progress import Progress

_Measured = Annotated[Any, Field(kind=float)]  # in memory the value may be an array
_CountIfKnown = Annotated[int, Field(0, 2**53, never_null=True)] | None
_SizeIfKnown = Annotated[int, Field(1, 2**53, never_null=True)] | None


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """An update, in `metrics.jsonl`.

    Attributes:
      kind: the kind of the record.
      step: the number of updates before this one.
      epoch: the position, in epochs.
      batch_size: the batch size of the step.
      others: the hyperparameters and the metrics of the step.
    """

    kind: Literal["step"] = "step"
    step: Count
    epoch: NotNegative
    batch_size: _SizeIfKnown = None
    others: Mapping[str, _Measured] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """An epoch, in `metrics.jsonl`.

    Attributes:
      kind: the kind of the record.
      epoch: the number of completed epochs, this one included.
      step: the number of updates so far.
      batch_size: the batch size of the last step.
      examples: the number of examples in all updates so far.
      gradient_evaluations: the number of gradient evaluations so far.
      skipped: the number of steps skipped so far because they were not finite; None if the run skips no steps.
      train_loss: the mean training loss over the steps of the epoch.
      train_error: the mean training error over the steps of the epoch.
      noise_scale: the gradient noise scale in examples, if it was measured.
      test_loss: the test loss after the epoch.
      test_error: the test error after the epoch.
      others: the fields that later versions add.
    """

    kind: Literal["epoch"] = "epoch"
    epoch: PositiveCount
    step: Count
    batch_size: _SizeIfKnown = None
    examples: _CountIfKnown = None
    gradient_evaluations: Count | None = None
    skipped: Count | None = None
    train_loss: float | None = None
    train_error: float | None = None
    noise_scale: float | None = None
    test_loss: float | None = None
    test_error: Share | None
    others: Mapping[str, _Measured] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result:
    """`result.json`: the losses and errors of the last epoch, and the cost of the run.

    Attributes:
      train_loss: the mean training loss over the steps of the last epoch; like the figures below it is null if the run
        diverged.
      train_error: the mean training error over the steps of the last epoch.
      test_loss: the test loss after the last epoch; null also if a parameter is not finite.
      test_error: the test error after the last epoch.
      updates: the number of updates.
      gradient_evaluations: the number of gradient evaluations.
      skipped: the number of steps that were skipped because they were not finite; None if the run skips no steps.
      batch_plan: the final batch plan, if it was decided during training.
      seconds: the duration of the run in seconds, including the time before an interruption.
    """

    train_loss: float | None
    train_error: Share | None
    test_loss: float | None
    test_error: Share
    updates: PositiveCount
    gradient_evaluations: Count
    skipped: _CountIfKnown = None
    batch_plan: Annotated[str, Field(never_null=True)] | None = None
    seconds: NotNegative

    @property
    def diverged(self) -> bool:
        """Whether a loss of the last epoch, or a parameter after it, was not finite."""
        return self.train_loss is None or self.test_loss is None

    def is_same(self, other: "Result") -> bool:
        """Returns whether two results are equal; the duration does not count."""
        return dataclasses.replace(self, seconds=0.0) == dataclasses.replace(other, seconds=0.0)


@dataclass(frozen=True)
class Notes:
    """The notes of a save, which identify its run, so that no other run resumes from it.

    Attributes:
      progress: the position of the run.
      config: the settings of the run.
      data: the fingerprint of its data.
      metrics_bytes: the length of `metrics.jsonl` in bytes.
      seconds: the duration of the run so far, in seconds.
      order: the order of the examples. The saves of earlier versions, which used another order, do not have it.
      devices: the number of devices; None in the saves of earlier versions.
    """

    progress: Mapping[str, Any]
    config: Mapping[str, Any]
    data: str
    metrics_bytes: Count
    seconds: NotNegative
    order: Literal["batch_plan"]
    devices: Count | None = None

    @property
    def position(self) -> Progress:
        """The position of the run as a `Progress`.

        Raises:
          ValueError, TypeError: If `progress` does not have the form in which a run saves it.
        """
        return Progress.of(self.progress)


SharpnessKind = Literal["worst_case", "curve", "average_case", "surrogate_gap", "top_eigenvalue", "trace", "landscape"]
Norm = Literal["linf", "l2"]
_Numbers = list[float | None]


@dataclass(frozen=True, kw_only=True)
class SharpnessRecord:
    """A measurement of sharpness, in `sharpness.jsonl`; each kind has its own class.

    Attributes:
      kind: the measure of sharpness.
      examples: the number of training examples in the measurement.
      measured_batch_size: the number of examples that share one perturbation.
      normalize_logits: whether the logits were normalised to one length.
      reestimate_batchnorm: whether BatchNorm's statistics were estimated from the training examples.
      parameters: the number of parameters of the network.
      epoch: the number of epochs before the measurement.
      step: the number of updates before the measurement.
      others: the fields that later versions add.
    """

    kind: SharpnessKind
    examples: PositiveCount
    measured_batch_size: PositiveCount
    normalize_logits: bool
    reestimate_batchnorm: bool
    parameters: PositiveCount
    epoch: PositiveCount
    step: PositiveCount
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """Returns the record as a JSON object, with `epoch` and `step` last."""
        values = encode(self)
        return values | {name: values.pop(name) for name in ("epoch", "step")}


@dataclass(frozen=True, kw_only=True)
class WorstCase(SharpnessRecord):
    """The largest rise of the loss within a ball; `first_order` is its first-order part, due to the gradient."""

    kind: Literal["worst_case"] = "worst_case"
    rho: NotNegative
    norm: Norm
    adaptive: bool
    steps: PositiveCount
    restarts: PositiveCount
    sharpness: float | None
    first_order: float | None
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class WorstCaseCurve(SharpnessRecord):
    """The worst-case sharpness as a function of the radius."""

    kind: Literal["curve"] = "curve"
    norm: Norm
    adaptive: bool
    steps: PositiveCount
    restarts: PositiveCount
    loss: float | None
    rho: _Numbers
    sharpness: _Numbers
    first_order: _Numbers
    slope: _Numbers
    error: _Numbers


@dataclass(frozen=True, kw_only=True)
class AverageCase(SharpnessRecord):
    """The mean rise of the loss under random perturbations."""

    kind: Literal["average_case"] = "average_case"
    rho: NotNegative
    samples: PositiveCount
    norm: Norm
    adaptive: bool
    sharpness: float | None
    standard_error: float | None
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class SurrogateGap(SharpnessRecord):
    """SAM's perturbed loss minus the clean loss."""

    kind: Literal["surrogate_gap"] = "surrogate_gap"
    rho: NotNegative
    gap: float | None
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class TopEigenvalue(SharpnessRecord):
    """The largest eigenvalue of the Hessian."""

    kind: Literal["top_eigenvalue"] = "top_eigenvalue"
    eigenvalue: float | None


@dataclass(frozen=True, kw_only=True)
class Trace(SharpnessRecord):
    """The trace of the Hessian, estimated with random probes."""

    kind: Literal["trace"] = "trace"
    samples: PositiveCount
    value: float | None
    standard_error: float | None


@dataclass(frozen=True, kw_only=True)
class Landscape(SharpnessRecord):
    """The loss along two random directions."""

    kind: Literal["landscape"] = "landscape"
    coordinates: _Numbers
    loss: list[_Numbers]


_CLASSES = (WorstCase, WorstCaseCurve, AverageCase, SurrogateGap, TopEigenvalue, Trace, Landscape)
SHARPNESS: dict[str, type[SharpnessRecord]] = {cls.kind: cls for cls in _CLASSES}
"""The record class of each kind."""
