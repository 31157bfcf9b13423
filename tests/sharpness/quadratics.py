"""Quadratics with closed forms of their sharpness."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = dict[str, jax.Array]


def tree(flat: Any) -> Tree:
    """Five numbers as a tree of a vector and a matrix."""
    flat = jnp.asarray(flat)
    return {"a": flat[:3], "b": flat[3:].reshape(1, 2)}


def flatten(params: Tree) -> jax.Array:
    return jnp.concatenate([params["a"], params["b"].ravel()])


def loss_fn(params: Tree, batch: jax.Array) -> jax.Array:
    """`½ wᵀA w` with the diagonal `A` of the mean of the batch's rows, `(examples, 5)`."""
    return 0.5 * jnp.sum(jnp.mean(batch, axis=0) * flatten(params) ** 2)


def rise_in_box(curvature: np.ndarray, w: np.ndarray, reach: np.ndarray) -> float:
    """The largest rise of `½ Σ a_i w_i²` within `|δ_i| ≤ reach_i`: each coordinate moves away from zero."""
    return float(0.5 * np.sum(curvature * ((np.abs(w) + reach) ** 2 - w**2)))


def rise_in_ball(curvature: np.ndarray, w: np.ndarray, rho: float) -> float:
    """The largest rise within `‖δ‖ ≤ ρ`: `(λ − A) δ = A w`, with the λ above all of A for which `‖δ‖ = ρ`."""
    low, high = curvature.max(), curvature.max() + np.linalg.norm(curvature * w) / rho + 1.0
    for _ in range(200):
        middle = (low + high) / 2
        length = np.linalg.norm(curvature * w / (middle - curvature))
        low, high = (middle, high) if length > rho else (low, middle)
    delta = curvature * w / (high - curvature)
    return float(0.5 * np.sum(curvature * ((w + delta) ** 2 - w**2)))
