"""Curvature matrices: the Hessian and the Gauss-Newton matrix, as products with a vector."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from sam_optax import trees
from sam_optax.sharpness import losses, partition
from sam_optax.sharpness.partition import Leaves, Restricted, Subset
from sam_optax.typing import Mask, Params, Updates

Matrix = Callable[[Callable[..., Any], Params, Any, Updates], Updates]
"""`(loss_fn, params, batch, vector) → product`: a symmetric matrix times a vector, both trees like the parameters."""


class FlatOperator(NamedTuple):
    """A curvature matrix over all examples, on flat vectors of the chosen parameters.

    Attributes:
      matvec: from a vector `(size,)` to the product `(size,)`, in the accumulator's dtype. It compiles its own
        products, batch by batch, even inside `jax.disable_jit`.
      unravel: from a vector `(size,)` to a tree like the parameters, in the accumulator's dtype, with zeros outside of
        the mask.
      size: the number of chosen parameters.
      dtype: the dtype of the vectors: float64 if a chosen leaf has it, else float32.
    """

    matvec: Callable[[jax.Array], jax.Array]
    unravel: Callable[[jax.Array], Updates]
    size: int
    dtype: jnp.dtype


def hessian(loss_fn: Callable[..., Any], params: Params, batch: Any, vector: Updates) -> Updates:
    """The product `H v` with the Hessian `H = ∇²L(w)`: the derivative of the gradient along `v`.

    It is computed in forward-over-reverse mode, at about the cost of two gradients. From "Fast Exact Multiplication by
    the Hessian" (Pearlmutter, 1994, https://doi.org/10.1162/neco.1994.6.1.147).

    Args:
      loss_fn: `loss_fn(params, batch)` → scalar loss, the mean over the batch.
      params: the parameters at which the Hessian is taken.
      batch: the second argument of `loss_fn`.
      vector: a tree of the structure, shapes and dtypes of `params`.

    Returns:
      A tree like `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> loss_fn = lambda w, x: jnp.mean(x) * w[0] ** 2 * w[1]
      >>> print(sharpness.hessian(loss_fn, jnp.array([1.0, 2.0]), jnp.ones(3), jnp.array([1.0, 0.0])))
      [4. 2.]
    """
    return jax.jvp(jax.grad(lambda w: losses.scalar(loss_fn(w, batch))), (params,), (vector,))[1]


def gauss_newton(outputs_fn: Callable[..., Any]) -> Matrix:
    """The generalised Gauss-Newton matrix `G = Jᵀ ∇²ℓ(z) J`, with `J` the Jacobian of the outputs `z`.

    It is the Hessian without the curvature of the model: positive semidefinite if the loss is convex in the outputs,
    and equal to the Hessian if the outputs are linear in the parameters. From "Fast Curvature Matrix-Vector
    Products for Second-Order Gradient Descent" (Schraudolph, 2002, https://doi.org/10.1162/08997660260028683); see
    "New insights and perspectives on the natural gradient method" (Martens, 2014, https://arxiv.org/abs/1412.1193).

    Args:
      outputs_fn: `outputs_fn(params, batch)` → outputs, any tree of floating arrays, such as logits. Products are
        compiled once for each `outputs_fn`.

    Returns:
      A matrix for the argument `matrix` of the measures. Their `loss_fn(outputs, batch)` is then the loss of the
      outputs, the mean over the batch.

    Raises:
      ValueError: If `outputs_fn` is not a hashable function.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax import sharpness
      >>> matrix = sharpness.gauss_newton(lambda w, x: x * w**2)
      >>> loss_fn = lambda outputs, x: jnp.mean(outputs**2)
      >>> print(matrix(loss_fn, jnp.array([1.0, 2.0]), jnp.ones(2), jnp.array([1.0, 1.0])))
      [ 4. 16.]
    """
    losses.check_function("outputs_fn", outputs_fn, "from parameters and a batch to outputs")
    return GaussNewton(outputs_fn)


@dataclasses.dataclass(frozen=True)
class GaussNewton:
    """The matrix that `gauss_newton` returns.

    Attributes:
      outputs_fn: `outputs_fn(params, batch)` → outputs.
    """

    outputs_fn: Callable[..., Any]

    def __call__(self, loss_fn: Callable[..., Any], params: Params, batch: Any, vector: Updates) -> Updates:
        """The product `G v`."""
        outputs, push = jax.linearize(lambda w: self.outputs_fn(w, batch), params)
        if dtypes := [jnp.result_type(x) for x in jax.tree.leaves(outputs) if not trees.is_floating(x)]:
            raise ValueError(f"outputs_fn returns an array of dtype {dtypes[0]}: give real floating outputs.")
        curved = jax.jvp(jax.grad(lambda z: losses.scalar(loss_fn(z, batch))), (outputs,), (push(vector),))[1]
        return jax.linear_transpose(push, params)(curved)[0]


def flat_operator(
    matrix: Matrix, loss_fn: Callable[..., Any], params: Params, batches: Iterable[Any], mask: Mask | None = None
) -> FlatOperator:
    """The mean of a matrix over all examples, on flat vectors: `A v = Σ_b (n_b / n) A_b v`, with batches of sizes n_b.

    With a mask it is the block of the matrix that belongs to the chosen parameters. These are widened to the
    accumulator's dtype, bfloat16 to float32, before `loss_fn` gets them. One product is compiled for each shape of
    batch, and reused by later calls with the same functions.

    Args:
      matrix: the matrix of one batch.
      loss_fn: `loss_fn(params, batch)` → scalar loss, or the function that `matrix` needs.
      params: any tree of arrays.
      batches: an iterable of batches, with the examples along the leading axis.
      mask: the leaves of the block: a tree of bools, or a function from the parameters to one; None is all.

    Returns:
      The operator.

    Raises:
      ValueError: If `matrix` or `loss_fn` is not a hashable function, if `params` is empty, if `mask` does not fit or
        chooses no leaf or one that is not real floating, if `matrix` is a custom function and another leaf is not real
        floating, if there is no batch or one without a leading axis, or inside `jax.jit` and other transformations.

    Example:
      >>> import jax.numpy as jnp
      >>> from sam_optax.sharpness import matrices
      >>> loss_fn = lambda w, x: jnp.mean(x) * w["a"] ** 2 / 2
      >>> batches = [jnp.ones(1), jnp.full(3, 5.0)]
      >>> print(matrices.flat_operator(matrices.hessian, loss_fn, {"a": 1.0}, batches).matvec(jnp.ones(1)))
      [4.]
    """
    losses.check_function("matrix", matrix, "(loss_fn, params, batch, vector) → product, such as sharpness.hessian")
    losses.check("loss_fn", loss_fn)
    parts = partition.create(mask, params)
    if matrix is not hessian and not isinstance(matrix, GaussNewton):
        _check_all_real(params)
    collected = losses.collect_batches(batches)
    _check_concrete(params, collected)
    wide = trees.widen(parts.moved)
    flat, unravel = ravel_pytree(wide)
    if not flat.size:
        raise ValueError(f"params is {params!r}, without a number to move: give at least one parameter.")
    sizes = [losses.batch_size(batch) for batch in collected]
    block = _Block(matrix, loss_fn, parts.subset)

    def matvec(vector: jax.Array) -> jax.Array:
        # Accelerators round the factors of a product by default, and the matrix would not be symmetric.
        with jax.disable_jit(False), jax.default_matmul_precision("highest"):
            product = jnp.zeros_like(vector)
            for batch, size in zip(collected, sizes, strict=True):
                product += size / sum(sizes) * _product(block, wide, parts.arguments(batch), vector)
            return product

    return FlatOperator(matvec, lambda vector: parts.expand(unravel(vector)), flat.size, flat.dtype)


def import_matfree(module: str) -> Any:
    """A module of matfree, which is an optional dependency.

    Raises:
      ImportError: If matfree is not installed.
    """
    try:
        return importlib.import_module(f"matfree.{module}")
    except ImportError as error:
        raise ImportError("Measures of curvature need matfree: pip install 'sam_optax[curvature]'") from error


@dataclasses.dataclass(frozen=True)
class _Block:
    """The block of a matrix that belongs to the chosen leaves. It is hashable, so its product is compiled once."""

    matrix: Matrix
    loss_fn: Callable[..., Any]
    subset: Subset

    def product(self, moved: Leaves, arguments: tuple[Leaves, Any], vector: Leaves) -> Updates:
        """The product of one batch with a vector, both leaf by leaf."""
        if self.matrix is hessian:
            return hessian(Restricted(self.loss_fn, self.subset), moved, arguments, vector)
        if isinstance(self.matrix, GaussNewton):
            of_moved = GaussNewton(Restricted(self.matrix.outputs_fn, self.subset))
            return of_moved(lambda outputs, arguments: self.loss_fn(outputs, arguments[1]), moved, arguments, vector)
        fixed, batch = arguments
        params, padded = self.subset.join(moved, fixed), self.subset.join(vector, map(jnp.zeros_like, fixed))
        product = self.matrix(self.loss_fn, params, batch, padded)
        trees.check_alike("The product of matrix", product, params, "return a tree like params.")
        return self.subset.split(product)[0]


@functools.partial(jax.jit, static_argnums=0)
def _product(block: _Block, moved: Leaves, arguments: tuple[Leaves, Any], vector: jax.Array) -> jax.Array:
    """The product of one batch, on a flat vector."""
    product = block.product(moved, arguments, ravel_pytree(moved)[1](vector))
    return ravel_pytree(trees.cast_like(product, moved))[0]


def _check_all_real(params: Params) -> None:
    """Raises `ValueError` unless a custom matrix function can differentiate every leaf."""
    for path, leaf in zip(trees.leaf_paths(params), jax.tree.leaves(params), strict=True):
        if not trees.is_floating(leaf):
            raise ValueError(
                f"params has a leaf of dtype {jnp.result_type(leaf)} at '{path}', and matrix is a function of your "
                "own, which differentiates all of params: give sharpness.hessian or sharpness.gauss_newton(outputs_fn) "
                "for matrix, which differentiate the leaves of mask= alone, or keep this leaf out of params."
            )


def _check_concrete(params: Params, collected: tuple[Any, ...]) -> None:
    """Raises `ValueError` in a function that is being traced: inside `jax.jit` every new array is a tracer."""
    if trees.is_traced((params, collected, jnp.zeros(()))):
        raise ValueError(
            "params or batches are traced: a measure of curvature compiles its own products and cannot be used inside "
            "jax.jit, jax.grad or jax.vmap. Call it outside."
        )
