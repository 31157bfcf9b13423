"""Optax's wrappers that change the structure of the parameters: what is supported, and what is refused."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import sam_optax
from tests import helpers
from tests.selection import combinations

BASES = {"sgd": lambda: optax.sgd(0.1, momentum=0.9), "adam": lambda: optax.adam(0.1)}
every_base = pytest.mark.parametrize("base", BASES)
ESTIMATORS = {"sam": sam_optax.sam, "gsam": sam_optax.gsam, "asam": sam_optax.asam, "look_sam": sam_optax.look_sam}


def pairs(params: Any) -> Any:
    return optax.LookaheadParams.init_synced(params)


def gradient(params: Any) -> Any:
    return jax.grad(helpers.small_loss)(params, *helpers.small_batches(1)[0])


def steps(tx: optax.GradientTransformation, count: int = 3) -> list[Any]:
    return helpers.descend(tx, helpers.small_params(), helpers.small_batches(count))


@combinations(lambda name, base: base == list(BASES)[list(ESTIMATORS).index(name) % 2], name=ESTIMATORS, base=BASES)
def test_a_flattened_base_after_a_method_equals_the_base(name, base):
    flat = optax.chain(ESTIMATORS[name](), optax.flatten(BASES[base]()))
    chex.assert_trees_all_close(steps(flat), steps(optax.chain(ESTIMATORS[name](), BASES[base]())), rtol=1e-5)


@every_base
def test_a_flattened_base_inside_decoupled_wsam_equals_the_base(base):
    flat = sam_optax.wsam_decoupled(optax.flatten(BASES[base]()), 0.1)
    chex.assert_trees_all_close(steps(flat), steps(sam_optax.wsam_decoupled(BASES[base](), 0.1)), rtol=1e-5)


@every_base
def test_flattened_msam_equals_msam(base):
    chex.assert_trees_all_close(
        steps(optax.flatten(sam_optax.msam(BASES[base]()))), steps(sam_optax.msam(BASES[base]())), rtol=1e-5
    )


def test_a_flattened_base_has_no_momentum_for_msam():
    message = (
        r"^base keeps 0 momenta .* for params at 'dense/bias', .* Its state has TraceState\.trace of ''\. .*direction="
    )
    with pytest.raises(ValueError, match=message):
        sam_optax.msam(optax.flatten(BASES["sgd"]())).init(helpers.small_params())


AROUND = {
    "sam": lambda base: optax.chain(sam_optax.sam(), base),
    "gsam": lambda base: optax.chain(sam_optax.gsam(when=sam_optax.every(2)), base),
    "wsam_decoupled": lambda base: sam_optax.wsam_decoupled(base, 0.1),
}


@pytest.mark.parametrize("name", AROUND)
def test_a_method_inside_flatten_is_refused_with_a_message(name):
    tx, params = optax.flatten(AROUND[name](BASES["sgd"]())), helpers.small_params()
    _, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *helpers.small_batches(1)[0])
    message = r"^grad_fn got parameters of shapes .*optax\.chain\(method, optax\.flatten\(optimizer\)\)\."
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(params), params, grad_fn=grad_fn)


def lookahead(base: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.lookahead(base, sync_period=2, slow_step_size=0.5)


@every_base
def test_a_method_called_separately_passes_its_gradient_to_lookahead(base):
    """The remedy in the errors: the fast weights make SAM's steps, and every second step goes halfway back."""
    method, tx = sam_optax.sam(rho=0.5), lookahead(BASES[base]())
    params = pairs(helpers.small_params())
    method_state, state = method.init(params.fast), tx.init(params)
    plain, plain_state = BASES[base](), BASES[base]().init(params.fast)
    fast = slow = helpers.small_params()
    for step in range(4):
        grads, method_state = method.update(gradient(params.fast), method_state, params.fast, grad_fn=gradient)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        offset = optax.tree.scale(0.5 / optax.tree.norm(gradient(fast)), gradient(fast))
        updates, plain_state = plain.update(gradient(optax.tree.add(fast, offset)), plain_state, fast)
        fast = optax.apply_updates(fast, updates)
        if step % 2:
            fast = slow = jax.tree.map(lambda s, f: s + 0.5 * (f - s), slow, fast)
        chex.assert_trees_all_close(params, optax.LookaheadParams(fast, slow), rtol=1e-4, atol=1e-6)


METHODS = {name: lambda base, method=method: optax.chain(method(), base) for name, method in ESTIMATORS.items()} | {
    "wsam_decoupled": lambda base: sam_optax.wsam_decoupled(base, 0.1)
}


@pytest.mark.parametrize("name", METHODS)
def test_lookahead_around_a_method_is_refused_with_a_message(name):
    tx, params = optax.with_extra_args_support(lookahead(METHODS[name](BASES["sgd"]()))), pairs(helpers.small_params())
    state = tx.init(params)
    message = (
        r"^grad_fn is missing: .*optax\.lookahead, does not pass grad_fn on: call the method by itself, before it\."
    )
    with pytest.raises(ValueError, match=message):
        tx.update(gradient(params.fast), state, params, grad_fn=gradient)


@pytest.mark.parametrize("name", [*METHODS, "msam"])
def test_lookahead_after_or_inside_a_method_is_refused_with_a_message(name):
    tx = (METHODS | {"msam": sam_optax.msam})[name](lookahead(BASES["sgd"]()))
    message = (
        r"^params is an optax\.LookaheadParams, .*method\.update\(grads, method_state, params\.fast, grad_fn=grad_fn\)"
    )
    with pytest.raises(ValueError, match=message) as refused:
        tx.init(pairs(helpers.small_params()))
    assert len(str(refused.value)) < 400


def test_the_fast_weights_of_lookahead_around_msam_are_evaluated_without_their_shift():
    tx, params = lookahead(sam_optax.msam(BASES["sgd"](), 0.3)), pairs(helpers.small_params())
    updates, state = tx.update(gradient(params.fast), tx.init(params), params)
    params = optax.apply_updates(params, updates)
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, helpers.small_params(), gradient(helpers.small_params()))
    chex.assert_trees_all_close(sam_optax.msam_eval_params(state, params.fast), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"^state belongs to other parameters .* the fast ones of optax\.lookahead"):
        sam_optax.msam_eval_params(state, params)


class Layers(NamedTuple):
    """Another container with the names of a dictionary."""

    first: Any
    second: Any


LARGE = {name: {f"layer_{i}": jnp.ones(2) for i in range(100)} for name in ("first", "second")}
DIFFERENT = {
    "one_is_missing": (
        LARGE | {"first": {}},
        "Its number of leaves is 100, that of params 200; the first that is missing is at 'first/layer_0'",
    ),
    "one_is_new": (LARGE | {"third": jnp.ones(2)}, "the first that params does not have is at 'third'"),
    "in_a_pair": ((LARGE, 0.0), "Its number of leaves is 201, that of params 200; "),
    "a_vector": (jnp.ones(400), "Its number of leaves is 1, that of params 200; "),
    "nothing": (None, "Its number of leaves is 0, that of params 200; "),
    "other_containers": (Layers(**LARGE), "The leaves have the same names in other containers: Layers, dict, and in"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_trees_are_described_by_their_first_difference_however_large(name):
    updates, message = DIFFERENT[name]
    tx = sam_optax.sam()
    with pytest.raises(ValueError, match=rf"^updates does not have the structure of params: .*{message}") as refused:
        tx.update(updates, tx.init(LARGE), LARGE)
    assert len(str(refused.value)) < 250
