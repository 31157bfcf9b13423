"""Gradient norms during training: their curves, fitted rates, and the theory for SGD, SAM and GSAM.

A rate is the slope of the norms on two logarithmic axes. The theory covers a stochastic quadratic with a known
solution, and upper bounds for it, which docs/convergence.md derives.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Curve(NamedTuple):
    """The norms of one method with one strategy.

    Attributes:
      updates: the updates after which the norms were measured, `(points,)`.
      examples: the number of examples seen up to each of these updates, `(points,)`.
      gradient: the norm of the full gradient, `(repetitions, points)`.
      sam_gradient: the norm of the full SAM gradient, `(repetitions, points)`.
    """

    updates: np.ndarray
    examples: np.ndarray
    gradient: np.ndarray
    sam_gradient: np.ndarray


Curves = dict[tuple[str, str], Curve]
"""The curves by method and strategy."""


class Rate(NamedTuple):
    """The exponent of a power law.

    Attributes:
      slope: the mean of the slopes of the repetitions.
      standard_error: the standard error of that mean; NaN for a single repetition.
    """

    slope: float
    standard_error: float

    def __str__(self) -> str:
        if not np.isfinite(self.slope):
            return "–"
        slope = f"{self.slope:.2f}".replace("-", "−")
        return slope if np.isnan(self.standard_error) else f"{slope} ± {self.standard_error:.2f}"


def fitted_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Fits a least-squares line to `log y` over `log x`, and returns its slope.

    The slope is NaN if there are fewer than two distinct `x`, or if a value of `y` is not positive and finite.

    Args:
      x: positive numbers, `(points,)`.
      y: the values at `x`, `(points,)`.
    """
    if len(np.unique(x)) < 2 or not (np.isfinite(y).all() and (y > 0).all()):
        return float("nan")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def standard_error(values: np.ndarray) -> float:
    """Computes the standard error of the mean of independent values; NaN for a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def late_rate(x: np.ndarray, values: np.ndarray) -> Rate:
    """Fits the rate over the second half, from half of the last `x` to the end.

    Args:
      x: updates or examples, increasing, `(points,)`.
      values: one row per repetition, `(repetitions, points)`.
    """
    late = x >= x[-1] / 2
    slopes = np.asarray([fitted_slope(x[late], row[late]) for row in values])
    return Rate(float(slopes.mean()), standard_error(slopes))


class Quadratic(NamedTuple):
    """`f(w) = ½ wᵀ A w` with a diagonal `A`; the gradient of `b` examples is `A w + s ξ/√b`, `ξ` standard normal.

    Attributes:
      spectrum: the diagonal of `A`, positive, `(dimensions,)`.
      noise: `s`, the standard deviation of each coordinate of one example's gradient.
    """

    spectrum: np.ndarray
    noise: float

    @property
    def smoothness(self) -> float:
        """`L`, the largest curvature."""
        return float(np.max(self.spectrum))

    @property
    def curvature(self) -> float:
        """`μ`, the least curvature."""
        return float(np.min(self.spectrum))

    @property
    def deviation(self) -> float:
        """`σ = s √d`, the standard deviation of the whole gradient of one example."""
        return self.noise * float(np.sqrt(len(self.spectrum)))

    def value(self, w: np.ndarray) -> float:
        """Returns `f(w)`, which is 0 at its minimum."""
        return float(np.sum(self.spectrum * np.square(w)) / 2)

    def stationary_square(self, rate: float, batch_size: float) -> float:
        """Returns the exact limit of `E‖∇f‖²` for SGD at a constant rate and batch size.

        A coordinate is updated by `w ← (1 − η a) w − η s ξ/√b`, so its variance tends to `η s² / (b a (2 − η a))`.
        """
        return float(np.sum(self.spectrum * rate * self.noise**2 / (batch_size * (2 - rate * self.spectrum))))

    def bouncing_norm(self, rate: float, rho: float) -> float:
        """Returns the limit of `‖∇f‖` for SAM without noise, `η L² ρ / (2 − η L)`.

        There SAM oscillates along the direction of the largest curvature.
        """
        return rate * self.smoothness**2 * rho / (2 - rate * self.smoothness)

    def expected_squares(self, course: "Course", rho: float, start: np.ndarray) -> np.ndarray:
        """Returns `E‖∇f‖²` of SAM before each update and after the last one, `(updates + 1,)`.

        SAM descends along `g + ρ A g/‖g‖ = (I + κ A) g` with `κ = ρ/‖g‖`. Here `‖g‖` is replaced by its root mean
        square, with which a coordinate is updated by

            κ = ρ / √(d s²/b + E‖∇f‖²),   E w² ← (1 − η a (1 + κ a))² E w² + η² (1 + κ a)² s²/b.

        It is exact for SGD, where `ρ = 0`, and for SAM without noise along one direction. Otherwise it is an
        approximation; docs/convergence.md compares it with measurements.

        Args:
          course: the learning rate, the batch size and the scale of the radius of each update.
          rho: the radius at scale 1; 0 for SGD.
          start: the first parameters, `(dimensions,)`.
        """
        a, second_moments = self.spectrum, np.square(start)
        squares = [np.sum(a**2 * second_moments)]
        for rate, size, scale in zip(*course, strict=True):
            length = np.sqrt(self.deviation**2 / size + squares[-1])
            ahead = 1 + (rho * scale / length if length > 0 else 0.0) * a
            second_moments = (1 - rate * a * ahead) ** 2 * second_moments + (rate * ahead * self.noise) ** 2 / size
            squares.append(np.sum(a**2 * second_moments))
        return np.asarray(squares)


class Course(NamedTuple):
    """The settings of each update of a run.

    Attributes:
      rates: the learning rates, `(updates,)`.
      batch_sizes: the batch sizes, in examples, `(updates,)`.
      radius_scales: the factors by which the radius and alpha are multiplied, `(updates,)`.
    """

    rates: np.ndarray
    batch_sizes: np.ndarray
    radius_scales: np.ndarray

    @classmethod
    def at_constant_radius(cls, rates: np.ndarray, batch_sizes: np.ndarray) -> "Course":
        """Makes a course whose radius does not change."""
        return cls(rates, batch_sizes, np.ones(len(rates)))


REACH: dict[str, Callable[[Any, Any], Any]] = {
    "sgd": lambda rho, alpha: 0.0 * rho,
    "sam": lambda rho, alpha: rho,
    "gsam": lambda rho, alpha: (1 + alpha) * rho,
    "gsam_clean": lambda rho, alpha: alpha * rho,
}
"""Maps `rho` and `alpha` to `r`: the gradient that a method descends along differs from the clean one by at most `L r`.

Both may be arrays, one value per update.
"""


class Assumptions(NamedTuple):
    """The constants of the bounds' assumptions about the loss, its gradients and the method.

    Attributes:
      gap: `f(w₀) − f*`.
      smoothness: `L`, the smoothness constant of the loss of every batch.
      deviation: `σ`, the standard deviation of the gradient of one example.
      reach: `r`, a value of `REACH`, in units of the parameters; an array if it changes from update to update.
    """

    gap: float
    smoothness: float
    deviation: float
    reach: float | np.ndarray

    def disturbance(self, rates: np.ndarray, batch_sizes: np.ndarray) -> np.ndarray:
        """Computes `η_t V_t`, the amount by which bias and noise of each update increase twice the loss.

        Raises:
          ValueError: If a rate is above `1/L`.
        """
        if np.max(rates) * self.smoothness > 1 + 1e-6:
            raise ValueError(f"rates reaches {np.max(rates):g}: give at most 1/L, {1 / self.smoothness:g}.")
        bias = self.smoothness * self.reach
        noise = self.deviation / np.sqrt(batch_sizes)
        return rates * ((1 - self.smoothness * rates) * bias**2 + self.smoothness * rates * (noise + bias) ** 2)


def mean_bound(rates: np.ndarray, batch_sizes: np.ndarray, given: Assumptions) -> float:
    """Computes an upper bound of the mean squared gradient norm, `Σ η_t E‖∇f(w_t)‖² / Σ η_t`, and so of its minimum.

    The bound is `(2 (f(w₀) − f*) + Σ η_t V_t) / Σ η_t` with `V_t = (1 − L η_t) L² r² + L η_t (σ/√b_t + L r)²`. It is
    our own derivation; docs/convergence.md gives it with its assumptions.

    Args:
      rates: the learning rate `η_t` of each update, at most `1/L`, `(updates,)`.
      batch_sizes: the batch size `b_t` of each update, `(updates,)`.
      given: the constants of the problem and of the method.

    Returns:
      The bound, in units of the squared gradient.

    Raises:
      ValueError: If a rate is above `1/L`.
    """
    return float((2 * given.gap + np.sum(given.disturbance(rates, batch_sizes))) / np.sum(rates))


def last_bound(rates: np.ndarray, batch_sizes: np.ndarray, given: Assumptions, curvature: float) -> float:
    """Computes an upper bound of `E‖∇f(w_T)‖²` after the last update, if `‖∇f‖² ≥ 2μ (f − f*)`.

    The bound is `2L a_T` with `a_0 = f(w₀) − f*` and `a_{t+1} = (1 − μ η_t) a_t + η_t V_t / 2`. It is our own
    derivation; see docs/convergence.md.

    Args:
      rates: as in `mean_bound`.
      batch_sizes: as in `mean_bound`.
      given: as in `mean_bound`.
      curvature: `μ`, the least curvature of a quadratic.

    Returns:
      The bound, in units of the squared gradient.

    Raises:
      ValueError: If a rate is above `1/L`.
    """
    above = given.gap
    for rate, added in zip(rates, given.disturbance(rates, batch_sizes) / 2, strict=True):
        above = (1 - curvature * rate) * above + added
    return float(2 * given.smoothness * above)
