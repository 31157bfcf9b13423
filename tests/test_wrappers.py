"""Properties of the methods that wrap their base optimizer."""

import re
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers, methods

every_base = pytest.mark.parametrize("base", helpers.BASES)


@every_base
@methods.every_wrapper
def test_a_zero_gradient_gives_the_update_of_the_base_on_a_zero_gradient(name, base):
    params = helpers.small_params()
    zero = jax.tree.map(jnp.zeros_like, params)
    tx, plain = helpers.optimizer(name, helpers.BASES[base]()), helpers.BASES[base]()
    updates, _ = tx.update(zero, tx.init(params), params, grad_fn=lambda params: zero)
    expected, _ = plain.update(zero, plain.init(params), params)
    chex.assert_trees_all_equal(updates, expected)


@pytest.mark.parametrize(("name", "passes"), [("msam", 1), ("wsam_decoupled", 2)])
def test_a_step_is_traced_once_and_makes_its_passes(name, passes):
    traces = []

    def counted_loss(params: Any, *batch: Any) -> jax.Array:
        traces.append(batch[0].shape)
        return helpers.small_loss(params, *batch)

    tx, params = helpers.optimizer(name), helpers.small_params()
    step, state = helpers.make_step(tx, counted_loss), tx.init(params)
    for batch in helpers.small_batches(4):
        params, state = step(params, state, *batch)
    assert len(traces) == passes


@methods.every_wrapper
def test_extra_arguments_reach_the_base(name):
    received: dict[str, Any] = {}

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        received.update(extra_args)
        return updates, state

    probe = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    tx = helpers.optimizer(name, base=optax.chain(probe, optax.sgd(0.1, momentum=0.9)))
    value, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    tx.update(grads, tx.init(params), params, grad_fn=grad_fn, value=value, temperature=0.5)
    assert (received["value"], received["temperature"]) == (value, 0.5)


@pytest.mark.parametrize("name", ["msam", "wsam_decoupled"])
def test_an_update_needs_the_parameters(name):
    tx, params = helpers.optimizer(name), helpers.small_params()
    with pytest.raises(ValueError, match=r"^params is missing: call update"):
        tx.update(params, tx.init(params), grad_fn=lambda params: params)


@pytest.mark.parametrize("name", ["msam", "wsam_decoupled"])
def test_complex_leaves_are_refused(name):
    with pytest.raises(ValueError, match="params has a leaf of dtype complex64"):
        helpers.optimizer(name).init({"w": jnp.ones(2, complex)})


def test_a_skipped_step_of_decoupled_wsam_equals_a_step_of_the_base():
    updates, state = helpers.one_call("wsam_decoupled", perturb=False, grad_fn=None)
    plain, params, (batch,) = helpers.BASES["momentum"](), helpers.small_params(), helpers.small_batches(1)
    expected, _ = plain.update(jax.grad(helpers.small_loss)(params, *batch), plain.init(params), params)
    chex.assert_trees_all_equal(updates, expected)
    assert np.isnan(sam_optax.diagnostics(state).cosine)


def test_decoupled_wsam_reports_its_diagnostics():
    measured = sam_optax.diagnostics(helpers.one_call("wsam_decoupled")[1])
    np.testing.assert_allclose(measured.perturbation_norm, 0.05, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_decoupled_wsam_around_sgd_is_the_base_at_gamma_zero_and_sam_at_one_half(gamma, x64):
    params, batches = helpers.small_params(), helpers.small_batches(4)
    ours = helpers.descend(sam_optax.wsam_decoupled(optax.sgd(0.1), 0.1, 0.3, gamma), params, batches)
    same = optax.sgd(0.1) if gamma == 0.0 else optax.chain(sam_optax.sam(0.3), optax.sgd(0.1))
    chex.assert_trees_all_close(ours, helpers.descend(same, params, batches), rtol=0, atol=1e-14)


def test_every_public_method_is_in_a_table_of_tested_methods():
    """New methods must be added to a table, so that the shared tests run for them."""
    folder = Path(sam_optax.methods.__file__).parent
    written = {
        name
        for path in folder.glob("*.py")
        for name in re.findall(r"^def ([a-z]\w+)\(", path.read_text(), re.MULTILINE)
    }
    helping = {"momentum", "msam_eval_params", "xsam_alpha", "bsam_sample", "bsam_value_and_grad"}
    assert written - helping <= set(methods.SHORT) | set(methods.WRAPPERS) | set(methods.COMPLETE)
