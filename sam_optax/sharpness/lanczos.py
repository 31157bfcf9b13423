"""Lanczos' algorithm: it restricts a symmetric matrix to a Krylov space, in which it is small and tridiagonal."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive

from sam_optax.sharpness import matrices

_NEGLIGIBLE = 10  # a residual below this many roundings of the matrix is only rounding

_product = Primitive("lanczos_product")
"""`matvec(vector)` as one primitive: matfree traces it as one operation, and it stays compiled under `disable_jit`."""


@_product.def_impl
def _run_product(vector: jax.Array, *, matvec: Callable[[jax.Array], jax.Array]) -> jax.Array:
    with jax.disable_jit(False):
        return matvec(vector)


_product.def_abstract_eval(lambda vector, **_: vector)


def ritz(
    matvec: Callable[[jax.Array], jax.Array], start: jax.Array, steps: int
) -> tuple[np.ndarray, np.ndarray, jax.Array]:
    """Restricts a symmetric matrix `A` to the Krylov space of `start`: returns `(values, vectors, basis)`.

    With the rows of `basis` as `Q`, `Q A Qᵀ = U diag(values) Uᵀ`, and the columns of `vectors` as `U`. The rows of
    `Uᵀ Q` are Ritz vectors. The first row of `Q` is `start / ‖start‖`. All vectors are kept, and each new one is
    orthogonalised against all previous ones.

    If the space is exhausted after k < `steps` products, it is invariant. The remaining entries are rounding errors, or
    0 / 0, and are cut off; the returned values are exact.

    Args:
      matvec: the product, `(d,)` → `(d,)`.
      start: a vector `(d,)`.
      steps: the number of products, at most d.

    Returns:
      values `(k,)`, smallest first; vectors `(k, k)`; basis `(k, d)`.

    Raises:
      ImportError: If matfree is not installed.
    """
    basis, matrix = _hessenberg(matvec, start, steps)
    unit = _unit(matrix, matvec, start)
    if unit != 1:
        basis, matrix = _hessenberg(lambda vector: matvec(vector) / unit, start, steps)
    diagonal, off_diagonal = np.diag(matrix), np.diag(matrix, -1)
    size = _exact_size(diagonal, off_diagonal)
    inner = off_diagonal[: size - 1]
    values, vectors = np.linalg.eigh(np.diag(diagonal[:size]) + np.diag(inner, 1) + np.diag(inner, -1))
    return unit * values, vectors, basis[:size]


def _hessenberg(matvec: Callable[[jax.Array], jax.Array], start: jax.Array, steps: int) -> tuple[jax.Array, np.ndarray]:
    """The basis and the tridiagonal matrix of `ritz`, before the space is cut off."""
    decomp = matrices.import_matfree("decomp")
    # With compilation disabled, matfree's loop is a Python loop, in which gradients of convolutions are fast on the
    # CPU. Before that it traces the product, and would run the trace operation by operation if `matvec` were not one
    # primitive. `tridiag_sym` calls `hessenberg`, which is Lanczos' algorithm for a symmetric matrix. It is called
    # directly here, since `tridiag_sym` averages both off-diagonals, and only the lower one has the residuals' lengths.
    with jax.disable_jit(), jax.default_matmul_precision("highest"):
        basis, matrix, *_ = decomp.hessenberg(steps, reortho="full")(lambda v: _product.bind(v, matvec=matvec), start)
    return basis, np.asarray(matrix)


def _unit(matrix: np.ndarray, matvec: Callable[[jax.Array], jax.Array], start: jax.Array) -> float:
    """The power of two by which the products are divided: 1, unless the squares of the residuals leave the range."""
    # The first column is the product with the start, in the basis. It has NaN if the product has the start's direction.
    limits, first = np.finfo(matrix.dtype), np.nan_to_num(np.abs(matrix[:, 0]), nan=0.0)
    if float(limits.tiny) ** 0.25 < first.max() < float(limits.max) ** 0.25:
        return 1.0
    largest = float(jnp.max(jnp.abs(matvec(start))))
    return 2.0 ** math.floor(math.log2(largest)) if 0 < largest < math.inf else 1.0


def _exact_size(diagonal: np.ndarray, off_diagonal: np.ndarray) -> int:
    """The number of steps before the first off-diagonal entry that is negligible relative to the entries so far."""
    scale = np.maximum.accumulate(np.abs(diagonal[:-1]) + off_diagonal)
    is_exact = off_diagonal > _NEGLIGIBLE * np.finfo(diagonal.dtype).eps * scale  # False for NaN
    return 1 + int(np.cumprod(is_exact).sum())
