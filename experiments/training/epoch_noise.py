"""The noise of an epoch's gradients: its two terms, each added up over the steps, apart."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

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
        """What was saved, by way of JSON, which knows no named tuples."""
        return cls(*(Total(*total) for total in saved))

    def after(self, metrics: Mapping[str, Any]) -> "EpochNoise":
        """The noise with that of one more step, where its metrics tell it."""
        totals = [
            total.after(*(float(metrics[name]) for name in term_names(gradient)))
            if term_names(gradient)[0] in metrics
            else total
            for gradient, total in zip(GRADIENTS, self, strict=True)
        ]
        return EpochNoise(*totals)

    @property
    def deciding(self) -> NoiseTerms | None:
        """That of the gradient which descends: the sharpness-aware one, where a step made one."""
        return self.perturbed.mean or self.clean.mean

    def record(self) -> dict[str, float]:
        """The noise scale that decides, in examples; nothing where none was measured."""
        return {} if self.deciding is None else {"noise_scale": float(self.deciding.scale)}
