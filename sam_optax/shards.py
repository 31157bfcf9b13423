"""A batch in equal parts, and what is computed of each, averaged."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sam_optax import devices, trees

Parted = Callable[[Any], tuple[Any, Any]]
"""From a shard to `(what is averaged, what the last shard says for all)`."""


def split(args: Sequence[Any], argnums: Sequence[int], parts: int) -> list[Any]:
    """The arguments at `argnums`, each leaf `(batch, …)` reshaped to `(parts, batch / parts, …)`.

    Args:
      args: the positional arguments after the parameters.
      argnums: which of them are batches.
      parts: the number of shards.

    Returns:
      The arguments at `argnums`, in their order.

    Raises:
      ValueError: If `parts` does not divide the batch.
    """
    size = batch_size(args, argnums)
    if size % parts:
        raise ValueError(f"micro_batches is {parts}, and the batch has {size} examples: give a number that divides it.")
    return [jax.tree.map(lambda x: jnp.reshape(x, (parts, size // parts, *x.shape[1:])), args[i]) for i in argnums]


def batches_among(args: Sequence[Any], batch_argnums: int | Sequence[int] | None) -> tuple[int, ...]:
    """The arguments that are batches: those named, or where none is all whose leaves have an axis, keys apart."""
    if batch_argnums is None:
        return tuple(
            i for i, arg in enumerate(args) if jax.tree.leaves(arg) and all(map(_has_axis, jax.tree.leaves(arg)))
        )
    return tuple(batch_argnums) if isinstance(batch_argnums, Sequence) else (int(batch_argnums),)


def batch_size(args: Sequence[Any], argnums: Sequence[int]) -> int:
    """The length of the leading axis that all leaves of the arguments at `argnums` share.

    Raises:
      ValueError: If there is no such argument, leaf or axis, or if the leaves disagree.
    """
    for i in argnums:
        if not -len(args) <= i < len(args):
            raise ValueError(f"batch_argnums has {i}, and there are {len(args)} arguments after the parameters.")
    leaves = [(f"argument {i}: {path}", x) for i in argnums for path, x in _leaves(args[i])]
    lengths = {path: jnp.shape(x)[0] if jnp.ndim(x) else 0 for path, x in leaves}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            f"The batch has leaves with leading axes {lengths}, 0 for none: give batches whose leaves share one, and "
            "name the arguments that are batches, counted after the parameters, by batch_argnums."
        )
    return next(iter(lengths.values()))


def put_back(args: Sequence[Any], argnums: Sequence[int], shard: Sequence[Any]) -> list[Any]:
    """The arguments with those at `argnums` replaced by their part."""
    replaced = list(args)
    for i, part in zip(argnums, shard, strict=True):
        replaced[i] = part
    return replaced


def average(fn: Parted, shards: Any) -> tuple[Any, Any]:
    """What `fn` says of the shards: its floating leaves averaged and its integer leaves summed, and the last remark.

    On accelerators a scan, whose memory is that of one shard. On the CPU, where the gradient of a convolution is slow
    inside a loop, the shards one after the other.

    Args:
      fn: of a shard; traced once.
      shards: a tree whose leaves have the shards along their leading axis.

    Returns:
      Both results of `fn`, the first one reduced, the second one of the last shard.
    """
    fn = jax.jit(fn)  # traced once for all of them
    parts = jax.tree.leaves(shards)[0].shape[0]
    shapes, last_shapes = jax.eval_shape(fn, jax.tree.map(lambda x: x[0], shards))
    _check_numbers(shapes)
    on_cpu = jax.default_backend() == "cpu"
    total, last = _unrolled(fn, shards, parts) if on_cpu else _scanned(fn, shards, shapes, last_shapes)
    return _mean(total, parts, shapes), last


def mean(found: Sequence[Any]) -> Any:
    """The trees, one a part, as one: floating leaves averaged, in float32 or wider, and integer leaves summed."""
    _check_numbers(found[0])
    return _mean(functools.reduce(_add, map(_widen, found)), len(found), found[0])


def _unrolled(fn: Parted, shards: Any, parts: int) -> tuple[Any, Any]:
    total = last = None
    for i in range(parts):
        found, last = fn(jax.tree.map(lambda x, i=i: x[i], shards))
        total = _widen(found) if total is None else _add(total, _widen(found))
    return total, last


def _scanned(fn: Parted, shards: Any, shapes: Any, last_shapes: Any) -> tuple[Any, Any]:
    start = jax.tree.map(lambda of: devices.zeros(of, _accumulator(of)), shapes)
    before = jax.tree.map(lambda of: devices.zeros(of, of.dtype), last_shapes)

    def body(carry: tuple[Any, Any], shard: Any) -> tuple[tuple[Any, Any], None]:
        found, last = fn(shard)
        return (_add(carry[0], _widen(found)), last), None

    return jax.lax.scan(body, (start, before), shards)[0]


def _add(total: Any, found: Any) -> Any:
    return jax.tree.map(jnp.add, total, found)


def _widen(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, _accumulator(x)), tree)


def _mean(total: Any, parts: int, like: Any) -> Any:
    """The mean in the types of `like`, of floating leaves; integer leaves stay sums."""
    return jax.tree.map(
        lambda x, of: (x / parts).astype(jnp.result_type(of)) if trees.is_floating(of) else x, total, like
    )


def _accumulator(x: Any) -> Any:
    dtype = jnp.result_type(x)
    return jnp.promote_types(dtype, jnp.float32) if trees.is_floating(x) else dtype


def _check_numbers(tree: Any) -> None:
    for dtype in map(jnp.result_type, jax.tree.leaves(tree)):
        if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
            raise ValueError(
                f"The auxiliary output has a leaf of dtype {dtype}: give floating numbers, which are averaged over the "
                "parts of the batch, or integers, which are summed."
            )


def _has_axis(x: Any) -> bool:
    return getattr(x, "ndim", 0) > 0 and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return list(zip(trees.leaf_paths(tree), jax.tree.leaves(tree), strict=True))
