"""Means over the devices of a named axis, under `jax.shard_map`, `jax.pmap` and `jax.vmap`; None means no axis."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import trees


def vary(tree: Any, axis_name: Any) -> Any:
    """`tree`, marked as varying over the devices of the axis.

    Under `jax.shard_map` a gradient with respect to parameters that are equal on all devices is summed over them. With
    respect to varying parameters, each device has its own gradient.
    """
    return tree if axis_name is None else jax.tree.map(lambda x: _vary(x, axis_name), tree)


def vary_like(tree: Any, like: Any) -> Any:
    """`tree` with its floating leaves varying over the axes that some leaf of `like` varies over.

    The branches of a `cond` must vary over the same axes, and a branch may return one of its arguments.
    """
    axes = tuple(sorted({axis for x in jax.tree.leaves(like) for axis in _axes(jax.typeof(x))}, key=str))
    return jax.tree.map(lambda x: _vary(x, axes) if trees.is_floating(x) else x, tree)


def choose(decision: Any, if_true: Callable[[], Any], if_false: Callable[[], Any], like: Any) -> Any:
    """The result of one of two functions: by `lax.cond` if the decision is traced, else by calling only that one."""
    if isinstance(decision, bool | np.bool_):
        return if_true() if decision else if_false()
    branches = [lambda branch=branch: vary_like(branch(), like) for branch in (if_true, if_false)]
    return jax.lax.cond(decision, *branches)


def vary_as(x: Any, like: jax.ShapeDtypeStruct) -> Any:
    """`x`, varying also over the axes that an array of the type `like` varies over."""
    return _vary(x, _axes(like))


def mean(tree: Any, axis_name: Any, weight: jax.Array | None = None) -> Any:
    """`tree` with its floating leaves averaged over the devices; the other leaves do not change.

    If the weights of all devices are 0, the mean has equal weights. It is used for states, which then have not changed.
    """
    if axis_name is None or weight is None:
        return _reduce(tree, axis_name, None, lambda x: x)
    nothing = sum_over(weight, axis_name) == 0
    return _reduce(tree, axis_name, jnp.where(nothing, 1, weight), lambda x: x)


def mean_state(tree: Any, axis_name: Any, weight: jax.Array | None = None) -> Any:
    """The mean of a method's state: as `mean`, and a flag is True if it is on every device."""
    if axis_name is None:
        return tree
    averaged = mean(tree, axis_name, weight)
    return jax.tree.map(lambda x: on_all(x, axis_name) if jnp.result_type(x) == jnp.bool_ else x, averaged)


def mean_or_sum(tree: Any, axis_name: Any, weight: jax.Array | None = None) -> Any:
    """`tree` with its floating leaves averaged over the devices and its integer leaves summed.

    With weights the mean is `Σ_i w_i x_i / Σ_i w_i`; a device of weight 0 adds nothing to it, whatever its values are.

    Raises:
      ValueError: If a leaf is neither floating nor an integer.
    """
    if axis_name is not None:
        check_numbers(tree, "the devices")
    return _reduce(tree, axis_name, weight, lambda x: sum_over(x, axis_name))


def check_numbers(values: Any, over: str) -> None:
    """Raises `ValueError` unless all leaves can be averaged or summed; `over` describes over what in the message."""
    for dtype in map(jnp.result_type, jax.tree.leaves(values)):
        if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
            raise ValueError(
                f"The auxiliary output has a leaf of dtype {dtype}: give floating numbers, which are averaged over "
                f"{over}, or integers, which are summed. A state of the model is named by state_argnum, and its leaves "
                "may have any dtype."
            )


def sum_over(x: Any, axis_name: Any) -> jax.Array:
    """The sum over the devices."""
    return jax.lax.psum(_vary(x, axis_name), axis_name)


def on_all(flag: jax.Array, axis_name: Any) -> jax.Array:
    """Whether a flag is True on all devices."""
    return jax.lax.pmin(_vary(flag.astype(jnp.int32), axis_name), axis_name) == 1


def count(axis_name: Any) -> int:
    """The number of devices along the axis."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def zeros(of: jax.ShapeDtypeStruct, dtype: Any) -> jax.Array:
    """Zeros with the shape, sharding and varying axes of `of`: an initial carry of a scan."""
    sharding = of.sharding if any(axis is not None for axis in getattr(of.sharding, "spec", ())) else None
    start = jnp.zeros(of.shape, dtype) if sharding is None else jnp.zeros(of.shape, dtype, out_sharding=sharding)
    return _vary(start, _axes(of))


def _reduce(tree: Any, axis_name: Any, weight: jax.Array | None, otherwise: Callable[[Any], Any]) -> Any:
    if axis_name is None:
        return tree
    total = None if weight is None else sum_over(weight, axis_name)

    def average(x: jax.Array) -> jax.Array:
        if weight is None or total is None:
            return jax.lax.pmean(_vary(x, axis_name), axis_name)
        return sum_over(jnp.where(weight == 0, 0, weight * x), axis_name) / jnp.where(total == 0, 1, total)

    def reduce(x: Any) -> Any:
        if not trees.is_floating(x):
            return otherwise(x)
        wide = jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
        return average(wide).astype(jnp.result_type(x))

    return jax.tree.map(reduce, tree)


def _vary(x: Any, axis_name: Any) -> Any:
    """`x`, varying over the axes. Only `jax.shard_map` tracks this, and it accepts only axes that are new."""
    axes = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    tracked, already = jax.sharding.get_abstract_mesh().manual_axes, _axes(jax.typeof(x))
    missing = tuple(axis for axis in axes if axis in tracked and axis not in already)
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def _axes(kind: Any) -> tuple[Any, ...]:
    """The device axes that values of this type vary over, as `jax.shard_map` keeps track of them."""
    return tuple(getattr(getattr(kind, "manual_axis_type", None), "varying", ()))
