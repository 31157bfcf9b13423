"""Explicit meshes, JAX's default: a sharded batch in parts has the gradients of one device."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import sam_optax
import sam_optax.flax
from sam_optax import sharpness
from sam_optax.batch_arguments import Call, cut
from tests import helpers
from tests.selection import LOOPS, combinations, loop_in_turn, loops_in_turn

MESHES: dict[str, tuple[tuple[int, ...], tuple[str, ...], PartitionSpec]] = {
    "rows": ((4,), ("data",), PartitionSpec("data")),
    "rows_over_two_axes": ((2, 2), ("hosts", "data"), PartitionSpec(("hosts", "data"))),
    "rows_and_features": ((2, 1), ("data", "model"), PartitionSpec("data", "model")),
}


class Spread(NamedTuple):
    """A mesh, and the sharding of batches over it."""

    mesh: jax.sharding.Mesh
    sharding: NamedSharding

    def put(self, batch: Any) -> Any:
        return jax.device_put(batch, self.sharding)


@pytest.fixture(params=MESHES)
def spread(request: pytest.FixtureRequest) -> Spread:
    shape, names, spec = MESHES[request.param]
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Explicit,) * len(names))
    return Spread(mesh, NamedSharding(mesh, spec))


QUICK = ((2, "rows"), (8, "rows_over_two_axes"), (2, "rows_and_features"))


def on_meshes(sizes: str, quick: tuple[tuple[int, str], ...] = QUICK) -> pytest.MarkDecorator:
    """Parametrize by a number of parts or examples, and by a mesh."""
    rows = [
        pytest.param(size, mesh, marks=[] if (size, mesh) in quick else [pytest.mark.long])
        for size in (2, 8)
        for mesh in MESHES
    ]
    return pytest.mark.parametrize((sizes, "spread"), rows, indirect=["spread"])


def on_meshes_with_loops(sizes: str, quick: tuple[tuple[int, str], ...] = QUICK) -> pytest.MarkDecorator:
    """Parametrize as `on_meshes` does and by the loop; `make test` runs the cases in `quick` with one loop each."""
    return combinations(
        lambda **row: (
            (row[sizes], row["spread"]) in quick
            and row["loop"] == loop_in_turn(quick.index((row[sizes], row["spread"])))
        ),
        indirect=["spread", "loop"],
        **{sizes: (2, 8)},
        spread=MESHES,
        loop=LOOPS,
    )


def both_passes(value_and_grad: Any, params: Any, *batch: Any) -> Any:
    loss, grads, grad_fn = value_and_grad(params, *batch)
    return loss, grads, grad_fn(jax.tree.map(lambda w: w + 0.5, params))


def test_the_default_mesh_is_explicit():
    assert jax.make_mesh((4,), ("data",)).axis_types == (AxisType.Explicit,)


@on_meshes_with_loops("parts")
def test_micro_batches_give_the_gradients_of_one_device(parts, spread, loop, x64):
    params, batch = helpers.small_params(), helpers.batch_of(16)
    on_one_device = both_passes(sam_optax.value_and_grad(helpers.small_loss), params, *batch)
    value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=parts)
    with jax.set_mesh(spread.mesh):
        found = jax.jit(both_passes, static_argnums=0)(value_and_grad, params, *spread.put(batch))
    chex.assert_trees_all_close(jax.device_get(found), jax.device_get(on_one_device), rtol=1e-12)


@on_meshes_with_loops("m", quick=((8, "rows_over_two_axes"), (2, "rows_and_features")))
def test_m_sam_on_a_mesh_equals_m_sam_on_one_device(m, spread, loop, x64):
    method, params, batch = sam_optax.vasso(rho=0.5), helpers.small_params(), helpers.batch_of(16)
    fn = jax.jit(sam_optax.sharpness_aware_grad(helpers.small_loss, method, m, batch_argnums=(0, 1)))
    on_one_device = fn(params, method.init(params), *batch)
    with jax.set_mesh(spread.mesh):
        found = fn(params, method.init(params), *spread.put(batch))
    chex.assert_trees_all_close(jax.device_get(found), jax.device_get(on_one_device), rtol=1e-12)


def test_parts_are_contiguous_and_sharded_where_the_devices_divide_them(spread):
    x = np.arange(48.0).reshape(16, 3)
    rows = spread.sharding.spec[0]
    names = rows if isinstance(rows, tuple) else (rows,)
    devices = np.prod([spread.mesh.shape[name] for name in names])
    with jax.set_mesh(spread.mesh):
        for parts in (1, 2, 4, 8, 16):
            (found,) = cut(Call((spread.put(x),), {}), parts).args
            np.testing.assert_array_equal(found, x.reshape(parts, 16 // parts, 3))
            assert found.sharding.spec[1] == (rows if (16 // parts) % devices == 0 else None)


@on_meshes("m", quick=((8, "rows_over_two_axes"),))
def test_m_sharpness_on_a_mesh_equals_that_on_one_device(m, spread, x64):
    params, batch = helpers.small_params(), helpers.batch_of(16)
    loss_fn = lambda params, batch: helpers.small_loss(params, *batch)  # noqa: E731
    measure = lambda batch: sharpness.m_sharpness(loss_fn, params, [batch], (m,), rho=0.1, steps=3)[m]  # noqa: E731
    on_one_device = measure(batch).per_batch
    with jax.set_mesh(spread.mesh):
        found = measure(spread.put(batch)).per_batch
    np.testing.assert_allclose(found, on_one_device, rtol=1e-9)


def test_nnx_gives_the_gradients_of_one_device(spread):
    loss_fn = lambda model, x, y: jnp.mean((model(x) - y) ** 2)  # noqa: E731
    model, (x, y) = nnx.Linear(3, 2, rngs=nnx.Rngs(0)), helpers.batch_of(16)
    loss, grads, _ = sam_optax.flax.value_and_grad(loss_fn)(model, x, y)
    in_parts = sam_optax.flax.value_and_grad(loss_fn, micro_batches=4)
    with jax.set_mesh(spread.mesh):
        found = nnx.jit(lambda model, *batch: in_parts(model, *batch)[:2])(model, *spread.put((x, y)))
    np.testing.assert_allclose(found[0], loss, rtol=1e-5)
    pure = [jax.device_get(nnx.to_pure_dict(each)) for each in (found[1], grads)]
    chex.assert_trees_all_close(*pure, rtol=1e-4, atol=1e-6)


@loops_in_turn("spread", MESHES, indirect=["spread"])
def test_weights_and_states_work_on_an_explicit_mesh(spread, loop):
    def loss_fn(w: jax.Array, state: Any, x: jax.Array) -> Any:
        return jnp.mean(x @ w), {"calls": state["calls"] + 1, "mean": 0.5 * state["mean"] + 0.5 * jnp.mean(x)}

    options = {"has_aux": True, "micro_batches": 4, "batch_argnums": 1, "state_argnum": 0}
    value_and_grad = sam_optax.value_and_grad(loss_fn, batch_weight=lambda state, x: jnp.max(x[:, 0]) + 10, **options)
    x = np.asarray(helpers.batch_of(16)[0])
    with jax.set_mesh(spread.mesh):
        state, w = {"calls": jnp.array(0), "mean": jnp.array(1.0)}, jnp.ones(3)
        (loss, after), _, _ = value_and_grad(w, state, spread.put(x))
    means = [part.mean() for part in np.split(x, 4)]
    weights = [part[:, 0].max() + 10 for part in np.split(x, 4)]
    np.testing.assert_allclose(loss, np.average([3 * mean for mean in means], weights=weights), rtol=1e-4)
    expected = 1.0
    for mean in means:
        expected = 0.5 * expected + 0.5 * mean
    np.testing.assert_allclose(after["mean"], expected, rtol=1e-5)
    assert int(after["calls"]) == 4
