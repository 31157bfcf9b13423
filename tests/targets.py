"""Optax's targets in one problem: a parabola, here of a vector and a matrix, and the Rosenbrock function.

Both have one loss function with a switch, so that a program that descends is compiled once for both.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

INITIAL = {
    "parabola": {"kernel": jnp.array([-1.0, 10.0, 1.0]), "matrix": jnp.zeros((2, 2))},
    "rosenbrock": {"kernel": jnp.zeros(3), "matrix": jnp.zeros((2, 2))},
}
FINAL = {
    "parabola": {"kernel": jnp.array([1.0, -1.0, 1.0]), "matrix": jnp.array([[3.0, -2.0], [1.0, 4.0]])},
    "rosenbrock": {"kernel": jnp.array([1.0, 1.0, 0.0]), "matrix": jnp.zeros((2, 2))},
}


def objective(params: Any, is_parabola: Any) -> jax.Array:
    """The parabola, or the Rosenbrock function of the first two entries of the vector."""
    x, y = params["kernel"][:2]
    parabola = optax.tree.norm(jax.tree.map(jnp.subtract, params, FINAL["parabola"]), squared=True)
    return jnp.where(is_parabola, parabola, (1 - x) ** 2 + 100 * (y - x**2) ** 2)


def extra_arguments(value: Any, is_parabola: Any) -> dict[str, Any]:
    """The loss, which Polyak's step and MoMo need, the loss function, which Sophia needs, and an unused argument."""
    return {"value": value, "obj_fn": jax.tree_util.Partial(objective, is_parabola=is_parabola), "unexpected": 1}
