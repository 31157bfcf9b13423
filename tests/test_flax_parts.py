"""NNX: both passes over the whole batch, in parts and on several devices."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sam_optax
import sam_optax.flax
from tests.test_flax import Net, arrays, batches, loss_fn, make_optimizer, make_step, other_state, params_of


class Plain(nnx.Module):
    """A model without BatchNorm, because BatchNorm statistics of parts differ from those of the batch."""

    def __init__(self) -> None:
        self.first = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
        self.last = nnx.Linear(3, 1, rngs=nnx.Rngs(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(nnx.tanh(self.first(x)))[:, 0]


def plain_batches(steps: int) -> list[tuple[jax.Array, jax.Array]]:
    rng = np.random.default_rng(0)
    return [(jnp.asarray(rng.normal(size=(8, 4))), jnp.asarray(rng.normal(size=8))) for _ in range(steps)]


@pytest.mark.parametrize("parts", [pytest.param(2, marks=pytest.mark.long), 8])
def test_a_step_in_parts_equals_the_step_of_the_whole_batch(parts):
    models = []
    for micro_batches in (1, parts):
        model = Plain()
        optimizer, step = make_optimizer(model), make_step(micro_batches=micro_batches, batch_argnums=(0, 1))
        for batch in plain_batches(3):
            step(model, optimizer, *batch)
        models.append(params_of(model))
    chex.assert_trees_all_close(*models, rtol=1e-4, atol=1e-6)


def test_statistics_are_updated_by_every_part_but_not_by_second_passes():
    model, (batch,) = Net(), batches(1)
    clean, optimizer = nnx.clone(model), make_optimizer(model)
    for part in zip(*(jnp.split(x, 2) for x in batch), strict=True):
        nnx.jit(loss_fn)(clean, *part)
    make_step(micro_batches=2, batch_argnums=(0, 1))(model, optimizer, *batch)
    chex.assert_trees_all_close(arrays(other_state(model)), arrays(other_state(clean)), rtol=1e-5)


def test_aux_of_parts_is_averaged_or_summed():
    loss = lambda model, x, y: (jnp.mean((model(x) - y) ** 2), {"mean": jnp.mean(x), "size": len(x)})  # noqa: E731
    (x, y), model = plain_batches(1)[0], Plain()
    options = {"has_aux": True, "micro_batches": 4, "batch_argnums": (0, 1)}
    (value, aux), _, _ = sam_optax.flax.value_and_grad(loss, **options)(model, x, y)
    np.testing.assert_allclose(value, loss_fn(model, x, y), rtol=1e-5)
    np.testing.assert_allclose(aux["mean"], np.mean(x), rtol=1e-5)
    assert aux["size"] == 8
    with pytest.raises(ValueError, match=r"^micro_batches is 0"):
        sam_optax.flax.value_and_grad(loss, micro_batches=0)


@pytest.mark.parametrize("micro_batches", [pytest.param(1, marks=pytest.mark.long), 2])
def test_devices_share_a_perturbation_and_their_statistics(micro_batches):
    """Under `shard_map` the step equals that of the whole batch, and BatchNorm statistics are device means."""
    options = {"micro_batches": micro_batches, "batch_argnums": (0, 1), "axis_name": "data"}
    value_and_grad = sam_optax.flax.value_and_grad(loss_fn, **options)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere, parted = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("data")

    def both(make: Any, batch: Any) -> Any:
        graphdef, state = nnx.split(make())

        def passes(state: Any, *batch: Any) -> Any:
            model = nnx.merge(graphdef, state, copy=True)
            loss, grads, grad_fn = value_and_grad(model, *batch)
            second = grad_fn(jax.tree.map(lambda w: w + 0.1, nnx.state(model, nnx.Param)))
            return (
                loss,
                nnx.to_pure_dict(grads),
                nnx.to_pure_dict(second),
                nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)),
            )

        specs = (everywhere, parted, parted)
        return jax.jit(jax.shard_map(passes, mesh=mesh, in_specs=specs, out_specs=everywhere))(state, *batch)

    (batch,) = plain_batches(1)
    loss, grads, second, _ = both(Plain, batch)
    expected = sam_optax.flax.value_and_grad(loss_fn)(model := Plain(), *batch)
    elsewhere = jax.tree.map(lambda w: w + 0.1, nnx.state(model, nnx.Param))
    theirs = (expected[0], nnx.to_pure_dict(expected[1]), nnx.to_pure_dict(expected[2](elsewhere)))
    chex.assert_trees_all_close((loss, grads, second), theirs, rtol=1e-4, atol=1e-6)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(1, 2, (16, 4, 4, 1))), jnp.asarray(rng.normal(size=16))
    statistics = both(Net, images)[3]
    means = []
    for part in jnp.split(images[0], 4):
        clean = Net()
        for micro in jnp.split(part, micro_batches):
            clean(micro)
        means.append(nnx.to_pure_dict(nnx.state(clean, nnx.BatchStat)))
    chex.assert_trees_all_close(statistics, jax.tree.map(lambda *x: sum(x) / 4, *means), rtol=1e-4, atol=1e-6)
