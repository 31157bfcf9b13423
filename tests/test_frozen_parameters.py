"""Decoupled WSAM around bases that freeze parameters, accumulate gradients, or have several learning rates."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sam_optax
from tests.body_and_head import HEAD, LABELS, gradient, params
from tests.selection import combinations

RATE, RHO, WEIGHT = 0.1, 0.5, 9.0  # γ = 0.9 gives the sharpness a weight of γ/(1 − γ) = 9
BODY = {"body": True, "head": False}


def sharpness_gradient(params: Any, perturbed: tuple[str, ...]) -> Any:
    """`g_s − g`, with `ε = ρ g/‖g‖` on the leaves of these names."""
    g = gradient(params)
    norm = np.sqrt(sum(np.sum(g[name] ** 2) for name in perturbed))
    moved = {name: w + (RHO * g[name] / norm if name in perturbed else 0) for name, w in params.items()}
    return jax.tree.map(jnp.subtract, gradient(moved), g)


def first_update(base: Any, learning_rate: Any = RATE, mask: Any = HEAD) -> Any:
    tx, w = sam_optax.wsam_decoupled(base, learning_rate, RHO, mask=mask), params()
    return tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)[0]


def multi_transform(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.multi_transform({"trained": tx, "frozen": optax.set_to_zero()}, LABELS)


FREEZING = {
    "multi_transform": multi_transform,
    "masked_to_zero": lambda tx: optax.chain(tx, optax.masked(optax.set_to_zero(), BODY)),
    "freeze": lambda tx: optax.chain(tx, optax.freeze(BODY)),
    "selective_transform": lambda tx: optax.selective_transform(tx, freeze_mask=BODY),
    "rate_of_zero": lambda tx: optax.multi_transform({"trained": tx, "frozen": optax.sgd(0.0)}, LABELS),
}
BASES = {
    "sgd": lambda: optax.sgd(RATE),
    "momentum": lambda: optax.sgd(RATE, momentum=0.9),
    "adam": lambda: optax.adam(RATE),
    "adamw": lambda: optax.adamw(RATE, weight_decay=0.5),
    "lion": lambda: optax.lion(RATE),
}


@combinations(
    lambda base, freezing, is_masked: base == "momentum" if is_masked else freezing == "multi_transform",
    base=BASES,
    freezing=FREEZING,
    is_masked=(True, False),
)
def test_frozen_parameters_do_not_change(base, freezing, is_masked):
    mask = HEAD if is_masked else None
    updates = first_update(FREEZING[freezing](BASES[base]()), mask=mask)
    np.testing.assert_array_equal(updates["body"], np.zeros((3, 4)))
    tx, w = BASES[base](), params()
    base_updates, _ = tx.update(gradient(w), tx.init(w), w)
    rise = sharpness_gradient(w, ("head",) if mask else ("body", "head"))
    np.testing.assert_allclose(
        updates["head"], base_updates["head"] - RATE * WEIGHT * rise["head"], rtol=1e-4, atol=1e-6
    )


def test_trained_but_unperturbed_parameters_get_their_part_of_the_sharpness_gradient():
    updates, rise = first_update(optax.sgd(RATE)), sharpness_gradient(params(), ("head",))
    expected = jax.tree.map(lambda g, r: -RATE * (g + WEIGHT * r), gradient(params()), rise)
    chex.assert_trees_all_close(updates, expected, rtol=1e-4, atol=1e-6)


def test_an_accumulating_base_updates_nothing_before_its_own_step():
    tx, w = sam_optax.wsam_decoupled(optax.MultiSteps(optax.sgd(RATE), 3), RATE, RHO), params()
    state, steps = tx.init(w), []
    for _ in range(3):
        updates, state = tx.update(gradient(w), state, w, grad_fn=gradient)
        steps.append(updates)
    assert not any(np.any(x) for x in jax.tree.leaves(steps[:2]))
    rise = sharpness_gradient(w, ("body", "head"))
    expected = jax.tree.map(lambda g, r: -RATE * (g + WEIGHT * r), gradient(w), rise)
    chex.assert_trees_all_close(steps[2], expected, rtol=1e-4, atol=1e-6)


def test_a_base_that_rejects_a_gradient_updates_nothing():
    tx, w = sam_optax.wsam_decoupled(optax.apply_if_finite(optax.sgd(RATE), 3), RATE, RHO), params()
    bad = jax.tree.map(lambda x: x * jnp.nan, w)
    updates, _ = tx.update(bad, tx.init(w), w, grad_fn=gradient)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, w))


def test_a_nonfinite_update_of_the_base_is_not_hidden():
    updates = first_update(optax.scale(jnp.nan))
    assert all(np.all(np.isnan(x)) for x in jax.tree.leaves(updates))


RATES: dict[str, Any] = {
    "numbers": {"body": 0.2, "head": 0.01},
    "frozen": {"body": 0.0, "head": 0.01},
    "schedules": {"body": optax.linear_schedule(0.2, 0.0, 2), "head": 0.01},
}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", RATES)
def test_each_part_has_its_own_rate(name, steps):
    rates = RATES[name]
    base = optax.multi_transform(
        {part: optax.sgd(rate) for part, rate in rates.items()}, {"body": "body", "head": "head"}
    )
    tx, w = sam_optax.wsam_decoupled(base, rates, RHO), params()
    state = tx.init(w)
    for _ in range(steps):
        updates, state = jax.jit(lambda state: tx.update(gradient(w), state, w, grad_fn=gradient))(state)
    rise = sharpness_gradient(w, ("body", "head"))
    now = {part: rate(steps - 1) if callable(rate) else rate for part, rate in rates.items()}
    expected = jax.tree.map(lambda rate, g, r: -rate * (g + WEIGHT * r), now, gradient(w), rise)
    chex.assert_trees_all_close(updates, expected, rtol=1e-4, atol=1e-6)


def test_a_rate_holds_for_all_leaves_below_its_name():
    w = {"encoder": {"a": jnp.ones(2), "b": jnp.ones(3)}, "encoder_head": jnp.ones(1)}
    rates = {"encoder": 0.5, "encoder_head": 0.25}
    tx = sam_optax.wsam_decoupled(optax.sgd(1.0), rates, 1e-3, gamma=0.5)
    zero_where_clean = lambda at: jax.tree.map(lambda x: x + 1, w)  # noqa: E731 - g_s − g = 1 everywhere
    updates, _ = tx.update(w, tx.init(w), w, grad_fn=zero_where_clean)
    chex.assert_trees_all_close(
        updates, {"encoder": {"a": np.full(2, -1.5), "b": np.full(3, -1.5)}, "encoder_head": np.full(1, -1.25)}
    )


def test_names_of_an_nnx_model_are_those_of_its_parameters():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    before = nnx.to_pure_dict(nnx.state(model))
    tx = sam_optax.wsam_decoupled(optax.sgd(0.1), {"kernel": 0.0, "bias": 0.2}, RHO, gamma=0.5)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    ones = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, ones, grad_fn=lambda at: jax.tree.map(lambda x: 2 * jnp.ones_like(x), at))
    moved = jax.tree.map(jnp.subtract, nnx.to_pure_dict(nnx.state(model)), before)
    np.testing.assert_allclose(moved["kernel"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(moved["bias"], -0.3, rtol=1e-4)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"body": -1.0, "head": 0.1}, "^learning_rate at 'body' is -1.0: give a finite number of at least 0"),
        ({"body": 0.1, "head": "fast"}, "^learning_rate at 'head' is 'fast': give a number, or an Optax schedule"),
        ([0.1, optax.constant_schedule(jnp.nan)], "^learning_rate at '1', a schedule, is .*nan.* at its first step"),
        (None, "^learning_rate is None: give a number"),
        ({}, "^learning_rate is {}: give a number"),
    ],
)
def test_an_invalid_rate_is_refused_by_its_path(rates, message):
    with pytest.raises(ValueError, match=message):
        sam_optax.wsam_decoupled(optax.sgd(0.1), rates)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"head": 0.1}, "^learning_rate has no rate for params at 'body': give a number or a schedule for each part"),
        ({"body": None, "head": 0.1}, "^learning_rate has no rate for params at 'body'"),
        ({"body": 0.1, "head": 0.1, "neck": 0.1}, "^learning_rate has a rate at 'neck', where params has no leaf"),
        ({"body": {"kernel": 0.1}, "head": 0.1}, "^learning_rate has no rate for params at 'body'"),
        ([0.1, 0.1], "^learning_rate has no rate for params at 'body'"),
    ],
)
def test_rates_that_do_not_fit_the_parameters_are_refused(rates, message):
    with pytest.raises(ValueError, match=message):
        sam_optax.wsam_decoupled(optax.sgd(0.1), rates).init(params())
