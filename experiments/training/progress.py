"""How far a run has come, and the noise of the gradients of its open epoch.

With the seed and the trained state, the progress is all that is needed to resume.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from experiments.training.json_files import Count, Field, decode
from sam_optax import NoiseTerms

GRADIENTS = ("clean", "perturbed")


def term_names(gradient: str) -> tuple[str, str]:
    """How the terms of a gradient, one of `GRADIENTS`, are called in the record of a step."""
    return f"{gradient}_signal", f"{gradient}_noise"


class Total(NamedTuple):
    """The terms of one gradient, added up.

    Attributes:
      signal: the sum of `|G|²`.
      noise: the sum of `tr(Σ)`.
      steps: how many measured them.
    """

    signal: float = 0.0
    noise: float = 0.0
    steps: int = 0

    def after(self, signal: float, noise: float) -> "Total":
        """The total with one more step; one that is not finite is left out."""
        if not (math.isfinite(signal) and math.isfinite(noise)):
            return self
        return Total(self.signal + signal, self.noise + noise, self.steps + 1)

    @property
    def mean(self) -> NoiseTerms | None:
        """The mean of each term; None where no step measured them."""
        return NoiseTerms(self.signal / self.steps, self.noise / self.steps) if self.steps else None


class EpochNoise(NamedTuple):
    """The noise of the open epoch.

    Attributes:
      clean: of the gradient at the parameters.
      perturbed: of the sharpness-aware gradient, by the steps that make a second pass.
    """

    clean: Total = Total()
    perturbed: Total = Total()

    @classmethod
    def of(cls, saved: Any) -> "EpochNoise":
        """What was saved, by way of JSON, which knows no named tuples.

        Raises:
          ValueError, TypeError: If it is something else.
        """
        if not all(isinstance(sums, Sequence) for sums in saved):
            raise ValueError("noise is not a list of lists of numbers")
        return cls(*(Total(*sums) for sums in saved))

    def after(self, metrics: Mapping[str, Any]) -> "EpochNoise":
        """The noise with that of one more step, where its metrics hold it."""
        terms = [[float(metrics.get(name, math.nan)) for name in term_names(gradient)] for gradient in GRADIENTS]
        return EpochNoise(*(total.after(*each) for total, each in zip(self, terms, strict=True)))

    @property
    def deciding(self) -> NoiseTerms | None:
        """That of the gradient which descends: the sharpness-aware one, where a step made one."""
        return self.perturbed.mean or self.clean.mean


_REQUIRED = ("step", "epoch", "gradient_evaluations", "counted", "loss", "error")


class Progress(NamedTuple):
    """The position of a run.

    Attributes:
      step: updates so far, and so batches that were read.
      epoch: epochs that were closed, that is evaluated and written down.
      gradient_evaluations: so far.
      skipped: steps that were not finite and were left out, so far.
      counted: steps of the open epoch that its means are over.
      loss: the sum of their losses.
      error: the sum of their errors.
      noise: that of the gradients of the open epoch, where it is measured.
      growth: where an adaptive batch plan stands, as its controller keeps it; None where none has decided yet.
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
        """The position that `progress._asdict()` was, by way of JSON; what an older version did not save is as new.

        Raises:
          ValueError, TypeError: If it is something else.
        """
        found = decode(saved, cls, _REQUIRED)
        return found._replace(noise=EpochNoise.of(found.noise))

    def after(self, metrics: dict[str, Any], gradient_evaluations: int) -> "Progress":
        """The position after one more step, which measured `metrics` with so many evaluations of a gradient."""
        skipped, evaluated = int(metrics.get("skipped", 0)), self.gradient_evaluations + gradient_evaluations
        moved = self._replace(step=self.step + 1, gradient_evaluations=evaluated, skipped=self.skipped + skipped)
        if skipped:
            return moved
        loss, error = self.loss + float(metrics["loss"]), self.error + float(metrics["error"])
        return moved._replace(counted=self.counted + 1, loss=loss, error=error, noise=self.noise.after(metrics))

    @property
    def means(self) -> tuple[float, float]:
        """The mean training loss and error of the open epoch; NaN if all of its steps were skipped."""
        return (self.loss / self.counted, self.error / self.counted) if self.counted else (math.nan, math.nan)

    def closed(self) -> "Progress":
        """The position after the open epoch."""
        return self._replace(epoch=self.epoch + 1, counted=0, loss=0.0, error=0.0, noise=EpochNoise())
