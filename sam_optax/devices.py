"""Means over the devices of a named axis, under `jax.shard_map`, `jax.pmap` and `jax.vmap` alike."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def vary(tree: Any, axis_name: Any) -> Any:
    """`tree` as values of each device, of which there may be different ones along the axis.

    Under `jax.shard_map` the gradient by parameters that are the same everywhere is summed over the devices, unasked.
    The gradient by these is each device's own.
    """
    return jax.tree.map(lambda x: _vary(x, axis_name), tree)


def mean(tree: Any, axis_name: Any) -> Any:
    """`tree` with its floating leaves averaged over the devices; the others stay what they are."""
    return _reduce(tree, axis_name, lambda x: x)


def mean_or_sum(tree: Any, axis_name: Any) -> Any:
    """`tree` with its floating leaves averaged over the devices and its integer leaves summed."""
    return _reduce(tree, axis_name, lambda x: jax.lax.psum(_vary(x, axis_name), axis_name))


def _reduce(tree: Any, axis_name: Any, otherwise: Callable[[Any], Any]) -> Any:
    def reduce(x: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            return otherwise(x)
        wide = jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
        return jax.lax.pmean(_vary(wide, axis_name), axis_name).astype(jnp.result_type(x))

    return jax.tree.map(reduce, tree)


def _vary(x: Any, axis_name: Any) -> Any:
    try:
        return jax.lax.pcast(x, axis_name, to="varying")
    except ValueError:  # it varies already, or nothing is tracked, as under vmap
        return x


def zeros(of: jax.ShapeDtypeStruct, dtype: Any) -> jax.Array:
    """Zeros of the shape of `of`, which vary over the axes that it varies over: what a scan may start from."""
    kind = getattr(of, "manual_axis_type", None)
    axes = tuple(kind.varying) if kind is not None else ()
    start = jnp.zeros(of.shape, dtype)
    return jax.lax.pcast(start, axes, to="varying") if axes else start
