"""The momentum of each leaf in the state of an optimizer, also where its partitions keep one each."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_optax import trees
from sam_optax.trees import Names
from sam_optax.typing import Params, State

Momenta = list[jax.Array | None]
"""For each leaf of the parameters, in their order; None where no momentum is needed."""

_KNOWN = {optax.TraceState: "trace", optax.ScaleByAdamState: "mu"}
_FIELDS = ("trace", "mu", "momentum")  # those of other states are named in the error


class _Found(NamedTuple):
    """A momentum in an optimizer's state; inside of a partition it has some leaves of the parameters only."""

    kind: str
    is_known: bool
    leaves: dict[Names, jax.Array]


def in_state(base_state: State, params: Params, chosen: Any) -> Momenta:
    """The momentum `v` of each leaf: `trace` of SGD, `mu` of Adam, the uncorrected first moment.

    Args:
      base_state: the state of an optimizer; several partitions may keep a momentum each.
      params: the parameters.
      chosen: a tree of bools: the leaves whose momentum is needed.

    Raises:
      ValueError: If a chosen leaf has no momentum of a known kind, or several.
    """
    found = list(_all_in(base_state))

    def of_leaf(names: Names, leaf: Any) -> jax.Array:
        own = [each for each in found if each.is_known and names in each.leaves]
        own = [each for each in own if jnp.shape(each.leaves[names]) == jnp.shape(leaf)]
        if len(own) != 1:
            raise ValueError(
                f"base keeps {len(own)} momenta of a known kind, SGD's trace or Adam's mu, for params at "
                f"'{'/'.join(names)}', expected exactly one. Its state has {_description(found)}. Give an optimizer "
                "with momentum, or direction=, a function from its state to the momentum, or mask= with the leaves "
                "that have a momentum."
            )
        return own[0].leaves[names]

    return _of_chosen(of_leaf, params, chosen)


def in_tree(tree: Any, params: Params, chosen: Any) -> Momenta:
    """The momentum of each leaf in what `direction=` returned, a tree with at least the chosen leaves.

    Raises:
      ValueError: If a chosen leaf is missing, or has another shape.
    """
    given = dict(zip(trees.leaf_names(tree), jax.tree.leaves(tree), strict=True))

    def of_leaf(names: Names, leaf: Any) -> jax.Array:
        if names not in given or jnp.shape(given[names]) != jnp.shape(leaf):
            raise ValueError(
                f"What direction returned has no leaf of shape {jnp.shape(leaf)} at '{'/'.join(names)}': return the "
                "momentum in the state of base, a tree like params."
            )
        return given[names]

    return _of_chosen(of_leaf, params, chosen)


def _of_chosen(of_leaf: Any, params: Params, chosen: Any) -> Momenta:
    leaves = zip(trees.leaf_names(params), jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
    return [of_leaf(names, leaf) if is_chosen else None for names, leaf, is_chosen in leaves]


def _all_in(state: State) -> Iterator[_Found]:
    """Every momentum in a state, those in nested states too."""
    for node in jax.tree.leaves(state, is_leaf=_keeps_momentum):
        if _keeps_momentum(node):
            field = _field_of(node)
            tree = getattr(node, field)
            leaves = dict(zip(trees.leaf_names(tree), jax.tree.leaves(tree), strict=True))
            yield _Found(f"{type(node).__name__}.{field}", type(node) in _KNOWN, leaves)
            yield from _all_in(tuple(node))


def _keeps_momentum(node: Any) -> bool:
    return bool(_field_of(node))


def _field_of(node: Any) -> str:
    """The name of the momentum in a state, empty where it has none."""
    fields = getattr(node, "_fields", ())
    return _KNOWN.get(type(node)) or next((name for name in _FIELDS if name in fields), "")


def _description(found: list[_Found]) -> str:
    """Which momenta there are, and of which leaves."""
    described = []
    for each in found:
        paths = ["/".join(names) for names in each.leaves]
        shown = ", ".join(f"'{path}'" for path in paths[:3]) + (f" and {len(paths) - 3} more" if paths[3:] else "")
        described.append(f"{each.kind} of {shown or 'no leaf'}")
    return "; ".join(described) or "no momentum"
