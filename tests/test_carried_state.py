"""A model state in the auxiliary output is carried from part to part, and not changed by the second pass."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_optax
from tests.selection import LOOPS, combinations, loops_in_turn
from tests.test_devices import SPREAD


def counting(w: jax.Array, state: Any, x: jax.Array) -> Any:
    """A loss whose state has all kinds of leaves, and whose gradient shows which state it started from."""
    key, draw = jax.random.split(state["key"])
    moved = {
        "key": key,
        "calls": state["calls"] + 1,
        "seen": state["seen"] | jnp.any(x > 1),
        "mean": 0.5 * state["mean"] + 0.5 * jnp.mean(x),
    }
    return jnp.mean(x * w) * (1 + state["calls"]) * jax.random.normal(draw), (jnp.sum(x > 0), moved)


def counted_state() -> Any:
    return {"key": jax.random.key(3), "calls": jnp.array(2), "seen": jnp.array(False), "mean": jnp.array(4.0)}


def plain(function: Any) -> Any:
    return function


@loops_in_turn("wrap", [plain, jax.jit])
def test_a_state_may_hold_counters_flags_and_keys(wrap, loop):
    x, w = jnp.arange(-2.0, 4.0).reshape(6, 1), jnp.array(2.0)
    options = {"has_aux": True, "micro_batches": 3, "state_argnum": 0}
    run = sam_optax.value_and_grad(counting, **options)
    (loss, (positive, after)), grads, grad_fn = wrap(run)(w, counted_state(), x)
    state, losses = counted_state(), []
    for part in jnp.split(x, 3):
        of_part, (_, state) = counting(w, state, part)
        losses.append(of_part)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(after["mean"], state["mean"], rtol=1e-6)
    assert (int(after["calls"]), bool(after["seen"]), int(positive)) == (5, True, 3)
    np.testing.assert_array_equal(jax.random.key_data(after["key"]), jax.random.key_data(state["key"]))
    np.testing.assert_allclose(
        grad_fn(w), grads, rtol=1e-6
    )  # the loss is linear, so that another state would change it
    np.testing.assert_allclose(grads * w, loss, rtol=1e-5)


@combinations(
    lambda how, micro_batches, loop: micro_batches == 2 and (how == "vmap") == (loop == "scanned"),
    indirect=["loop"],
    how=SPREAD,
    micro_batches=(1, 2),
    loop=LOOPS,
)
def test_over_devices_numbers_are_averaged_and_the_rest_is_kept(how, micro_batches, loop):
    options = {"has_aux": True, "micro_batches": micro_batches, "state_argnum": 0, "batch_argnums": 1}
    value_and_grad = sam_optax.value_and_grad(counting, axis_name="data", **options)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 1)), jnp.float32)

    def step(w: jax.Array, state: Any, x: jax.Array, y: jax.Array) -> Any:
        (loss, (positive, after)), grads, _ = value_and_grad(w, state, x)
        kept = {"calls": after["calls"], "mean": after["mean"]}
        return loss, grads, positive, kept | {"key": jax.random.key_data(after["key"])}

    loss, grads, positive, after = SPREAD[how](step)(jnp.array(2.0), counted_state(), x, jnp.zeros(16))
    ends, losses = [], []
    for of_device in jnp.split(x, 4):
        state = counted_state()
        for part in jnp.split(of_device, micro_batches):
            of_part, (_, state) = counting(jnp.array(2.0), state, part)
            losses.append(of_part)
        ends.append(state)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)
    np.testing.assert_allclose(2 * grads, loss, rtol=1e-4)
    np.testing.assert_allclose(after["mean"], np.mean([end["mean"] for end in ends]), rtol=1e-5)
    np.testing.assert_array_equal(after["key"], jax.random.key_data(ends[0]["key"]))
    assert int(after["calls"]) == 2 + micro_batches
    assert int(positive) == int(jnp.sum(x > 0))


def test_a_part_without_weight_does_not_update_the_statistics(loop):
    weight = lambda state, x: jnp.where(jnp.any(jnp.isnan(x)), 0.0, 1.0)  # noqa: E731
    options = {"has_aux": True, "state_argnum": 0, "batch_weight": weight}
    x = jnp.arange(-2.0, 4.0).reshape(6, 1).at[2:4].set(jnp.nan)
    value_and_grad = sam_optax.value_and_grad(counting, micro_batches=3, **options)
    (loss, (_, after)), _, _ = value_and_grad(jnp.array(2.0), counted_state(), x)
    np.testing.assert_allclose(after["mean"], 0.25 * 4 + 0.25 * -1.5 + 0.5 * 2.5, rtol=1e-6)
    assert int(after["calls"]) == 5
    assert np.isfinite(loss)
    only_nan = jnp.full_like(x, jnp.nan)
    for parts in (1, 3):
        value_and_grad = sam_optax.value_and_grad(counting, micro_batches=parts, **options)
        (loss, (_, after)), _, _ = value_and_grad(jnp.array(2.0), counted_state(), only_nan)
        assert (float(loss), float(after["mean"])) == (0.0, 4.0)


@loops_in_turn("m", [None, 2])
def test_m_sam_carries_the_state_from_shard_to_shard(m, loop):
    method, w = sam_optax.sam(rho=0.5), jnp.array(2.0)
    x = jnp.arange(-2.0, 4.0).reshape(6, 1)
    fn = sam_optax.sharpness_aware_grad(counting, method, m, batch_argnums=1, state_argnum=0, has_aux=True)
    loss, (positive, after), grads, _ = fn(w, method.init(w), counted_state(), x)
    state, losses = counted_state(), []
    for part in jnp.split(x, 1 if m is None else 3):
        of_part, (_, state) = counting(w, state, part)
        losses.append(of_part)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(2 * grads, loss, rtol=1e-5)  # both passes of a shard start from one state
    np.testing.assert_allclose(after["mean"], state["mean"], rtol=1e-6)
    assert (int(after["calls"]), int(positive)) == (int(state["calls"]), 3)


def nested(w: jax.Array, state: Any, x: jax.Array) -> Any:
    loss, (positive, moved) = counting(w, state, x)
    return loss, {"metrics": positive, "variables": {"state": moved}}


def whole_variables(w: jax.Array, variables: Any, x: jax.Array) -> Any:
    return counting(w, variables["state"], x)


UNNAMED = {
    "child": (counting, (counted_state(), jnp.ones((4, 1)))),
    "deeper": (nested, (counted_state(), jnp.ones((4, 1)))),
    "part_of_an_argument": (whole_variables, ({"state": counted_state()}, jnp.ones((4, 1)))),
}


@pytest.mark.parametrize("name", UNNAMED)
def test_an_unnamed_state_is_refused_in_parts(name):
    loss_fn, args = UNNAMED[name]
    named = {"has_aux": True, "batch_argnums": 1}
    message = (
        r"^The auxiliary output contains a tree with .* of argument 0 after the parameters\. .* state_argnum"
        ".*another container"
    )
    with pytest.raises(ValueError, match=message):
        sam_optax.value_and_grad(loss_fn, micro_batches=2, **named)(jnp.array(2.0), *args)
    method = sam_optax.sam()
    with pytest.raises(ValueError, match=message):
        sam_optax.sharpness_aware_grad(loss_fn, method, 2, **named)(jnp.array(2.0), method.init(jnp.array(2.0)), *args)


def test_a_state_among_the_keywords_is_refused_in_parts():
    loss_fn = lambda w, x, *, state: counting(w, state, x)  # noqa: E731
    value_and_grad = sam_optax.value_and_grad(loss_fn, has_aux=True, micro_batches=2, batch_argnames=())
    with pytest.raises(
        ValueError,
        match=r"^The auxiliary output contains a tree with .* of argument 'state'",
    ):
        value_and_grad(jnp.array(2.0), jnp.ones((4, 1)), state=counted_state())


@pytest.mark.parametrize("how", SPREAD)
def test_unnamed_counters_are_refused_over_devices(how):
    value_and_grad = sam_optax.value_and_grad(counting, has_aux=True, axis_name="data")
    step = lambda w, state, x, y: value_and_grad(w, state, x)[1]  # noqa: E731
    with pytest.raises(ValueError, match=r"^The auxiliary output contains a tree with .* of argument 0"):
        SPREAD[how](step)(jnp.array(2.0), counted_state(), jnp.ones((16, 1)), jnp.ones(16))


def test_functional_sam_needs_a_named_state_over_devices():
    def model_fn(w: jax.Array, state: Any, x: jax.Array) -> Any:
        return x * w, {"calls": state["calls"] + 1, "mean": jnp.mean(x)}

    logits_loss = lambda logits, state, x: jnp.mean(logits)  # noqa: E731
    state, x = {"calls": jnp.array(2), "mean": jnp.array(0.0)}, jnp.arange(16.0).reshape(16, 1)

    def step_with(**options: Any) -> Any:
        passes = sam_optax.functional_value_and_grad(model_fn, logits_loss, has_aux=True, axis_name="data", **options)
        return SPREAD["shard_map"](lambda w, state, x, y: passes(w, state, x)[0])(jnp.array(2.0), state, x, x)

    loss, after = step_with(state_argnum=0)
    np.testing.assert_allclose([loss, after["mean"], after["calls"]], [15.0, 7.5, 3])
    with pytest.raises(ValueError, match=r"^The auxiliary output contains a tree with .* of argument 0"):
        step_with()


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda w, s, x: (jnp.mean(x * w), {"n": s["n"]}), None),
        (lambda w, s, x: (jnp.mean(x * w), (s, s)), r"^2 direct children of the auxiliary output have the structure"),
        (lambda w, s, x: (jnp.mean(x * w), jnp.mean(x)), r"^No direct children of the auxiliary output have the"),
        (lambda w, s, x: (jnp.mean(x * w), {"n": s["n"] + 0.5}), r"^No direct children of the auxiliary output"),
    ],
    ids=["fits", "twice", "none", "another_dtype"],
)
def test_the_state_in_the_auxiliary_output_must_be_unique(loss_fn, message):
    value_and_grad = sam_optax.value_and_grad(loss_fn, has_aux=True, micro_batches=2, state_argnum=0)
    call = jnp.array(2.0), {"n": jnp.array(1)}, jnp.ones((4, 1))
    if message is None:
        assert int(value_and_grad(*call)[0][1]["n"]) == 1
    else:
        with pytest.raises(ValueError, match=message):
            value_and_grad(*call)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_argnum": 0}, r"^state_argnum is 0: give has_aux=True"),
        ({"state_argnum": "state", "has_aux": True}, r"^state_argnum is 'state': give an integer"),
    ],
)
def test_a_useless_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sam_optax.value_and_grad(counting, **options)


def test_a_missing_argument_is_refused():
    with pytest.raises(ValueError, match=r"^state_argnum is 2, and there are 2 arguments after the parameters"):
        sam_optax.value_and_grad(counting, has_aux=True, state_argnum=2)(jnp.array(2.0), counted_state(), jnp.ones(4))


def test_auxiliary_numbers_outside_of_the_state_are_averaged_or_summed(loop):
    loss_fn = lambda w, x: (jnp.mean(x * w), {"mean": jnp.mean(x), "size": len(x)})  # noqa: E731
    (_, aux), _, _ = sam_optax.value_and_grad(loss_fn, has_aux=True, micro_batches=2)(jnp.array(2.0), jnp.arange(4.0))
    assert (float(aux["mean"]), int(aux["size"])) == (1.5, 4)
