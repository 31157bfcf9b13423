"""Masks of the parameters' leaves: trees of bools, and functions that return them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_optax import trees
from sam_optax.typing import Mask, Params, Updates


def by_path(predicate: Callable[[str], bool]) -> Callable[[Params], Any]:
    """A mask that applies a predicate to each leaf's path: `mask(params)[leaf] = predicate(path of leaf)`.

    A path is the leaf's names joined by `/`, the same for every framework: `conv_1/kernel` (Linen,
    NNX), `linear/w` (Haiku), `layers/0/weight` (Equinox). The last name `value` that NNX adds is dropped.

    Args:
      predicate: from the path, a string, to whether the leaf is included.

    Returns:
      A function from parameters to a tree of bools, for `mask=` and `exempt=`.

    Raises:
      ValueError: If `predicate` cannot be called.

    Example:
      SAM-ON perturbs only the normalisation layers (https://arxiv.org/abs/2306.04226):

      >>> import sam_optax
      >>> norms = sam_optax.by_path(lambda path: "norm" in path.lower())  # norm, BatchNorm_0
      >>> norms({"norm": {"scale": 1.0}, "dense": {"kernel": 2.0}})
      {'dense': {'kernel': False}, 'norm': {'scale': True}}
      >>> tx = sam_optax.sam(rho=0.5, mask=norms)
    """
    if not callable(predicate):
        raise ValueError(f"predicate is {predicate!r}: give a function from a leaf's path, a string, to a bool.")

    def mask(params: Params) -> Any:
        chosen = [bool(predicate(path)) for path in trees.leaf_paths(params)]
        return jax.tree.unflatten(jax.tree.structure(params), chosen)

    return mask


def biases(params: Params) -> Any:
    """The mask of the leaves whose last name is `bias` or `b`, which ASAM does not scale.

    Example:
      >>> import sam_optax
      >>> sam_optax.biases({"dense": {"kernel": 1.0, "bias": 2.0}})
      {'dense': {'bias': True, 'kernel': False}}
    """
    return by_path(lambda path: path.rpartition("/")[2] in ("bias", "b"))(params)


def check(name: str, mask: Mask | None) -> None:
    """Raises `ValueError` unless `mask` is None, a function or a tree of bools."""
    if mask is None or _is_function(mask):
        return
    strangers = [x for x in jax.tree.leaves(mask) if not isinstance(x, bool | np.bool_)]
    if strangers:
        raise ValueError(
            f"{name} has {strangers[0]!r} where a bool is expected: give a tree of bools with the leaves of the "
            "parameters, or a function from the parameters to one (sam_optax.by_path makes it)."
        )


def check_chosen(name: str, mask: Mask | None, params: Params) -> None:
    """Raises `ValueError` if `mask` chooses no leaf of `params`.

    Inside of `optax.multi_transform` and `optax.masked`, which hide some of the leaves, it may choose none.
    """
    paths = trees.leaf_paths(params)
    if not paths or trees.holds_masked(params):  # `optax.tree.map_params` calls `init` with a placeholder
        return
    if not any(jax.tree.leaves(resolve(name, mask, params, default=True))):
        raise ValueError(
            f"{name} chooses none of the {len(paths)} leaves of params, the first of which is '{paths[0]}': choose at "
            "least one, by its path as sam_optax.by_path spells it, or leave the method out."
        )


def resolve(name: str, mask: Mask | None, params: Params, default: bool) -> Any:
    """A tree of bools with the structure of `params`; without a mask, every leaf is `default`.

    Leaves are matched by their paths and not by their containers, so that a mask made from an NNX
    state fits the arrays that `nnx.Optimizer` takes out of it. Inside of `optax.multi_transform` and `optax.masked`,
    where `params` has only some leaves, a mask of all parameters can be used, too.
    """
    paths, structure = trees.leaf_paths(params), jax.tree.structure(params)
    if mask is None:
        return jax.tree.unflatten(structure, [default] * len(paths))
    chosen = mask(params) if _is_function(mask) else mask
    given = dict(zip(trees.leaf_paths(chosen), jax.tree.leaves(chosen), strict=True))
    fits = set(given) >= set(paths) if trees.holds_masked(params) else list(given) == paths
    if not fits:
        raise ValueError(
            f"{name} does not have the leaves of params: give one bool for each leaf. "
            f"{trees.first_difference(chosen, params)} "
            f"(A function given as {name} through optax.inject_hyperparams has to be in its static_args.)"
        )
    bools = [given[path] for path in paths]
    check(name, bools)
    return jax.tree.unflatten(structure, bools)


def keep(chosen: Any, tree: Updates) -> Updates:
    """`tree` with zeros in the leaves that are not chosen."""
    return jax.tree.map(lambda c, x: x if c else jnp.zeros_like(x), chosen, tree)


def _is_function(mask: Mask) -> bool:
    """Whether `mask` is a function; a tree of bools that is a callable Equinox module is not one."""
    return callable(mask) and not any(isinstance(x, bool | np.bool_) for x in jax.tree.leaves(mask))
