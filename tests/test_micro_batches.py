"""Accumulation: both passes use the whole batch, in any number of parts."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers, methods
from tests.helpers import batch_of
from tests.selection import LOOPS, combinations, some_of


def steps(tx: optax.GradientTransformation, **options: Any) -> Any:
    """Parameters and state after three steps."""
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, **options)

    @jax.jit
    def step(params: Any, state: Any, *batch: Any) -> tuple[Any, Any]:
        loss, grads, grad_fn = value_and_grad(params, *batch)
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn, value=loss)
        return optax.apply_updates(params, updates), state

    run = helpers.small_params(), tx.init(helpers.small_params())
    for seed in range(3):
        run = step(*run, *batch_of(8, seed))
    return run


@combinations(
    lambda name, parts, loop: (
        (name, loop) == ("vasso", {2: "unrolled", 4: "scanned", 8: "scanned"}[parts])
        or (name, parts, loop) in {("asam", 4, "scanned"), ("gsam", 4, "unrolled")}
    ),
    indirect=["loop"],
    name=methods.NAMED,
    parts=(2, 4, 8),
    loop=LOOPS,
)
def test_a_step_in_parts_equals_the_step_of_the_whole_batch(name, parts, loop, x64):
    tx = helpers.optimizer(name, rho=0.5)
    chex.assert_trees_all_close(steps(tx, micro_batches=parts), steps(tx), rtol=0, atol=1e-12)


@some_of(methods.WRAPPERS, quick=("msam", "wsam_decoupled_masked"))
def test_the_wrappers_give_the_same_step_in_parts(name, loop, x64):
    tx = helpers.optimizer(name, rho=0.5)
    chex.assert_trees_all_close(steps(tx, micro_batches=4), steps(tx), rtol=0, atol=1e-12)


def test_multi_steps_around_sam_gives_another_step(x64):
    """`optax.MultiSteps` around SAM uses only the second pass of the last part."""
    sam, parts = helpers.optimizer("sam", optax.sgd(0.1), rho=0.5), 4
    multi = optax.MultiSteps(sam, parts)
    value_and_grad, params = sam_optax.value_and_grad(helpers.small_loss), helpers.small_params()
    x, y = batch_of(8)
    state, trained = multi.init(params), params
    for part in zip(jnp.split(x, parts), jnp.split(y, parts), strict=True):
        _, grads, grad_fn = value_and_grad(trained, *part)
        updates, state = multi.update(grads, state, trained, grad_fn=grad_fn)
        trained = optax.apply_updates(trained, updates)

    def once(**options: Any) -> Any:
        _, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss, **options)(params, x, y)
        return optax.apply_updates(params, sam.update(grads, sam.init(params), params, grad_fn=grad_fn)[0])

    chex.assert_trees_all_close(once(micro_batches=parts), once(), rtol=0, atol=1e-14)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(trained, once(), rtol=0, atol=1e-4)


def test_floating_aux_is_averaged_and_integers_are_summed(loop):
    def loss_fn(w: jax.Array, x: jax.Array) -> Any:
        auxiliary = {
            "mean": jnp.mean(x, 0),
            "positive": jnp.sum(x > 0),
            "size": x.shape[0],
            "half": jnp.mean(x).astype("bfloat16"),
        }
        return jnp.mean(x @ w), auxiliary

    x = jnp.arange(-6.0, 6.0).reshape(6, 2)
    (loss, aux), grads, _ = sam_optax.value_and_grad(loss_fn, has_aux=True, micro_batches=3)(jnp.ones(2), x)
    np.testing.assert_allclose(loss, np.mean(np.sum(x, 1)), rtol=1e-6)
    np.testing.assert_allclose(aux["mean"], np.mean(x, 0), rtol=1e-6)
    np.testing.assert_allclose(grads, np.mean(x, 0), rtol=1e-6)
    assert (int(aux["positive"]), int(aux["size"]), aux["half"].dtype) == (5, 6, jnp.bfloat16)


def test_the_loss_is_traced_once_per_pass_for_any_number_of_parts(loop):
    traces = []

    def loss_fn(w: jax.Array, x: jax.Array) -> jax.Array:
        traces.append(x.shape)
        return jnp.mean(x @ w)

    _, _, grad_fn = sam_optax.value_and_grad(loss_fn, micro_batches=4)(jnp.ones(2), jnp.ones((8, 2)))
    grad_fn(jnp.ones(2))
    assert traces == [(2, 2), (2, 2)]


def test_keys_and_scalars_are_passed_to_every_part(loop):
    def loss_fn(w: jax.Array, batch: dict[str, jax.Array], key: jax.Array, scale: jax.Array) -> Any:
        noise = jax.random.normal(key, ())
        return scale * jnp.mean(batch["x"] * w) + 0 * noise, noise

    key = jax.random.key(0)
    value_and_grad = sam_optax.value_and_grad(loss_fn, has_aux=True, micro_batches=2)
    (loss, noise), _, _ = value_and_grad(jnp.array(2.0), {"x": jnp.arange(4.0)}, key, 3.0)
    np.testing.assert_allclose([loss, noise], [9.0, jax.random.normal(key, ())], rtol=1e-6)


@pytest.mark.parametrize("argnums", [1, (1,), -1])
def test_batches_that_cannot_be_inferred_need_names(argnums, loop):
    table, x = jnp.ones(2), jnp.arange(4.0)
    loss_fn = lambda w, table, x: jnp.mean(w * x) * table.shape[0]  # noqa: E731
    value_and_grad = sam_optax.value_and_grad(loss_fn, micro_batches=2, batch_argnums=argnums)
    loss, _, grad_fn = value_and_grad(jnp.array(1.0), table, x)
    np.testing.assert_allclose([loss, grad_fn(jnp.array(1.0))], [3.0, 3.0])
    with pytest.raises(ValueError, match=r"leading axes .*'argument 0.*: 2, 'argument 1.*: 4.* batch_argnums"):
        sam_optax.value_and_grad(loss_fn, micro_batches=2)(jnp.array(1.0), table, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batches": 3}, "micro_batches is 3, and the batch has 8 examples: give a number that divides it"),
        ({"micro_batches": 2, "batch_argnums": 5}, "batch_argnums has 5, and there are 2 arguments"),
        ({"micro_batches": 2, "batch_argnums": ()}, r"leading axes \{\}"),
    ],
)
def test_an_indivisible_batch_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sam_optax.value_and_grad(helpers.small_loss, **options)(helpers.small_params(), *batch_of(8))


def test_aux_that_is_not_numeric_is_refused():
    value_and_grad = sam_optax.value_and_grad(
        lambda w, x: (jnp.mean(w * x), {"any": jnp.any(x > 0)}), has_aux=True, micro_batches=2
    )
    with pytest.raises(ValueError, match="auxiliary output has a leaf of dtype bool: give floating numbers"):
        value_and_grad(jnp.array(1.0), jnp.ones(4))


@pytest.mark.parametrize("scale", [1024.0, 3.0])
def test_a_loss_scale_is_divided_out_of_each_pass(scale):
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    plain = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    scaled = sam_optax.value_and_grad(helpers.small_loss, loss_scale=scale)(params, *batch)
    chex.assert_trees_all_close(scaled[:2], plain[:2], rtol=1e-5)
    chex.assert_trees_all_close(scaled[2](params), plain[2](params), rtol=1e-5)


def test_a_loss_scale_saves_gradients_that_float16_would_lose():
    """The gradient with respect to the output is 1e-8, too small for float16, and that of the weights is 1e-4."""
    w, x, small = jnp.full(4, 1e-4, jnp.float16), jnp.full(4, 1e4, jnp.float16), jnp.float16(1e-4)
    loss_fn = lambda w, x: (jnp.sum(w * x) * small).astype(jnp.float32) * 1e-4  # noqa: E731
    lost, kept = (sam_optax.value_and_grad(loss_fn, loss_scale=s)(w, x) for s in (1.0, 1024.0))
    for grads in (lost[1], lost[2](w)):
        np.testing.assert_array_equal(grads, 0)
    for grads in (kept[1], kept[2](w)):
        np.testing.assert_allclose(np.asarray(grads, np.float32), 1e-4, rtol=0.01)
        assert grads.dtype == jnp.float16


def test_second_pass_arguments_that_are_not_a_tuple_are_refused():
    value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.mean(w * x), second_pass_args=lambda x: x)
    with pytest.raises(ValueError, match=r"^second_pass_args returned \w+: return a tuple of the arguments"):
        value_and_grad(jnp.array(1.0), jnp.ones(1))


def test_the_second_pass_can_use_another_key():
    def loss_fn(w: jax.Array, x: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.sum(jax.random.bernoulli(key, 0.5, x.shape) * x * w)

    x, key, w = jnp.ones(32), jax.random.key(0), jnp.array(1.0)
    other = lambda x, key: (x, jax.random.fold_in(key, 1))  # noqa: E731
    _, grads, same = sam_optax.value_and_grad(loss_fn)(w, x, key)
    _, clean, fresh = sam_optax.value_and_grad(loss_fn, second_pass_args=other)(w, x, key)
    np.testing.assert_array_equal([grads, same(w)], [clean, clean])
    np.testing.assert_array_equal(fresh(w), np.sum(jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, x.shape)))
    assert fresh(w) != clean


def test_a_loss_scale_may_be_traced():
    """As with Flax's DynamicScale, where the scale is part of the training state."""
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    plain = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    traces = []

    @jax.jit
    def passes(scale: jax.Array, params: Any, *batch: Any) -> Any:
        traces.append(scale)
        return sam_optax.value_and_grad(helpers.small_loss, loss_scale=scale)(params, *batch)

    for scale in (1024.0, 3.0):
        loss, grads, grad_fn = passes(jnp.float32(scale), params, *batch)
        chex.assert_trees_all_close((loss, grads), plain[:2], rtol=1e-5)
        chex.assert_trees_all_close(grad_fn(params), plain[2](params), rtol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("scale", [0.0, -1.0, jnp.inf, "large"])
def test_a_loss_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ValueError, match=r"^loss_scale is .*: give a"):
        sam_optax.value_and_grad(helpers.small_loss, loss_scale=scale)
