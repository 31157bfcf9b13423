"""The measurements of the last step are found wherever the method is in the optimizer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers, methods

CHAINS = {
    "alone": lambda sam: sam,
    "in_front": lambda sam: optax.chain(sam, optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    "behind": lambda sam: optax.chain(optax.clip_by_global_norm(1e6), sam, optax.sgd(0.1)),
    "nested": lambda sam: optax.chain(optax.chain(optax.identity(), optax.chain(sam)), optax.sgd(0.1)),
    "injected": lambda sam: optax.inject_hyperparams(lambda rate: optax.chain(sam, optax.sgd(rate)))(rate=0.1),
    "skipping_nan": lambda sam: optax.apply_if_finite(optax.chain(sam, optax.sgd(0.1)), 3),
}


def shifted(w: jax.Array) -> jax.Array:
    """A gradient that is not along `w`."""
    return jnp.array([2.0, 1.0]) * w


def test_the_first_four_diagnostics_have_their_defined_values():
    tx, w = sam_optax.sam(rho=0.5), jnp.array([3.0, 4.0])
    measured = sam_optax.diagnostics(tx.update(w, tx.init(w), w, grad_fn=shifted)[1])
    perturbed = np.array([2.0, 1.0]) * np.array([3.3, 4.4])
    norm = np.linalg.norm(perturbed)
    np.testing.assert_allclose(measured[:4], [5.0, norm, perturbed @ np.array([0.6, 0.8]) / norm, 0.5], rtol=1e-6)
    names = ("grad_norm", "perturbed_grad_norm", "cosine", "perturbation_norm", "perturbed_loss", "surrogate_gap")
    assert measured._fields == names


@pytest.mark.parametrize("name", CHAINS)
def test_diagnostics_are_found_wherever_the_method_is_in_the_optimizer(name):
    tx, w = CHAINS[name](sam_optax.sam(rho=0.5)), jnp.array([3.0, 4.0])
    state = tx.update(w, tx.init(w), w, grad_fn=shifted)[1]
    plain = sam_optax.sam(rho=0.5)
    expected = sam_optax.diagnostics(plain.update(w, plain.init(w), w, grad_fn=shifted)[1])
    chex.assert_trees_all_close(sam_optax.diagnostics(state), expected, rtol=1e-6)


@methods.every_method
def test_diagnostics_are_nan_before_the_first_step_and_after_a_skipped_one(name):
    tx, params = helpers.optimizer(name), helpers.small_params()
    state = tx.init(params)
    np.testing.assert_array_equal(sam_optax.diagnostics(state), np.full(6, np.nan))
    grad_fn = sam_optax.GradFn(lambda params: sam_optax.SecondPass(params, jnp.ones(())), ())
    for perturb, finite in ((True, True), (False, False), (True, True)):
        _, state = tx.update(params, state, params, grad_fn=grad_fn, perturb=perturb, value=0.5)
        np.testing.assert_array_equal(np.isfinite(sam_optax.diagnostics(state)), np.full(6, finite))


def test_the_cosine_is_minus_one_for_opposite_gradients_and_zero_for_zero_gradients():
    tx, w = sam_optax.sam(), jnp.array([3.0, 4.0])
    cosines = [
        float(sam_optax.diagnostics(tx.update(w, tx.init(w), w, grad_fn=grad_fn)[1]).cosine)
        for grad_fn in (lambda w: -w, lambda w: 0 * w)
    ]
    np.testing.assert_allclose(cosines, [-1.0, 0.0], atol=1e-6)


def test_diagnostics_can_be_read_inside_a_compiled_step():
    tx, w = optax.chain(sam_optax.sam(rho=0.5), optax.sgd(0.1)), jnp.array([3.0, 4.0])
    read = jax.jit(lambda w, state: sam_optax.diagnostics(tx.update(w, state, w, grad_fn=shifted)[1]))
    assert read(w, tx.init(w)).grad_norm == 5.0


NONE, TWO = "holds no sharpness-aware method with a second pass", "holds 2 sharpness-aware methods, expected one"
NOT_ONE = [
    (optax.sgd(0.1), NONE),
    (sam_optax.msam(optax.adam(0.1)), NONE),
    (optax.chain(sam_optax.sam(), sam_optax.gsam()), TWO),
    (optax.chain(sam_optax.sam(), sam_optax.msam(optax.adam(0.1))), TWO),
]


@pytest.mark.parametrize(("tx", "found"), NOT_ONE)
def test_any_number_of_methods_but_one_is_refused(tx, found):
    state = tx.init(jnp.ones(2))
    with pytest.raises(ValueError, match=f"^opt_state {found}"):
        sam_optax.diagnostics(state)


@methods.where(lambda name: True, ["wsam_decoupled"])
def test_without_diagnostics_the_updates_are_the_same(name):
    updates, state = helpers.one_call(name)
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    bare = sam_optax.without_diagnostics(helpers.optimizer(name))
    _, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    unmeasured_updates, unmeasured = bare.update(grads, bare.init(params), params, grad_fn=grad_fn)
    chex.assert_trees_all_equal(unmeasured_updates, updates)
    assert helpers.shapes(unmeasured) == helpers.shapes(state)
    np.testing.assert_array_equal(sam_optax.diagnostics(unmeasured), np.full(6, np.nan))


@pytest.mark.parametrize(("tx", "found"), NOT_ONE)
def test_switching_diagnostics_off_needs_exactly_one_method(tx, found):
    with pytest.raises(ValueError, match=f"^method {found}"):
        sam_optax.without_diagnostics(tx).init(jnp.ones(2))
