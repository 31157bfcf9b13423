"""A moving average of the clean gradients, which some perturbations keep."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from sam_optax import trees
from sam_optax.typing import Params, Updates


class AverageState(NamedTuple):
    """A moving average of gradients.

    Attributes:
      count: the number of updates so far, int32.
      average: a tree like the parameters; zero before the first update.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    average: Updates


def init(params: Params) -> AverageState:
    """The state before the first update."""
    return AverageState(jnp.zeros((), jnp.int32), trees.zeros_like(params))


def advance(state: AverageState, gradient: Updates, share: chex.Numeric) -> AverageState:
    """The state one update later: `m ← (1 − share) m + share g`, and `m = g` after the first update."""
    share = jnp.where(state.count == 0, 1, share)
    moved = jax.tree.map(
        # not m + share (g − m), which is not exactly g where the share is 1
        lambda m, g: (1 - share) * m + share * g,
        trees.widen(state.average),
        trees.widen(gradient),
    )
    return AverageState(trees.next_count(state.count), trees.cast_like(moved, state.average))
