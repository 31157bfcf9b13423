"""Functional SAM: the gradient with respect to the logits is that of the clean pass."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_optax
from tests import helpers


def model_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    del y
    return jnp.tanh(x @ params["dense"]["kernel"] + params["dense"]["bias"])


def logits_loss(logits: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    del x
    return jnp.mean((logits - y) ** 2)


def test_the_first_pass_is_the_gradient_of_the_loss():
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    value, grads, grad_fn = sam_optax.functional_value_and_grad(model_fn, logits_loss)(params, *batch)
    expected = jax.value_and_grad(helpers.small_loss)(params, *batch)
    chex.assert_trees_all_close((value, grads), expected, rtol=1e-5)
    chex.assert_trees_all_close(grad_fn(params), grads, rtol=1e-5)


def test_the_second_pass_pulls_the_clean_slope_back_through_the_perturbed_model(x64):
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    elsewhere = jax.tree.map(lambda x: x + 0.5, params)
    grad_fn = sam_optax.functional_value_and_grad(model_fn, logits_loss)(params, *batch)[2]
    slope = jax.grad(logits_loss)(model_fn(params, *batch), *batch)
    linearised = jax.grad(lambda w: jnp.sum(model_fn(w, *batch) * slope))(elsewhere)
    chex.assert_trees_all_close(grad_fn(elsewhere), linearised, rtol=1e-12)


def test_a_loss_that_is_linear_in_the_logits_makes_it_sam(x64):
    """The gradient with respect to the logits is then the same everywhere."""
    linear = lambda logits, x, y: jnp.mean(logits * y)  # noqa: E731
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    elsewhere = jax.tree.map(lambda x: x + 0.5, params)
    functional = sam_optax.functional_value_and_grad(model_fn, linear)(params, *batch)[2]
    plain = sam_optax.value_and_grad(lambda w, x, y: linear(model_fn(w, x, y), x, y))(params, *batch)[2]
    chex.assert_trees_all_close(functional(elsewhere), plain(elsewhere), rtol=1e-12)


def test_a_model_that_is_linear_in_its_parameters_has_the_clean_gradient_everywhere(x64):
    linear_model = lambda params, x, y: x @ params["dense"]["kernel"] + params["dense"]["bias"]  # noqa: E731
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    _, grads, grad_fn = sam_optax.functional_value_and_grad(linear_model, logits_loss)(params, *batch)
    chex.assert_trees_all_close(grad_fn(jax.tree.map(lambda x: 3 * x, params)), grads, rtol=1e-12)


def test_radius_zero_gives_the_base_and_a_zero_slope_a_finite_step(x64):
    params, tx, base = helpers.small_params(), helpers.optimizer("sam", rho=0.0), helpers.BASES["momentum"]()
    value_and_grad, state, plain = sam_optax.functional_value_and_grad(model_fn, logits_loss), tx.init(params), params
    base_state = base.init(params)
    for batch in helpers.small_batches(4):
        _, grads, grad_fn = value_and_grad(params, *batch)
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
        updates, base_state = base.update(jax.grad(helpers.small_loss)(plain, *batch), base_state, plain)
        plain = optax.apply_updates(plain, updates)
    chex.assert_trees_all_close(params, plain, rtol=0, atol=1e-13)
    x, _ = helpers.small_batches(1)[0]
    fitted = model_fn(params, x, x)  # the loss is at its minimum there
    _, grads, grad_fn = value_and_grad(params, x, fitted)
    sam = sam_optax.sam(0.5)
    updates, _ = sam.update(grads, sam.init(params), params, grad_fn=grad_fn)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))


def test_auxiliary_output_is_that_of_the_first_pass():
    with_aux = lambda params, x, y: (model_fn(params, x, y), {"mean": jnp.mean(x)})  # noqa: E731
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    (loss, aux), grads, grad_fn = sam_optax.functional_value_and_grad(with_aux, logits_loss, has_aux=True)(
        params, *batch
    )
    plain = sam_optax.functional_value_and_grad(model_fn, logits_loss)(params, *batch)
    chex.assert_trees_all_equal((loss, grads, grad_fn(params)), (*plain[:2], plain[2](params)))
    np.testing.assert_allclose(aux["mean"], np.mean(batch[0]), rtol=1e-6)


def test_the_second_pass_crosses_a_jit_boundary_without_recompilation():
    traces, value_and_grad = [], sam_optax.functional_value_and_grad(model_fn, logits_loss)

    @jax.jit
    def call(grad_fn: Any, params: Any) -> Any:
        traces.append(params)
        return grad_fn(params)

    params = helpers.small_params()
    for batch in helpers.small_batches(3):
        _, grads, grad_fn = value_and_grad(params, *batch)
        chex.assert_trees_all_close(call(grad_fn, params), grads, rtol=1e-5, atol=1e-7)
    assert len(traces) == 1
