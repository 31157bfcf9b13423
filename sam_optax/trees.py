"""Arithmetic on trees of arrays, accumulated in float32 or wider, names of leaves, and comparisons of structures."""

from collections.abc import Callable, Collection
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from sam_optax.typing import Params, Updates

_NNX_VARIABLES = {"flax.nnx.variablelib.Variable", "flax.nnx.variablelib.VariableState"}

Names = tuple[str, ...]
"""The names on the path to a leaf."""


def accumulator_dtype(*trees: Any) -> jnp.dtype:
    """The dtype of reductions over `trees`: float64 if a leaf has it, else float32."""
    # a promotion of all dtypes would raise an error under `jax_numpy_dtype_promotion="strict"`
    has_float64 = any(jnp.result_type(x) == jnp.float64 for x in jax.tree.leaves(trees))
    return jnp.dtype(jnp.float64 if has_float64 else jnp.float32)


def inner(a: Updates, b: Updates) -> jax.Array:
    """The inner product `⟨a, b⟩` over all leaves of two trees of one structure.

    It is the sum of an elementwise product, and not a matrix product, since accelerators round the factors of a matrix
    product to fewer bits.
    """
    return _sum_of_products(a, b, _product)


class WideSum(NamedTuple):
    """A sum of products, and the same sum of factors that are scaled down.

    The squares of numbers above `1e19` are infinite in float32, for example for a gradient of norm `1e30`. If the plain
    sum overflows, `quotient` and `norm` use the scaled one. Both are always computed, since on the CPU a `lax.cond`
    around the scaled one takes more memory. If nothing overflows, the result has the bits of the plain sum.

    Attributes:
      plain: the sum.
      scaled: the sum times `down²`.
      down: the power of two that scales each factor, `2^-78` in float32. With it, the sum of `2^28` squares of the
        largest number is finite, and a sum that overflows has a term that does not underflow.
    """

    plain: jax.Array
    scaled: jax.Array
    down: float


def wide_inner(a: Updates, b: Updates) -> WideSum:
    """The inner product `⟨a, b⟩`, and that of both trees scaled down."""
    down = _down(accumulator_dtype(a, b))
    scaled = _sum_of_products(a, b, lambda x, y: _unfused((x * down) * (y * down)))
    return WideSum(inner(a, b), scaled, down)


def wide_product(a: jax.Array, b: jax.Array) -> WideSum:
    """The product of two norms, and that of both scaled down."""
    down = _down(accumulator_dtype(a, b))
    return WideSum(a * b, (a * down) * (b * down), down)


def quotient(top: WideSum, bottom: WideSum, tiny: float = 0.0) -> jax.Array:
    """`top / (bottom + tiny)`, finite even if one of the sums overflows; 0 if `bottom + tiny` is zero."""
    is_finite = jnp.isfinite(top.plain) & jnp.isfinite(bottom.plain)
    divisor = jnp.where(is_finite, bottom.plain + tiny, bottom.scaled)
    return jnp.where(is_finite, top.plain, top.scaled) / jnp.where(divisor == 0, 1, divisor)


def norm(tree: Updates) -> jax.Array:
    """The global L2 norm `‖tree‖`, over all leaves.

    It is infinite only if it is above the largest number of its dtype, and its derivative at zero is zero.
    """
    plain, scaled, down = wide_inner(tree, tree)
    is_finite = jnp.isfinite(plain)
    square = jnp.where(is_finite, plain, scaled)
    # the derivative of a root is infinite at zero, even in the branch of a `where` that is not selected
    is_zero = square == 0
    root = jnp.where(is_zero, square, jnp.sqrt(jnp.where(is_zero, 1, square)))
    return jnp.where(is_finite, root, root / down)


def widen(tree: Updates) -> Updates:
    """`tree` with every leaf in the accumulator's dtype.

    Low-precision trees are scaled between `widen` and `cast_like`, so that no intermediate product overflows and the
    result is rounded once.
    """
    dtype = accumulator_dtype(tree)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def cast_like(tree: Updates, like: Params) -> Updates:
    """`tree` with each leaf in the dtype of the corresponding leaf of `like`."""
    return jax.tree.map(lambda x, y: jnp.asarray(x, jnp.result_type(y)), tree, like)


def shifted(params: Params, offset: Updates) -> Params:
    """`w + ε`, in the parameters' dtypes."""

    def add(w: Any, e: Any) -> jax.Array:
        if jnp.result_type(w) == jnp.result_type(e):
            return jnp.add(w, e)
        dtype = accumulator_dtype(w, e)
        return jnp.asarray(w, dtype) + jnp.asarray(e, dtype)

    return cast_like(jax.tree.map(add, params, offset), params)


def is_floating(x: Any) -> bool:
    """Whether `x`, an array or its shape and dtype, holds real floating numbers."""
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.floating))


def is_key(x: Any) -> bool:
    """Whether `x` is an array of typed random keys."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def is_traced(tree: Any) -> bool:
    """Whether a leaf of `tree` is traced: a value inside a transformed function, which has no number yet."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))


def zeros_like(tree: Params) -> Updates:
    """Zeros of the shapes, dtypes and shardings of `tree`; no leaf is weakly typed, since no leaf of an update is."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, jnp.result_type(x)), tree)


def next_count(count: jax.Array) -> jax.Array:
    """The count plus one; it saturates at the largest int32."""
    return jnp.asarray(optax.safe_increment(count))


def fill_unmeasured(values: Any, measured: Any, unmeasured: Any) -> Any:
    """`values` where `measured`, else `unmeasured`.

    If a step measured nothing, a state holds zeros and a flag that is False, and the reader chooses the number to
    return. Concrete values are filled in on the host, since a compiled function that returns NaN raises an error under
    `jax.debug_nans(True)`.

    Args:
      values: a pytree of floating scalars or arrays.
      measured: whether they were measured, a bool or an array of bools of their shape.
      unmeasured: a real number.

    Returns:
      A tree like `values`.

    Raises:
      ValueError: If `unmeasured` is not a real number.
    """
    if not isinstance(unmeasured, Real | Tracer) and not (hasattr(unmeasured, "dtype") and np.shape(unmeasured) == ()):
        raise ValueError(f"unmeasured is {unmeasured!r}: give a number, NaN for instance.")

    def other(x: Any) -> Any:
        return unmeasured if isinstance(unmeasured, Tracer) else np.asarray(unmeasured, jnp.result_type(x))

    if is_traced((values, measured, unmeasured)):
        return jax.tree.map(lambda x: jnp.where(measured, x, other(x)), values)
    if np.all(measured):
        return values
    return jax.tree.map(lambda x: jax.device_put(np.where(measured, x, other(x))), values)


def leaf_names(tree: Any) -> list[Names]:
    """The names on the path to each leaf, such as `("dense", "kernel")`.

    The last name `value` with which the path of every variable of Flax NNX ends is dropped.
    """
    variables = _variables(tree)
    return [_names(path, variables) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def masked_names(tree: Any) -> list[Names]:
    """The names on the path to each `optax.MaskedNode`, which hides a leaf, or all leaves below it."""
    variables = _variables(tree)
    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_masked)
    return [_names(path, variables) for path, node in nodes if _is_masked(node)]


def leaf_paths(tree: Any) -> list[str]:
    """The path of each leaf, its names joined by `/`, such as `dense/kernel`."""
    return ["/".join(names) for names in leaf_names(tree)]


def holds_masked(tree: Any) -> bool:
    """Whether leaves are replaced by `optax.MaskedNode`, as inside of `optax.masked` and `optax.multi_transform`."""
    return bool(masked_names(tree))


def check_alike(name: str, tree: Any, params: Params, remedy: str) -> None:
    """Raises `ValueError` unless `tree` has the structure and the shapes of `params`."""
    if jax.tree.structure(tree) != jax.tree.structure(params):
        raise ValueError(f"{name} does not have the structure of params: {remedy} {first_difference(tree, params)}")
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True)
    for path, (x, y) in zip(leaf_paths(params), pairs, strict=True):
        if jnp.shape(x) != jnp.shape(y):
            raise ValueError(f"{name} has shape {jnp.shape(x)} at '{path}', where params has {jnp.shape(y)}: {remedy}")


def first_difference(tree: Any, params: Params) -> str:
    """One sentence about the first difference of two structures; it is short for trees of any size."""
    ours, theirs = leaf_paths(tree), leaf_paths(params)
    missing, further = [x for x in theirs if x not in ours], [x for x in ours if x not in theirs]
    counts = f"Its number of leaves is {len(ours)}, that of params {len(theirs)}"
    if missing:
        return f"{counts}; the first that is missing is at '{missing[0]}'."
    if further:
        return f"{counts}; the first that params does not have is at '{further[0]}'."
    return (
        f"The leaves have the same names in other containers: {_containers(tree)}, and in params {_containers(params)}."
    )


def _containers(tree: Any) -> str:
    """The names of the types of all nodes."""
    node = jax.tree.structure(tree)
    names, below = [], [node]
    while below:
        node = below.pop(0)
        if node.node_data() is not None:
            kind = node.node_data()[0].__name__
            names += [kind] if kind not in names else []
            below += node.children()
    return ", ".join(names)


def _names(path: tuple[Any, ...], variables: Collection[tuple[Any, ...]]) -> Names:
    """The names of a path, without the attribute `value` of the NNX variables, whose paths are given."""
    names = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
    return names[:-1] if names[1:] and path[:-1] in variables else names


def _variables(tree: Any) -> set[tuple[Any, ...]]:
    """The paths of the variables of Flax NNX, which is not imported here."""
    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_variable)
    return {path for path, node in nodes if _is_variable(node)}


def _is_variable(node: Any) -> bool:
    return any(f"{each.__module__}.{each.__name__}" in _NNX_VARIABLES for each in type(node).__mro__)


def _down(dtype: jnp.dtype) -> float:
    """The power of two that scales down the factors of a sum, so that no square overflows."""
    return 2.0**-600 if dtype == jnp.float64 else 2.0**-78


def _sum_of_products(a: Updates, b: Updates, product: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """The sum of `product(x, y)` over all entries of all leaves, which are in the accumulator's dtype."""
    dtype = accumulator_dtype(a, b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    sums = (jnp.sum(product(jnp.asarray(x, dtype), jnp.asarray(y, dtype))) for x, y in pairs)
    return sum(sums, start=jnp.zeros((), dtype))


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x · y`; for two convolution kernels, the product is not fused with the sum that follows.

    On the CPU a library computes a fused product and sum of arrays whose axes are stored in their order. The axes of a
    kernel's gradient are not, so the library would copy it: one more copy of all kernels between the two passes.
    """
    return x * y if x.ndim <= 2 else _unfused(x * y)


def _unfused(x: jax.Array) -> jax.Array:
    """`x`, rounded to its own precision: this keeps every bit, and no CPU library fuses it with the next operation."""
    precision = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(x, precision.nexp, precision.nmant)


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
