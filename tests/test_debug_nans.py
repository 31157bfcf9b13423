"""`jax.debug_nans`: a step that measures nothing creates no NaN, and a measured NaN stays NaN."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sam_optax
from tests import helpers, methods
from tests.selection import combinations

NOISY = sam_optax.value_and_grad(helpers.small_loss, micro_batches=2, measure_noise=True)


def eagerly(tx: optax.GradientTransformationExtraArgs) -> Callable[..., Any]:
    return tx.update


def compiled(tx: optax.GradientTransformationExtraArgs) -> Callable[..., Any]:
    return jax.jit(tx.update, static_argnames="perturb")


HOW = pytest.mark.parametrize("how", [eagerly, compiled], ids=["eagerly", "compiled"])


def assert_finite(state: Any) -> None:
    chex.assert_tree_all_finite([x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)])


def assert_all_steps_are_finite(
    update: Callable[..., Any], tx: Any, value_and_grad: Callable[..., Any], decisions: tuple[Any, ...] = (True, False)
) -> Any:
    """The state after `init` and steps with these decisions, after checking that none creates a NaN."""
    params = helpers.small_params()
    with jax.debug_nans(True):
        state = tx.init(params)
        for batch, perturb in zip(helpers.small_batches(len(decisions)), decisions, strict=True):
            assert_finite(state)
            _, grads, grad_fn = value_and_grad(params, *batch)
            _, state = update(grads, state, params, grad_fn=grad_fn, perturb=perturb)
    assert_finite(state)
    return state


@combinations(
    lambda name, how: name in methods.OF_EACH_KIND and how is (eagerly, compiled)[methods.OF_EACH_KIND.index(name) % 2],
    name=(*methods.SHORT, *methods.WRAPPERS),
    how=(eagerly, compiled),
)
def test_no_step_of_a_method_makes_nan(name, how):
    tx = sam_optax.skip_nonfinite(helpers.optimizer(name))
    state = assert_all_steps_are_finite(how(tx), tx, sam_optax.value_and_grad(helpers.small_loss))
    assert int(state.skipped) == 0


POLICIES = {
    "every": sam_optax.every(2),
    "after": sam_optax.after(2),
    "bernoulli": sam_optax.bernoulli(0.5, jax.random.key(1)),
    "ae_sam": sam_optax.ae_sam(1.0),
}


@combinations(
    lambda policy, how: how is (compiled if policy in {"after", "ae_sam"} else eagerly),
    policy=POLICIES,
    how=(eagerly, compiled),
)
def test_no_step_that_a_policy_skips_makes_nan(policy, how):
    tx = sam_optax.track_noise(sam_optax.gsam(when=POLICIES[policy]))
    assert_all_steps_are_finite(how(tx), tx, NOISY, decisions=(None, None, False))


@HOW
def test_no_step_without_diagnostics_makes_nan(how):
    tx = sam_optax.without_diagnostics(sam_optax.sam())
    assert_all_steps_are_finite(how(tx), tx, sam_optax.value_and_grad(helpers.small_loss))


@HOW
@pytest.mark.parametrize("method", [None, sam_optax.msam(optax.sgd(0.1, momentum=0.9))], ids=["none", "msam"])
def test_the_noise_of_a_method_without_a_second_pass_makes_no_nan(method, how):
    tx = sam_optax.track_noise(method)
    state = assert_all_steps_are_finite(how(tx), tx, NOISY)
    with jax.debug_nans(True):
        clean, perturbed = sam_optax.measured_noise(state)
        assert np.isfinite(clean.scale)
        assert np.isnan(perturbed.scale)


def test_unmeasured_diagnostics_are_read_as_the_given_number():
    tx = sam_optax.track_noise(sam_optax.sam())
    with jax.debug_nans(True):
        state = tx.init(helpers.small_params())
        assert np.all(np.isnan(sam_optax.diagnostics(state)))
        assert np.all(np.isnan(sam_optax.measured_noise(state).clean))
        for unmeasured in (0.0, -1, jnp.asarray(2.0)):
            np.testing.assert_array_equal(sam_optax.diagnostics(state, unmeasured), np.full(6, unmeasured))
            np.testing.assert_array_equal(sam_optax.measured_noise(state, unmeasured), np.full((2, 2), unmeasured))


@pytest.mark.parametrize("read", [sam_optax.diagnostics, sam_optax.measured_noise])
def test_unmeasured_diagnostics_can_be_read_inside_a_compiled_function(read):
    state = sam_optax.track_noise(sam_optax.sam()).init(helpers.small_params())
    assert all(np.isnan(x) for x in jax.tree.leaves(jax.jit(read)(state)))
    with jax.debug_nans(True):
        assert not np.any(jax.tree.leaves(jax.jit(functools.partial(read, unmeasured=0.0))(state)))
        with pytest.raises(FloatingPointError):
            jax.jit(read)(state)


def test_a_measured_nan_stays_nan():
    tx, w = sam_optax.sam(rho=0.5), jnp.array([3.0, 4.0])
    _, state = tx.update(w, tx.init(w), w, grad_fn=lambda w: jnp.nan * w)
    measured = sam_optax.diagnostics(state, unmeasured=0.0)
    np.testing.assert_allclose(measured[:4], [5.0, np.nan, np.nan, 0.5])


def test_each_of_several_vmapped_states_is_read_by_its_own_flag():
    """As in training many seeds at once with `jax.vmap` and a policy that depends on the gradient."""
    tx, w = sam_optax.sam(rho=0.5, when=sam_optax.ae_sam(1.0)), jnp.ones((3, 2))
    step = jax.vmap(lambda g, state, w: tx.update(g, state, w, grad_fn=lambda w: w)[1])
    state = step(w, jax.vmap(tx.init)(w), w)
    state = step(jnp.array([[1.0, 0.0], [9.0, 0.0], [1.0, 0.0]]), state, w)
    np.testing.assert_array_equal(sam_optax.diagnostics(state, unmeasured=-1.0).grad_norm, [-1.0, 9.0, -1.0])


@pytest.mark.parametrize("unmeasured", ["0", None, [0.0]], ids=repr)
def test_values_other_than_numbers_are_refused(unmeasured):
    for read, tx in ((sam_optax.diagnostics, sam_optax.sam()), (sam_optax.measured_noise, sam_optax.track_noise())):
        with pytest.raises(ValueError, match=r"^unmeasured is .*: give a number, NaN for instance"):
            read(tx.init(jnp.ones(2)), unmeasured)


@pytest.mark.parametrize("perturb", [True, False])
def test_an_nnx_optimizer_makes_no_nan_and_its_diagnostics_are_read(perturb):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx = optax.chain(sam_optax.track_noise(sam_optax.sam(rho=0.05)), optax.sgd(0.1))
    with jax.debug_nans(True):
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        grads = nnx.grad(lambda model: jnp.mean(model(jnp.ones((4, 3))) ** 2))(model)
        noise = sam_optax.Noise(sam_optax.NoiseTerms(1.0, 2.0), None)
        optimizer.update(model, grads, grad_fn=lambda params: params, perturb=perturb, noise=noise)
        measured = sam_optax.diagnostics(optimizer.opt_state)
        clean, perturbed = sam_optax.measured_noise(optimizer.opt_state)
    np.testing.assert_allclose(measured.perturbation_norm, 0.05 if perturb else np.nan, rtol=1e-5)
    np.testing.assert_array_equal(clean, [1.0, 2.0])
    assert np.all(np.isnan(perturbed))
