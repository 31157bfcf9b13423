"""The split of parameters into the leaves that a measure moves and those that it does not change."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_optax import masks, trees
from sam_optax.typing import Mask, Params, Updates

Leaves = tuple[Any, ...]
"""Leaves of a tree, in its order."""


@dataclasses.dataclass(frozen=True)
class Subset:
    """Which leaves of a tree are chosen. It is hashable, so it can be a static argument of a compiled function.

    Attributes:
      structure: the structure of the tree.
      chosen: one bool for each leaf.
    """

    structure: Any
    chosen: tuple[bool, ...]

    def split(self, tree: Any) -> tuple[Leaves, Leaves]:
        """The chosen leaves of `tree`, and the others."""
        pairs = list(zip(jax.tree.leaves(tree), self.chosen, strict=True))
        return tuple(x for x, is_in in pairs if is_in), tuple(x for x, is_in in pairs if not is_in)

    def join(self, moved: Iterable[Any], fixed: Iterable[Any]) -> Any:
        """The tree of these leaves: the inverse of `split`."""
        moved, fixed = iter(moved), iter(fixed)
        return jax.tree.unflatten(self.structure, [next(moved if is_in else fixed) for is_in in self.chosen])


@dataclasses.dataclass(frozen=True)
class Restricted:
    """A function of parameters and a batch, as a function of the chosen leaves: `f(moved, (fixed, batch))`.

    The other leaves are an argument and not a constant, so that a function that is compiled for one set of BatchNorm
    statistics is reused for the next. Restrictions of the same function to the same subset are equal, so that the
    compiled function is found.

    Attributes:
      function: `function(params, batch)`.
      subset: which leaves of `params` are chosen.
    """

    function: Callable[..., Any]
    subset: Subset

    def __call__(self, moved: Leaves, arguments: tuple[Leaves, Any]) -> Any:
        """`function` of the whole tree and the batch, where `arguments` is what `Partition.arguments` returns."""
        fixed, batch = arguments
        return self.function(self.subset.join(moved, fixed), batch)


class Partition(NamedTuple):
    """Parameters, split into the leaves that a measure moves and the others.

    Attributes:
      subset: which leaves move.
      moved: these leaves, which are real floating arrays.
      fixed: the other leaves, arrays of any dtype. They are never differentiated, nor converted.
    """

    subset: Subset
    moved: Leaves
    fixed: Leaves

    def restrict(self, function: Callable[..., Any]) -> Restricted:
        """`function(params, batch)` as a function of the leaves that move, and of `arguments(batch)`."""
        return Restricted(function, self.subset)

    def arguments(self, batch: Any) -> tuple[Leaves, Any]:
        """The second argument of a restricted function."""
        return self.fixed, batch

    def expand(self, moved: Leaves) -> Updates:
        """A tree like the parameters, with zeros outside of the mask, in the accumulator's dtype of `moved`."""
        dtype = trees.accumulator_dtype(moved)
        return self.subset.join(moved, [jnp.zeros(jnp.shape(x), dtype) for x in self.fixed])


def create(mask: Mask | None, params: Params) -> Partition:
    """Splits `params` by a mask; without a mask, every leaf moves.

    Raises:
      ValueError: If `mask` does not fit or chooses no leaf, if a chosen leaf is not real floating, or if another leaf
        is not an array.
    """
    masks.check("mask", mask)
    chosen = jax.tree.leaves(masks.resolve("mask", mask, params, default=True))
    if not any(chosen):
        what = "mask chooses no leaf" if chosen else "params has no leaf"
        raise ValueError(f"{what}, so there is nothing to measure: give at least one parameter.")
    subset = Subset(jax.tree.structure(params), tuple(map(bool, chosen)))
    check_leaves("params", params, subset)
    return Partition(subset, *subset.split(params))


def check_leaves(name: str, tree: Any, subset: Subset) -> None:
    """Raises `ValueError` unless all leaves of `tree` are arrays, and the chosen ones real and floating."""
    for path, leaf, is_in in zip(trees.leaf_paths(tree), jax.tree.leaves(tree), subset.chosen, strict=True):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex):
            raise ValueError(
                f"{name} has {leaf!r} at '{path}', where an array is expected: keep it out of the tree, as "
                "eqx.partition(model, eqx.is_array) does for an Equinox module."
            )
        if is_in and not trees.is_floating(leaf):
            raise ValueError(
                f"{name} has a leaf of dtype {jnp.result_type(leaf)} at '{path}': only real floating leaves can be "
                "perturbed or differentiated. Give a mask= that does not choose this leaf: it is then passed to the "
                "loss as it is. (Split a complex parameter into its real and imaginary parts.)"
            )
