"""The perturbed-gradient function: a first pass, and a second pass on the same batch and keys."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers


def noisy_loss(params: Any, x: jax.Array, key: jax.Array, *, keep: float = 0.5) -> tuple[jax.Array, Any]:
    """A loss with dropout whose auxiliary output identifies the mask."""
    mask = jax.random.bernoulli(key, keep, x.shape)
    return jnp.sum((jnp.where(mask, x, 0.0) * params) ** 2), {"mask": mask, "params": params}


PARAMS, X = np.arange(1.0, 9.0, dtype=np.float32), np.arange(2.0, 10.0, dtype=np.float32)


def test_value_and_gradient_equal_those_of_jax():
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    value, grads, _ = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    chex.assert_trees_all_equal((value, grads), jax.value_and_grad(helpers.small_loss)(params, *batch))


def test_the_second_pass_is_the_gradient_elsewhere_on_the_same_batch():
    params, (batch, other) = helpers.small_params(), helpers.small_batches(2)
    elsewhere = jax.tree.map(lambda x: x + 0.5, params)
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss)
    _, grads, grad_fn = value_and_grad(params, *batch)
    value_and_grad(params, *other)
    chex.assert_trees_all_equal(grad_fn(elsewhere), jax.grad(helpers.small_loss)(elsewhere, *batch))
    chex.assert_trees_all_equal(grad_fn(params), grads)


def test_auxiliary_output_comes_only_from_the_first_pass():
    value_and_grad = sam_optax.value_and_grad(noisy_loss, has_aux=True)
    (value, aux), grads, grad_fn = value_and_grad(PARAMS, X, jax.random.key(0))
    np.testing.assert_array_equal(aux["params"], PARAMS)
    np.testing.assert_allclose(value, np.sum((X * aux["mask"] * PARAMS) ** 2), rtol=1e-6)
    chex.assert_trees_all_equal_shapes_and_dtypes(grad_fn(PARAMS), grads)


@pytest.mark.parametrize("seed", range(3))
def test_both_passes_use_the_same_dropout(seed):
    value_and_grad = sam_optax.value_and_grad(noisy_loss, has_aux=True)
    (_, aux), _, grad_fn = value_and_grad(PARAMS, X, jax.random.key(seed))
    assert 0 < np.sum(aux["mask"]) < len(X)
    np.testing.assert_allclose(grad_fn(3 * PARAMS), 6 * PARAMS * (X * aux["mask"]) ** 2, rtol=1e-6)


def test_keyword_arguments_reach_both_passes():
    value_and_grad = sam_optax.value_and_grad(noisy_loss, has_aux=True)
    (_, aux), grads, grad_fn = value_and_grad(PARAMS, X, key=jax.random.key(0), keep=1.0)
    assert np.all(aux["mask"])
    np.testing.assert_allclose(grads, 2 * PARAMS * X**2, rtol=1e-6)
    np.testing.assert_allclose(grad_fn(2 * PARAMS), 4 * PARAMS * X**2, rtol=1e-6)


def test_the_second_pass_is_a_pytree_of_the_batch():
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    _, _, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    chex.assert_trees_all_equal(jax.tree.leaves(grad_fn), list(batch))
    doubled = jax.tree.map(lambda x: 2 * x, grad_fn)
    expected = jax.grad(helpers.small_loss)(params, *(2 * x for x in batch))
    chex.assert_trees_all_equal(doubled(params), expected)


def test_the_second_pass_crosses_a_jit_boundary_without_recompilation():
    traces, value_and_grad = [], sam_optax.value_and_grad(helpers.small_loss)

    @jax.jit
    def call(grad_fn: Any, params: Any) -> Any:
        traces.append(params)
        return grad_fn(params)

    params = helpers.small_params()
    for batch in helpers.small_batches(3):
        _, grads, grad_fn = value_and_grad(params, *batch)
        chex.assert_trees_all_close(call(grad_fn, params), grads, rtol=1e-5, atol=1e-7)
    assert len(traces) == 1


def test_the_second_pass_may_be_returned_from_the_jit_of_the_first():
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    _, grads, grad_fn = jax.jit(sam_optax.value_and_grad(helpers.small_loss))(params, *batch)
    chex.assert_trees_all_close(grad_fn(params), grads, rtol=1e-5, atol=1e-7)


def test_each_pass_evaluates_the_loss_once_per_call():
    calls = []

    def counted(params: Any) -> jax.Array:
        calls.append(params)
        return jnp.sum(params**2)

    _, _, grad_fn = sam_optax.value_and_grad(counted)(jnp.ones(2))
    assert len(calls) == 1
    grad_fn(jnp.ones(2))
    assert len(calls) == 2


def test_a_loss_that_is_not_callable_is_refused():
    with pytest.raises(ValueError, match=r"loss_fn is 0.5: give a function from parameters and a batch"):
        sam_optax.value_and_grad(0.5)


@pytest.mark.parametrize("wrap", [optax.flatten], ids=["flatten"])
@pytest.mark.parametrize("name", ["sam", "gsam", "wsam_decoupled"])
def test_a_second_pass_with_parameters_of_another_structure_is_refused(wrap, name):
    """The loss itself might accept a flat vector, or end in an error about indexing."""
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    tx = wrap(helpers.optimizer(name))
    _, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    message = r"^grad_fn got parameters of shapes \(\(8,\),\), .* write optax.chain\(method, "
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(params), params, grad_fn=grad_fn)


def test_functional_sam_refuses_parameters_of_another_structure():
    passes = sam_optax.functional_value_and_grad(lambda w, x: x @ w, lambda z, x: jnp.mean(z**2))
    _, _, grad_fn = passes(jnp.ones((2, 1)), jnp.eye(2))
    with pytest.raises(ValueError, match=r"^grad_fn got parameters of shapes \(\(2,\),\)"):
        grad_fn(jnp.ones(2))
