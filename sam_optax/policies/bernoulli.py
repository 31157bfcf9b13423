"""A policy that decides at random."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_optax import hyperparameters
from sam_optax.policies.policy import Policy
from sam_optax.typing import ScalarOrSchedule


def bernoulli(probability: ScalarOrSchedule, key: jax.Array) -> Policy:
    """The policy that perturbs at step t with the probability p(t), independently of the other steps.

    The draw is a function of the key and the step alone, the same in the traced and in the plain form.

    Args:
      probability: `p`, from 0 to 1; a number or a schedule over updates.
      key: a JAX random key.

    Returns:
      A policy without state.

    Raises:
      ValueError: If `probability` is not from 0 to 1, or `key` is no key.

    Example:
      >>> import jax, sam_optax
      >>> policy = sam_optax.bernoulli(0.5, jax.random.key(0))
      >>> 80 < sum(policy.at(step) for step in range(200)) < 120
      True
    """
    hyperparameters.check_fraction("probability", probability)
    _check_key(key)

    @jax.jit
    def draw(step: jax.Array) -> jax.Array:
        chance = hyperparameters.at(probability, step)
        return jax.random.uniform(jax.random.fold_in(key, step)) < chance

    return Policy(
        init=lambda params: optax.EmptyState(),
        decide=lambda count, clean, state: (draw(count), state),
        at=lambda step: bool(draw(jnp.asarray(step, jnp.int32))),
    )


def _check_key(key: Any) -> None:
    try:
        typed = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
        one = jnp.shape(typed) == ()
    except (TypeError, ValueError, AttributeError):
        one = False
    if not one:
        raise ValueError(f"key is {key!r}: give one JAX random key, as jax.random.key(0) makes it.")
