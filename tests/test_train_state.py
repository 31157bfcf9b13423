"""Linen: a `TrainState` that passes the second pass on."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import sam_optax
import sam_optax.flax


class Net(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.BatchNorm(use_running_average=False)(linen.Dense(4)(x))
        x = linen.Dropout(0.5, deterministic=False)(linen.relu(x))
        return linen.Dense(1)(x)[:, 0]


class State(sam_optax.flax.TrainState):
    batch_stats: Any


def loss_fn(params: Any, batch_stats: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
    variables = {"params": params, "batch_stats": batch_stats}
    out, moved = Net().apply(variables, x, rngs={"dropout": key}, mutable=["batch_stats"])
    return jnp.mean((out - y) ** 2), moved["batch_stats"]


VALUE_AND_GRAD = sam_optax.value_and_grad(loss_fn, has_aux=True)


def batches(steps: int) -> list[tuple[jax.Array, ...]]:
    rng = np.random.default_rng(0)
    return [
        (jax.random.key(i), jnp.asarray(rng.normal(1, 2, (8, 3))), jnp.asarray(rng.normal(size=8)))
        for i in range(steps)
    ]


def fresh() -> Any:
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return Net().init(keys, jnp.ones((2, 3)))


def make_tx() -> optax.GradientTransformation:
    return optax.chain(sam_optax.sam(0.5), optax.sgd(0.05, momentum=0.9))


def plain_loop(variables: Any, steps: int) -> tuple[Any, Any]:
    """The same training without a `TrainState` and without `value_and_grad`: two gradients, written out."""
    tx, params, batch_stats = make_tx(), variables["params"], variables["batch_stats"]
    state, gradient = tx.init(params), jax.jit(jax.grad(loss_fn, has_aux=True))
    for batch in batches(steps):
        second_pass = functools.partial(lambda s, b, w: gradient(w, s, *b)[0], batch_stats, batch)
        grads, batch_stats = gradient(params, batch_stats, *batch)
        updates, state = tx.update(grads, state, params, grad_fn=second_pass)
        params = optax.apply_updates(params, updates)
    return params, batch_stats


def test_training_equals_the_functional_loop():
    variables = fresh()

    @jax.jit
    def step(state: State, *batch: Any) -> State:
        (loss, batch_stats), grads, grad_fn = VALUE_AND_GRAD(state.params, state.batch_stats, *batch)
        return state.apply_gradients(grads=grads, grad_fn=grad_fn, value=loss, batch_stats=batch_stats)

    state = State.create(apply_fn=None, tx=make_tx(), **variables)
    for batch in batches(3):
        state = step(state, *batch)
    params, batch_stats = plain_loop(variables, 3)
    chex.assert_trees_all_close((state.params, state.batch_stats), (params, batch_stats), rtol=1e-4, atol=1e-6)
    assert int(state.step) == 3
    np.testing.assert_allclose(sam_optax.diagnostics(state.opt_state).perturbation_norm, 0.5, rtol=1e-5)


def test_all_extra_arguments_are_passed_to_the_optimizer():
    received: dict[str, Any] = {}

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        received.update(extra_args)
        return updates, state

    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    state = sam_optax.flax.TrainState.create(apply_fn=None, params=jnp.ones(2), tx=tx)
    given = {"grad_fn": jnp.sin, "value": 0.25, "perturb": False}
    state.apply_gradients(grads=jnp.ones(2), extra_args={"temperature": 2.0}, **given)
    assert received == given | {"temperature": 2.0}


@pytest.mark.parametrize("base", [optax.scale(-0.1), optax.sgd(0.1)], ids=["scale", "sgd"])
def test_an_optimizer_without_extra_arguments_gets_none(base):
    state = sam_optax.flax.TrainState.create(apply_fn=None, params=jnp.ones(2), tx=base)
    state = state.apply_gradients(grads=jnp.ones(2), grad_fn=jnp.sin, value=1.0)
    np.testing.assert_allclose(state.params, [0.9, 0.9], rtol=1e-6)


def test_a_skipped_step_needs_no_second_pass():
    state = State.create(apply_fn=None, params=jnp.ones(2), tx=make_tx(), batch_stats=0)
    state = state.apply_gradients(grads=jnp.ones(2), perturb=False, batch_stats=1)
    np.testing.assert_allclose(state.params, [0.95, 0.95], rtol=1e-6)
    assert state.batch_stats == 1


def test_a_forgotten_second_pass_is_refused():
    state = sam_optax.flax.TrainState.create(apply_fn=None, params=jnp.ones(2), tx=make_tx())
    with pytest.raises(ValueError, match="grad_fn is missing"):
        state.apply_gradients(grads=jnp.ones(2))


def test_the_collection_of_layers_in_fp8_is_refused():
    params = {"params": {"w": jnp.ones(2)}, "_overwrite_with_gradient": {"scale": jnp.ones(1)}}
    with pytest.raises(ValueError, match="params has the collection '_overwrite_with_gradient'"):
        sam_optax.flax.TrainState.create(apply_fn=None, params=params, tx=make_tx())


def test_two_methods_in_one_optimizer_are_refused():
    tx = optax.chain(sam_optax.sam(0.5), sam_optax.sam(0.1), optax.sgd(0.1))
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"^tx .*2"):
        sam_optax.flax.TrainState.create(apply_fn=None, params=params, tx=tx)
    state = sam_optax.flax.TrainState(step=0, apply_fn=None, params=params, tx=tx, opt_state=tx.init(params))
    with pytest.raises(ValueError, match=r"^opt_state .*2"):
        state.apply_gradients(grads=params, grad_fn=lambda params: params)
