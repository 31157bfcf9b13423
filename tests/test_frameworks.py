"""Equinox and Haiku: a step in the usual style equals two explicit gradients."""

from typing import Any

import chex
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
import sam_optax.equinox
from tests import helpers, methods
from tests.selection import some_of

every_optimizer = some_of((*methods.NAMED, *methods.WRAPPERS), ("vasso", "wsam_decoupled"))


class Net(eqx.Module):
    """A model with leaves other than parameters: a function, an integer, and an array of integers."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear
    activation: Any
    power: int
    order: jax.Array

    def __init__(self) -> None:
        one, two = jax.random.split(jax.random.key(0))
        self.first, self.last = eqx.nn.Linear(3, 4, key=one), eqx.nn.Linear(4, 2, key=two)
        self.norm = eqx.nn.BatchNorm(4, "batch", momentum=0.9, mode="batch")
        self.activation, self.power, self.order = jnp.tanh, 2, jnp.array([2, 0, 1])

    def __call__(self, x: jax.Array, state: Any) -> Any:
        hidden, state = self.norm(self.first(x[self.order]), state)
        return self.last(self.activation(hidden)), state


def equinox_loss(model: Net, state: Any, x: jax.Array, y: jax.Array) -> Any:
    forward = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    out, state = forward(x, state)
    return jnp.mean((out - y) ** model.power), state


def arrays(tree: Any) -> Any:
    return eqx.filter(tree, eqx.is_inexact_array)


@every_optimizer
def test_a_step_with_equinox_equals_two_explicit_gradients(name):
    tx = helpers.optimizer(name, rho=0.5)
    value_and_grad = sam_optax.equinox.value_and_grad(equinox_loss, has_aux=True)

    @eqx.filter_jit
    def step(model: Net, state: Any, opt_state: Any, *batch: Any) -> Any:
        (loss, state), grads, grad_fn = value_and_grad(model, state, *batch)
        updates, opt_state = tx.update(grads, opt_state, arrays(model), grad_fn=grad_fn, value=loss)
        return eqx.apply_updates(model, updates), state, opt_state

    @eqx.filter_jit
    def plain_step(model: Net, state: Any, opt_state: Any, *batch: Any) -> Any:
        gradient = eqx.filter_value_and_grad(equinox_loss, has_aux=True)
        (loss, moved), grads = gradient(model, state, *batch)

        def second(params: Any) -> sam_optax.SecondPass:
            (loss, _), grads = gradient(eqx.combine(params, model), state, *batch)
            return sam_optax.SecondPass(grads, loss)

        grad_fn = sam_optax.GradFn(second, ())
        updates, opt_state = tx.update(grads, opt_state, arrays(model), grad_fn=grad_fn, value=loss)
        return eqx.apply_updates(model, updates), moved, opt_state

    model, state = eqx.nn.make_with_state(Net)()
    ours = theirs = (model, state, tx.init(arrays(model)))
    for batch in helpers.small_batches(3):
        ours, theirs = step(*ours, *batch), plain_step(*theirs, *batch)
    chex.assert_trees_all_close(*(arrays(run) for run in (ours, theirs)), rtol=1e-4, atol=1e-6)
    assert ours[0].activation is jnp.tanh
    np.testing.assert_array_equal(ours[0].order, [2, 0, 1])


def test_equinox_accepts_the_options_of_the_plain_function(x64):
    model, (batch,) = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0)), helpers.small_batches(1)
    loss_fn = lambda model, x, y: jnp.mean((jax.vmap(model)(x) - y) ** 2)  # noqa: E731
    whole = sam_optax.equinox.value_and_grad(loss_fn)(model, *batch)
    parts = sam_optax.equinox.value_and_grad(loss_fn, micro_batches=2)(model, *batch)
    chex.assert_trees_all_close(arrays(parts[:2]), arrays(whole[:2]), rtol=1e-12)
    chex.assert_trees_all_close(parts[2](arrays(model)), whole[2](arrays(model)), rtol=1e-12)
    with pytest.raises(ValueError, match=r"^micro_batches is 0"):
        sam_optax.equinox.value_and_grad(loss_fn, micro_batches=0)
    with pytest.raises(ValueError, match=r"^loss_fn is 1: give a function from a model"):
        sam_optax.equinox.value_and_grad(1)


def haiku_net(x: jax.Array) -> jax.Array:
    x = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(hk.Linear(4)(x), is_training=True)
    return hk.Linear(2)(hk.dropout(hk.next_rng_key(), 0.2, jnp.tanh(x)))


@every_optimizer
def test_a_step_with_haiku_equals_two_explicit_gradients(name):
    net, tx = hk.transform_with_state(haiku_net), helpers.optimizer(name, rho=0.5)

    def loss_fn(params: Any, state: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        out, state = net.apply(params, state, key, x)
        return jnp.mean((out - y) ** 2), state

    value_and_grad = sam_optax.value_and_grad(loss_fn, has_aux=True)

    @jax.jit
    def step(params: Any, state: Any, opt_state: Any, *call: Any) -> Any:
        (loss, state), grads, grad_fn = value_and_grad(params, state, *call)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss)
        return optax.apply_updates(params, updates), state, opt_state

    @jax.jit
    def plain_step(params: Any, state: Any, opt_state: Any, *call: Any) -> Any:
        (loss, moved), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, state, *call)

        def second(at: Any) -> sam_optax.SecondPass:
            (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(at, state, *call)
            return sam_optax.SecondPass(grads, loss)

        grad_fn = sam_optax.GradFn(second, ())
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn, value=loss)
        return optax.apply_updates(params, updates), moved, opt_state

    params, state = net.init(jax.random.key(0), helpers.small_batches(1)[0][0])
    ours = theirs = (params, state, tx.init(params))
    for i, batch in enumerate(helpers.small_batches(3)):
        key = jax.random.key(i)
        ours, theirs = step(*ours, key, *batch), plain_step(*theirs, key, *batch)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-6)
