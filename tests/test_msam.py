"""MSAM: the parameters are the shifted ones, and the unshifted ones are computed for evaluation."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax import trees
from tests import helpers
from tests.test_wrappers import every_base


def problem(steps: int) -> tuple[Any, Any]:
    return helpers.small_params(), helpers.small_batches(steps)


@every_base
def test_the_shift_has_length_rho_against_the_momentum(base, x64):
    tx, params, (batch,) = helpers.optimizer("msam", helpers.BASES[base](), rho=0.3), *problem(1)
    params, state = helpers.make_step(tx)(params, tx.init(params), *batch)
    v = optax.tree.get(state.base, {"momentum": "trace", "adamw": "mu"}[base])
    offset = jax.tree.map(jnp.subtract, params, sam_optax.msam_eval_params(state, params))
    np.testing.assert_allclose(trees.norm(offset), 0.3, rtol=1e-10)
    np.testing.assert_allclose(trees.inner(offset, v), -0.3 * trees.norm(v), rtol=1e-10)


def test_the_evaluation_parameters_are_those_updated_by_the_base(x64):
    """The base optimizer, applied to gradients at the shifted points, visits the unshifted ones."""
    base = helpers.BASES["adamw"]()
    tx, params, batches = helpers.optimizer("msam", base, rho=0.3), *problem(4)
    plain, state, base_state = params, tx.init(params), base.init(params)
    for batch in batches:
        grads = jax.grad(helpers.small_loss)(params, *batch)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        updates, base_state = base.update(grads, base_state, plain)
        plain = optax.apply_updates(plain, updates)
        chex.assert_trees_all_close(sam_optax.msam_eval_params(state, params), plain, rtol=0, atol=1e-13)


def test_the_state_is_found_in_a_chain():
    tx = sam_optax.skip_nonfinite(optax.chain(optax.clip(1.0), helpers.optimizer("msam", rho=0.3)))
    params, (batch,) = problem(1)
    params, state = helpers.make_step(tx)(params, tx.init(params), *batch)
    offset = jax.tree.map(jnp.subtract, params, sam_optax.msam_eval_params(state, params))
    np.testing.assert_allclose(trees.norm(offset), 0.3, rtol=1e-4)


def test_only_the_leaves_of_the_mask_are_shifted():
    tx, params, (batch,) = helpers.optimizer("msam_masked", rho=0.3), *problem(1)
    _, state = helpers.make_step(tx)(params, tx.init(params), *batch)
    assert np.all(state.offset["dense"]["bias"] == 0)
    np.testing.assert_allclose(np.linalg.norm(state.offset["dense"]["kernel"]), 0.3, rtol=1e-5)


@pytest.mark.parametrize(
    "tx",
    [
        sam_optax.msam(optax.sgd(0.1, momentum=0.9), mask={"a": True, "b": False}),
        sam_optax.wsam_decoupled(optax.sgd(0.1), {"a": 0.1, "b": 0.2}),
    ],
    ids=["msam", "wsam_decoupled"],
)
def test_optax_maps_the_leaves_of_a_state_that_belong_to_parameters(tx):
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    ones = optax.tree.map_params(tx, jnp.ones_like, tx.init(params))
    assert jax.tree.structure(ones) == jax.tree.structure(tx.init(params))


def test_a_user_defined_momentum_is_accepted():
    tx = sam_optax.msam(optax.chain(optax.trace(0.5), optax.trace(0.9), optax.scale(-0.1)), 0.3, lambda s: s[1].trace)
    params, (batch,) = problem(1)
    _, state = helpers.make_step(tx)(params, tx.init(params), *batch)
    np.testing.assert_allclose(trees.norm(state.offset), 0.3, rtol=1e-5)


@pytest.mark.parametrize("base", [optax.sgd(0.1), optax.chain(optax.trace(0.5), optax.trace(0.9))])
def test_a_base_without_one_momentum_is_refused(base):
    message = r"^base keeps [02] momenta of a known kind.*, for params at 'dense/bias', expected .* or direction="
    with pytest.raises(ValueError, match=message):
        sam_optax.msam(base).init(helpers.small_params())


def test_an_invalid_direction_is_refused():
    tx, params = sam_optax.msam(optax.sgd(0.1, 0.9), direction=lambda state: jnp.ones(2)), helpers.small_params()
    with pytest.raises(ValueError, match=r"^What direction returned has no leaf of shape \(2,\) at 'dense/bias'"):
        tx.init(params)


@pytest.mark.parametrize(
    ("methods", "message"),
    [([], "^state holds no state of msam, expected one"), (["msam", "msam"], "^state holds 2 sharpness-aware methods")],
)
def test_evaluation_parameters_need_exactly_one_msam_state(methods, message):
    tx, params = optax.chain(*map(helpers.optimizer, methods), optax.identity()), helpers.small_params()
    with pytest.raises(ValueError, match=message):
        sam_optax.msam_eval_params(tx.init(params), params)


def test_other_parameters_are_refused():
    state = helpers.optimizer("msam").init(helpers.small_params())
    with pytest.raises(ValueError, match=r"^state belongs to other parameters than params"):
        sam_optax.msam_eval_params(state, {"w": jnp.ones(2)})
