"""Averages results over the parts of a batch, and passes a state from part to part."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sam_optax import devices, trees


class PartResult(NamedTuple):
    """The result of one part of a batch, or of all parts.

    Attributes:
      values: a tree whose floating leaves are averaged over the parts, and whose integer leaves are summed.
      weight: the weight of the part in the mean, a scalar. For all parts it is the sum of their weights. None means
        that all parts have the same weight.
      state: a tree that the next part starts from.
    """

    values: Any
    weight: jax.Array | None
    state: Any


PartFn = Callable[[Any, Any], PartResult]
"""`part_fn(part, state)` → the result of the part, where `state` is the state before it."""


def reduce(fn: PartFn, parts: Any, state: Any, count: Any = None) -> PartResult:
    """Applies `fn` to all parts; returns the weighted mean of the values, and the state after the last part.

        mean = Σ_i w_i x_i / Σ_i w_i

    A part of weight 0 adds nothing to a mean, whatever its values are, and does not change the floating leaves of the
    state. Integers are summed over all parts. If all weights are 0, the mean is 0. On an accelerator, a `lax.scan` over
    the parts needs the memory of only one part. On a CPU the loop is unrolled, because the gradient of a convolution is
    slow inside a compiled loop. With `count`, only the first parts are used, and all platforms have a loop that ends
    after them.

    Args:
      fn: `fn(part, state)` → the result of the part. It is traced once.
      parts: a tree whose leaves have the parts along their leading axis.
      state: the state before the first part.
      count: the number of parts that are used, which may be traced; None means all. If a traced count is not from 1 to
        the number of parts, all floating results are NaN.

    Returns:
      The result of the batch.

    Raises:
      ValueError: If a value is not a number, or if the state has another structure, shape or dtype after a part.
    """
    fn = jax.jit(fn)
    state, shapes = _start(fn, _part(parts, 0), state)
    devices.check_numbers(shapes.values, "the parts of the batch")
    number: Any = jax.tree.leaves(parts)[0].shape[0]
    if count is None:
        loop = _unrolled if jax.default_backend() == "cpu" else _scanned
        total, weight, state = loop(fn, parts, state, shapes)
    else:
        total, weight, state = _counted(fn, parts, state, shapes, count)
        number = jnp.where((count >= 1) & (count <= number), count, jnp.nan)
        weight = None if weight is None else weight * (number / number)  # NaN if the count is out of range
    return PartResult(_divide(total, number if weight is None else weight, shapes.values), weight, state)


def whole(result: PartResult, before: Any) -> PartResult:
    """The result of a batch with a single part; if its weight is 0, the values are 0 and the state is `before`."""
    if result.weight is None:
        return result
    unit = result.weight / jnp.where(result.weight == 0, 1, result.weight)  # exactly 1 or 0, or NaN
    values = _divide(_weighted(result._replace(weight=unit)), 1, result.values)
    return PartResult(values, result.weight, _kept(result, before))


def checked_weight(weight: Any) -> jax.Array:
    """The weight that `batch_weight` returned, in float32 or wider; NaN if it is negative and traced.

    Raises:
      ValueError: If it is not a real scalar, or negative.
    """
    is_real = hasattr(weight, "dtype") and not jnp.issubdtype(weight.dtype, jnp.complexfloating)
    if not (is_real or isinstance(weight, int | float)) or trees.is_key(weight) or jnp.shape(weight) != ():
        raise ValueError(f"batch_weight returned {weight!r}: return one real number, as jnp.sum(mask).")
    if not isinstance(weight, Tracer) and not weight >= 0:
        raise ValueError(f"batch_weight returned {weight!r}: return a number of at least 0.")
    wide = jnp.asarray(weight, jnp.promote_types(jnp.result_type(weight), jnp.float32))
    return jnp.where(wide >= 0, wide, jnp.nan)  # a negative traced number must not pass unnoticed


def _part(parts: Any, i: int) -> Any:
    return jax.tree.map(lambda x: jax.lax.index_in_dim(x, i, keepdims=False), parts)


def _unrolled(fn: PartFn, parts: Any, state: Any, shapes: PartResult) -> tuple[Any, Any, Any]:
    del shapes
    total = weight = None
    for i in range(jax.tree.leaves(parts)[0].shape[0]):
        result = fn(_part(parts, i), state)
        state = _kept(result, state)
        values = _weighted(result)
        total = values if total is None else _add(total, values)
        weight = result.weight if weight is None or result.weight is None else weight + result.weight
    return total, weight, state


def _scanned(fn: PartFn, parts: Any, state: Any, shapes: PartResult) -> tuple[Any, Any, Any]:
    start = jax.tree.map(lambda of: devices.zeros(of, _accumulator(of)), (shapes.values, shapes.weight))

    def body(carry: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], None]:
        sums, state = carry
        result = fn(part, state)
        return (_add(sums, (_weighted(result), result.weight)), _kept(result, state)), None

    (sums, state), _ = jax.lax.scan(body, (start, state), parts)
    return *sums, state


def _counted(fn: PartFn, parts: Any, state: Any, shapes: PartResult, count: Any) -> tuple[Any, Any, Any]:
    start = jax.tree.map(lambda of: devices.zeros(of, _accumulator(of)), (shapes.values, shapes.weight))

    def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        sums, state = carry
        part = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), parts)
        result = fn(part, state)
        return _add(sums, (_weighted(result), result.weight)), _kept(result, state)

    sums, state = jax.lax.fori_loop(0, count, body, (start, state))
    return *sums, state


def _start(fn: PartFn, part: Any, state: Any) -> tuple[Any, PartResult]:
    """The state before the first part, converted to the types that it has after a part; and the shapes of a result.

    Under `jax.shard_map` a leaf that is equal on all devices may vary over devices after a part. A loop requires that
    its type does not change.
    """
    state = jax.tree.map(lambda x: x if trees.is_key(x) else jnp.asarray(x, jnp.result_type(x)), state)
    while True:
        shapes = jax.eval_shape(fn, part, state)
        _check_state(shapes.state, state)
        varying = jax.tree.map(devices.vary_as, state, shapes.state)
        if all(jax.typeof(x) == jax.typeof(y) for x, y in zip(*map(jax.tree.leaves, (state, varying)), strict=True)):
            return state, shapes
        state = varying


def _weighted(result: PartResult) -> Any:
    """The values multiplied by the weight, in float32 or wider; integers do not change."""
    weight = result.weight

    def weigh(x: Any) -> jax.Array:
        wide = jnp.asarray(x, _accumulator(x))
        return wide if weight is None or not trees.is_floating(x) else jnp.where(weight == 0, 0, weight * wide)

    return jax.tree.map(weigh, result.values)


def _kept(result: PartResult, before: Any) -> Any:
    """The state after a part, in the dtypes of `before`; if the weight is 0, floating leaves do not change."""
    weight = result.weight

    def keep(new: Any, old: Any) -> Any:
        if trees.is_key(old):
            return new
        new = jnp.asarray(new, jnp.result_type(old))
        return new if weight is None or not trees.is_floating(old) else jnp.where(weight == 0, old, new)

    return jax.tree.map(keep, result.state, before)


def _divide(total: Any, weight: Any, like: Any) -> Any:
    """The mean in the dtypes of `like`: floating leaves are divided by a weight that is not 0; integers are sums."""
    weight = weight if isinstance(weight, int) else jnp.where(weight == 0, 1, weight)
    return jax.tree.map(
        lambda x, of: (x / weight).astype(jnp.result_type(of)) if trees.is_floating(of) else x, total, like
    )


def _add(total: Any, values: Any) -> Any:
    return jax.tree.map(jnp.add, total, values)


def _accumulator(x: Any) -> Any:
    dtype = jnp.result_type(x)
    return jnp.promote_types(dtype, jnp.float32) if trees.is_floating(x) else dtype


def _check_state(after: Any, before: Any) -> None:
    if jax.tree.structure(after) != jax.tree.structure(before):
        raise ValueError("The state has another structure after a part of the batch: the loss must keep its structure.")
    pairs = zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    for path, (new, old) in zip(trees.leaf_paths(before), pairs, strict=True):
        if jnp.shape(new) != jnp.shape(old) or jnp.result_type(new) != jnp.result_type(old):
            raise ValueError(
                f"The state has {jax.typeof(old).str_short()} at '{path}' and {new.dtype} of shape {new.shape} after a "
                "part of the batch: the loss must keep shapes and dtypes."
            )
