"""Means over the devices of a named axis, under `jax.shard_map`, `jax.pmap` and `jax.vmap` alike; None is no axis."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sam_optax import trees


def vary(tree: Any, axis_name: Any) -> Any:
    """`tree` as values of each device, of which there may be different ones along the axis.

    Under `jax.shard_map` the gradient by parameters that are the same everywhere is summed over the devices, unasked.
    The gradient by these is each device's own.
    """
    return tree if axis_name is None else jax.tree.map(lambda x: _vary(x, axis_name), tree)


def vary_like(tree: Any, like: Any) -> Any:
    """`tree` with its floating leaves varying over the axes that some leaf of `like` varies over.

    Both branches of a `cond` have to agree in that, and one may return what it was given.
    """
    axes = tuple(sorted({axis for x in jax.tree.leaves(like) for axis in _axes(jax.typeof(x))}, key=str))
    return jax.tree.map(lambda x: _vary(x, axes) if trees.is_floating(x) else x, tree)


def mean(tree: Any, axis_name: Any) -> Any:
    """`tree` with its floating leaves averaged over the devices; the others stay what they are."""
    return _reduce(tree, axis_name, lambda x: x)


def mean_or_sum(tree: Any, axis_name: Any) -> Any:
    """`tree` with its floating leaves averaged over the devices and its integer leaves summed."""
    return _reduce(tree, axis_name, lambda x: jax.lax.psum(_vary(x, axis_name), axis_name))


def count(axis_name: Any) -> int:
    """The number of devices along the axis."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def _reduce(tree: Any, axis_name: Any, otherwise: Callable[[Any], Any]) -> Any:
    def reduce(x: Any) -> Any:
        if not trees.is_floating(x):
            return otherwise(x)
        wide = jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))
        return jax.lax.pmean(_vary(wide, axis_name), axis_name).astype(jnp.result_type(x))

    return tree if axis_name is None else jax.tree.map(reduce, tree)


def _vary(x: Any, axis_name: Any) -> Any:
    """`x`, varying over the axes; only `jax.shard_map` keeps track, and takes an axis that is new alone."""
    axes = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    tracked, already = jax.sharding.get_abstract_mesh().manual_axes, _axes(jax.typeof(x))
    missing = tuple(axis for axis in axes if axis in tracked and axis not in already)
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def zeros(of: jax.ShapeDtypeStruct, dtype: Any) -> jax.Array:
    """Zeros of the shape of `of`, which vary over the axes that it varies over: what a scan may start from."""
    start = jnp.zeros(of.shape, dtype)
    axes = _axes(of)
    return jax.lax.pcast(start, axes, to="varying") if axes else start


def _axes(kind: Any) -> tuple[Any, ...]:
    """The device axes that values of this type vary over, as `jax.shard_map` keeps track of them."""
    return tuple(getattr(getattr(kind, "manual_axis_type", None), "varying", ()))
