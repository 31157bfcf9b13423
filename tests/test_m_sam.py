"""m-SAM: a perturbation for every m examples, with two gradient evaluations in total."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import sam_optax
from sam_optax import trees
from tests import helpers, methods
from tests.helpers import batch_of
from tests.selection import LOOPS, combinations


def loss_fn(params: Any, batch: Any) -> jax.Array:
    return helpers.small_loss(params, *batch)


def regression(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((x @ w - y) ** 2)


def test_targets_that_no_argument_names_are_refused():
    """Otherwise each shard would get the targets of the whole batch."""
    method, w, batch = sam_optax.sam(0.1), jnp.ones(2), (jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([1.0, 3.0]))
    state = method.init(w)
    with pytest.raises(ValueError, match=r"^batch_argnums is 0, and argument 1 .* axis 2: give batch_argnums=\(0, 1\)"):
        sam_optax.sharpness_aware_grad(regression, method, 1)(w, state, *batch)
    loss, *_ = sam_optax.sharpness_aware_grad(regression, method, 1, batch_argnums=(0, 1))(w, state, *batch)
    assert loss == 0.5
    whole, *_ = sam_optax.sharpness_aware_grad(regression, method, 1, batch_argnums=(0,))(w, state, *batch)
    assert whole == 1.5


@pytest.mark.parametrize("name", ["msam", "wsam_decoupled", "sam_sps", "bsam"])
def test_complete_optimizers_are_refused(name):
    """They return a step, which would be taken for a gradient."""
    base = optax.sgd(0.1, momentum=0.9)
    options = {"msam": (base,), "wsam_decoupled": (base, 0.1), "bsam": (0.1, 10)}
    method, w = getattr(sam_optax, name)(*options.get(name, ())), jnp.ones(2)
    fn = sam_optax.sharpness_aware_grad(lambda w, x: jnp.mean(x @ w), method, 1)
    with pytest.raises(
        ValueError, match=r"^method holds a complete optimizer \(\w+\), .*: give a method that precedes"
    ):
        fn(w, method.init(w), jnp.eye(2))


def mean(trees_: list[Any]) -> Any:
    return jax.tree.map(lambda *x: sum(x) / len(x), *trees_)


def written_out(method: Any, params: Any, state: Any, batch: Any, m: int) -> Any:
    """The definition: the plain method on each shard."""
    found = []
    for start in range(0, len(batch[0]), m):
        shard = jax.tree.map(lambda x, start=start: x[start : start + m], batch)
        value, grads, grad_fn = sam_optax.value_and_grad(loss_fn)(params, shard)
        found.append((value, *method.update(grads, state, params, grad_fn=grad_fn, value=value)))
    value, grads, states = (mean([parts[i] for parts in found]) for i in range(3))
    return value, grads, states


QUICK = (("vasso", 2, "unrolled"), ("vasso", 4, "scanned"), ("asam", 2, "scanned"), ("gsam", 2, "unrolled"))


@combinations(
    lambda name, m, loop: (name, m, loop) in QUICK,
    indirect=["loop"],
    name=methods.NAMED,
    m=(2, 4),
    loop=LOOPS,
)
def test_m_sam_equals_the_mean_of_the_method_over_the_shards(name, m, loop, x64):
    method, params = methods.METHODS[name](rho=0.5), helpers.small_params()
    fn, state = jax.jit(sam_optax.sharpness_aware_grad(loss_fn, method, m)), method.init(params)
    for seed in range(2):
        value, aux, grads, after = fn(params, state, batch_of(8, seed))
        expected = written_out(method, params, state, batch_of(8, seed), m)
        chex.assert_trees_all_close((value, grads, after), expected, rtol=0, atol=1e-13)
        assert aux is None
        assert int(after.count) == seed + 1
        assert helpers.shapes(after) == helpers.shapes(state)
        params, state = jax.tree.map(lambda w, g: w - 0.1 * g, params, grads), after


@pytest.mark.parametrize("m", [None, 8])
def test_one_shard_per_batch_gives_the_plain_method(m):
    method, params, batch = sam_optax.gsam(0.5, 0.1), helpers.small_params(), batch_of(8)
    value, grads, grad_fn = sam_optax.value_and_grad(loss_fn)(params, batch)
    expected = method.update(grads, method.init(params), params, grad_fn=grad_fn, value=value)
    found = sam_optax.sharpness_aware_grad(loss_fn, method, m)(params, method.init(params), batch)
    chex.assert_trees_all_equal(found, (value, None, *expected))


def test_smaller_shards_give_another_update():
    method, params, batch = sam_optax.sam(0.5), helpers.small_params(), batch_of(8)
    small, large = (
        sam_optax.sharpness_aware_grad(loss_fn, method, m)(params, method.init(params), batch)[2] for m in (2, 8)
    )
    assert float(trees.norm(jax.tree.map(jnp.subtract, small, large))) > 1e-3


def test_m_sam_evaluates_two_gradients_in_total(loop):
    """Evaluations are counted at run time: each example passes through the loss exactly twice."""
    recorded: list[int] = []

    def counted(params: Any, batch: Any) -> jax.Array:
        jax.debug.callback(lambda x: recorded.append(len(x)), batch[0])
        return loss_fn(params, batch)

    method, params = sam_optax.sam(), helpers.small_params()
    jax.block_until_ready(
        jax.jit(sam_optax.sharpness_aware_grad(counted, method, m=2))(params, method.init(params), batch_of(8))
    )
    jax.effects_barrier()
    assert recorded == [2] * 8


def test_floating_aux_is_averaged_and_integers_are_summed(loop):
    def with_aux(params: Any, batch: Any) -> tuple[jax.Array, Any]:
        return loss_fn(params, batch), {"mean": jnp.mean(batch[0], 0), "size": batch[0].shape[0]}

    method, params, batch = sam_optax.sam(), helpers.small_params(), batch_of(8)
    fn = sam_optax.sharpness_aware_grad(with_aux, method, 2, has_aux=True)
    aux = fn(params, method.init(params), batch)[1]
    np.testing.assert_allclose(aux["mean"], np.mean(batch[0], 0), rtol=1e-5)
    assert aux["size"] == 8


def test_several_arguments_may_be_batches_and_others_are_passed_to_every_shard(loop):
    def loss(w: jax.Array, table: jax.Array, x: jax.Array, y: jax.Array, *, power: int) -> jax.Array:
        return jnp.mean((x * w * jnp.sum(table) - y) ** power)

    method, w, table = sam_optax.sam(0.1), jnp.array(2.0), jnp.ones(3)
    x, y = jnp.arange(4.0), jnp.ones(4)
    fn = sam_optax.sharpness_aware_grad(loss, method, 2, batch_argnums=(1, 2))
    value, _, _, _ = fn(w, method.init(w), table, x, y, power=2)
    np.testing.assert_allclose(value, np.mean((6 * x - 1) ** 2), rtol=1e-6)


@pytest.mark.parametrize("perturb", [True, False])
def test_a_static_decision_reaches_the_method(perturb, loop):
    method, params = sam_optax.sam(when=sam_optax.every(5)), helpers.small_params()
    fn = jax.jit(sam_optax.sharpness_aware_grad(loss_fn, method, 2), static_argnames="perturb")
    _, _, grads, state = fn(params, method.init(params), batch_of(8), perturb=perturb)
    assert np.isfinite(sam_optax.diagnostics(state).cosine) == perturb
    if not perturb:
        chex.assert_trees_all_close(grads, jax.grad(loss_fn)(params, batch_of(8)), rtol=1e-5, atol=1e-7)


def test_a_batch_that_m_does_not_divide_is_refused():
    method, params = sam_optax.sam(), helpers.small_params()
    with pytest.raises(ValueError, match=r"^m is 3, and the batch has 8 examples: give an m that divides it"):
        sam_optax.sharpness_aware_grad(loss_fn, method, 3)(params, method.init(params), batch_of(8))


def test_a_scan_over_shards_needs_the_memory_of_one_shard(monkeypatch):
    """Activations of a wide hidden layer dominate, so 16 shards need little more than a sixteenth of the memory."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    w = {"in": jnp.ones((4, 4096)), "out": jnp.ones((4096, 1))}
    loss = lambda w, x: jnp.mean(jnp.tanh(jnp.tanh(x @ w["in"]) @ w["out"]) ** 2)  # noqa: E731
    method, x = sam_optax.sam(), jnp.ones((1024, 4))

    def peak(m: int | None) -> int:
        fn = jax.jit(sam_optax.sharpness_aware_grad(loss, method, m))
        return fn.lower(w, method.init(w), x).compile().memory_analysis().temp_size_in_bytes

    assert peak(64) < peak(None) / 8


@combinations(
    lambda name, devices: (name, devices) in {("gsam", 4), ("vasso", 8)},
    name=("sam", "gsam", "vasso", "friendly_sam"),
    devices=(1, 2, 4, 8),
)
def test_at_a_fixed_m_the_number_of_devices_changes_nothing(name, devices, x64):
    """Each device has its own shards and the results are averaged, or the compiler shards the batch."""
    method, params, batch = methods.METHODS[name](rho=0.5), helpers.small_params(), batch_of(16)
    state = method.init(params)
    on_one_device = jax.jit(sam_optax.sharpness_aware_grad(loss_fn, method, 2))(params, state, batch)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    fn = sam_optax.sharpness_aware_grad(loss_fn, method, 2, axis_name="data")
    everywhere, parted = PartitionSpec(), PartitionSpec("data")
    spread = jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=(everywhere, everywhere, parted), out_specs=everywhere))(
        params, state, batch
    )
    chex.assert_trees_all_close(spread, on_one_device, rtol=0, atol=1e-14)
    placed = jax.device_put(batch, NamedSharding(mesh, parted))
    compiled = jax.jit(sam_optax.sharpness_aware_grad(loss_fn, method, 2))(params, state, placed)
    chex.assert_trees_all_close(compiled, on_one_device, rtol=0, atol=1e-14)


def test_an_ordinary_optimizer_accepts_the_gradient_of_m_sam():
    method, base, params = sam_optax.look_sam(k=2), optax.adam(0.1), helpers.small_params()
    fn = jax.jit(sam_optax.sharpness_aware_grad(loss_fn, method, 4), static_argnames="perturb")
    state, base_state, losses = method.init(params), base.init(params), []
    for i in range(6):
        loss, _, grads, state = fn(params, state, batch_of(8), perturb=sam_optax.every(2).at(i))
        updates, base_state = base.update(grads, base_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))
    assert losses == sorted(losses, reverse=True)
