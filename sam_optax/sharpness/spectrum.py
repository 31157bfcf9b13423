"""Estimates the trace of a curvature matrix, and the density of its eigenvalues, from random probes."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import hyperparameters
from sam_optax.sharpness import lanczos, matrices
from sam_optax.sharpness.matrices import FlatOperator, Matrix, hessian
from sam_optax.typing import Mask, Params


class Trace(NamedTuple):
    """An estimate of a trace; `float(trace)` is its value.

    Attributes:
      value: the mean over the probes, a scalar in the accumulator's dtype.
      standard_error: the standard error of that mean. It is 0 if the value is exact, and NaN for a single probe.
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

    It is estimated as the mean of `vᵀ H v` over probes `v` of random signs, whose expectation is the trace. One probe
    is in memory at a time. If there are at most `samples` parameters, the probes are the unit vectors, and the sum over
    them is the exact trace. The estimator is from "A stochastic estimator of the trace of the influence matrix for
    Laplacian smoothing splines" (Hutchinson, 1990, https://doi.org/10.1080/03610919008812866).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar loss, the mean over the batch. It gets the parameters in float32 or
        wider. It is compiled and reused by later calls, so the values that it closes over must not change.
      params: the point where the curvature is measured; any pytree of arrays.
      batches: an iterable of batches, with the examples along the leading axis; each is weighted by its size.
      matrix: the curvature matrix: `hessian`, or a matrix that `gauss_newton` returns.
      samples: the number of probes. Each requires one product with the matrix, which costs about two gradients.
      mask: the leaves whose curvature is measured: a tree of bools, or a function from the parameters to one; None
        means all leaves. They must be real floating arrays. The other leaves are constants of any dtype, and `loss_fn`
        gets them unchanged.
      key: draws the probes; None means `jax.random.key(0)`.

    Returns:
      The estimate with its standard error.

    Raises:
      ValueError: If `samples` is not a positive integer, if `mask` does not fit or chooses no leaf or one that is not
        real floating, if `loss_fn` is not a hashable function, if `params` or `batches` is empty, or inside `jax.jit`.
      ImportError: If matfree is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: jnp.mean(x) * jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
      >>> print(float(sharpness.trace(loss_fn, jnp.zeros(2), [jnp.ones(3)])))
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
    """The quadratic form `vᵀ A v` of each probe `v`."""
    form = matrices.import_matfree("stochtrace").monte_carlo_trace()
    return jnp.stack([form(operator.matvec, probe) for probe in probes])


class SpectralDensity(NamedTuple):
    """A discrete distribution for each probe, whose first moments estimate those of the eigenvalues.

    The mean of `Σ_i ω_i f(θ_i)` over the probes estimates the mean of `f` over all eigenvalues.

    Attributes:
      nodes: the positions `θ`, `(samples, steps)`, in ascending order; `steps` is at most the number of parameters.
      weights: the weights `ω ≥ 0`, `(samples, steps)`, with sum 1 for each probe. A probe that needs fewer nodes
        repeats its last one with weight 0.
    """

    nodes: jax.Array
    weights: jax.Array

    def density(self, at: chex.ArrayNumpy | jax.Array, width: float) -> jax.Array:
        """The density `Σ_i ω_i N(at; θ_i, width²)`, averaged over the probes; its integral over `at` is 1.

        Args:
          at: eigenvalue positions, of any shape.
          width: the standard deviation of the Gaussians, in units of eigenvalues.

        Returns:
          The density at each position, of the shape of `at`.

        Raises:
          ValueError: If `width` is not a positive number.

        Example:
          >>> import jax.numpy as jnp
          >>> from sam_optax import sharpness
          >>> loss_fn = lambda w, x: jnp.mean(x) * jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
          >>> found = sharpness.spectral_density(loss_fn, jnp.zeros(2), [jnp.ones(3)], steps=2)
          >>> print(found.density(jnp.array([1.0, 2.5, 4.0]), width=0.1).round(2))
          [1.99 0.   1.99]
        """
        hyperparameters.check_positive_number("width", width)
        peaks = jax.scipy.stats.norm.pdf(jnp.asarray(at)[..., None, None], self.nodes, width)
        return jnp.mean(jnp.sum(self.weights * peaks, axis=-1), axis=-1)


def spectral_density(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    matrix: Matrix = hessian,
    steps: int = 50,
    samples: int = 10,
    mask: Mask | None = None,
    key: jax.Array | None = None,
) -> SpectralDensity:
    """The distribution of the eigenvalues of the Hessian over all examples, by stochastic Lanczos quadrature.

    Lanczos' algorithm starts from `v / ‖v‖`, where `v` has random signs. Let `θ_i` be the eigenvalues of its
    tridiagonal matrix, and `u_i` the first components of the eigenvectors. Then `Σ_i u_i² f(θ_i)` is the Gauss
    quadrature of `vᵀ f(H) v / ‖v‖²`, and is exact if `f` is a polynomial of degree below `2 steps`. The expectation of
    `vᵀ f(H) v / ‖v‖²` is `tr f(H) / d`. The method is from "An Investigation into Neural Net Optimization via Hessian
    Eigenvalue Density" (Ghorbani et al., 2019, https://arxiv.org/abs/1901.10159).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar loss, the mean over the batch. It gets the parameters in float32 or
        wider. It is compiled and reused by later calls, so the values that it closes over must not change.
      params: the point where the curvature is measured; any pytree of arrays.
      batches: an iterable of batches, with the examples along the leading axis; each is weighted by its size.
      matrix: the curvature matrix: `hessian`, or a matrix that `gauss_newton` returns.
      steps: the number of nodes of a probe, at most the number of parameters. Each node requires one product with the
        matrix, which costs about two gradients. The same number of vectors is kept in memory.
      samples: the number of probes.
      mask: the leaves whose curvature is measured: a tree of bools, or a function from the parameters to one; None
        means all leaves. They must be real floating arrays. The other leaves are constants of any dtype, and `loss_fn`
        gets them unchanged.
      key: draws the probes; None means `jax.random.key(0)`.

    Returns:
      The nodes and weights, with a method that computes the density.

    Raises:
      ValueError: If `steps` or `samples` is not a positive integer, if `mask` does not fit or chooses no leaf or one
        that is not real floating, if `loss_fn` is not a hashable function, if `params` or `batches` is empty, or
        inside `jax.jit`.
      ImportError: If matfree is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: jnp.mean(x) * jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
      >>> found = sharpness.spectral_density(loss_fn, jnp.zeros(2), [jnp.ones(3)], samples=1)
      >>> print([[f"{x:.2f}" for x in row] for row in (found.nodes[0], found.weights[0])])
      [['1.00', '4.00'], ['0.50', '0.50']]
    """
    hyperparameters.check_count("steps", steps, "the nodes of a probe")
    hyperparameters.check_count("samples", samples, "the probes")
    operator = matrices.flat_operator(matrix, loss_fn, params, batches, mask)
    steps = min(steps, operator.size)
    rules = []
    for probe_key in jax.random.split(jax.random.key(0) if key is None else key, samples):
        start = jax.random.rademacher(probe_key, (operator.size,), operator.dtype)
        nodes, vectors, _ = lanczos.ritz(operator.matvec, start, steps)
        missing = (0, steps - len(nodes))
        rules.append((np.pad(nodes, missing, mode="edge"), np.pad(vectors[0] ** 2, missing)))
    nodes, weights = (jnp.asarray(np.stack(found)) for found in zip(*rules, strict=True))
    return SpectralDensity(nodes, weights)
