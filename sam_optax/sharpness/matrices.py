"""Curvature matrices: the Hessian and the Gauss-Newton matrix, as products with a vector."""

import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

from sam_optax import trees
from sam_optax.sharpness import batches as batches_of
from sam_optax.sharpness import losses
from sam_optax.typing import Params, Updates

Matrix = Callable[[Callable[..., Any], Params, Any, Updates], Updates]
"""`(loss_fn, params, batch, vector) → product`: a symmetric matrix times a vector, both trees like the parameters."""


class FlatOperator(NamedTuple):
    """A curvature matrix over all examples, on flat vectors.

    Attributes:
      matvec: from a vector `(size,)` to the product `(size,)`, in the accumulator's dtype. It is compiled by itself,
        batch by batch, and also where `jax.disable_jit` is on around it.
      unravel: from a vector `(size,)` to a tree of the shapes of the parameters, in the accumulator's dtype.
      size: the number of parameters.
      dtype: of the vectors: float32, or float64 where a leaf has it.
    """

    matvec: Callable[[jax.Array], jax.Array]
    unravel: Callable[[jax.Array], Updates]
    size: int
    dtype: jnp.dtype


def hessian(loss_fn: Callable[..., Any], params: Params, batch: Any, vector: Updates) -> Updates:
    """The product `H v` with the Hessian `H = ∇²L(w)`: the derivative of the gradient along `v`.

    Forward over reverse mode, at about the cost of two gradients. From "Fast Exact Multiplication by the Hessian"
    (Pearlmutter, 1994, https://doi.org/10.1162/neco.1994.6.1.147).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar loss, the mean over the batch.
      params: the parameters, where the Hessian is taken.
      batch: what the loss is taken of.
      vector: a tree of the structure, shapes and dtypes of `params`.

    Returns:
      A tree like `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax.sharpness import matrices
      >>> loss_fn = lambda w, x: jnp.mean(x) * w[0] ** 2 * w[1]
      >>> print(matrices.hessian(loss_fn, jnp.array([1.0, 2.0]), jnp.ones(3), jnp.array([1.0, 0.0])))
      [4. 2.]
    """
    return jax.jvp(jax.grad(lambda w: loss_fn(w, batch)), (params,), (vector,))[1]


def gauss_newton(outputs_fn: Callable[..., Any]) -> Matrix:
    """The generalised Gauss-Newton matrix `G = Jᵀ ∇²ℓ(z) J`, with `J` the Jacobian of the outputs `z`.

    It is the Hessian without the curvature of the model: positive semidefinite where the loss is convex in the
    outputs, and the Hessian itself where the outputs are linear in the parameters. From "Fast Curvature Matrix-Vector
    Products for Second-Order Gradient Descent" (Schraudolph, 2002, https://doi.org/10.1162/08997660260028683); see
    "New insights and perspectives on the natural gradient method" (Martens, 2014, https://arxiv.org/abs/1412.1193).

    Args:
      outputs_fn: `outputs_fn(params, batch)` → outputs, any tree of floating arrays: logits for instance. Keep the
        matrix that is made of it: another one is compiled anew.

    Returns:
      A matrix under which `loss_fn(outputs, batch)` is the loss of the outputs, the mean over the batch.

    Raises:
      ValueError: If `outputs_fn` cannot be called.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax.sharpness import matrices
      >>> matrix = matrices.gauss_newton(lambda w, x: x * w**2)
      >>> loss_fn = lambda outputs, x: jnp.mean(outputs**2)
      >>> print(matrix(loss_fn, jnp.array([1.0, 2.0]), jnp.ones(2), jnp.array([1.0, 1.0])))
      [ 4. 16.]
    """
    _check_function("outputs_fn", outputs_fn, "from parameters and a batch to outputs")

    def product(loss_fn: Callable[..., Any], params: Params, batch: Any, vector: Updates) -> Updates:
        outputs, push = jax.linearize(lambda w: outputs_fn(w, batch), params)
        curved = jax.jvp(jax.grad(lambda z: loss_fn(z, batch)), (outputs,), (push(vector),))[1]
        return jax.linear_transpose(push, params)(curved)[0]

    return product


def flat_operator(matrix: Matrix, loss_fn: Callable[..., Any], params: Params, batches: Iterable[Any]) -> FlatOperator:
    """The mean of a matrix over all examples, on flat vectors: `A v = Σ_b (n_b / n) A_b v`, with batches of sizes n_b.

    The parameters are widened to the accumulator's dtype first, bfloat16 to float32, and so `loss_fn` gets them. One
    product is compiled for each shape of batch, and kept for later calls with the same functions.

    Args:
      matrix: the matrix of one batch.
      loss_fn: `loss_fn(params, batch)` → scalar loss, or what `matrix` wants.
      params: any tree of real floating arrays.
      batches: an iterable of batches, with the examples along the leading axis.

    Returns:
      The operator.

    Raises:
      ValueError: If `matrix` or `loss_fn` cannot be called, if `params` is empty or not real, if there is no batch or
        one without a leading axis, or if a function is being traced, as `jax.jit` does.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax.sharpness import matrices
      >>> loss_fn = lambda w, x: jnp.mean(x) * w["a"] ** 2 / 2
      >>> batches = [jnp.ones(1), jnp.full(3, 5.0)]
      >>> print(matrices.flat_operator(matrices.hessian, loss_fn, {"a": 1.0}, batches).matvec(jnp.ones(1)))
      [4.]
    """
    _check_function("matrix", matrix, "(loss_fn, params, batch, vector) → product, as sharpness.hessian")
    losses.check("loss_fn", loss_fn)
    trees.check_real(params)
    collected = batches_of.collect(batches)
    _check_concrete(params, collected)
    wide = trees.widen(params)
    flat, unravel = ravel_pytree(wide)
    if not flat.size:
        raise ValueError(f"params is {params!r}, without a number in it: give at least one parameter.")
    sizes = [batches_of.size(batch) for batch in collected]

    def matvec(vector: jax.Array) -> jax.Array:
        # Accelerators round the factors of a product by default, and the matrix would not be symmetric.
        with jax.disable_jit(False), jax.default_matmul_precision("highest"):
            product = jnp.zeros_like(vector)
            for batch, size in zip(collected, sizes, strict=True):
                product += size / sum(sizes) * _product(matrix, loss_fn, wide, batch, vector)
            return product

    return FlatOperator(matvec, unravel, flat.size, flat.dtype)


def import_matfree(module: str) -> Any:
    """A module of matfree, which is no requirement of the core.

    Raises:
      ImportError: If matfree is not installed.
    """
    try:
        return importlib.import_module(f"matfree.{module}")
    except ImportError as error:
        raise ImportError("Measures of curvature need matfree: pip install 'sam_optax[curvature]'") from error


@functools.partial(jax.jit, static_argnums=(0, 1))
def _product(matrix: Matrix, loss_fn: Callable[..., Any], params: Params, batch: Any, vector: jax.Array) -> jax.Array:
    """The product of one batch, on a flat vector; compiled once for two functions and their shapes."""
    product = matrix(loss_fn, params, batch, ravel_pytree(params)[1](vector))
    trees.check_alike("The product of matrix", product, params, "return a tree like params.")
    return ravel_pytree(trees.cast_like(product, params))[0]


def _check_function(name: str, given: Any, meaning: str) -> None:
    if not callable(given):
        raise ValueError(f"{name} is {given!r}: give a function {meaning}.")


def _check_concrete(params: Params, collected: tuple[Any, ...]) -> None:
    """Raise `ValueError` in a function that is being traced: inside `jax.jit` every new array is a tracer."""
    if any(isinstance(x, Tracer) for x in jax.tree.leaves((params, collected, jnp.zeros(())))):
        raise ValueError(
            "params or batches are traced: a measure of curvature compiles its products itself and cannot stand inside "
            "jax.jit, jax.grad or jax.vmap. Call it outside."
        )
