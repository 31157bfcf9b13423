"""Perturbations with further gradients: k-step SAM, compared with Optax's own and with golden trajectories."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import sam_optax
from tests import helpers, methods
from tests.selection import combinations

gradient = jax.grad(helpers.small_loss)


def normalized(rho: float) -> optax.GradientTransformation:
    return optax.chain(optax.contrib.normalize(), optax.sgd(rho))


ADVERSARIES = {
    "normalized": functools.partial(normalized, 0.1),
    "plain": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.chain(optax.contrib.normalize(), optax.sgd(0.05, momentum=0.9)),
    "adam": lambda: optax.adam(0.01),
    "decayed": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)),
    "scheduled": lambda: optax.sgd(optax.exponential_decay(0.1, 1, 0.5)),
}


def k_step_sam(adversary: optax.GradientTransformation, steps: int, **options: Any) -> Any:
    return sam_optax.sharpness_aware(
        sam_optax.repeated_ascent(adversary, steps), sam_optax.perturbed_gradient(), **options
    )


def by_optax(adversary: Any, steps: int, params: Any, batches: Any) -> list[Any]:
    """The parameters after each step of Optax's SAM in its opaque mode."""
    tx = optax.contrib.sam(optax.sgd(0.1, momentum=0.9), adversary, sync_period=steps + 1, opaque_mode=True)

    @jax.jit
    def step(params: Any, state: Any, *batch: Any) -> tuple[Any, Any]:
        grad_fn = lambda at, _: jax.grad(helpers.golden_loss)(at, *batch)  # noqa: E731
        updates, state = tx.update(grad_fn(params, 0), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    state, history = tx.init(params), []
    for batch in batches:
        params, state = step(params, state, *batch)
        history.append(params)
    return history


@combinations(
    lambda steps, adversary: (steps, adversary) in {(1, "normalized"), (2, "adam"), (4, "momentum")},
    steps=[1, 2, 3, 4],
    adversary=ADVERSARIES,
)
def test_repeated_ascent_equals_optax_sam_with_the_same_adversary(adversary, steps, x64):
    golden = helpers.golden()
    tx = optax.chain(k_step_sam(ADVERSARIES[adversary](), steps), optax.sgd(0.1, momentum=0.9))
    ours = helpers.descend(tx, golden.params, golden.batches, helpers.golden_loss)
    theirs = by_optax(ADVERSARIES[adversary](), steps, golden.params, golden.batches)
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-12)


def test_one_step_along_the_normalized_gradient_is_sam(x64):
    golden = helpers.golden()
    runs = (
        helpers.descend(optax.chain(method, optax.sgd(0.1)), golden.params, golden.batches, helpers.golden_loss)
        for method in (k_step_sam(normalized(0.05), 1), sam_optax.sam(rho=0.05))
    )
    chex.assert_trees_all_close(*runs, rtol=0, atol=1e-12)


def counted(calls: list[None]) -> Any:
    """A loss that counts executed passes instead of traced ones."""

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: calls.append(None))
        return helpers.small_loss(params, x, y)

    return loss


@combinations(lambda steps, static: steps == (4 if static else 2), steps=(1, 2, 4), static=(True, False))
def test_a_step_evaluates_one_gradient_per_ascent_step_plus_one_and_a_skipped_step_one(steps, static):
    calls: list[None] = []
    policy = sam_optax.every(2)
    tx = optax.chain(k_step_sam(normalized(0.1), steps, when=policy), optax.sgd(0.1))
    step, params = helpers.make_step(tx, counted(calls)), helpers.small_params()
    state, counts = tx.init(params), []
    for i, batch in enumerate(helpers.small_batches(4)):
        params, state = step(params, state, *batch, perturb=policy.at(i) if static else None)
        jax.block_until_ready(params)
        jax.effects_barrier()
        counts.append(len(calls))
        calls.clear()
    assert counts == [1 + steps, 1, 1 + steps, 1]


def test_traced_and_static_decisions_agree(x64):
    policy = sam_optax.every(2)
    tx = optax.chain(k_step_sam(normalized(0.1), 3, when=policy), optax.sgd(0.1))
    runs = []
    for static in (True, False):
        step, params = helpers.make_step(tx), helpers.small_params()
        state = tx.init(params)
        for i, batch in enumerate(helpers.small_batches(4)):
            params, state = step(params, state, *batch, perturb=policy.at(i) if static else None)
        runs.append((params, state))
    chex.assert_trees_all_close(*runs, rtol=0, atol=1e-12)


def test_hidden_leaves_are_unperturbed_and_excluded_from_the_norm_in_every_ascent_step(x64):
    asked: list[Any] = []

    def recorded(at: Any) -> Any:
        asked.append(at)
        return gradient(at, *batch)

    (batch,), params = helpers.small_batches(1), helpers.small_params()
    method = k_step_sam(normalized(0.1), 3, mask=methods.KERNELS)
    method.update(gradient(params, *batch), method.init(params), params, grad_fn=recorded)
    assert len(asked) == 3
    at = params
    for found in asked:
        kernel = gradient(at, *batch)["dense"]["kernel"]
        moved = at["dense"]["kernel"] + 0.1 * kernel / jnp.linalg.norm(kernel)
        at = {"dense": {"kernel": moved, "bias": params["dense"]["bias"]}}
        chex.assert_trees_all_close(found, at, rtol=0, atol=1e-14)


def test_hidden_leaves_are_unperturbed_by_adversaries_with_weight_decay():
    asked: list[Any] = []

    def recorded(at: Any) -> Any:
        asked.append(at["dense"]["bias"])
        return gradient(at, *batch)

    (batch,), params = helpers.small_batches(1), helpers.small_params()
    method = k_step_sam(ADVERSARIES["decayed"](), 3, mask=methods.KERNELS)
    method.update(gradient(params, *batch), method.init(params), params, grad_fn=recorded)
    chex.assert_trees_all_equal(asked, 3 * [params["dense"]["bias"]])


def test_adversary_schedules_count_ascent_steps_and_method_schedules_count_updates(x64):
    w = jnp.array([3.0, 4.0])
    inner = k_step_sam(optax.sgd(lambda count: jnp.where(count == 0, 0.5, 0.25)), 2)
    state = inner.init(w)
    for _ in range(2):  # gradient w: w → 1.5 w → 1.875 w, in each update
        updates, state = inner.update(w, state, w, grad_fn=lambda at: at)
        np.testing.assert_allclose(updates, 1.875 * w, rtol=1e-12)
    outer = optax.inject_hyperparams(lambda rho: k_step_sam(optax.sgd(rho), 1))(rho=lambda count: 0.5 + count)
    state = outer.init(w)
    for factor in (1.5, 2.5):
        updates, state = outer.update(w, state, w, grad_fn=lambda at: at)
        np.testing.assert_allclose(updates, factor * w, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_zero_gradient_gives_a_finite_update(steps):
    method, zero = k_step_sam(normalized(0.1), steps), jnp.zeros(3)
    updates, _ = jax.jit(lambda w: method.update(w, method.init(w), w, grad_fn=lambda at: at))(zero)
    np.testing.assert_array_equal(updates, zero)


def test_a_gradient_that_is_not_finite_stays_so():
    method, nan = k_step_sam(normalized(0.1), 2), jnp.full(3, jnp.nan)
    updates, _ = method.update(nan, method.init(nan), jnp.ones(3), grad_fn=lambda at: at)
    assert np.all(np.isnan(updates))


def test_any_perturbation_may_evaluate_further_gradients():
    """The extra-gradient method, written by hand: the offset is the gradient at `w + 0.1 g`."""

    def update(updates: Any, state: Any, params: Any = None, *, grad_fn: Any, **extra: Any) -> tuple[Any, Any]:
        assert extra == {"perturb": True, "anything": 1}
        return grad_fn(params + 0.1 * updates), state

    extra_gradient = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    method, w = sam_optax.sharpness_aware(extra_gradient, sam_optax.perturbed_gradient()), jnp.array([3.0, 4.0])
    updates, _ = method.update(2 * w, method.init(w), w, grad_fn=lambda at: 2 * at, anything=1)
    np.testing.assert_allclose(updates, 2 * (w + 2 * (w + 0.2 * w)), rtol=1e-6)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="steps is 0"):
        sam_optax.repeated_ascent(optax.sgd(0.1), 0)
    with pytest.raises(ValueError, match="adversary is 3"):
        sam_optax.repeated_ascent(3, 1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="adversary holds a sharpness-aware method"):
        sam_optax.repeated_ascent(sam_optax.sam(), 1).init(jnp.ones(2))
    ascent = sam_optax.repeated_ascent(optax.sgd(0.1), 2)
    with pytest.raises(ValueError, match="params is missing"):
        ascent.update(jnp.ones(2), ascent.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="grad_fn is missing"):
        ascent.update(jnp.ones(2), ascent.init(jnp.ones(2)), jnp.ones(2))
