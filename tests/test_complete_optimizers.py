"""Properties of the complete optimizers SAM-SPS and bSAM, which have no base optimizer."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax.validation import check_one_method
from tests import helpers, methods

every_one = pytest.mark.parametrize("name", methods.COMPLETE)
one_of_each = pytest.mark.parametrize("name", ["sam_sps", "bsam"])
RHO = 0.05


def passes(name: str, loss_fn: Any) -> Any:
    """`fn(params, state, *batch)` → the gradient, and the extra arguments of `update`."""
    if name.startswith("bsam"):
        value_and_grad = sam_optax.bsam_value_and_grad(loss_fn, RHO, shards=2)

        def of_shards(params: Any, state: Any, *batch: Any) -> tuple[Any, dict[str, Any]]:
            key = jax.random.fold_in(jax.random.key(0), state.count)
            _, grads, magnitude = value_and_grad(params, state, key, *batch)
            return grads, {"magnitude": magnitude}

        return of_shards

    def of_batch(params: Any, _state: Any, *batch: Any) -> tuple[Any, dict[str, Any]]:
        _, grads, grad_fn = sam_optax.value_and_grad(loss_fn)(params, *batch)
        return grads, {"grad_fn": grad_fn}

    return of_batch


def make_step(name: str, loss_fn: Any = helpers.small_loss) -> tuple[Any, Any]:
    """The optimizer, and its compiled step `(params, state, *batch) → (params, state)`."""
    tx, both = methods.COMPLETE[name](rho=RHO), passes(name, loss_fn)

    @jax.jit
    def step(params: Any, state: Any, *batch: Any) -> tuple[Any, Any]:
        grads, extra = both(params, state, *batch)
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return tx, step


def after(name: str, steps: int, dtype: Any = float) -> tuple[Any, Any]:
    tx, step = make_step(name)
    params = helpers.small_params(dtype)
    state = tx.init(params)
    for batch in helpers.small_batches(steps):
        params, state = step(params, state, *(x.astype(dtype) for x in batch))
    return params, state


@every_one
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_parameters_and_states_keep_their_types_and_numbers_are_wide(name, dtype):
    before = methods.COMPLETE[name](rho=RHO).init(helpers.small_params(dtype))
    params, state = after(name, 2, dtype)
    assert helpers.shapes(params) == helpers.shapes(helpers.small_params(dtype))
    assert helpers.shapes(state) == helpers.shapes(before)
    assert {x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)} == {jnp.dtype("float32")}


@every_one
def test_64_bits_stay_64_bits(name, x64):
    found = jax.tree.leaves(after(name, 2))
    assert {x.dtype for x in found if jnp.issubdtype(x.dtype, jnp.floating)} == {jnp.dtype("float64")}


@every_one
def test_low_precision_steps_equal_those_of_float32_up_to_rounding(name):
    narrow, wide = after(name, 3, jnp.bfloat16)[0], after(name, 3, jnp.float32)[0]
    chex.assert_trees_all_close(jax.tree.map(lambda x: x.astype(jnp.float32), narrow), wide, atol=0.05)


@one_of_each
def test_a_step_is_traced_once_for_a_shape_and_makes_two_passes(name):
    traces = []

    def counted_loss(params: Any, *batch: Any) -> jax.Array:
        traces.append(batch[0].shape)
        return helpers.small_loss(params, *batch)

    tx, step = make_step(name, counted_loss)
    params = helpers.small_params()
    state = tx.init(params)
    for batch in helpers.small_batches(4):
        params, state = step(params, state, *batch)
    assert len(traces) == 2
    assert int(state.count) == 4


@every_one
def test_a_zero_gradient_gives_a_finite_update(name):
    params, state = after(name, 2)
    zero, tx = jax.tree.map(jnp.zeros_like, params), methods.COMPLETE[name](rho=RHO)
    grad_fn = sam_optax.value_and_grad(lambda params: 0.0 * optax.tree.sum(params))(params)[2]
    extra = {"magnitude": zero} if name.startswith("bsam") else {"grad_fn": grad_fn}
    updates, state = tx.update(zero, state, params, **extra)
    chex.assert_tree_all_finite((updates, state))


@every_one
def test_map_params_finds_the_state_shaped_like_the_parameters(name):
    tx, state = methods.COMPLETE[name](rho=RHO), after(name, 1)[1]
    found = optax.tree.map_params(tx, lambda x: True, state, transform_non_params=lambda x: False)
    assert found == jax.tree.map(lambda x: x.ndim > 0, state)


@one_of_each
def test_a_run_continues_from_a_checkpoint_bit_for_bit(name, tmp_path):
    tx, step = make_step(name)
    *before, batch = helpers.small_batches(3)
    fresh = run = (helpers.small_params(), tx.init(helpers.small_params()))
    for earlier in before:
        run = step(*run, *earlier)
    restored = helpers.restored(run, fresh, tmp_path)
    chex.assert_trees_all_equal(step(*restored, *batch), step(*run, *batch))


@every_one
def test_a_state_can_be_donated(name):
    use_up = jax.jit(lambda state: jax.tree.map(lambda x: x + jnp.ones_like(x), state), donate_argnums=0)
    for state in (methods.COMPLETE[name](rho=RHO).init(helpers.small_params()), after(name, 1)[1]):
        use_up(state)
        assert all(x.is_deleted() for x in jax.tree.leaves(state))


@one_of_each
def test_both_descend_to_the_minimum_of_a_least_squares_problem(name):
    target = jnp.array([[1.0, -2.0], [0.5, 0.0], [0.0, 2.0]])
    x = jax.random.normal(jax.random.key(3), (64, 3))

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((x @ params["dense"]["kernel"] + params["dense"]["bias"] - y) ** 2)

    tx = sam_optax.bsam(0.1, 1e9, prior_precision=0.0) if name == "bsam" else sam_optax.sam_sps(RHO, weight_decay=0.0)
    both, params = passes(name, loss), helpers.small_params()

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        grads, extra = both(params, state, x, x @ target)
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(400):
        params, state = step(params, state)
    np.testing.assert_allclose(params["dense"]["kernel"], target, atol=0.05)


@one_of_each
def test_the_parameters_are_required_and_must_be_real(name):
    tx, params = methods.COMPLETE[name](rho=RHO), helpers.small_params()
    with pytest.raises(ValueError, match=r"^params is missing: call update"):
        tx.update(params, tx.init(params), grad_fn=lambda params: params, magnitude=params)
    with pytest.raises(ValueError, match="params has a leaf of dtype complex64"):
        tx.init({"w": jnp.ones(2, complex)})


@one_of_each
def test_a_second_method_in_a_chain_is_found(name):
    both = optax.chain(sam_optax.sam(), methods.COMPLETE[name](rho=RHO))
    with pytest.raises(ValueError, match=r"^tx holds 2 sharpness-aware methods"):
        check_one_method("tx", both.init(helpers.small_params()))
