"""Several devices: one perturbation for all of them, and one for each, compared with explicit definitions."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import sam_optax
from tests import helpers, methods
from tests.helpers import batch_of
from tests.selection import combinations

DEVICES = 4
EVERYWHERE, PARTED = PartitionSpec(), PartitionSpec("data")


def shard_mapped(step: Callable[..., Any], check: bool = True) -> Callable[..., Any]:
    """`step(params, state, x, y)` on four devices, each with its part of the batch; the result is the same on each."""
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (EVERYWHERE, EVERYWHERE, PARTED, PARTED)
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=EVERYWHERE, check_vma=check))


def vmapped(step: Callable[..., Any]) -> Callable[..., Any]:
    mapped = jax.jit(jax.vmap(step, in_axes=(None, None, 0, 0), axis_name="data"))

    def run(params: Any, state: Any, *batch: jax.Array) -> Any:
        found = mapped(params, state, *(x.reshape(DEVICES, -1, *x.shape[1:]) for x in batch))
        one, *others = (jax.tree.map(lambda x, i=i: x[i], found) for i in range(DEVICES))
        for other in others:
            chex.assert_trees_all_equal(other, one)
        return one

    return run


SPREAD = {
    "shard_map": shard_mapped,
    "shard_map_unchecked": lambda step: shard_mapped(step, check=False),
    "vmap": vmapped,
}
spread = pytest.mark.parametrize("how", SPREAD)


FEW = ("gsam", "vasso")


def whole_step(tx: optax.GradientTransformation, vary: bool = False, **options: Any) -> Callable[..., Any]:
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, **options)

    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        at = jax.lax.pcast(params, "data", to="varying") if vary else params
        value, grads, grad_fn = value_and_grad(at, x, y)
        updates, state = tx.update(grads, state, at, grad_fn=grad_fn, value=value)
        return optax.apply_updates(params, updates), state

    return step


def run(step: Callable[..., Any], tx: optax.GradientTransformation) -> Any:
    """Three steps on batches of 16."""
    now = helpers.small_params(), tx.init(helpers.small_params())
    for seed in range(3):
        now = step(*now, *batch_of(16, seed))
    return now


@combinations(
    lambda name, how, micro_batches: (
        micro_batches == (2 if how == "shard_map" else 1)
        and name in (methods.OF_EACH_KIND if how == "shard_map" else ("vasso",))
    ),
    name=methods.NAMED,
    how=SPREAD,
    micro_batches=(1, 2),
)
def test_the_global_perturbation_is_that_of_the_whole_batch(name, how, micro_batches, x64):
    tx = helpers.optimizer(name, rho=0.5)
    step = whole_step(tx, axis_name="data", micro_batches=micro_batches)
    chex.assert_trees_all_close(run(SPREAD[how](step), tx), run(whole_step(tx), tx), rtol=0, atol=1e-13)


@spread
def test_the_global_loss_and_aux_are_those_of_the_whole_batch(how, x64):
    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> Any:
        return helpers.small_loss(params, x, y), {"mean": jnp.mean(x, 0), "size": x.shape[0]}

    value_and_grad = sam_optax.value_and_grad(loss_fn, has_aux=True, axis_name="data")
    step = lambda params, state, x, y: value_and_grad(params, x, y)[0]  # noqa: E731
    params, (x, y) = helpers.small_params(), batch_of(16, 0)
    loss, aux = SPREAD[how](step)(params, jnp.zeros(()), x, y)
    np.testing.assert_allclose(loss, helpers.small_loss(params, x, y), rtol=1e-14)
    np.testing.assert_allclose(aux["mean"], np.mean(x, 0), rtol=1e-12)
    assert aux["size"] == 16


def written_out(name: str) -> Any:
    """The definition: each device perturbs with the plain method, and gradients and states are averaged."""
    method, base = methods.METHODS[name](rho=0.5), helpers.BASES["momentum"]()
    params = helpers.small_params()
    state, base_state = method.init(params), base.init(params)

    @jax.jit
    def of_part(params: Any, state: Any, *part: jax.Array) -> Any:
        value, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(params, *part)
        return method.update(grads, state, params, grad_fn=grad_fn, value=value)

    for seed in range(3):
        parts = zip(*(jnp.split(x, DEVICES) for x in batch_of(16, seed)), strict=True)
        found = [of_part(params, state, *part) for part in parts]
        grads, state = (jax.tree.map(lambda *x: sum(x) / DEVICES, *parts) for parts in zip(*found, strict=True))
        updates, base_state = base.update(grads, base_state, params)
        params = optax.apply_updates(params, updates)
    return params, (state, base_state)


@combinations(
    lambda name, how: name in (methods.OF_EACH_KIND if how == "shard_map" else ("vasso",)),
    name=methods.NAMED,
    how=SPREAD,
)
def test_one_perturbation_per_device_equals_its_definition(name, how, x64):
    averaged = sam_optax.average_over("data", methods.METHODS[name](rho=0.5))
    tx = optax.chain(averaged, helpers.BASES["momentum"]())
    step = whole_step(tx, vary=how.startswith("shard_map"))
    chex.assert_trees_all_close(run(SPREAD[how](step), tx), written_out(name), rtol=0, atol=1e-13)


@combinations(
    lambda name, how: (name in FEW) == (how == "vmap"),
    name=("sam", "gsam", "gsam_clean", "asam"),
    how=("shard_map_unchecked", "vmap"),
)
def test_average_over_works_after_a_method_in_a_chain(name, how, x64):
    """The states of methods without memory differ only in their diagnostics."""
    tx = optax.chain(methods.METHODS[name](rho=0.5), sam_optax.average_over("data"), helpers.BASES["momentum"]())
    step = whole_step(tx, vary=how.startswith("shard_map"))
    params_only = lambda *run: (step(*run)[0], step(*run)[1][2:])  # noqa: E731

    def advance(params: Any, state: Any, *batch: jax.Array) -> Any:
        params, base_state = SPREAD[how](params_only)(params, state, *batch)
        return params, (*state[:2], *base_state)

    chex.assert_trees_all_close(run(advance, tx)[0], written_out(name)[0], rtol=0, atol=1e-13)


def test_one_perturbation_per_device_differs_from_a_global_one():
    tx = helpers.optimizer("gsam", rho=0.5)
    of_all = run(whole_step(tx), tx)[0]
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(of_all, written_out("gsam")[0], rtol=0, atol=1e-4)


POLICIES = {"every": sam_optax.every(2), "ae_sam": sam_optax.ae_sam(0.0)}


@combinations(
    lambda combiner, each, when: (
        combiner in {"gap", "stabilized", "reuse"}
        and (each, when) == ((True, "every"), (False, "ae_sam"))[list(methods.COMBINERS).index(combiner) % 2]
    ),
    combiner=methods.COMBINERS,
    each=(False, True),
    when=POLICIES,
)
def test_a_traced_policy_decides_under_shard_map(combiner, when, each):
    ascent = sam_optax.normalized_ascent(0.5)
    method = sam_optax.sharpness_aware(ascent, methods.COMBINERS[combiner](), POLICIES[when])
    tx = optax.chain(sam_optax.average_over("data", method) if each else method, helpers.BASES["momentum"]())
    step = whole_step(tx, vary=each) if each else whole_step(tx, axis_name="data")
    params, state = run(shard_mapped(step), tx)
    chex.assert_tree_all_finite(params)
    if not each:
        on_one_device = run(whole_step(tx), tx)
        chex.assert_trees_all_close(params, on_one_device[0], rtol=1e-4, atol=1e-6)
    base = run(whole_step(helpers.BASES["momentum"]()), helpers.BASES["momentum"]())[0]
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(params, base, rtol=1e-3, atol=1e-5)
    assert int(state[0].count) == 3


@pytest.mark.parametrize("bad", [False, True])
def test_a_step_that_is_nonfinite_on_one_device_is_skipped_on_all(bad):
    method = sam_optax.average_over("data", sam_optax.gsam(0.5))
    tx = sam_optax.skip_nonfinite(optax.chain(method, helpers.BASES["momentum"]()), axis_name="data")
    params, (x, y) = helpers.small_params(), batch_of(16, 0)
    x = x.at[0, 0].set(jnp.nan) if bad else x
    after, state = shard_mapped(whole_step(tx, vary=True))(params, tx.init(params), x, y)
    assert bool(state.last_finite) != bad
    assert int(state.skipped) == bad
    moved = any(np.any(a != b) for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True))
    assert moved != bad


def test_functional_sam_has_one_perturbation_for_all_devices(x64):
    model_fn = lambda params, x, y: jnp.tanh(x @ params["dense"]["kernel"] + params["dense"]["bias"])  # noqa: E731
    logits_loss = lambda logits, x, y: jnp.mean((logits - y) ** 2)  # noqa: E731

    def step_with(**options: Any) -> Callable[..., Any]:
        value_and_grad = sam_optax.functional_value_and_grad(model_fn, logits_loss, **options)

        def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
            value, grads, grad_fn = value_and_grad(params, x, y)
            updates, state = tx.update(grads, state, params, grad_fn=grad_fn, value=value)
            return optax.apply_updates(params, updates), state

        return step

    tx = helpers.optimizer("sam", rho=0.5)
    ours = run(shard_mapped(step_with(axis_name="data")), tx)
    chex.assert_trees_all_close(ours, run(step_with(), tx), rtol=0, atol=1e-13)


@pytest.mark.parametrize("loop", ["unrolled", "scanned"])
def test_shards_work_with_either_loop_under_shard_map(loop, monkeypatch, x64):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu" if loop == "unrolled" else "gpu")
    tx = helpers.optimizer("vasso", rho=0.5)
    step = whole_step(tx, axis_name="data", micro_batches=2)
    chex.assert_trees_all_close(run(shard_mapped(step), tx), run(whole_step(tx), tx), rtol=0, atol=1e-13)
    method, params, (x, y) = sam_optax.gsam(0.5), helpers.small_params(), batch_of(16, 0)

    def of_shards(params: Any, state: Any, x: jax.Array, y: jax.Array, axis_name: Any = "data") -> Any:
        loss = helpers.small_loss
        fn = sam_optax.sharpness_aware_grad(loss, method, 2, batch_argnums=(0, 1), axis_name=axis_name)
        return fn(params, state, x, y)

    spread_out = shard_mapped(of_shards)(params, method.init(params), x, y)
    on_one_device = of_shards(params, method.init(params), x, y, axis_name=None)
    chex.assert_trees_all_close(spread_out, on_one_device, rtol=0, atol=1e-14)


def test_sharded_parameters_keep_their_sharding():
    """The compiler shards parameters, states and batch as usual. SAM needs no option for it."""
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, PartitionSpec("model"))
    tx = optax.chain(sam_optax.vasso(0.5), optax.sgd(0.1, momentum=0.9))
    value_and_grad = sam_optax.value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2))

    @jax.jit
    def step(w: jax.Array, state: Any, x: jax.Array) -> Any:
        _, grads, grad_fn = value_and_grad(w, x)
        updates, state = tx.update(grads, state, w, grad_fn=grad_fn)
        return optax.apply_updates(w, updates), state

    w, x = jnp.arange(16.0), jnp.asarray(np.random.default_rng(0).normal(size=(4, 16)), jnp.float32)
    spread_out = jax.device_put(w, sharding)
    on_one_device, sharded = step(w, tx.init(w), x), step(spread_out, tx.init(spread_out), x)
    chex.assert_trees_all_close(sharded, on_one_device, rtol=1e-4, atol=1e-5)
    for leaf in (sharded[0], sharded[1][0].perturbation.average, sharded[1][1][0].trace):
        assert leaf.sharding.is_equivalent_to(sharding, 1)


@pytest.mark.parametrize("name", ["vasso", "friendly_sam", "look_sam", "msam", "bsam"])
def test_initial_states_are_sharded_like_the_parameters(name):
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, PartitionSpec("model"))
    tx = sam_optax.bsam(0.1, 10) if name == "bsam" else helpers.optimizer(name, rho=0.5)
    state = tx.init(jax.device_put(jnp.ones(16), sharding))
    sharded = [x.sharding.is_equivalent_to(sharding, 1) for x in jax.tree.leaves(state) if x.ndim]
    assert sharded
    assert all(sharded)


@pytest.mark.parametrize("aux", [lambda x: jnp.isfinite(x).all(), lambda x: jnp.sum(x) + 0j])
def test_an_auxiliary_output_that_has_no_mean_is_refused(aux):
    value_and_grad = sam_optax.value_and_grad(lambda w, x: (jnp.sum(w * x), aux(x)), has_aux=True, axis_name="data")
    with pytest.raises(ValueError, match=r"leaf of dtype (bool|complex.*): give floating .* averaged over the devices"):
        jax.vmap(lambda x: value_and_grad(jnp.ones(2), x)[0], axis_name="data")(jnp.ones((2, 2)))


def test_averaging_the_state_of_two_methods_is_refused():
    with pytest.raises(ValueError, match=r"^method holds 2 sharpness-aware methods, expected one"):
        sam_optax.average_over("data", optax.chain(sam_optax.sam(0.5), sam_optax.sam(0.1))).init(jnp.ones(2))


@pytest.mark.parametrize("how", SPREAD)
def test_diagnostics_count_as_measured_if_every_device_measured_them(how):
    """AE-SAM decides on each device; devices with a falling gradient make no second pass."""
    method = sam_optax.average_over("data", sam_optax.sam(0.5, when=sam_optax.ae_sam(0.0)))
    scales = jnp.array([[1.0] * 4, [2.0, 2.0, 2.0, 0.5], [3.0] * 4])

    def step(w: jax.Array, state: Any, scale: jax.Array, _: jax.Array) -> Any:
        gradient = lambda w: scale[0] * w  # noqa: E731
        return method.update(gradient(w), state, w, grad_fn=gradient)[1]

    w, is_measured = jnp.ones(2), []
    state = method.init(w)
    for scale in scales:
        state = SPREAD[how](step)(w, state, scale, scale)
        is_measured.append(bool(np.isfinite(sam_optax.diagnostics(state).cosine)))
    assert is_measured == [True, False, True]
