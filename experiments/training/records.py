"""The records that a run writes, as dataclasses: steps, epochs, the result, sharpness, and the notes of a save.

Their type hints say what the files may hold; `json_files` reads and checks them, and `json_files.encode` makes the
mappings that writers take. Where null is allowed, it is a number that is not finite.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from experiments.training.json_files import Count, Field, NotNegative, PositiveCount, Share, encode
from experiments.training.progress import Progress

_Measured = Annotated[Any, Field(kind=float)]  # in memory it may be an array
_CountIfKnown = Annotated[int, Field(0, 2**53, never_null=True)] | None
_SizeIfKnown = Annotated[int, Field(1, 2**53, never_null=True)] | None


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """An update, in `metrics.jsonl`.

    Attributes:
      kind: of the record.
      step: how many updates were made before it.
      epoch: the position, in epochs.
      batch_size: of the step.
      others: the hyperparameters of the step, and what it measured.
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
      kind: of the record.
      epoch: how many epochs were completed.
      step: how many updates were made.
      batch_size: of the epoch.
      gradient_evaluations: so far.
      skipped: steps that were not finite and were left out so far, where steps are left out.
      train_loss: the mean over its steps.
      train_error: the mean over its steps.
      noise_scale: in examples, where it was measured.
      test_loss: after it.
      test_error: after it.
      others: what later versions add.
    """

    kind: Literal["epoch"] = "epoch"
    epoch: PositiveCount
    step: Count
    batch_size: _SizeIfKnown = None
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
    """`result.json`: the figures of the last epoch, and what the run took.

    Attributes:
      train_loss: null where the run has diverged, as the figures below.
      train_error: the mean over the steps of the last epoch.
      test_loss: after the last epoch.
      test_error: after the last epoch.
      updates: how many there were.
      gradient_evaluations: how many there were.
      skipped: steps that were not finite and were left out, where steps are left out.
      batch_plan: the one that came out, where it was decided on the way.
      seconds: the run took, those before an interruption among them.
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
        """Whether the loss was not finite in the last epoch."""
        return self.train_loss is None or self.test_loss is None


@dataclass(frozen=True)
class Notes:
    """What a save tells of its run, so that no other run goes on from it.

    Attributes:
      progress: the position.
      config: the settings of the run.
      data: the fingerprint of its data.
      metrics_bytes: how long `metrics.jsonl` was.
      seconds: how long the run had taken.
    """

    progress: Mapping[str, Any]
    config: Mapping[str, Any]
    data: str
    metrics_bytes: Count
    seconds: NotNegative

    @property
    def position(self) -> Progress:
        """The progress.

        Raises:
          ValueError, TypeError: If it is not as a run saves it.
        """
        return Progress.of(self.progress)


SharpnessKind = Literal["worst_case", "curve", "average_case", "surrogate_gap", "top_eigenvalue", "trace", "landscape"]
Norm = Literal["linf", "l2"]
_Numbers = list[float | None]


@dataclass(frozen=True, kw_only=True)
class SharpnessRecord:
    """A measurement of sharpness, in `sharpness.jsonl`; each kind has a class of its own.

    Attributes:
      kind: what was measured.
      examples: training examples that it was measured on.
      measured_batch_size: examples of one perturbation.
      normalize_logits: whether all logits had one length.
      reestimate_batchnorm: whether BatchNorm had the statistics of the training examples.
      parameters: of the network.
      epoch: after which epoch.
      step: after which update.
      others: what later versions add.
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
        """The object of JSON; epoch and step are last."""
        values = encode(self)
        return values | {name: values.pop(name) for name in ("epoch", "step")}


@dataclass(frozen=True, kw_only=True)
class WorstCase(SharpnessRecord):
    """The worst case within a ball; `first_order` is the part that the gradient makes."""

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
    """Worst cases over radii."""

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
    """The mean rise under random perturbations."""

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
    """The perturbed loss of SAM less the clean one."""

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
    """The trace of the Hessian, by random probes."""

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
"""The class of each kind."""
