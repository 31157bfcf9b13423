"""The gradient noise scale: the batch size above which the gradient has more signal than noise."""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sam_optax.batch_plan import check_positive_integer
from sam_optax.trees import fill_unmeasured, is_traced


class NoiseTerms(NamedTuple):
    """The two terms of the noise scale, which do not depend on the batch size; scalars, arrays or plain numbers.

    A batch of B examples has `E‖g_B‖² = |G|² + tr(Σ)/B`, where `G` is the mean of the gradient of one example and `Σ`
    its covariance. This assumes that the gradient of the batch is the mean of independent gradients of its examples. A
    dropout key that the parts of a batch share makes `noise` too small and `signal` too large; BatchNorm makes `noise`
    too large. `track_noise` explains by how much.

    Attributes:
      signal: `|G|²`; an estimate of it may be negative.
      noise: `tr(Σ)`.
    """

    signal: chex.Numeric
    noise: chex.Numeric

    @property
    def scale(self) -> jax.Array:
        """The noise scale `B_simple = tr(Σ)/|G|²`, in examples: infinite for noise without signal, 0 without noise."""
        if is_traced(self):
            return _scale(jnp, jnp.asarray(self.signal), jnp.asarray(self.noise))
        with np.errstate(all="ignore"):  # on the host, so that terms that were not measured may be NaN
            return jax.device_put(_scale(np, np.asarray(self.signal), np.asarray(self.noise)))


def _scale(numpy: Any, signal: Any, noise: Any) -> Any:
    """The scale by `jax.numpy` or by NumPy."""
    no_signal = signal <= 0
    ratio = numpy.where(no_signal, numpy.inf, noise / numpy.where(no_signal, 1, signal))
    return numpy.where(noise <= 0, 0.0, ratio)


class Noise(NamedTuple):
    """The noise of both gradients.

    Attributes:
      clean: the noise of `g`, the gradient at the parameters.
      perturbed: the noise of `g_s`, the gradient at `w + ε`; for m-SAM, the noise of the method's gradient of each
        shard. None if no second pass was made.
    """

    clean: NoiseTerms
    perturbed: NoiseTerms | None


def noise_terms(small_square: Any, small: Any, large_square: Any, large: Any) -> NoiseTerms:
    """The terms of the noise scale from squared gradient norms at two batch sizes `b < B`, both without bias.

        |G|² ≈ (B ‖g_B‖² − b ‖g_b‖²)/(B − b)
        tr(Σ) ≈ (‖g_b‖² − ‖g_B‖²)/(1/b − 1/B)

    If `g_B` is the mean of the gradients `g_b` of its parts, and `‖g_b‖²` is averaged over them, the second estimate is
    `b` times their sample variance, and the estimates satisfy `‖g_B‖² = |G|² + tr(Σ)/B`, too. From "An Empirical Model
    of Large-Batch Training" (McCandlish et al., 2018, https://arxiv.org/abs/1812.06162), appendix A.1. Both estimates
    are noisy, and their ratio is biased: average each over steps, then divide, as `NoiseAverage` and `track_noise` do.

    Args:
      small_square: `‖g_b‖²`, a number or array; preferably the mean over the parts of the larger batch.
      small: `b`, in examples; an integer, or a traced one, which is not checked.
      large_square: `‖g_B‖²`.
      large: `B`, in examples, likewise.

    Returns:
      `(signal, noise)`, of the type of the squares.

    Raises:
      ValueError: If a size is not a positive integer, or `small` is not below `large`.

    Example:
      >>> import sam_optax
      >>> terms = sam_optax.noise_terms(small_square=3.0, small=4, large_square=1.5, large=16)
      >>> terms
      NoiseTerms(signal=1.0, noise=8.0)
      >>> print(terms.scale)
      8.0
    """
    if not is_traced((small, large)):
        _check_sizes(small, large)
    signal = (large * large_square - small * small_square) / (large - small)
    # The product of both sizes could overflow int32.
    return NoiseTerms(signal, (small_square - large_square) * (small / (1 - small / large)))


def _check_sizes(small: int, large: int) -> None:
    check_positive_integer("small", small)
    check_positive_integer("large", large)
    if not small < large:
        raise ValueError(
            f"small is {small}, and large {large}: the noise shows between a batch and its parts, give two or more."
        )


class NoiseAverage(NamedTuple):
    """Separate moving averages of both terms, since an average of their ratio would be biased; scalars of one dtype.

    Attributes:
      signal: the sum of the estimates of `|G|²`, each with the weight `decayᵏ` for its age k.
      noise: the same sum of the estimates of `tr(Σ)`.
      weight: the sum of the weights, by which both sums are divided, so that the averages have no initial bias.

    Example:
      >>> import sam_optax
      >>> average = sam_optax.NoiseAverage.start()
      >>> for noise in (8.0, 4.0):
      ...     average = average.add(sam_optax.NoiseTerms(signal=1.0, noise=noise), decay=0.5)
      >>> print(average.terms.signal, f"{average.terms.noise:.3f}", f"{average.terms.scale:.3f}")
      1.0 5.333 5.333
    """

    signal: jax.Array
    noise: jax.Array
    weight: jax.Array

    @classmethod
    def start(cls, dtype: Any = float) -> "NoiseAverage":
        """The empty average; its terms are NaN."""
        # Three arrays, not one array three times: a buffer can be donated only once.
        return cls(jnp.zeros((), dtype), jnp.zeros((), dtype), jnp.zeros((), dtype))

    def add(self, terms: NoiseTerms, decay: float, measured: chex.Numeric = True) -> "NoiseAverage":
        """The average one step later; it does not change if the terms were not `measured` or are not finite."""
        signal, noise = (jnp.asarray(x, self.weight.dtype) for x in terms)
        counts = measured & jnp.isfinite(signal) & jnp.isfinite(noise)
        found = NoiseAverage(signal, noise, jnp.ones_like(self.weight))
        return jax.tree.map(lambda old, new: jnp.where(counts, decay * old + new, old), self, found)

    @property
    def terms(self) -> NoiseTerms:
        """Both averages; NaN if nothing was measured."""
        return self.read()

    def read(self, unmeasured: chex.Numeric = math.nan) -> NoiseTerms:
        """Both averages.

        Args:
          unmeasured: the number to return if nothing was measured.

        Returns:
          `(signal, noise)`.
        """
        measured = self.weight > 0
        by = jnp.where(measured, self.weight, 1)
        return fill_unmeasured(NoiseTerms(self.signal / by, self.noise / by), measured, unmeasured)
