"""The largest eigenvalues of a curvature matrix, and their eigenvectors."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import hyperparameters
from sam_optax.sharpness import lanczos, matrices
from sam_optax.sharpness.matrices import FlatOperator, Matrix, hessian
from sam_optax.typing import Mask, Params, Updates

Map = Callable[[jax.Array], jax.Array]
"""A function that maps a vector to a vector."""


class Eigenpairs(NamedTuple):
    """Eigenvalues and their eigenvectors.

    Attributes:
      values: `(number,)`, the largest first, in the accumulator's dtype.
      vectors: one tree like the parameters for each eigenvalue, in the accumulator's dtype, with zeros outside of the
        mask. Each tree has L2 norm 1 over all its leaves. The trees are orthogonal to each other.
    """

    values: jax.Array
    vectors: tuple[Updates, ...]


def top_eigenvalue(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    *,
    matrix: Matrix = hessian,
    steps: int = 20,
    mask: Mask | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """The largest eigenvalue `λ_max` of the Hessian over all examples: the curvature of the sharpest direction.

    "Largest" means most positive. The result is the first value of `eigenpairs`, which describes the method.

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar loss, the mean over the batch. It gets the parameters in float32 or
        wider. It is compiled and reused by later calls, so the values that it closes over must not change.
      params: the point where the curvature is measured; any pytree of arrays.
      batches: an iterable of batches, with the examples along the leading axis; each is weighted by its size.
      matrix: the curvature matrix: `hessian`, or a matrix that `gauss_newton` returns.
      steps: the number of products with the matrix. Each costs about two gradients.
      mask: the leaves whose curvature is measured: a tree of bools, or a function from the parameters to one; None
        means all leaves. They must be real floating arrays. The other leaves are constants of any dtype, and `loss_fn`
        gets them unchanged.
      key: draws the start vector; None means `jax.random.key(0)`.

    Returns:
      A scalar in the accumulator's dtype.

    Raises:
      ValueError: In the cases that `eigenpairs` describes.
      ImportError: If matfree is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: jnp.mean(x) * jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
      >>> print(f"{sharpness.top_eigenvalue(loss_fn, jnp.zeros(2), [jnp.ones(3)]):.3f}")
      4.000
    """
    return eigenpairs(loss_fn, params, batches, matrix=matrix, steps=steps, mask=mask, key=key).values[0]


def eigenpairs(
    loss_fn: Callable[..., Any],
    params: Params,
    batches: Iterable[Any],
    number: int = 1,
    *,
    matrix: Matrix = hessian,
    steps: int = 20,
    mask: Mask | None = None,
    key: jax.Array | None = None,
) -> Eigenpairs:
    """The largest eigenvalues of the Hessian over all examples, with eigenvectors: `H v_i = λ_i v_i`.

    It uses Lanczos' algorithm from a random start, with full reorthogonalisation. The outermost eigenvalues converge
    first, and from below: a value that has not converged is too small. All `steps` vectors are kept in memory; the
    search holds about three copies of them. An eigenvalue of multiplicity above one is found once, unless the Krylov
    space is exhausted early.

    If the Krylov space of the start vector is exhausted early, as for a matrix of low rank, its values are exact. The
    search then continues from a new start vector that is orthogonal to the space, and can find the same eigenvalue
    again. The algorithm is from "An iteration method for the solution of the eigenvalue problem of linear differential
    and integral operators" (Lanczos, 1950, https://doi.org/10.6028/jres.045.026).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar loss, the mean over the batch. It gets the parameters in float32 or
        wider. It is compiled and reused by later calls, so the values that it closes over must not change.
      params: the point where the curvature is measured; any pytree of arrays.
      batches: an iterable of batches, with the examples along the leading axis; each is weighted by its size.
      number: the number of eigenvalues, at most `steps` and the number of parameters.
      matrix: the curvature matrix: `hessian`, or a matrix that `gauss_newton` returns.
      steps: the number of products with the matrix, at most the number of parameters. Each costs about two gradients.
        (A search that continues from a new start makes a few more products.)
      mask: the leaves whose curvature is measured: a tree of bools, or a function from the parameters to one; None
        means all leaves. They must be real floating arrays. The other leaves are constants of any dtype, and `loss_fn`
        gets them unchanged.
      key: draws the start vectors; None means `jax.random.key(0)`.

    Returns:
      The eigenvalues and the eigenvectors.

    Raises:
      ValueError: If `number` or `steps` is not a positive integer, if `number` is too large, if `mask` does not match
        the parameters, if it selects no leaf or a leaf that is not a real floating-point array, if `loss_fn` is not a
        hashable function, if `params` or `batches` is empty, or inside `jax.jit`.
      ImportError: If matfree is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: jnp.mean(x) * jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
      >>> found = sharpness.eigenpairs(loss_fn, jnp.zeros(2), [jnp.ones(3)], number=2)
      >>> print(*(f"{value:.3f}" for value in found.values))
      4.000 1.000
    """
    hyperparameters.check_count("number", number, "the number of eigenvalues to find")
    hyperparameters.check_count("steps", steps, "the number of products with the matrix")
    operator = matrices.flat_operator(matrix, loss_fn, params, batches, mask)
    steps = min(steps, operator.size)
    if number > steps:
        raise ValueError(
            f"number is {number}, and {steps} steps on {operator.size} parameters find at most {steps} eigenvalues: "
            "give a smaller number, or more steps."
        )
    values, vectors = _search(operator, number, steps, jax.random.key(0) if key is None else key)
    order = np.argsort(values)[::-1][:number]
    return Eigenpairs(jnp.asarray(values[order]), tuple(operator.unravel(vectors[i]) for i in order))


def _search(operator: FlatOperator, number: int, steps: int, key: jax.Array) -> tuple[np.ndarray, jax.Array]:
    """Ritz values, and Ritz vectors as rows, from at most `number` starts, each orthogonal to all previous vectors.

    An invariant Krylov space contains at most one eigenvector of each eigenvalue, so `number` starts find the largest
    eigenvalue up to `number` times.
    """
    values, vectors = np.zeros(0, operator.dtype), jnp.zeros((0, operator.size), operator.dtype)
    for start_key in jax.random.split(key, number):
        embed, restrict = _complement(vectors)
        matvec = _composed(restrict, operator.matvec, embed)
        start = jax.random.normal(start_key, (operator.size - len(values),), operator.dtype)
        new, small, basis = lanczos.ritz(matvec, start, steps - len(values))
        values = np.concatenate([values, new])
        vectors = jnp.concatenate([vectors, *(embed(row)[None] for row in _combine(small.T, basis))])
        if len(values) == steps:
            break
    return values, vectors


def _composed(last: Map, middle: Map, first: Map) -> Map:
    return lambda vector: last(middle(first(vector)))


def _complement(rows: jax.Array) -> tuple[Map, Map]:
    """The maps `(embed, restrict)` between coordinates `(d - k,)` of the complement of k orthonormal rows, and `(d,)`.

    The maps preserve lengths in the complement. They are products of Householder reflections. A projection would leave
    rounding errors in the span of the rows, which Lanczos' algorithm amplifies.
    """
    number, size = rows.shape
    if not number:
        return (lambda x: x), (lambda v: v)
    raw, scales = jnp.linalg.qr(rows.T, mode="raw")
    normals = jnp.triu(raw, 1) + jnp.eye(number, size, dtype=rows.dtype)

    def embed(coordinates: jax.Array) -> jax.Array:
        return _reflect(jnp.pad(coordinates, (number, 0)), normals, scales, reverse=True)

    def restrict(vector: jax.Array) -> jax.Array:
        return _reflect(vector, normals, scales)[number:]

    return embed, restrict


@functools.partial(jax.jit, static_argnames="reverse")
def _reflect(vector: jax.Array, normals: jax.Array, scales: jax.Array, reverse: bool = False) -> jax.Array:
    """Applies Householder reflections one after another, or in reverse order."""

    def reflect(vector: jax.Array, reflection: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        normal, scale = reflection
        return vector - scale * jnp.sum(normal * vector) * normal, None

    return jax.lax.scan(reflect, vector, (normals, scales), reverse=reverse)[0]


@jax.default_matmul_precision("highest")
def _combine(coefficients: np.ndarray, basis: jax.Array) -> jax.Array:
    """The Ritz vectors, as rows."""
    return jnp.asarray(coefficients) @ basis
