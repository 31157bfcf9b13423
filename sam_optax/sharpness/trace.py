"""The trace of a curvature matrix: the sum of its eigenvalues, from random probes."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters
from sam_optax.sharpness import matrices
from sam_optax.sharpness.matrices import FlatOperator, Matrix, hessian
from sam_optax.typing import Mask, Params


class Trace(NamedTuple):
    """An estimate of a trace; `float(trace)` is its value.

    Attributes:
      value: the mean over the probes, a scalar in the accumulator's dtype.
      standard_error: the standard error of that mean: 0 if it is exact, NaN for a single probe.
    """

    value: jax.Array
    standard_error: jax.Array

    def __float__(self) -> float:
        return float(self.value)


def trace(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    matrix: Matrix = hessian,
    samples: int = 100,
    mask: Mask | None = None,
    key: jax.Array | None = None,
) -> Trace:
    """The trace `tr H = Σ_i λ_i` of the Hessian over all examples: the curvature of all directions together.

    The mean of `vᵀ H v` over probes `v` of random signs, whose expectation is the trace. One probe is in memory at a
    time. If there are at most `samples` parameters, the probes are the unit vectors, and their sum is exact. From
    "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines" (Hutchinson,
    1990, https://doi.org/10.1080/03610919008812866).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar loss, the mean over the batch. It gets the parameters in float32 or
        wider. It is compiled and reused by later calls, so the values that it closes over must not change.
      params: the point where the curvature is measured; any pytree of arrays.
      batches: an iterable of batches, with the examples along the leading axis; each is weighted by its size.
      matrix: the curvature matrix: `hessian`, or a matrix that `gauss_newton` returns.
      samples: the number of probes. Each takes one product with the matrix, at about the cost of two gradients.
      mask: the leaves whose curvature is measured: a tree of bools, or a function from the parameters to one; None is
        all. They must be real floating arrays. The others are constants of any dtype, and `loss_fn` gets them as they
        are.
      key: draws the probes; None is `jax.random.key(0)`.

    Returns:
      The estimate with its standard error.

    Raises:
      ValueError: If `samples` is not a positive integer, if `mask` does not fit or chooses no leaf or one that is not
        real floating, or as `matrices.flat_operator`.
      ImportError: If matfree is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax.sharpness.trace import trace
      >>> loss_fn = lambda w, x: jnp.mean(x) * jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
      >>> print(float(trace(loss_fn, jnp.zeros(2), [jnp.ones(3)])))
      5.0
    """
    hyperparameters.check_count("samples", samples, "the probes")
    operator = matrices.flat_operator(matrix, loss_fn, params, batches, mask)
    if operator.size <= samples:
        units = (jnp.zeros(operator.size, operator.dtype).at[i].set(1) for i in range(operator.size))
        value = jnp.sum(_quadratic_forms(operator, units))
        return Trace(value, jnp.zeros_like(value))
    keys = jax.random.split(jax.random.key(0) if key is None else key, samples)
    signs = (jax.random.rademacher(k, (operator.size,), operator.dtype) for k in keys)
    forms = _quadratic_forms(operator, signs)
    return Trace(jnp.mean(forms), jnp.std(forms, ddof=1) / jnp.sqrt(samples))


@jax.default_matmul_precision("highest")
def _quadratic_forms(operator: FlatOperator, probes: Iterable[jax.Array]) -> jax.Array:
    """`vᵀ A v` of each probe."""
    form = matrices.import_matfree("stochtrace").monte_carlo_trace()
    return jnp.stack([form(operator.matvec, probe) for probe in probes])
