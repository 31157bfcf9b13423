"""The perturbed loss and the surrogate gap, compared with losses computed by hand."""

import functools
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
from tests import helpers, methods
from tests.helpers import batch_of

RHO = 0.5
gradient = jax.grad(helpers.small_loss)


def by_hand(params: Any, *batch: Any) -> tuple[Any, Any]:
    """`L(w + ρ g/‖g‖)` and its difference from `L(w)`."""
    grads = gradient(params, *batch)
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(grads)))
    perturbed = helpers.small_loss(jax.tree.map(lambda w, g: w + RHO * g / norm, params, grads), *batch)
    return perturbed, perturbed - helpers.small_loss(params, *batch)


def read(state: Any) -> tuple[Any, Any]:
    return sam_optax.diagnostics(state)[4:]


def step_with(value_and_grad: Any, tx: Any = None) -> Any:
    """`(params, state, *batch)` → the state after a step."""
    tx = sam_optax.gsam(rho=RHO) if tx is None else tx

    def step(params: Any, state: Any, *batch: Any) -> Any:
        loss, grads, grad_fn = value_and_grad(params, *batch)
        return tx.update(grads, state, params, grad_fn=grad_fn, value=loss)[1]

    return step


@methods.where(lambda name: True, ["wsam_decoupled"])
def test_perturbed_loss_and_gap_are_taken_at_the_parameters_of_the_second_pass(name):
    asked: list[Any] = []

    def recorded(params: Any, *batch: Any) -> Any:
        asked.append(params)
        return helpers.small_loss(params, *batch)

    tx, params, batch = helpers.optimizer(name), helpers.small_params(), batch_of(4)
    loss, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch)
    watched = sam_optax.GradFn(lambda at: grad_fn.measured(at)._replace(loss=recorded(at, *batch)), ())
    _, state = tx.update(grads, tx.init(params), params, grad_fn=watched, value=loss, perturb=True)
    expected = helpers.small_loss(asked[-1], *batch)
    np.testing.assert_allclose(read(state), (expected, expected - loss), rtol=1e-6)
    _, state = tx.update(grads, tx.init(params), params, grad_fn=grad_fn, value=loss)
    np.testing.assert_allclose(read(state), (expected, expected - loss), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("compile_", [jax.jit, lambda step: step], ids=["compiled", "eagerly"])
def test_perturbed_loss_and_gap_are_measured_in_a_step(compile_, x64):
    params, tx = helpers.small_params(), sam_optax.gsam(rho=RHO)
    state = compile_(step_with(sam_optax.value_and_grad(helpers.small_loss)))(params, tx.init(params), *batch_of(8))
    np.testing.assert_allclose(read(state), by_hand(params, *batch_of(8)), rtol=1e-10)


def test_perturbed_loss_and_gap_are_measured_in_a_scan_except_at_skipped_steps(x64):
    tx = sam_optax.sam(rho=RHO, when=sam_optax.every(2))
    step, params = step_with(sam_optax.value_and_grad(helpers.small_loss), tx), helpers.small_params()
    batches = [jnp.stack(x) for x in zip(*(batch_of(8, seed) for seed in range(4)), strict=True)]

    def body(state: Any, batch: Any) -> Any:
        state = step(params, state, *batch)
        return state, sam_optax.diagnostics(state, unmeasured=-1.0)[4:]

    _, measured = jax.jit(lambda state: jax.lax.scan(body, state, batches))(tx.init(params))
    expected = [by_hand(params, *batch_of(8, seed)) if seed % 2 == 0 else (-1.0, -1.0) for seed in range(4)]
    np.testing.assert_allclose(np.stack(measured, 1), expected, rtol=1e-10)


def test_perturbed_loss_and_gap_of_micro_batches_are_those_of_the_whole_batch(loop, x64):
    params, tx = helpers.small_params(), sam_optax.gsam(rho=RHO)
    step = step_with(sam_optax.value_and_grad(helpers.small_loss, micro_batches=4))
    state = jax.jit(step)(params, tx.init(params), *batch_of(8))
    np.testing.assert_allclose(read(state), by_hand(params, *batch_of(8)), rtol=1e-10)


def test_parts_of_unequal_weight_count_by_their_weight(x64):
    """The second part has zero weight, so that both losses are those of the first one."""
    x, y = batch_of(8)
    weight = jnp.repeat(jnp.array([1.0, 0.0]), 4)
    loss_fn = lambda params, x, y, weight: helpers.small_loss(params, x, y)  # noqa: E731
    value_and_grad = sam_optax.value_and_grad(
        loss_fn, micro_batches=2, batch_argnums=(0, 1, 2), batch_weight=lambda x, y, weight: jnp.sum(weight)
    )
    params, tx = helpers.small_params(), sam_optax.gsam(rho=RHO)
    state = step_with(value_and_grad)(params, tx.init(params), x, y, weight)
    np.testing.assert_allclose(read(state), by_hand(params, x[:4], y[:4]), rtol=1e-10)


@pytest.mark.parametrize("how", [pytest.param("vmap", marks=pytest.mark.long), "shard_map"])
def test_perturbed_loss_and_gap_are_those_of_the_batch_of_all_devices(how, x64):
    params, tx = helpers.small_params(), sam_optax.gsam(rho=RHO)
    step = step_with(sam_optax.value_and_grad(helpers.small_loss, axis_name="data"))
    one = functools.partial(step, params, tx.init(params))
    if how == "vmap":
        parts = (x.reshape(4, -1, *x.shape[1:]) for x in batch_of(8))
        state = jax.tree.map(lambda x: x[0], jax.vmap(one, axis_name="data")(*parts))
    else:
        mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        mapped = jax.shard_map(one, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec())
        state = jax.jit(mapped)(*batch_of(8))
    np.testing.assert_allclose(read(state), by_hand(params, *batch_of(8)), rtol=1e-10)


def test_the_shards_of_m_sam_report_the_mean_of_their_losses(loop, x64):
    params, method = helpers.small_params(), sam_optax.gsam(rho=RHO)
    fn = sam_optax.sharpness_aware_grad(helpers.small_loss, method, 2, batch_argnums=(0, 1))
    *_, state = fn(params, method.init(params), *batch_of(8))
    shards = zip(*(jnp.split(x, 4) for x in batch_of(8)), strict=True)
    expected = np.mean([by_hand(params, *shard) for shard in shards], axis=0)
    np.testing.assert_allclose(read(state), expected, rtol=1e-10)


def test_devices_with_their_own_perturbations_report_the_mean_of_their_losses(x64):
    params, tx = helpers.small_params(), sam_optax.average_over("data", sam_optax.gsam(rho=RHO))
    step = functools.partial(step_with(sam_optax.value_and_grad(helpers.small_loss), tx), params, tx.init(params))
    parts = [x.reshape(4, -1, *x.shape[1:]) for x in batch_of(8)]
    state = jax.tree.map(lambda x: x[0], jax.vmap(step, axis_name="data")(*parts))
    expected = np.mean([by_hand(params, *part) for part in zip(*parts, strict=True)], axis=0)
    np.testing.assert_allclose(read(state), expected, rtol=1e-10)


@pytest.mark.parametrize("scale", [1024.0, jnp.float32(1024.0)], ids=["number", "array"])
def test_perturbed_loss_and_gap_exclude_the_loss_scale(scale):
    params, tx = helpers.small_params(), sam_optax.gsam(rho=RHO)
    step = step_with(sam_optax.value_and_grad(helpers.small_loss, loss_scale=scale))
    state = step(params, tx.init(params), *batch_of(8))
    np.testing.assert_allclose(read(state), by_hand(params, *batch_of(8)), rtol=1e-5)


def test_functional_sam_reports_the_loss_of_the_perturbed_model(x64):
    model = lambda params, x, y: jnp.tanh(x @ params["dense"]["kernel"] + params["dense"]["bias"])  # noqa: E731
    value_and_grad = sam_optax.functional_value_and_grad(model, lambda logits, x, y: jnp.mean((logits - y) ** 2))
    params, tx = helpers.small_params(), sam_optax.sam(rho=RHO)
    state = step_with(value_and_grad, tx)(params, tx.init(params), *batch_of(8))
    np.testing.assert_allclose(read(state), by_hand(params, *batch_of(8)), rtol=1e-10)


def test_flax_reports_the_same(x64):
    model = nnx.Linear(3, 2, param_dtype=float, rngs=nnx.Rngs(0))
    loss_fn = lambda model, x, y: jnp.mean((jnp.tanh(model(x)) - y) ** 2)  # noqa: E731
    value_and_grad = sam_optax.flax.value_and_grad(loss_fn)
    optimizer = nnx.Optimizer(model, sam_optax.sam(rho=RHO), wrt=nnx.Param)
    params = {"dense": {"kernel": model.kernel[...], "bias": model.bias[...]}}

    @nnx.jit
    def step(model: Any, optimizer: Any, *batch: jax.Array) -> None:
        loss, grads, grad_fn = value_and_grad(model, *batch)
        optimizer.update(model, grads, grad_fn=grad_fn, value=loss)

    step(model, optimizer, *batch_of(8))
    np.testing.assert_allclose(read(optimizer.opt_state), by_hand(params, *batch_of(8)), rtol=1e-10)


def test_without_the_clean_loss_the_gap_is_not_measured():
    params, tx = helpers.small_params(), sam_optax.sam(rho=RHO)
    _, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *batch_of(8))
    _, state = tx.update(grads, tx.init(params), params, grad_fn=grad_fn)
    loss, gap = sam_optax.diagnostics(state, unmeasured=-1.0)[4:]
    np.testing.assert_allclose(loss, by_hand(params, *batch_of(8))[0], rtol=1e-6)
    assert gap == -1.0


def test_a_plain_gradient_function_does_not_measure_the_loss():
    params, tx = helpers.small_params(), sam_optax.sam(rho=RHO)
    grad_fn = lambda at: gradient(at, *batch_of(8))  # noqa: E731
    _, state = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn, value=1.0)
    assert np.all(np.isnan(read(state)))
    assert np.all(np.isfinite(sam_optax.diagnostics(state)[:4]))


@pytest.mark.parametrize("value", [jnp.ones(2), (1.0, {}), "1.0", 1j, [1.0]], ids=str)
def test_a_value_that_is_not_a_scalar_is_refused(value):
    params, tx = helpers.small_params(), optax.chain(sam_optax.sam(), optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"^value is .*: give the loss of the batch, a real scalar"):
        tx.update(params, tx.init(params), params, grad_fn=lambda at: at, value=value)


def test_low_precision_losses_are_subtracted_in_float32():
    params, tx = helpers.small_params(jnp.bfloat16), sam_optax.sam()
    second = sam_optax.GradFn(lambda at: sam_optax.SecondPass(at, jnp.bfloat16(1.0)), ())
    _, state = tx.update(params, tx.init(params), params, grad_fn=second, value=jnp.float32(0.999))
    gap = sam_optax.diagnostics(state).surrogate_gap
    assert gap.dtype == jnp.float32
    np.testing.assert_allclose(gap, 0.001, rtol=1e-3)


def test_the_second_pass_is_a_pytree_and_crosses_a_jit_boundary_without_recompilation():
    value_and_grad, params = jax.jit(sam_optax.value_and_grad(helpers.small_loss)), helpers.small_params()
    measured = jax.jit(lambda grad_fn, at: grad_fn.measured(at))
    for seed in range(2):
        _, grads, grad_fn = value_and_grad(params, *batch_of(8, seed))
        chex.assert_trees_all_equal(jax.tree.leaves(grad_fn), list(batch_of(8, seed)))
        found = measured(grad_fn, params)
        expected = grads, helpers.small_loss(params, *batch_of(8, seed)), None
        chex.assert_trees_all_close(tuple(found), expected, rtol=1e-6, atol=1e-7)
    assert measured._cache_size() == 1


def test_measuring_the_loss_needs_no_further_pass():
    passes: list[None] = []

    def counted(params: Any, *batch: Any) -> Any:
        jax.debug.callback(lambda: passes.append(None))
        return helpers.small_loss(params, *batch)

    params, tx = helpers.small_params(), sam_optax.gsam(rho=RHO)
    state = jax.jit(step_with(sam_optax.value_and_grad(counted)))(params, tx.init(params), *batch_of(8))
    jax.block_until_ready(state)
    jax.effects_barrier()
    assert len(passes) == 2
