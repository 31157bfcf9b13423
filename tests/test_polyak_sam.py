"""Laws of SAM-SPS, whose step size is computed from the perturbed loss."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_optax
from tests import helpers

VALUE_AND_GRAD = sam_optax.value_and_grad(helpers.small_loss)


def one_update(tx, params, batch):
    _, grads, grad_fn = VALUE_AND_GRAD(params, *batch)
    return tx.update(grads, tx.init(params), params, grad_fn=grad_fn)


def test_without_a_radius_it_is_the_polyak_step_of_the_clean_loss(x64):
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    updates, state = one_update(sam_optax.sam_sps(0.0, weight_decay=0.0, max_rate=1e9), params, batch)
    loss, grads, _ = VALUE_AND_GRAD(params, *batch)
    rate = loss / sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))
    np.testing.assert_allclose(state.combiner.rate, rate, rtol=1e-12)
    chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -rate * g, grads), rtol=1e-12)


@pytest.mark.parametrize(("rho", "lam"), [(0.3, 1.0), (0.3, 0.0), (0.1, 0.5)])
def test_the_linearised_loss_at_the_new_parameters_is_the_optimal_loss(rho, lam, x64):
    """`L(w + ε) + ⟨g_s, w⁺ − (w + ε)⟩ = ℓ*`, unless the largest rate limits the step."""
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    calls = []

    def grad_fn(at):
        loss, grads, _ = VALUE_AND_GRAD(at, *batch)
        calls.append((at, loss, grads))
        return grads

    _, grads, measured = VALUE_AND_GRAD(params, *batch)
    tx = sam_optax.sam_sps(rho, lam, optimal_loss=0.05, max_rate=1e9, weight_decay=0.0)
    updates, _ = tx.update(grads, tx.init(params), params, grad_fn=measured)
    sam_optax.unified_sam(rho, lam).update(grads, sam_optax.unified_sam(rho, lam).init(params), params, grad_fn=grad_fn)
    [(at, loss, perturbed)] = calls
    moved = jax.tree.map(lambda w, u, p: w + u - p, params, updates, at)
    inner = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(perturbed), jax.tree.leaves(moved), strict=True))
    np.testing.assert_allclose(loss + inner, 0.05, rtol=1e-10)


def test_the_rate_is_at_most_the_largest_and_zero_below_the_optimal_loss():
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    assert one_update(sam_optax.sam_sps(max_rate=0.01), params, batch)[1].combiner.rate == np.float32(0.01)
    updates, state = one_update(sam_optax.sam_sps(optimal_loss=100.0), params, batch)
    assert state.combiner.rate == 0
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))


def test_the_weight_decay_does_not_change_the_rate(x64):
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    plain, state = one_update(sam_optax.sam_sps(weight_decay=0.0), params, batch)
    decayed, other = one_update(sam_optax.sam_sps(weight_decay=0.1), params, batch)
    assert state.combiner.rate == other.combiner.rate
    expected = jax.tree.map(lambda u, w: u - 0.1 * state.combiner.rate * w, plain, params)
    chex.assert_trees_all_close(decayed, expected, rtol=1e-12)


def test_gradients_whose_squares_overflow_give_the_rate_of_float64():
    def rate(dtype):
        w = jnp.array([3e25, 4e25], dtype)
        _, grads, grad_fn = sam_optax.value_and_grad(lambda w: 1e5 * jnp.sum(w))(w)
        tx = sam_optax.sam_sps(0.1, max_rate=1e30, weight_decay=0.0)
        return tx.update(grads, tx.init(w), w, grad_fn=grad_fn)[1].combiner.rate

    narrow = rate(jnp.float32)
    with jax.enable_x64(True):
        np.testing.assert_allclose(narrow, rate(jnp.float64), rtol=1e-5)


def test_two_phases_equal_one_call_exactly(x64):
    tx, params, (batch,) = sam_optax.sam_sps(0.3), helpers.small_params(), helpers.small_batches(1)
    phases = sam_optax.two_phases(tx)
    _, grads, _ = VALUE_AND_GRAD(params, *batch)
    perturbed, pending = phases.ascend(grads, phases.init(params), params)
    loss, perturbed_grads, _ = VALUE_AND_GRAD(perturbed, *batch)
    found = phases.descend(perturbed_grads, pending, params, perturbed_value=loss)
    chex.assert_trees_all_close(found, one_update(tx, params, batch), rtol=1e-14)


def test_a_second_pass_without_a_loss_and_a_skipped_one_are_refused():
    tx, w = sam_optax.sam_sps(), jnp.ones(2)
    with pytest.raises(ValueError, match=r"^grad_fn returns no loss, from which the step size is computed: give"):
        tx.update(w, tx.init(w), w, grad_fn=lambda w: w)
    with pytest.raises(ValueError, match=r"^perturb is False, and the step size needs the loss of the second pass"):
        tx.update(w, tx.init(w), w, perturb=False)
