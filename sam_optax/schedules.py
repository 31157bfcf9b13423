"""Schedules of the method's own hyperparameters."""

import jax
import jax.numpy as jnp

from sam_optax import hyperparameters
from sam_optax.typing import ScalarOrSchedule, Schedule


def proportional_schedule(
    learning_rate: ScalarOrSchedule, lr_min: float, lr_max: float, rho_min: float, rho_max: float
) -> Schedule:
    """A radius that follows the learning rate, `ρ_t = ρ_min + (ρ_max − ρ_min)(lr_t − lr_min)/(lr_max − lr_min)`.

    It is `ρ_max` where `lr_max = lr_min`, and never leaves `[ρ_min, ρ_max]`: a warm-up from below `lr_min` would
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
