"""An average of the weights along a run: what is evaluated in the place of the last ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class WeightAverageState(NamedTuple):
    """The state of `average_weights`.

    Attributes:
      count: of the updates.
      weight_average: the average, as the parameters.
      inner: the state of the optimizer.
    """

    count: jax.Array
    weight_average: Any
    inner: Any


def average_weights(tx: optax.GradientTransformation, decay: float) -> optax.GradientTransformationExtraArgs:
    """The optimizer `tx`, beside which a running average of the parameters is kept; its updates are the same.

    With the parameters `w` after update `t = 1, 2, ...` the average goes on as `a ← d a + (1 − d) w`, with
    `d = min(decay, t / (t + 9))`: at first it is short, so that the initial parameters are soon forgotten.

    Args:
      tx: the optimizer.
      decay: the weight of the past in the long run, at least 0 and below 1.

    Returns:
      The optimizer; `weight_average(state)` finds the average in its state.
    """
    tx = optax.with_extra_args_support(tx)

    def init(params: Any) -> WeightAverageState:
        # a copy: two leaves of the training state that were one buffer could not be donated
        return WeightAverageState(jnp.zeros([], jnp.int32), jax.tree.map(jnp.copy, params), tx.init(params))

    def update(
        updates: Any, state: WeightAverageState, params: Any = None, **extra: Any
    ) -> tuple[Any, WeightAverageState]:
        updates, inner = tx.update(updates, state.inner, params, **extra)
        count = state.count + 1
        kept = jnp.minimum(decay, count / (count + 9))
        moved = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, w: (kept * a + (1 - kept) * w).astype(a.dtype), state.weight_average, moved)
        return updates, WeightAverageState(count, average, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def weight_average(opt_state: Any) -> Any:
    """The average within the state of an optimizer that keeps one."""
    return optax.tree.get(opt_state, "weight_average")
