"""A radius that follows the learning rate, and trees of learning rates for the leaves of the parameters."""

from typing import Any

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters, trees
from sam_optax.typing import Params, ScalarOrSchedule, Schedule


def proportional_schedule(
    learning_rate: ScalarOrSchedule, lr_min: float, lr_max: float, rho_min: float, rho_max: float
) -> Schedule:
    """A radius that follows the learning rate, `ρ_t = ρ_min + (ρ_max − ρ_min)(lr_t − lr_min)/(lr_max − lr_min)`.

    It is `ρ_max` if `lr_max = lr_min`, and is clipped to `[ρ_min, ρ_max]`, since a warm-up from below `lr_min` would
    make it negative. From "Surrogate Gap Minimization Improves Sharpness-Aware Training" (Zhuang et al., 2022,
    https://arxiv.org/abs/2203.08065).

    Args:
      learning_rate: the learning rate; a number or a schedule over updates.
      lr_min: the learning rate at which `ρ = ρ_min`.
      lr_max: the learning rate at which `ρ = ρ_max`.
      rho_min: the least radius.
      rho_max: the greatest radius.

    Returns:
      A schedule over updates, for `rho=`.

    Raises:
      ValueError: If a number is negative or not finite, or a minimum above its maximum.

    Example:
      >>> import optax, sam_optax
      >>> rate = optax.cosine_decay_schedule(0.1, decay_steps=100)
      >>> rho = sam_optax.proportional_schedule(rate, lr_min=0.0, lr_max=0.1, rho_min=0.02, rho_max=0.1)
      >>> print(f"{rho(0):.2f} {rho(50):.2f} {rho(100):.2f}")
      0.10 0.06 0.02
    """
    numbers = {"lr_min": lr_min, "lr_max": lr_max, "rho_min": rho_min, "rho_max": rho_max}
    hyperparameters.check_nonnegative("learning_rate", learning_rate)
    for name, value in numbers.items():
        hyperparameters.check_nonnegative_number(name, value)
    for low, high in (("lr_min", "lr_max"), ("rho_min", "rho_max")):
        if numbers[low] > numbers[high]:
            raise ValueError(f"{low} is {numbers[low]!r}, above {high}, {numbers[high]!r}: exchange them.")

    def schedule(count: jax.Array) -> jax.Array:
        rate = jnp.asarray(hyperparameters.at(learning_rate, count))
        fraction = jnp.ones_like(rate) if lr_max == lr_min else (rate - lr_min) / (lr_max - lr_min)
        return jnp.clip(rho_min + (rho_max - rho_min) * fraction, rho_min, rho_max)

    return schedule


def check_rates(name: str, rates: Any) -> None:
    """Raises `ValueError` unless every rate is a finite number of at least zero, or a schedule that starts with one."""
    if not _is_tree(rates):
        hyperparameters.check_nonnegative(name, rates)
        return
    for path, rate in zip(trees.leaf_paths(rates), jax.tree.leaves(rates), strict=True):
        hyperparameters.check_nonnegative(f"{name} at '{path}'", rate)


def resolve_rates(name: str, rates: Any, params: Params) -> Any:
    """A tree with the structure of `params`, with a rate in each leaf: a number or a schedule.

    A rate holds for the leaf at its path, or for all leaves below it. Names are compared, not containers, so that a
    dictionary of rates also fits parameters in an NNX state or in an Equinox module.

    Args:
      name: the argument that `rates` belongs to, for the message.
      rates: one rate, or a tree of rates.
      params: the parameters.

    Raises:
      ValueError: If a leaf of `params` has no rate, or if a rate belongs to no leaf.
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
