"""One compiled step for batches of several sizes: the batch is padded, and the number of its parts is traced."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sam_optax
import sam_optax.flax
from sam_optax import BatchPlan
from tests import helpers
from tests.helpers import batch_of

PARTS, ROWS = 4, 2


def padded(batch: Any, parts: int) -> Any:
    """The first rows of a batch, with NaN in place of the others."""
    rows = jnp.arange(len(batch[0])) < parts * ROWS
    return jax.tree.map(lambda x: jnp.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.nan), batch)


def first(batch: Any, parts: int) -> Any:
    return jax.tree.map(lambda x: x[: parts * ROWS], batch)


def step(tx: optax.GradientTransformation, batch: Any, **options: Any) -> Any:
    params = helpers.small_params()

    @jax.jit
    def update(parts: Any, *batch: Any) -> Any:
        given = {name: parts if value is None else value for name, value in options.items()}
        value_and_grad = sam_optax.value_and_grad(helpers.small_loss, **given)
        loss, grads, grad_fn = value_and_grad(params, *batch)
        updates, state = tx.update(grads, tx.init(params), params, grad_fn=grad_fn, value=loss)
        return loss, updates, state

    return update(jnp.asarray(options.pop("parts", 1)), *batch)


@pytest.mark.parametrize("parts", range(1, PARTS + 1))
@pytest.mark.parametrize("name", ["sam", "gsam", "vasso"])
def test_a_step_on_the_first_parts_equals_that_of_a_batch_of_their_size(name, parts, x64):
    tx, batch = helpers.optimizer(name, rho=0.5), batch_of(PARTS * ROWS)
    traced = step(tx, padded(batch, parts), parts=parts, micro_batches=None, max_micro_batches=PARTS)
    chex.assert_trees_all_close(traced, step(tx, first(batch, parts)), rtol=0, atol=1e-12)


def mean_of_squares(w: jax.Array, state: Any, x: jax.Array, mask: jax.Array) -> Any:
    """A loss with a state, a floating and an integer auxiliary output; the state counts the parts."""
    loss = jnp.sum(mask * (x * w) ** 2) / jnp.sum(mask)
    return loss, ({"parts": state["parts"] + 1}, {"mean": jnp.mean(x), "rows": jnp.sum(mask > 0)})


@pytest.mark.parametrize("parts", range(1, PARTS + 1))
def test_state_weights_and_auxiliary_outputs_are_those_of_the_first_parts(parts, x64):
    x, mask = jnp.arange(8.0), jnp.array([1.0, 0, 1, 1, 0, 1, 1, 1])
    options: Any = {
        "has_aux": True,
        "batch_argnums": (1, 2),
        "state_argnum": 0,
        "batch_weight": lambda state, x, mask: jnp.sum(mask),
    }
    state = {"parts": jnp.asarray(0)}

    @jax.jit
    def found(count: jax.Array) -> Any:
        value_and_grad = sam_optax.value_and_grad(
            mean_of_squares, micro_batches=count, max_micro_batches=PARTS, **options
        )
        value, grads, grad_fn = value_and_grad(jnp.asarray(3.0), state, x, mask)
        return value, grads, grad_fn.measured(jnp.asarray(2.0))

    def expected() -> Any:
        value_and_grad = sam_optax.value_and_grad(mean_of_squares, micro_batches=parts, **options)
        rows = slice(parts * ROWS)
        value, grads, grad_fn = value_and_grad(jnp.asarray(3.0), state, x[rows], mask[rows])
        return value, grads, grad_fn.measured(jnp.asarray(2.0))

    ours = found(jnp.asarray(parts))
    assert ours[0][1][0]["parts"] == parts
    chex.assert_trees_all_close(ours, jax.jit(expected)(), rtol=0, atol=1e-12)


def test_a_plan_of_five_stages_compiles_one_step():
    plan = BatchPlan.parse("updates:2x2,2x4,2x6,2x8,1x10")
    x, y = batch_of(40)
    tx, largest = helpers.optimizer("gsam"), max(stage.batch_size for stage in plan.stages)
    traces: list[None] = []

    @jax.jit
    def train(params: Any, state: Any, parts: jax.Array, *batch: jax.Array) -> Any:
        traces.append(None)
        value_and_grad = sam_optax.value_and_grad(
            helpers.small_loss, micro_batches=parts, max_micro_batches=largest // ROWS
        )
        loss, grads, grad_fn = value_and_grad(params, *batch)
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn, value=loss)
        return optax.apply_updates(params, updates), state

    params = helpers.small_params()
    state = tx.init(params)
    for indices, _ in plan.batches(len(x), seed=0):
        rows = np.resize(indices, largest)
        params, state = train(params, state, len(indices) // ROWS, x[rows], y[rows])
    assert len(traces) == 1
    expected = helpers.small_params()
    state = tx.init(expected)
    for indices, _ in plan.batches(len(x), seed=0):
        loss, grads, grad_fn = sam_optax.value_and_grad(helpers.small_loss)(expected, x[indices], y[indices])
        updates, state = tx.update(grads, state, expected, grad_fn=grad_fn, value=loss)
        expected = optax.apply_updates(expected, updates)
    chex.assert_trees_all_close(params, expected, rtol=1e-5)


@pytest.mark.parametrize("parts", [0, -1, PARTS + 1])
def test_an_impossible_traced_number_gives_nan(parts):
    batch, tx = batch_of(PARTS * ROWS), helpers.optimizer("sam")
    loss, updates, _ = step(tx, batch, parts=parts, micro_batches=None, max_micro_batches=PARTS)
    assert all(bool(jnp.all(jnp.isnan(x))) for x in jax.tree.leaves((loss, updates)))


def test_the_second_pass_may_leave_the_compiled_function(x64):
    params, batch = helpers.small_params(), batch_of(PARTS * ROWS)

    @jax.jit
    def first_pass(parts: jax.Array) -> Any:
        value_and_grad = sam_optax.value_and_grad(helpers.small_loss, micro_batches=parts, max_micro_batches=PARTS)
        return value_and_grad(params, *batch)[2]

    for parts in (1, 3):
        expected = sam_optax.value_and_grad(helpers.small_loss)(params, *first(batch, parts))[2]
        chex.assert_trees_all_close(
            jax.jit(lambda grad_fn: grad_fn(params))(first_pass(jnp.asarray(parts))), expected(params), atol=1e-12
        )


def test_a_model_of_nnx():
    x = jax.random.normal(jax.random.key(0), (PARTS * ROWS, 3))
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)))

    def loss_fn(model: nnx.Module, x: jax.Array) -> jax.Array:
        return jnp.mean(model(x)[:, 0] * x[:, 0])  # pyright: ignore[reportCallIssue] - a module is callable

    def found(x: jax.Array, **options: Any) -> Any:
        changed = nnx.clone(model)

        @nnx.jit
        def both(changed: nnx.Module, parts: jax.Array) -> Any:
            given = {name: parts if value is None else value for name, value in options.items()}
            loss, grads, grad_fn = sam_optax.flax.value_and_grad(loss_fn, **given)(changed, x)
            return loss, grads, grad_fn(nnx.state(changed, nnx.Param))

        result = both(changed, jnp.asarray(3))
        return *map(nnx.to_pure_dict, result[1:]), nnx.to_pure_dict(nnx.state(changed))

    ours = found(x, micro_batches=None, max_micro_batches=PARTS)
    chex.assert_trees_all_close(ours, found(x[: 3 * ROWS], micro_batches=3), rtol=1e-5, atol=1e-6)


VALUE_AND_GRAD = partial(sam_optax.value_and_grad, helpers.small_loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batches": jnp.asarray(2)}, r"micro_batches is .*, an array: give max_micro_batches, too"),
        ({"micro_batches": 5, "max_micro_batches": 4}, "micro_batches is 5: give an integer from 1 to max_micro"),
        ({"micro_batches": 0, "max_micro_batches": 4}, "micro_batches is 0: give an integer from 1 to max_micro"),
        ({"micro_batches": 1.0, "max_micro_batches": 4}, r"micro_batches is 1\.0: give an integer from 1"),
        ({"micro_batches": jnp.ones(2, int), "max_micro_batches": 4}, "micro_batches is .*: give an integer from 1"),
        ({"micro_batches": 1, "max_micro_batches": 0}, "max_micro_batches is 0: give a positive integer"),
        ({"micro_batches": 2, "max_micro_batches": 4, "measure_noise": True}, "measure_noise is True, and max_micro"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        VALUE_AND_GRAD(**options)


def test_a_batch_that_the_parts_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"^micro_batches is 4, and the batch has 6 examples"):
        VALUE_AND_GRAD(micro_batches=1, max_micro_batches=4)(helpers.small_params(), *batch_of(6))
