"""Parameters of 16 bits keep their dtype, and norms are computed in 32 bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers, methods

low_precision = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])


def filled(value: float, dtype: Any) -> Any:
    return jax.tree.map(lambda x: jnp.full_like(x, value), helpers.small_params(dtype))


@methods.every_short_optimizer
@low_precision
def test_parameters_and_states_keep_their_types(name, dtype):
    tx, params = helpers.optimizer(name), helpers.small_params(dtype)
    step, state = helpers.make_step(tx), tx.init(params)
    before = helpers.shapes((params, state))
    for batch in helpers.small_batches(2):
        params, state = step(params, state, *batch)
    assert helpers.shapes((params, state)) == before
    assert helpers.shapes(params) == helpers.shapes(helpers.small_params(dtype))


@pytest.mark.parametrize("method", [sam_optax.vasso(theta=0.001), sam_optax.friendly_sam(lam=0.999)])
def test_a_slow_average_moves_in_bfloat16(method):
    params = filled(0.0, jnp.bfloat16)
    state = method.init(params)
    update = jax.jit(lambda gradient, state: method.update(gradient, state, params, grad_fn=lambda w: w)[1])
    for value in [1.0, *[2.0] * 500]:
        state = update(filled(value, jnp.bfloat16), state)
    for leaf in jax.tree.leaves(state.perturbation.average):
        np.testing.assert_allclose(leaf, 2 - 0.999**500, rtol=1e-4)


@pytest.mark.parametrize("name", ["sam", "asam", "gsam", "vasso", "friendly_sam", "look_sam", "xsam", "wsam"])
@low_precision
def test_methods_need_no_implicit_promotion(name, dtype):
    tx, params = methods.METHODS[name](rho=0.1), filled(1.0, dtype)
    with jax.numpy_dtype_promotion("strict"):
        updates, _ = tx.update(params, tx.init(params), params, grad_fn=lambda moved: moved)
    assert helpers.shapes(updates) == helpers.shapes(params)


def test_parameters_of_8_bits_are_refused():
    with pytest.raises(ValueError, match="params has a leaf of dtype float8_e4m3fn at 'dense/bias', too coarse"):
        sam_optax.sam(0.1).init(filled(1.0, jnp.float8_e4m3fn))


def test_the_cosine_of_parallel_gradients_is_not_above_one():
    tx, gradient = sam_optax.sam(0.1), jnp.array([0.1, 0.7, 0.3], jnp.float32)
    for scale in range(1, 50):
        _, state = tx.update(gradient, tx.init(gradient), gradient, grad_fn=lambda w, scale=scale: scale / 7 * gradient)
        assert sam_optax.diagnostics(state).cosine <= 1


@methods.every_method
@low_precision
def test_large_gradients_do_not_overflow(name, dtype):
    """Eight entries of 1e4: the squares and `T² g` of ASAM overflow float16, but the results do not."""
    tx, params, large = methods.METHODS[name](rho=1.0), filled(10.0, dtype), filled(1e4, dtype)
    updates, state = tx.update(large, tx.init(params), params, grad_fn=lambda moved: large, perturb=True)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(np.asarray(leaf, np.float32), 1e4, rtol=1e-2)
    measured = sam_optax.diagnostics(state)
    np.testing.assert_allclose([measured.grad_norm, measured.perturbed_grad_norm], 1e4 * np.sqrt(8), rtol=1e-2)
    assert measured.grad_norm.dtype == jnp.float32
    if methods.part(name, "perturbation") not in ("unified", "loss_increase"):  # their radii depend on the gradient
        assert 0.9 < measured.perturbation_norm < 11.0


@low_precision
def test_the_radius_holds_for_gradients_whose_squares_overflow(dtype):
    tx, params = sam_optax.sam(rho=1.0), filled(0.0, dtype)
    _, state = tx.update(filled(1e4, dtype), tx.init(params), params, grad_fn=lambda moved: moved)
    np.testing.assert_allclose(sam_optax.diagnostics(state).perturbation_norm, 1.0, rtol=1e-2)


@low_precision
def test_the_radius_holds_for_gradients_whose_squares_vanish(dtype):
    tx, params = sam_optax.sam(rho=1.0), filled(0.0, dtype)
    _, state = tx.update(filled(1e-5, dtype), tx.init(params), params, grad_fn=lambda moved: moved)
    np.testing.assert_allclose(sam_optax.diagnostics(state).perturbation_norm, 1.0, rtol=1e-2)


@low_precision
def test_an_injected_radius_keeps_the_types(dtype):
    tx = optax.inject_hyperparams(sam_optax.gsam)(rho=0.1, alpha=0.1)
    params = filled(1.0, dtype)
    updates, state = tx.update(params, tx.init(params), params, grad_fn=lambda moved: moved)
    assert helpers.shapes(updates) == helpers.shapes(params)
    assert helpers.shapes(state) == helpers.shapes(tx.init(params))


@methods.every_method
def test_leaves_of_different_types_keep_each_its_own(name):
    params = helpers.small_params()
    params["dense"]["bias"] = params["dense"]["bias"].astype(jnp.bfloat16)
    tx = methods.METHODS[name](rho=0.1)
    updates, state = tx.update(params, tx.init(params), params, grad_fn=lambda moved: moved)
    assert helpers.shapes(updates) == helpers.shapes(params)
    assert helpers.shapes(state) == helpers.shapes(tx.init(params))


@methods.every_method
@pytest.mark.parametrize("perturb", [True, False, None])
def test_updates_for_wide_gradients_have_the_dtype_of_narrow_parameters(name, perturb):
    tx, params, wide = methods.METHODS[name](rho=0.1), helpers.small_params(jnp.bfloat16), helpers.small_params()
    call = {"grad_fn": lambda moved: wide, "perturb": perturb}
    updates, _ = tx.update(wide, tx.init(params), params, **call)
    assert helpers.shapes(updates) == helpers.shapes(params)
