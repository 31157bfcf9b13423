"""Properties of every method in the table."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers, methods
from tests.selection import combinations


def probe(received: dict[str, Any]) -> optax.GradientTransformationExtraArgs:
    """A transform that records its extra arguments."""

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        received.update(extra_args)
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def refuse(params: Any) -> Any:
    raise AssertionError("a skipped step made a second pass")


@methods.every_method
def test_extra_arguments_reach_the_transforms_after_the_method(name):
    received: dict[str, Any] = {}
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    tx = helpers.optimizer(name, base=probe(received))
    value, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    tx.update(grads, tx.init(params), params, grad_fn=grad_fn, value=value, temperature=0.5)
    assert (received["value"], received["temperature"]) == (value, 0.5)


def test_extra_arguments_reach_the_perturbation():
    received: dict[str, Any] = {}
    ascent = optax.chain(probe(received), sam_optax.normalized_ascent())
    tx, w = sam_optax.sharpness_aware(ascent, sam_optax.perturbed_gradient()), jnp.ones(2)
    grad_fn = lambda w: w  # noqa: E731
    tx.update(w, tx.init(w), w, grad_fn=grad_fn, temperature=0.5)
    assert received == {"temperature": 0.5, "grad_fn": grad_fn, "perturb": True}


@methods.a_method_of_each_kind
def test_a_step_is_traced_once_per_shape_and_decision(name):
    traces = []

    def counted_loss(params: Any, *batch: Any) -> jax.Array:
        traces.append(batch[0].shape)
        return helpers.small_loss(params, *batch)

    tx, params = helpers.optimizer(name), helpers.small_params()
    step, state = helpers.make_step(tx, counted_loss), tx.init(params)
    batches, each = helpers.small_batches(4), methods.gradients(name)
    for perturb, passes in ((None, each), (True, 2 * each), (False, 2 * each + 1)):
        for batch in batches:
            params, state = step(params, state, *batch, perturb=perturb)
        assert len(traces) == passes
    step(params, state, *(x[:2] for x in batches[0]))
    assert len(traces) == 3 * each + 1


@methods.every_method
@pytest.mark.parametrize("base", helpers.BASES)
def test_a_zero_gradient_gives_the_update_of_the_base_on_a_zero_gradient(name, base):
    params = helpers.small_params()
    zero = jax.tree.map(jnp.zeros_like, params)
    tx, plain = helpers.optimizer(name, helpers.BASES[base]()), helpers.BASES[base]()
    updates, state = tx.update(zero, tx.init(params), params, grad_fn=lambda params: zero)
    expected, _ = plain.update(zero, plain.init(params), params)
    chex.assert_trees_all_equal(updates, expected)
    np.testing.assert_array_equal(sam_optax.diagnostics(state)[:4], np.zeros(4))


@methods.every_optimizer
def test_a_zero_gradient_after_nonzero_ones_gives_a_finite_update(name):
    updates, state = helpers.one_call(name, steps=2)
    params = helpers.small_params()
    zero, tx = jax.tree.map(jnp.zeros_like, params), helpers.optimizer(name)
    for perturb in (True, False, None):
        updates, state = tx.update(zero, state, params, grad_fn=lambda params: zero, perturb=perturb)
        chex.assert_tree_all_finite(updates)


@methods.every_method
def test_a_skipped_step_equals_a_base_step_without_a_second_pass(name):
    updates, _ = helpers.one_call(name, perturb=False, grad_fn=refuse)
    plain, params, (batch,) = helpers.BASES["momentum"](), helpers.small_params(), helpers.small_batches(1)
    expected, _ = plain.update(jax.grad(helpers.small_loss)(params, *batch), plain.init(params), params)
    chex.assert_trees_all_equal(updates, expected)


@methods.every_method
def test_the_state_has_one_structure_perturbed_or_not(name):
    tx = helpers.optimizer(name)
    fresh = helpers.shapes(tx.init(helpers.small_params()))
    for call in ({"perturb": True}, {"perturb": False, "grad_fn": None}, {}):
        assert helpers.shapes(helpers.one_call(name, **call)[1]) == fresh


@combinations(
    lambda name, perturb: name in methods.SHORT and (perturb is None or name in methods.OF_EACH_KIND),
    name=methods.METHODS,
    perturb=(True, False, np.bool_(True), None),
)
def test_every_update_advances_the_count(name, perturb):
    state = helpers.one_call(name, steps=3, perturb=perturb)[1]
    assert int(state[0].count) == 3


@methods.a_method_of_each_kind
def test_traced_and_static_decisions_give_the_same_step(name, x64):
    policy, batches, params = sam_optax.every(3), helpers.small_batches(7), helpers.small_params()
    tx = helpers.optimizer(name, when=policy)
    step, traced, plain = helpers.make_step(tx), (params, tx.init(params)), (params, tx.init(params))
    for i, batch in enumerate(batches):
        traced, plain = step(*traced, *batch), step(*plain, *batch, perturb=policy.at(i))
        chex.assert_trees_all_close(traced, plain, rtol=0, atol=1e-12)


@methods.every_optimizer
def test_map_params_finds_the_state_shaped_like_the_parameters(name):
    tx = helpers.optimizer(name)
    state = helpers.one_call(name)[1]
    found = optax.tree.map_params(tx, lambda x: True, state, transform_non_params=lambda x: False)
    assert found == jax.tree.map(lambda x: x.ndim > 0, state)


@methods.an_optimizer_of_each_kind
def test_a_run_resumed_from_a_checkpoint_is_unchanged(name, tmp_path):
    tx, (*before, batch) = helpers.optimizer(name), helpers.small_batches(3)
    step, run = helpers.make_step(tx), (helpers.small_params(), tx.init(helpers.small_params()))
    fresh = run
    for earlier in before:
        run = step(*run, *earlier)
    restored = helpers.restored(run, fresh, tmp_path)
    chex.assert_trees_all_equal(restored, run)
    chex.assert_trees_all_equal(step(*restored, *batch), step(*run, *batch))


@methods.a_method_of_each_kind
def test_an_injected_radius_is_used(name):
    factory: Callable[..., Any] = methods.METHODS[name]
    static = {"mask", "exempt", "when"} & set(inspect.signature(factory).parameters)
    injected, plain = optax.inject_hyperparams(factory, static_args=static)(rho=0.1), factory(rho=0.3)
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    _, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    state = injected.init(params)
    state.hyperparams["rho"] = jnp.asarray(0.3)
    ours, _ = jax.jit(injected.update)(grads, state, params, grad_fn=grad_fn)
    theirs, _ = jax.jit(plain.update)(grads, plain.init(params), params, grad_fn=grad_fn)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5)


@methods.every_optimizer
def test_64_bits_stay_64_bits(name, x64):
    updates, state = helpers.one_call(name)
    floating = [x for x in jax.tree.leaves((updates, state)) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floating} == {jnp.dtype("float64")}


@methods.a_method_of_each_kind
def test_a_compiled_update_takes_the_second_pass_as_an_argument(name):
    tx, params, traces = helpers.optimizer(name), helpers.small_params(), []

    @functools.partial(jax.jit, static_argnames="perturb")
    def update(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        traces.append(kwargs)
        return tx.update(*args, **kwargs)

    value_and_grad, state = sam_optax.value_and_grad(helpers.small_loss), tx.init(params)
    for batch in helpers.small_batches(3):
        value, grads, grad_fn = value_and_grad(params, *batch)
        expected, _ = tx.update(grads, state, params, grad_fn=grad_fn, value=value)
        updates, state = update(grads, state, params, grad_fn=grad_fn, value=value)
        chex.assert_trees_all_close(updates, expected, rtol=1e-4, atol=1e-6)
    assert len(traces) == 1


@methods.every_optimizer
@pytest.mark.parametrize("perturb", [True, False])
def test_no_two_leaves_of_a_state_share_a_buffer_so_that_it_can_be_donated(name, perturb):
    use_up = jax.jit(lambda state: jax.tree.map(lambda x: x + jnp.ones_like(x), state), donate_argnums=0)
    for state in (helpers.optimizer(name).init(helpers.small_params()), helpers.one_call(name, perturb=perturb)[1]):
        use_up(state)
        assert all(x.is_deleted() for x in jax.tree.leaves(state))
