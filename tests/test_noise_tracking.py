"""Noise during training: each way to process a batch measures the defined noise, with no further gradient."""

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
from jax.sharding import PartitionSpec

import sam_optax
import sam_optax.flax
from sam_optax import trees
from tests import helpers
from tests.helpers import batch_of

RHO, PARTS = 0.5, 4


def parts_of(batch: Any, parts: int = PARTS) -> list[Any]:
    return list(zip(*(jnp.split(x, parts) for x in batch), strict=True))


def flat(gradient: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)])


def from_parts(gradients: list[Any], batch: Any) -> sam_optax.NoiseTerms:
    """The definition: the sample variance of the parts, and the squared norm of their mean corrected for it."""
    parts, size = np.stack([flat(gradient) for gradient in gradients]), len(batch[0])
    noise = size / len(parts) * np.sum(np.var(parts, axis=0, ddof=1))
    return sam_optax.NoiseTerms(np.sum(np.mean(parts, 0) ** 2) - noise / size, noise)


def ascended(params: Any, gradient: Any) -> Any:
    """`w + ρ g/‖g‖`."""
    return jax.tree.map(lambda w, g: w + RHO * g / trees.norm(gradient), params, gradient)


def written_out(params: Any, batch: Any, parts: int = PARTS) -> sam_optax.Noise:
    """The noise of SAM's passes with one perturbation for the whole batch."""
    gradient = jax.grad(helpers.small_loss)
    moved = ascended(params, gradient(params, *batch))
    found = ([gradient(at, *part) for part in parts_of(batch, parts)] for at in (params, moved))
    return sam_optax.Noise(*(from_parts(gradients, batch) for gradients in found))


def of_a_step(value_and_grad: Callable[..., Any], params: Any, *batch: jax.Array) -> sam_optax.Noise:
    """The noise that one step of GSAM measures."""
    tx = optax.chain(sam_optax.track_noise(sam_optax.gsam(rho=RHO)), optax.sgd(0.1))
    _, grads, grad_fn = value_and_grad(params, *batch)
    _, state = tx.update(grads, tx.init(params), params, grad_fn=grad_fn)
    return sam_optax.measured_noise(state)


def over_devices(how: str, **options: Any) -> sam_optax.Noise:
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, axis_name="data", measure_noise=True, **options)
    step, batch = functools.partial(of_a_step, value_and_grad), batch_of(16)
    if how == "vmap":
        stacked = (x.reshape(PARTS, -1, *x.shape[1:]) for x in batch)
        found = jax.jit(jax.vmap(step, in_axes=(None, 0, 0), axis_name="data"))(helpers.small_params(), *stacked)
        return jax.tree.map(lambda x: x[0], found)
    mesh = jax.make_mesh((PARTS,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (PartitionSpec(), PartitionSpec("data"), PartitionSpec("data"))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())
    return jax.jit(mapped)(helpers.small_params(), *batch)


def test_micro_batches_measure_both_gradients(loop, x64):
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=PARTS, measure_noise=True)
    found = jax.jit(functools.partial(of_a_step, value_and_grad))(helpers.small_params(), *batch_of(16))
    chex.assert_trees_all_close(found, written_out(helpers.small_params(), batch_of(16)), rtol=1e-9)


@pytest.mark.parametrize("how", ["vmap", "shard_map"])
def test_the_parts_of_the_devices_measure_the_same(how, x64):
    chex.assert_trees_all_close(over_devices(how), written_out(helpers.small_params(), batch_of(16)), rtol=1e-9)


def test_micro_batches_on_each_device_are_smaller_parts(x64):
    expected = written_out(helpers.small_params(), batch_of(16), 2 * PARTS)
    chex.assert_trees_all_close(over_devices("vmap", micro_batches=2), expected, rtol=1e-9)


def test_each_shard_of_m_sam_measures_at_its_own_perturbation(loop, x64):
    params, batch, gradient = helpers.small_params(), batch_of(16), jax.grad(helpers.small_loss)
    method = sam_optax.sam(rho=RHO)
    fn = sam_optax.sharpness_aware_grad(helpers.small_loss, method, 4, batch_argnums=(0, 1), measure_noise=True)
    loss, (aux, noise), grads, state = jax.jit(fn)(params, method.init(params), *batch)
    clean = [gradient(params, *part) for part in parts_of(batch)]
    moved = [gradient(ascended(params, g), *part) for g, part in zip(clean, parts_of(batch), strict=True)]
    expected = sam_optax.Noise(*(from_parts(gradients, batch) for gradients in (clean, moved)))
    chex.assert_trees_all_close(noise, expected, rtol=1e-9)
    plain = sam_optax.sharpness_aware_grad(helpers.small_loss, method, 4, batch_argnums=(0, 1))
    chex.assert_trees_all_close(
        (loss, aux, grads, state), plain(params, method.init(params), *batch), rtol=0, atol=1e-14
    )
    tx = optax.chain(sam_optax.track_noise(), optax.sgd(0.1))
    _, opt_state = tx.update(grads, tx.init(params), params, noise=noise)
    chex.assert_trees_all_close(sam_optax.measured_noise(opt_state), noise, rtol=1e-12)


def test_a_skipped_step_of_m_sam_measures_only_the_clean_gradient(x64):
    params, method = helpers.small_params(), sam_optax.sam(rho=RHO)
    fn = sam_optax.sharpness_aware_grad(helpers.small_loss, method, 4, batch_argnums=(0, 1), measure_noise=True)
    noise = fn(params, method.init(params), *batch_of(16), perturb=False)[1][1]
    assert noise.perturbed is None
    tx = sam_optax.track_noise()
    _, state = tx.update(params, tx.init(params), params, noise=noise)
    found = sam_optax.measured_noise(state, unmeasured=-1.0)
    chex.assert_trees_all_close(found.clean, noise.clean, rtol=1e-12)
    np.testing.assert_array_equal(found.perturbed, [-1.0, -1.0])


def test_shards_on_several_devices_measure_the_same_as_on_one(x64):
    params, method = helpers.small_params(), sam_optax.sam(rho=RHO)
    fn = functools.partial(sam_optax.sharpness_aware_grad, helpers.small_loss, method, 2, batch_argnums=(0, 1))
    one = fn(measure_noise=True)(params, method.init(params), *batch_of(16))[1][1]
    stacked = (x.reshape(PARTS, -1, *x.shape[1:]) for x in batch_of(16))
    spread = jax.vmap(fn(measure_noise=True, axis_name="data"), in_axes=(None, None, 0, 0), axis_name="data")
    each = jax.jit(spread)(params, method.init(params), *stacked)[1][1]
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[-1], each), one, rtol=1e-9)


def test_flax_measures_the_same(x64):
    model = nnx.Linear(3, 2, param_dtype=float, rngs=nnx.Rngs(0))
    loss_fn = lambda model, x, y: jnp.mean((jnp.tanh(model(x)) - y) ** 2)  # noqa: E731
    value_and_grad = sam_optax.flax.value_and_grad(loss_fn, micro_batches=PARTS, measure_noise=True)
    tx = optax.chain(sam_optax.track_noise(sam_optax.sam(rho=RHO)), optax.sgd(0.1))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = {"dense": {"kernel": model.kernel[...], "bias": model.bias[...]}}

    @nnx.jit
    def step(model: Any, optimizer: Any, *batch: jax.Array) -> None:
        _, grads, grad_fn = value_and_grad(model, *batch)
        optimizer.update(model, grads, grad_fn=grad_fn)

    step(model, optimizer, *batch_of(16))
    found = sam_optax.measured_noise(nnx.as_pure(optimizer.opt_state))
    chex.assert_trees_all_close(found, written_out(params, batch_of(16)), rtol=1e-9)


@pytest.mark.parametrize("method", ["gsam", "look_sam"])
def test_tracking_noise_does_not_change_the_method(method, x64):
    def run(measure: bool) -> Any:
        value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=PARTS, measure_noise=measure)
        made = getattr(sam_optax, method)()
        tx = optax.chain(sam_optax.track_noise(made) if measure else made, optax.sgd(0.1, momentum=0.9))
        params = helpers.small_params()
        state = tx.init(params)
        update = jax.jit(tx.update)
        for seed in range(2):
            _, grads, grad_fn = jax.jit(value_and_grad)(params, *batch_of(16, seed))
            updates, state = update(grads, state, params, grad_fn=grad_fn)
            params = optax.apply_updates(params, updates)
        after = state[0].method if measure else state[0]
        unmeasured = {"noise_signal": 0, "noise_variance": 0, "noise_measured": False}
        return params, after._replace(diagnostics=after.diagnostics._replace(**unmeasured))

    chex.assert_trees_all_close(run(True), run(False), rtol=0, atol=1e-13)


@pytest.mark.parametrize("static", [True, False])
def test_a_skipped_step_measures_only_the_clean_gradient(static, x64):
    """Also where the decision is made inside the compiled step, so that its branches have to return the noise."""
    policy = sam_optax.every(2)
    tx = sam_optax.track_noise(sam_optax.sam(rho=RHO, when=policy), decay=0.5)
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=PARTS, measure_noise=True)
    params, state = helpers.small_params(), tx.init(helpers.small_params())

    @functools.partial(jax.jit, static_argnames="perturb")
    def step(state: Any, *batch: jax.Array, perturb: bool | None) -> Any:
        _, grads, grad_fn = value_and_grad(params, *batch)
        return tx.update(grads, state, params, grad_fn=grad_fn, perturb=perturb)[1]

    measured = []
    for i in range(3):
        state = step(state, *batch_of(16, i), perturb=policy.at(i) if static else None)
        measured.append(sam_optax.measured_noise(state))
    expected = [written_out(params, batch_of(16, i)) for i in range(3)]
    mean = lambda weights, terms: np.average(np.asarray(terms), axis=0, weights=weights)  # noqa: E731
    chex.assert_trees_all_equal(measured[1].perturbed, measured[0].perturbed)
    np.testing.assert_allclose(measured[2].perturbed, mean([1, 2], [expected[i].perturbed for i in (0, 2)]), rtol=1e-9)
    np.testing.assert_allclose(measured[2].clean, mean([1, 2, 4], [noise.clean for noise in expected]), rtol=1e-9)


def test_measuring_noise_evaluates_no_further_gradient(loop):
    recorded: list[int] = []

    def counted(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        jax.debug.callback(lambda x: recorded.append(len(x)), x)
        return helpers.small_loss(params, x, y)

    value_and_grad = sam_optax.value_and_grad(counted, micro_batches=PARTS, measure_noise=True)
    jax.block_until_ready(jax.jit(functools.partial(of_a_step, value_and_grad))(helpers.small_params(), *batch_of(16)))
    jax.effects_barrier()
    assert recorded == [4] * 2 * PARTS


def test_a_method_without_a_second_pass_measures_the_clean_gradient():
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=PARTS, measure_noise=True)
    tx, params = sam_optax.track_noise(), helpers.small_params()
    _, grads, grad_fn = value_and_grad(params, *batch_of(16))
    updates, state = tx.update(grads, tx.init(params), params, grad_fn=grad_fn)
    chex.assert_trees_all_equal(updates, grads)
    clean, perturbed = sam_optax.measured_noise(state)
    np.testing.assert_allclose(clean, written_out(params, batch_of(16)).clean, rtol=1e-4)
    assert np.all(np.isnan(perturbed))


def test_a_measuring_second_pass_can_be_passed_to_and_called_in_a_compiled_function():
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=2, measure_noise=True)
    params, batch = helpers.small_params(), batch_of(4)
    _, grads, grad_fn = jax.jit(value_and_grad)(params, *batch)
    found = jax.jit(lambda grad_fn, at: grad_fn(at))(grad_fn, params)
    chex.assert_trees_all_close(found, grads, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_noise_is_accumulated_in_float32_whatever_the_parameters(dtype):
    tx, params = sam_optax.track_noise(sam_optax.sam()), helpers.small_params(dtype)
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=2, measure_noise=True)
    before = tx.init(params)
    _, grads, grad_fn = value_and_grad(params, *(x.astype(dtype) for x in batch_of(8)))
    _, after = tx.update(grads, before, params, grad_fn=grad_fn)
    assert helpers.shapes(after) == helpers.shapes(before)
    assert {x.dtype for x in (*after.clean, *after.perturbed)} == {jnp.dtype("float32")}


def test_a_nonfinite_step_does_not_enter_the_average():
    tx = sam_optax.skip_nonfinite(optax.chain(sam_optax.track_noise(sam_optax.sam()), optax.sgd(0.1)))
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=2, measure_noise=True)
    params, state, measured = helpers.small_params(), tx.init(helpers.small_params()), []
    for x, y in (batch_of(8), (batch_of(8)[0] * jnp.nan, batch_of(8)[1])):
        _, grads, grad_fn = value_and_grad(params, x, y)
        _, state = tx.update(grads, state, params, grad_fn=grad_fn)
        measured.append(sam_optax.measured_noise(state))
    assert int(state.skipped) == 1
    chex.assert_tree_all_finite(measured)
    chex.assert_trees_all_equal(*measured)


def test_a_rejected_step_does_not_add_the_noise_of_the_previous_step():
    tx = sam_optax.track_noise(sam_optax.skip_nonfinite(sam_optax.sam()), decay=0.5)
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=2, measure_noise=True)
    params, state, averages = helpers.small_params(), tx.init(helpers.small_params()), []
    for x, y in (batch_of(8), (batch_of(8)[0] * jnp.nan, batch_of(8)[1])):
        _, grads, grad_fn = value_and_grad(params, x, y)
        _, state = tx.update(grads, state, params, grad_fn=grad_fn)
        averages.append(state.perturbed)
    assert int(state.method.skipped) == 1
    chex.assert_trees_all_equal(*averages)


def test_noise_is_measured_without_diagnostics():
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=PARTS, measure_noise=True)
    params, found = helpers.small_params(), []
    for method in (sam_optax.sam(rho=RHO), sam_optax.without_diagnostics(sam_optax.sam(rho=RHO))):
        tx = sam_optax.track_noise(method)
        _, grads, grad_fn = value_and_grad(params, *batch_of(16))
        found.append(sam_optax.measured_noise(tx.update(grads, tx.init(params), params, grad_fn=grad_fn)[1]))
    chex.assert_trees_all_equal(*found)
    chex.assert_tree_all_finite(found)


def test_a_tracker_before_the_method_measures_only_the_clean_gradient():
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=PARTS, measure_noise=True)
    tx, params = optax.chain(sam_optax.track_noise(), sam_optax.gsam(rho=RHO)), helpers.small_params()
    _, grads, grad_fn = value_and_grad(params, *batch_of(16))
    found = sam_optax.measured_noise(tx.update(grads, tx.init(params), params, grad_fn=grad_fn)[1])
    assert np.isfinite(found.clean.scale)
    assert np.isnan(found.perturbed.signal)
