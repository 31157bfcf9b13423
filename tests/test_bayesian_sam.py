"""Laws of bSAM: its passes over shards at random points, and its posterior."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import sam_optax
from tests import helpers

KEY = jax.random.key(0)
MANY = 1e30  # examples: so many that the random points equal the parameters up to rounding


def state_of(params, num_examples=MANY):
    return sam_optax.bsam(0.1, num_examples).init(params)


def found(shards, batch, num_examples=MANY, key=KEY, rho=0.05, **options):
    params = helpers.small_params()
    fn = sam_optax.bsam_value_and_grad(helpers.small_loss, rho, shards, **options)
    return fn(params, state_of(params, num_examples), key, *batch)


def test_without_noise_and_radius_the_estimate_is_the_gradient_and_its_mean_magnitude(x64):
    batch = helpers.batch_of(8)
    loss, grads, magnitude = found(4, batch, rho=0.0)
    expected_loss, expected, _ = sam_optax.value_and_grad(helpers.small_loss)(helpers.small_params(), *batch)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    chex.assert_trees_all_close(grads, expected, rtol=1e-12)
    parts = [[x[i : i + 2] for x in batch] for i in range(0, 8, 2)]
    each = [jax.grad(helpers.small_loss)(helpers.small_params(), *part) for part in parts]
    mean = jax.tree.map(lambda *g: sum(map(abs, g)) / 4, *each)
    chex.assert_trees_all_close(magnitude, mean, rtol=1e-12)
    assert all(jnp.all(m >= abs(g) - 1e-15) for m, g in zip(*map(jax.tree.leaves, (magnitude, grads)), strict=True))


def test_the_perturbation_is_that_of_each_shard_and_smaller_where_the_scale_is_large(x64):
    params, batch = helpers.small_params(), helpers.batch_of(4)
    state = state_of(params)
    state = state._replace(scale=jax.tree.map(lambda s: s * jnp.arange(1, s.size + 1).reshape(s.shape), state.scale))
    _, grads, _ = sam_optax.bsam_value_and_grad(helpers.small_loss, 0.5, 2)(params, state, KEY, *batch)
    gradient = jax.grad(helpers.small_loss)
    expected = []
    for part in ([x[:2] for x in batch], [x[2:] for x in batch]):
        at = jax.tree.map(lambda w, g, s: w + 0.5 * g / s, params, gradient(params, *part), state.scale)
        expected.append(gradient(at, *part))
    chex.assert_trees_all_close(grads, jax.tree.map(lambda a, b: (a + b) / 2, *expected), rtol=1e-10)


def test_the_draws_have_the_standard_deviation_of_the_posterior():
    w = jnp.zeros(10_000)
    state = sam_optax.bsam(0.1, num_examples=25, initial_scale=4.0).init(w)
    sample = sam_optax.bsam_sample(w + 3, state, KEY)
    np.testing.assert_allclose([sample.mean(), sample.std()], [3.0, 0.1], rtol=0.02)


def test_shards_and_keys_have_different_draws():
    """The loss is linear in the parameters, so that its value reveals the random points."""
    w = jnp.zeros(50)
    fn = sam_optax.bsam_value_and_grad(lambda w, x: jnp.mean(x @ w), shards=1)
    two = sam_optax.bsam_value_and_grad(lambda w, x: jnp.mean(x @ w), shards=2)
    state, x = state_of(w, 100.0), jnp.ones((2, 50))
    one, same, other = (float(fn(w, state, key, x)[0]) for key in (KEY, KEY, jax.random.key(1)))
    assert one == same
    assert len({one, other, float(two(w, state, KEY, x)[0])}) == 3


def test_the_scale_follows_its_rule(x64):
    w = jnp.array([1.0, -2.0])
    tx = sam_optax.bsam(0.5, 100, b1=0.8, b2=0.9, initial_scale=4.0, damping=0.3, prior_precision=20.0)
    updates, state = tx.update(jnp.array([1.0, 1.0]), tx.init(w), w, magnitude=jnp.array([1.0, 3.0]))
    momentum = 0.2 * (1 + 0.2 * w)
    np.testing.assert_allclose(state.momentum, momentum, rtol=1e-14)
    np.testing.assert_allclose(updates, -0.5 * momentum / 4, rtol=1e-14)
    np.testing.assert_allclose(state.scale, 0.9 * 4 + 0.1 * (2 * np.array([1.0, 3.0]) + 0.5), rtol=1e-14)


def test_the_model_state_is_carried_over_the_clean_passes_of_the_shards():
    def loss(w, counter, x):
        return jnp.mean((x @ w) ** 2), (jnp.sum(x), counter + 1)

    fn = sam_optax.bsam_value_and_grad(loss, shards=2, has_aux=True, state_argnum=0, batch_argnums=1)
    w = jnp.ones(2)
    (_, (total, counter)), _, _ = fn(w, state_of(w), KEY, jnp.zeros((), jnp.int32), jnp.eye(2))
    assert int(counter) == 2
    np.testing.assert_allclose(total, 1.0)  # the mean of the shards


def test_shards_on_several_devices_give_the_result_of_one(x64):
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    params, batch = helpers.small_params(), helpers.batch_of(8)
    fn = sam_optax.bsam_value_and_grad(helpers.small_loss, 0.5, shards=2, axis_name="i")
    on_devices = jax.shard_map(
        functools.partial(fn, params, state_of(params), KEY),
        mesh=mesh,
        in_specs=PartitionSpec("i"),
        out_specs=PartitionSpec(),
    )
    chex.assert_trees_all_close(on_devices(*batch), found(4, batch, rho=0.5), rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": -1.0}, "^rho is -1.0: give a finite number of at least 0"),
        ({"shards": 0}, "^shards is 0: give a positive integer"),
        ({"loss_fn": None}, "^loss_fn is None: give a function"),
        ({"state_argnum": 0}, "^state_argnum is 0: give has_aux=True"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sam_optax.bsam_value_and_grad(**({"loss_fn": abs} | options))


def test_the_state_does_not_share_the_number_of_examples_with_the_caller():
    """A training step that donates the state would otherwise delete the caller's array."""
    number = jnp.float32(10.0)
    state = sam_optax.bsam(0.1, number).init(jnp.ones(2))
    jax.jit(lambda state: state, donate_argnums=0)(state)
    assert number == 10


def test_a_state_of_another_optimizer_and_a_batch_that_is_not_divisible_are_refused():
    w = jnp.ones(2)
    fn = sam_optax.bsam_value_and_grad(lambda w, x: jnp.mean(x @ w), shards=2)
    with pytest.raises(ValueError, match=r"^state holds 0 states of bsam, expected one: give the state of its"):
        fn(w, sam_optax.sam().init(w), KEY, jnp.eye(2))
    with pytest.raises(ValueError, match=r"^shards is 2, and the batch has 3 examples"):
        fn(w, state_of(w), KEY, jnp.ones((3, 2)))
    tx = sam_optax.bsam(0.1, 10)
    with pytest.raises(ValueError, match=r"^magnitude is missing: call update\(grads, state, params, magnitude="):
        tx.update(w, tx.init(w), w)
