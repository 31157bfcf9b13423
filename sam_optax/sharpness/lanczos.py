"""Lanczos' algorithm: a symmetric matrix on the Krylov space of a vector, where it is small and tridiagonal."""

from collections.abc import Callable

import jax
import numpy as np
from jax.extend.core import Primitive

from sam_optax.sharpness import matrices

_NEGLIGIBLE = 10  # roundings of the matrix: a residual below is one of rounding

_product = Primitive("lanczos_product")
"""`matvec(vector)`, which matfree traces as one operation and runs as it is, compiled, while compilation is off."""


@_product.def_impl
def _run_product(vector: jax.Array, *, matvec: Callable[[jax.Array], jax.Array]) -> jax.Array:
    with jax.disable_jit(False):
        return matvec(vector)


_product.def_abstract_eval(lambda vector, **_: vector)


def ritz(
    matvec: Callable[[jax.Array], jax.Array], start: jax.Array, steps: int
) -> tuple[np.ndarray, np.ndarray, jax.Array]:
    """What a symmetric matrix `A` is on the Krylov space of `start`: `(values, vectors, basis)`.

    With the rows of `basis` as `Q`, `Q A Qᵀ = U diag(values) Uᵀ`, and the columns of `vectors` as `U`. The rows of
    `Uᵀ Q` are Ritz vectors. The first row of `Q` is `start / ‖start‖`. All vectors are kept, and each new one is
    orthogonalised against all before.

    Where the space is exhausted, after k < `steps` products, it is invariant: the rest is rounding, or 0 / 0, and is
    cut off. What is left is exact.

    Args:
      matvec: the product, `(d,)` → `(d,)`.
      start: a vector `(d,)`.
      steps: the number of products, at most d.

    Returns:
      values `(k,)`, smallest first; vectors `(k, k)`; basis `(k, d)`.

    Raises:
      ImportError: If matfree is not installed.
    """
    decomp = matrices.import_matfree("decomp")
    # With compilation off matfree's loop is one in Python, where on the CPU gradients of convolutions are fast. It
    # traces the product before that, and would run the trace operation by operation if `matvec` were not one primitive.
    # `hessenberg` is what `tridiag_sym` calls, and is Lanczos' algorithm for a symmetric matrix: but the latter
    # averages both off-diagonals, and only the lower one is the residuals' lengths.
    with jax.disable_jit(), jax.default_matmul_precision("highest"):
        basis, matrix, *_ = decomp.hessenberg(steps, reortho="full")(lambda v: _product.bind(v, matvec=matvec), start)
    matrix = np.asarray(matrix)
    diagonal, off_diagonal = np.diag(matrix), np.diag(matrix, -1)
    size = _exact_size(diagonal, off_diagonal)
    inner = off_diagonal[: size - 1]
    values, vectors = np.linalg.eigh(np.diag(diagonal[:size]) + np.diag(inner, 1) + np.diag(inner, -1))
    return values, vectors, basis[:size]


def _exact_size(diagonal: np.ndarray, off_diagonal: np.ndarray) -> int:
    """How many steps there are before the first off-diagonal entry that is rounding beside the entries so far."""
    scale = np.maximum.accumulate(np.abs(diagonal[:-1]) + off_diagonal)
    is_exact = off_diagonal > _NEGLIGIBLE * np.finfo(diagonal.dtype).eps * scale  # False where it is NaN
    return 1 + int(np.cumprod(is_exact).sum())
