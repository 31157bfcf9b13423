"""How sharpness is measured."""

import math
from dataclasses import dataclass

from experiments.config import check_choice

_ALIKE = 0.005  # radii that differ by less are one
_MOST = {"steps": 10_000, "restarts": 10_000, "examples": 2**31 - 1, "batch_size": 2**31 - 1, "during": 2**31 - 1}
MEASURES = ("worst_case", "curve", "average_case", "surrogate_gap", "top_eigenvalue", "trace", "landscape")


@dataclass(frozen=True, kw_only=True)
class SharpnessSettings:
    """How sharpness is measured; what is left out is as the paper has it.

    Attributes:
      measures: Of worst_case, curve (the worst case over radii), average_case, surrogate_gap, top_eigenvalue, trace (of
        the Hessian) and landscape (along two random directions).
      rho: The radius.
      radius_rms: A second radius of the same length in networks of every size, 0.67/√d for d parameters, where the
        corner of the ℓ∞ ball is 0.67 away; the paper's radius is that for ResNet-18. None: the first one alone.
      norm: The ball: linf or l2.
      adaptive: Measure in units of each weight.
      steps: Iterations of the ascent.
      restarts: Ascents a batch; from the second on they start at random.
      examples: Training examples, without augmentation; all where there are fewer.
      batch_size: Examples of one perturbation; the last batch is kept.
      normalize_logits: Give all logits one length first, so that their scale is not measured.
      reestimate_batchnorm: Give BatchNorm the statistics of the training examples first, without augmentation.
      during: Measure every so many epochs while training, too.
    """

    measures: tuple[str, ...] = ("worst_case",)
    rho: float = 0.0002
    radius_rms: float | None = 0.67
    norm: str = "linf"
    adaptive: bool = False
    steps: int = 20
    restarts: int = 1
    examples: int = 1024
    batch_size: int = 128
    normalize_logits: bool = False
    reestimate_batchnorm: bool = False
    during: int | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, ("linf", "l2"))
        for name in self.measures:
            check_choice("measures", name, MEASURES)
        if not self.measures or len(set(self.measures)) < len(self.measures):
            raise ValueError(f"measures is {self.measures}: give at least one, each once.")
        for name in ("rho", "radius_rms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}: give a finite number above 0.")
        for name in ("steps", "restarts", "examples", "batch_size", "during"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give a positive integer.")
            if value is not None and value > _MOST[name]:
                raise ValueError(f"{name} is {value}: give an integer of at most {_MOST[name]}.")

    def radii(self, num_parameters: int, norm: str = "linf") -> tuple[float, ...]:
        """The radii that a single value is measured at; of an ℓ2 ball the second one is the length itself."""
        if self.radius_rms is None:
            return (self.rho,)
        second = self.radius_rms / (1.0 if norm == "l2" else math.sqrt(num_parameters))
        return (self.rho,) if math.isclose(self.rho, second, rel_tol=_ALIKE) else (self.rho, second)
