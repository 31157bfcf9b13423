"""Shared helpers for tests of curvature: a small network with its dense matrices, and quadratics."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

Batch = dict[str, jax.Array]


def params(dtype: Any = float) -> dict[str, dict[str, jax.Array]]:
    """Two layers, of 26 parameters."""
    shapes = {"hidden": {"bias": (4,), "kernel": (3, 4)}, "out": {"bias": (2,), "kernel": (4, 2)}}
    rng = np.random.default_rng(0)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def batches(sizes: Sequence[int] = (5, 2, 9), seed: int = 1) -> list[Batch]:
    rng = np.random.default_rng(seed)
    draw = lambda n: {"x": jnp.asarray(rng.normal(size=(n, 3))), "y": jnp.asarray(rng.integers(2, size=n))}  # noqa: E731
    return [draw(n) for n in sizes]


def outputs(w: Any, batch: Batch) -> jax.Array:
    hidden = jnp.tanh(batch["x"] @ w["hidden"]["kernel"] + w["hidden"]["bias"])
    return hidden @ w["out"]["kernel"] + w["out"]["bias"]


def loss_of_outputs(z: jax.Array, batch: Batch) -> jax.Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, batch["y"]))


def loss(w: Any, batch: Batch) -> jax.Array:
    return loss_of_outputs(outputs(w, batch), batch)


def all_examples() -> Batch:
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *batches())


@functools.cache
def dense_hessian() -> np.ndarray:
    """The dense Hessian of the network on all examples as one batch. Tests call it in 64-bit mode."""
    flat, unravel = ravel_pytree(params())
    return np.asarray(jax.jit(jax.hessian(lambda v: loss(unravel(v), all_examples())))(flat))


@functools.cache
def dense_gauss_newton() -> np.ndarray:
    """`JᵀHJ`, where `H` is the Hessian of the loss with respect to the outputs."""
    flat, unravel = ravel_pytree(params())
    batch = all_examples()

    @jax.jit
    def matrix(flat: jax.Array) -> jax.Array:
        z = outputs(unravel(flat), batch)
        jacobian = jax.jacobian(lambda v: outputs(unravel(v), batch).ravel())(flat)
        curved = jax.hessian(lambda z_flat: loss_of_outputs(z_flat.reshape(z.shape), batch))(z.ravel())
        return jacobian.T @ curved @ jacobian

    return np.asarray(matrix(flat))


def quadratic(matrix: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The loss `½ wᵀ A w`, times the mean of the batch."""
    return lambda w, x: jnp.mean(x) * (w @ (jnp.asarray(matrix) @ w)) / 2


def symmetric(size: int, seed: int = 0) -> np.ndarray:
    """A random symmetric matrix with eigenvalues of both signs."""
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return (matrix + matrix.T) / 2
