"""Records the progress of a run, and the gradient noise of its current epoch.

A run can be resumed from its seed, training state and progress.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from experiments.training.json_files import Count, Field, decode
from sam_optax import NoiseTerms

GRADIENTS = ("clean", "perturbed")


def term_names(gradient: str) -> tuple[str, str]:
    """Returns the names of the noise terms in the record of a step; `gradient` is one of `GRADIENTS`."""
    return f"{gradient}_signal", f"{gradient}_noise"


class Total(NamedTuple):
    """The sums of the noise terms of one gradient.

    Attributes:
      signal: the sum of `|G|²`.
      noise: the sum of `tr(Σ)`.
      steps: the number of steps that measured these terms.
    """

    signal: float = 0.0
    noise: float = 0.0
    steps: int = 0

    def after(self, signal: float, noise: float) -> "Total":
        """Returns the total after one more step; a step whose terms are not finite is not counted."""
        if not (math.isfinite(signal) and math.isfinite(noise)):
            return self
        return Total(self.signal + signal, self.noise + noise, self.steps + 1)

    @property
    def mean(self) -> NoiseTerms | None:
        """The mean of each term, or None if no step measured the terms."""
        return NoiseTerms(self.signal / self.steps, self.noise / self.steps) if self.steps else None


class EpochNoise(NamedTuple):
    """The gradient noise of the current epoch.

    Attributes:
      clean: the noise of the gradient at the parameters.
      perturbed: the noise of the sharpness-aware gradient, over the steps that make a second pass.
    """

    clean: Total = Total()
    perturbed: Total = Total()

    @classmethod
    def of(cls, saved: Any) -> "EpochNoise":
        """Returns the noise that was saved as JSON, in which named tuples are lists.

        Raises:
          ValueError, TypeError: If `saved` does not have the expected form.
        """
        if not all(isinstance(sums, Sequence) for sums in saved):
            raise ValueError("noise is not a list of lists of numbers")
        return cls(*(Total(*sums) for sums in saved))

    def after(self, metrics: Mapping[str, Any]) -> "EpochNoise":
        """Returns the noise after one more step, whose terms are added if `metrics` holds them."""
        terms = [[float(metrics.get(name, math.nan)) for name in term_names(gradient)] for gradient in GRADIENTS]
        return EpochNoise(*(total.after(*each) for total, each in zip(self, terms, strict=True)))

    @property
    def deciding(self) -> NoiseTerms | None:
        """The mean noise of the perturbed gradient if a step measured it, else that of the clean gradient."""
        return self.perturbed.mean or self.clean.mean


_REQUIRED = ("step", "epoch", "gradient_evaluations", "counted", "loss", "error")


class Progress(NamedTuple):
    """The position of a run.

    Attributes:
      step: the number of updates so far, which is the number of batches read.
      epoch: the number of epochs that were completed, that is, evaluated and recorded.
      gradient_evaluations: the number of gradient evaluations so far.
      skipped: the number of steps that were skipped so far because they were not finite.
      counted: the number of steps in the current epoch that were not skipped.
      loss: the sum of the losses of these steps.
      error: the sum of the errors of these steps.
      noise: the gradient noise of the current epoch, if it is measured.
      growth: the state of an adaptive batch plan's controller; None before its first decision.
    """

    step: Count = 0
    epoch: Count = 0
    gradient_evaluations: Count = 0
    skipped: Count = 0
    counted: Count = 0
    loss: Annotated[float, Field(any_float=True)] = 0.0
    error: Annotated[float, Field(any_float=True)] = 0.0
    noise: EpochNoise = EpochNoise()
    growth: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Progress":
        """Returns the position that was saved as the JSON of `progress._asdict()`.

        Fields that an older version did not save get their default values.

        Raises:
          ValueError, TypeError: If `saved` does not have the expected form.
        """
        found = decode(saved, cls, _REQUIRED)
        return found._replace(noise=EpochNoise.of(found.noise))

    def after(self, metrics: dict[str, Any], gradient_evaluations: int) -> "Progress":
        """Returns the position after one more step, with its metrics and its number of gradient evaluations."""
        skipped, evaluated = int(metrics.get("skipped", 0)), self.gradient_evaluations + gradient_evaluations
        moved = self._replace(step=self.step + 1, gradient_evaluations=evaluated, skipped=self.skipped + skipped)
        if skipped:
            return moved
        loss, error = self.loss + float(metrics["loss"]), self.error + float(metrics["error"])
        return moved._replace(counted=self.counted + 1, loss=loss, error=error, noise=self.noise.after(metrics))

    @property
    def means(self) -> tuple[float, float]:
        """The mean training loss and error of the current epoch; NaN if all of its steps were skipped."""
        return (self.loss / self.counted, self.error / self.counted) if self.counted else (math.nan, math.nan)

    def closed(self) -> "Progress":
        """Returns the position after the current epoch is completed."""
        return self._replace(epoch=self.epoch + 1, counted=0, loss=0.0, error=0.0, noise=EpochNoise())
