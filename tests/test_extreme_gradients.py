"""Gradients whose squares overflow in float32, and the derivative of an update at a zero gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax import trees
from tests import helpers, methods
from tests.selection import combinations

SIZE = 1e30
"""The scales of parameters and gradients."""

CURVATURES = {"dense": {"kernel": np.linspace(0.5, 2.0, 6).reshape(3, 2), "bias": np.array([1.0, -0.5])}}


def parameters(size: float) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(size * rng.normal(size=x.shape)), CURVATURES)


def gradient(params: Any) -> Any:
    """The gradient of a quadratic loss, of the size of the parameters."""
    return jax.tree.map(lambda x, w: jnp.asarray(x, w.dtype) * w, CURVATURES, params)


def two_updates(name: str, dtype: Any) -> tuple[Any, Any]:
    """The second of two updates at one point, and the state after it."""
    tx = helpers.optimizer(name, optax.sgd(0.1, momentum=0.9), rho=0.5)
    params = jax.tree.map(lambda w: jnp.asarray(w, dtype), parameters(SIZE))
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
    return updates, state


@methods.every_short_optimizer
def test_large_parameters_and_gradients_give_the_update_of_float64(name, x64):
    narrow, state = two_updates(name, jnp.float32)
    wide, wide_state = two_updates(name, jnp.float64)
    for x, y in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, y, rtol=1e-4)
    if name != "msam" and not name.startswith("msam_"):
        measured, expected = sam_optax.diagnostics(state)[:4], sam_optax.diagnostics(wide_state)[:4]
        np.testing.assert_allclose(measured, expected, rtol=1e-4)


@pytest.mark.parametrize("minimize", ["perturbed", "clean"])
def test_gsam_subtracts_the_orthogonal_part_even_where_products_of_norms_overflow(minimize, x64):
    combiner = {"perturbed": sam_optax.gap_guided, "clean": sam_optax.gap_guided_clean}[minimize](0.5)
    clean, perturbed = np.array([1e30, 2e30]), np.array([3e30, 0.0])
    narrow, wide = (
        combiner.update(jnp.asarray(clean, d), jnp.asarray(perturbed, d), combiner.init(clean))[0]
        for d in (jnp.float32, jnp.float64)
    )
    np.testing.assert_allclose(narrow, wide, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(1e30, 1e30), (1e38, 1.0), (1e38, 1e38), (1.0, 1.0), (1e-10, 1e30)])
def test_a_cosine_depends_only_on_the_directions(sizes):
    a, b = (jnp.float32(size) * jnp.array([0.6, x]) for size, x in zip(sizes, (0.8, -0.8), strict=True))
    norms = trees.wide_product(trees.norm(a), trees.norm(b))
    np.testing.assert_allclose(trees.quotient(trees.wide_inner(a, b), norms), -0.28, rtol=1e-5)


@pytest.mark.parametrize("size", [1e19, 1e25, 1e38])
@pytest.mark.parametrize("shape", [(1,), (100, 200), (3, 3, 5, 7)])
def test_a_norm_overflows_only_above_the_largest_float(size, shape):
    values = np.random.default_rng(0).normal(size=shape)
    tree = {"kernel": jnp.asarray(size * values / np.linalg.norm(values), jnp.float32)}
    np.testing.assert_allclose(trees.norm(tree), size, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_the_norm_of_nonfinite_values_is_nonfinite(bad):
    assert not jnp.isfinite(trees.norm(jnp.array([1.0, bad])))


@combinations(
    lambda name, derivative: (
        name in methods.OF_EACH_KIND and derivative is (jax.grad, jax.jacfwd)[methods.OF_EACH_KIND.index(name) % 2]
    ),
    name=(*methods.SHORT, *methods.WRAPPERS),
    derivative=(jax.grad, jax.jacfwd),
)
def test_the_derivative_of_an_update_at_a_zero_gradient_is_finite(name, derivative):
    tx = helpers.optimizer(name, optax.sgd(0.1, momentum=0.9), rho=0.5)
    params = jax.tree.map(jnp.float32, parameters(1.0))

    def total(scale: jax.Array) -> jax.Array:
        def scaled(w: Any) -> Any:
            return jax.tree.map(lambda g: scale * g, gradient(w))

        updates, _ = tx.update(scaled(params), tx.init(params), params, grad_fn=scaled)
        return sum(jnp.sum(u) for u in jax.tree.leaves(updates))

    assert jnp.isfinite(derivative(total)(jnp.float32(0.0)))
