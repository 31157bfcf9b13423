"""Learning rates: one for all parameters, or a tree of them for parts of the parameters."""

from typing import Any

import jax

from sam_optax import hyperparameters, trees
from sam_optax.typing import Params


def check(name: str, rates: Any) -> None:
    """Raise `ValueError` unless every rate is a finite number of at least zero, or a schedule that starts with one."""
    if not _is_tree(rates):
        hyperparameters.check_nonnegative(name, rates)
        return
    for path, rate in zip(trees.leaf_paths(rates), jax.tree.leaves(rates), strict=True):
        hyperparameters.check_nonnegative(f"{name} at '{path}'", rate)


def resolve(name: str, rates: Any, params: Params) -> Any:
    """A tree with the structure of `params`, with a rate in each leaf: a number or a schedule.

    A rate holds for the leaf at its path, or for all leaves below it. Names are compared, not containers, so that a
    dictionary also serves parameters in an NNX state or in an Equinox module.

    Args:
      name: the argument that `rates` belongs to, for the message.
      rates: one rate, or a tree of rates.
      params: the parameters.

    Raises:
      ValueError: If a leaf of `params` has no rate, or a rate no leaf.
    """
    structure, leaves = jax.tree.structure(params), trees.leaf_names(params)
    if not _is_tree(rates):
        return jax.tree.unflatten(structure, [rates] * len(leaves))
    given = dict(zip(trees.leaf_names(rates), jax.tree.leaves(rates), strict=True))
    found = [next((at for at in given if leaf[: len(at)] == at), None) for leaf in leaves]
    if None in found:
        path = "/".join(leaves[found.index(None)])
        raise ValueError(f"{name} has no rate for params at '{path}': give a number or a schedule for each part.")
    if unused := set(given) - set(found):
        path = "/".join(min(unused))
        raise ValueError(f"{name} has a rate at '{path}', where params has no leaf: give the names of the parameters.")
    return jax.tree.unflatten(structure, [given[at] for at in found if at is not None])


def _is_tree(rates: Any) -> bool:
    """Whether `rates` is a container of rates; a schedule may be a callable object that is a pytree."""
    return not callable(rates) and not jax.tree_util.all_leaves([rates]) and bool(jax.tree.leaves(rates))
