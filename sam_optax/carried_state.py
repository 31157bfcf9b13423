"""Handles the model state that the loss takes as an argument and returns in its auxiliary output."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import trees
from sam_optax.batch_arguments import Call


class _Hole(NamedTuple):
    """Marks where the state was in the auxiliary output; it has no leaves."""


def split(call: Call, state_argnum: int | None) -> tuple[Any, Call]:
    """Removes the state from the arguments: `(state, call)`, where the call has None in place of the state.

    If `state_argnum` is None, the state is None and the call does not change.

    Raises:
      ValueError: If there is no such argument.
    """
    if state_argnum is None:
        return None, call
    count = len(call.args)
    if not -count <= state_argnum < count:
        raise ValueError(f"state_argnum is {state_argnum}, and there are {count} arguments after the parameters.")
    return call.args[state_argnum], call.replace(state_argnum, None)


def take(aux: Any, state: Any) -> tuple[Any, Any]:
    """Removes the state from the auxiliary output: `(aux, state)`, where `aux` has a hole in place of the state.

    The state is the whole auxiliary output, or the one of its direct children that has the structure, shapes and
    dtypes of `state`.

    Raises:
      ValueError: If no candidate fits, or if several children fit.
    """
    if _fits(aux, state):
        return _Hole(), aux
    found = [child for child in _children(aux) if _fits(child, state)]
    if len(found) != 1:
        raise ValueError(
            f"{len(found) or 'No'} direct children of the auxiliary output have the structure, shapes and dtypes of "
            "the argument that state_argnum names, expected exactly one: return the new state as the auxiliary output, "
            "or as one entry of it, as in (loss, (metrics, state))."
        )
    return jax.tree.map(lambda x: _Hole() if x is found[0] else x, aux, is_leaf=lambda x: x is found[0]), found[0]


def put(aux: Any, state: Any) -> Any:
    """Puts the state back into the hole of the auxiliary output."""
    return jax.tree.map(lambda x: state if _is_hole(x) else x, aux, is_leaf=_is_hole)


def refuse_unnamed(aux: Any, call: Call, *, only_counters: bool) -> None:
    """Raises `ValueError` if the auxiliary output holds a model's state that `state_argnum` does not name.

    Otherwise such a state would be averaged over the parts of a batch, and its counters and keys would be summed.

    Args:
      aux: the auxiliary output.
      call: the arguments of the loss, with None in place of each batch.
      only_counters: if True, refuse only a state with a leaf that is not floating; floating leaves are averaged over
        the devices in any case.

    Raises:
      ValueError: If a part of `aux` has the structure, shapes and dtypes of a container among the arguments.
    """
    named = [*enumerate(call.args), *call.kwargs.items()]
    states = [(name, node) for name, arg in named for node in _containers(arg)]
    if only_counters:
        states = [(name, node) for name, node in states if not all(map(trees.is_floating, jax.tree.leaves(node)))]
    for node in _containers(aux):
        for name, state in states:
            if _fits(node, state):
                raise ValueError(
                    "The auxiliary output contains a tree with the structure, shapes and dtypes of argument "
                    f"{name!r} after the parameters. If it is the new state of a model, give the position of that "
                    "argument, counted after the parameters, as state_argnum, and return the new state as the "
                    "auxiliary output or as one entry of it: it is then passed from part to part. If it is not a "
                    "state, return it in another container, for example in a dict with other keys."
                )


def _containers(tree: Any) -> list[Any]:
    """The subtrees of `tree` that are containers and hold an array; `tree` itself comes first."""
    children = _children(tree)
    if not children or not any(hasattr(x, "dtype") for x in jax.tree.leaves(tree)):
        return []
    return [tree, *(node for child in children for node in _containers(child))]


def _children(tree: Any) -> list[Any]:
    """The direct children of a container; the list is empty for a leaf."""
    children = jax.tree.leaves(tree, is_leaf=lambda node: node is not tree)
    return [] if len(children) == 1 and children[0] is tree else children


def _fits(tree: Any, state: Any) -> bool:
    if jax.tree.structure(tree) != jax.tree.structure(state):
        return False
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(state), strict=True)
    return all(_kind(x) == _kind(y) for x, y in pairs)


def _kind(x: Any) -> Any:
    return (jnp.shape(x), jnp.result_type(x)) if hasattr(x, "dtype") or isinstance(x, int | float) else x


def _is_hole(node: Any) -> bool:
    return isinstance(node, _Hole)
