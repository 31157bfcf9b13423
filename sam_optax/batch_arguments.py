"""Which arguments of a loss function are batches, and how they are cut into parts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from sam_optax import trees

_KEY_LENGTHS = (2, 4)  # of an old-style random key, a vector of uint32


class Call(NamedTuple):
    """The arguments of a loss function after the parameters.

    Attributes:
      args: the positional arguments.
      kwargs: the keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def replace(self, argnum: int, value: Any) -> "Call":
        """The call with another positional argument at `argnum`."""
        args = list(self.args)
        args[argnum] = value
        return self._replace(args=tuple(args))

    def put(self, batches: "Call") -> "Call":
        """The call with its batches replaced by `batches`; an argument that is None in `batches` is kept."""
        args = (own if batch is None else batch for own, batch in zip(self.args, batches.args, strict=True))
        return Call(tuple(args), self.kwargs | batches.kwargs)

    def without(self, batches: "Call") -> "Call":
        """The call with None in place of each positional argument that is in `batches`, and without its keywords."""
        args = (own if batch is None else None for own, batch in zip(self.args, batches.args, strict=True))
        return Call(tuple(args), {name: arg for name, arg in self.kwargs.items() if name not in batches.kwargs})


@dataclass(frozen=True)
class BatchArguments:
    """The names of the arguments that are batches.

    Attributes:
      argnums: positions, counted after the parameters; None means that the positions are found by shape.
      argnames: names of keyword arguments; None means that no keyword argument may be an array.
    """

    argnums: tuple[int, ...] | None = None
    argnames: tuple[str, ...] | None = None

    @classmethod
    def create(cls, batch_argnums: Any, batch_argnames: Any) -> "BatchArguments":
        """The names as the user gives them: one or several.

        Raises:
          ValueError: If `batch_argnums` has an entry that is not an integer, or `batch_argnames` one that is not a
            string.
        """
        nums, names = _as_tuple(batch_argnums), _as_tuple(batch_argnames)
        if nums is not None and not all(isinstance(i, Integral) and not isinstance(i, bool) for i in nums):
            raise ValueError(f"batch_argnums is {batch_argnums!r}: give an integer, or a sequence of integers.")
        if names is not None and not all(isinstance(name, str) for name in names):
            raise ValueError(f"batch_argnames is {batch_argnames!r}: give a string, or a sequence of strings.")
        return cls(None if nums is None else tuple(map(int, nums)), names)

    def select(self, call: Call) -> Call:
        """The batches of a call: its arguments, with None in place of each one that every part gets as a whole.

        Raises:
          ValueError: If a name fits no argument, or if it is not certain whether an argument is a batch.
        """
        named = self._named_keywords(call)
        if self.argnums is None:
            _check_certain(call, named)
            chosen = {i for i, arg in enumerate(call.args) if _can_be_cut(arg)}
        else:
            chosen = {_position(i, call) for i in self.argnums}
        return Call(tuple(arg if i in chosen else None for i, arg in enumerate(call.args)), named)

    def named(self, call: Call) -> Call:
        """The named batches of a call. This is enough if the batch is not cut."""
        chosen = {_position(i, call) for i in self.argnums or ()}
        args = tuple(arg if i in chosen else None for i, arg in enumerate(call.args))
        return Call(args, {name: call.kwargs[name] for name in self.argnames or () if name in call.kwargs})

    def size(self, call: Call) -> int:
        """The number of examples in the batches of a call, which need not be cut."""
        named = self.named(call)
        if self.argnums is None:
            named = named._replace(args=tuple(arg if _can_be_cut(arg) else None for arg in call.args))
        return batch_size(named)

    def _named_keywords(self, call: Call) -> dict[str, Any]:
        if missing := [name for name in self.argnames or () if name not in call.kwargs]:
            raise ValueError(f"batch_argnames has {missing[0]!r}, and the keyword arguments are {sorted(call.kwargs)}.")
        if self.argnames is None:
            arrays = [name for name, arg in call.kwargs.items() if any(map(_has_axis, jax.tree.leaves(arg)))]
            if arrays:
                raise ValueError(
                    f"The keyword argument {arrays[0]!r} is an array, and the batch is cut into parts: name it in "
                    f"batch_argnames=({arrays[0]!r},) if it is a batch; if it goes whole to every part, give "
                    "batch_argnames without it, as batch_argnames=()."
                )
        return {name: call.kwargs[name] for name in self.argnames or ()}


def batch_size(batches: Call) -> int:
    """The length of the leading axis that all leaves of the batches share.

    Raises:
      ValueError: If there is no such leaf or axis, or if the leaves disagree.
    """
    lengths = {path: jnp.shape(x)[0] if jnp.ndim(x) else 0 for path, x in _leaves(batches)}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            f"The batch has leaves with leading axes {lengths}, 0 for none: give batches whose leaves share one, and "
            "name the arguments that are batches, counted after the parameters, by batch_argnums. (A state that the "
            "loss returns is named by state_argnum.)"
        )
    return next(iter(lengths.values()))


def cut(batches: Call, parts: int, name: str = "micro_batches") -> Call:
    """The batches with each leaf `(batch, …)` reshaped to `(parts, batch / parts, …)`.

    Parts are contiguous. On an explicit mesh each part is spread over the devices that the batch is spread over, or
    replicated if they do not divide it.

    Args:
      batches: the batches of a call.
      parts: the number of parts.
      name: the argument that the number belongs to, for the message.

    Raises:
      ValueError: If `parts` does not divide the batch.
    """
    size = batch_size(batches)
    if size % parts:
        raise ValueError(f"{name} is {parts}, and the batch has {size} examples: give a number that divides it.")
    return jax.tree.map(lambda x: _cut_leaf(x, parts), batches)


def _cut_leaf(x: Any, parts: int) -> jax.Array:
    shape = (parts, x.shape[0] // parts, *x.shape[1:])
    sharding = jax.typeof(x).sharding
    if sharding is None or all(axis is None for axis in sharding.spec):
        return jnp.reshape(x, shape)
    rows, *others = sharding.spec
    axes = [None, rows if shape[1] % _devices_along(sharding.mesh, rows) == 0 else None, *others]
    return jax.lax.reshape(x, shape, out_sharding=NamedSharding(sharding.mesh, PartitionSpec(*axes)))


def _devices_along(mesh: Any, axes: Any) -> int:
    """The number of devices along one mesh axis, or several, or none."""
    names = axes if isinstance(axes, tuple) else (axes,)
    return math.prod(mesh.shape[name] for name in names if name is not None)


def _check_certain(call: Call, named: dict[str, Any]) -> None:
    """Raises `ValueError` if the shapes of the arguments do not determine which of them are batches.

    With a single argument that can be cut, that one is the batch. With several, a floating vector can be targets or one
    number for each class if another array has a higher rank, and a square matrix can be features or costs of pairs of
    classes if another array has rows, too.
    """
    candidates = {i: arg for i, arg in enumerate(call.args) if _can_be_cut(arg)}
    found = Call(tuple(candidates.values()), named)
    if not jax.tree.leaves(found):
        return
    length = batch_size(Call(tuple(arg if i in candidates else None for i, arg in enumerate(call.args)), named))
    ranks = [jnp.ndim(x) for x in jax.tree.leaves(found)]
    for i, arg in enumerate(call.args):
        is_single = i in candidates and len(candidates) + len(named) == 1
        for x in [] if is_single else jax.tree.leaves(arg):
            if _is_ambiguous(x, length, ranks, cuttable=i in candidates):
                raise ValueError(
                    f"Argument {i} after the parameters has {jax.typeof(x).str_short()}, and the batch has {length} "
                    "examples: it is unclear whether it is a batch. Name the arguments that are batches by "
                    "batch_argnums, counted after the parameters, and a state that the loss returns by state_argnum."
                )


def _is_ambiguous(x: Any, length: int, ranks: Sequence[int], cuttable: bool) -> bool:
    shape = jnp.shape(x)
    if not shape or shape[0] != length or not hasattr(x, "dtype"):
        return False
    if not cuttable or trees.is_key(x):  # in a container with leaves that cannot be cut, or one key for each example
        return True
    if x.dtype == jnp.uint32 and len(shape) == 1 and length in _KEY_LENGTHS:
        return True
    of_rows = sum(rank > 1 for rank in ranks)
    is_vector = len(shape) == 1 and of_rows > 0
    is_square = shape == (length, length) and of_rows > 1
    return trees.is_floating(x) and (is_vector or is_square)


def _can_be_cut(arg: Any) -> bool:
    leaves = jax.tree.leaves(arg)
    return bool(leaves) and all(_has_axis(x) and not trees.is_key(x) for x in leaves)


def _has_axis(x: Any) -> bool:
    return getattr(x, "ndim", 0) > 0


def _position(i: int, call: Call) -> int:
    if not -len(call.args) <= i < len(call.args):
        raise ValueError(f"batch_argnums has {i}, and there are {len(call.args)} arguments after the parameters.")
    return i % len(call.args)


def _leaves(batches: Call) -> Iterator[tuple[str, Any]]:
    named = [(f"argument {i}", arg) for i, arg in enumerate(batches.args)]
    named += [(f"argument {name!r}", arg) for name, arg in batches.kwargs.items()]
    for name, arg in named:
        for path, x in zip(trees.leaf_paths(arg), jax.tree.leaves(arg), strict=True):
            yield f"{name}: {path}", x


def _as_tuple(given: Any) -> tuple[Any, ...] | None:
    if given is None:
        return None
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
