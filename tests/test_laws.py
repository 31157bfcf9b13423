"""Mathematical laws of the methods."""

from collections.abc import Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax import trees
from tests import helpers, methods
from tests.selection import combinations

EXACT = [name for name in methods.METHODS if methods.part(name, "combiner") == "perturbed"]
DIVIDING = [name for name in methods.METHODS if methods.part(name, "combiner") != "perturbed"] + [*methods.WRAPPERS]
dividing_optimizers = methods.where(lambda name: name in DIVIDING, methods.WRAPPERS)


def with_each_base(names: list[str], quick: Iterable[str]) -> pytest.MarkDecorator:
    """Parametrize by `name` and `base`; `make test` runs the methods in `quick`, each with one base in turn."""
    bases = list(helpers.BASES)
    return combinations(
        lambda name, base: name in quick and base == bases[names.index(name) % len(bases)], name=names, base=bases
    )


scheduled_methods = methods.where(lambda name: methods.part(name, "variant") == "scheduled")


def gradients(seed: int = 0) -> tuple[Any, Any]:
    """Two random trees in the roles of `g` and `g_s`."""
    rng = np.random.default_rng(seed)
    return tuple({"a": jnp.asarray(rng.normal(size=(3, 2))), "b": jnp.asarray(rng.normal(size=4))} for _ in range(2))


def combine(combiner: sam_optax.Combiner, clean: Any, perturbed: Any) -> Any:
    return combiner.update(clean, perturbed, combiner.init(clean))[0]


@with_each_base(EXACT, quick=methods.SHORT)
def test_radius_zero_equals_the_base_bit_for_bit(name, base):
    params, batches = helpers.small_params(), helpers.small_batches(5)
    ours = helpers.descend(helpers.optimizer(name, helpers.BASES[base](), rho=0.0), params, batches)
    theirs = helpers.descend(helpers.BASES[base](), params, batches)
    chex.assert_trees_all_equal(ours, theirs)


@with_each_base(DIVIDING, quick=(*methods.OF_EACH_KIND, "wsam", "stable_sam", "gsam_clean"))
def test_radius_zero_equals_the_base_up_to_rounding(name, base, x64):
    params, batches = helpers.small_params(), helpers.small_batches(5)
    ours = helpers.descend(helpers.optimizer(name, helpers.BASES[base](), rho=0.0), params, batches)
    theirs = helpers.descend(helpers.BASES[base](), params, batches)
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-12)


@methods.every_short_optimizer
def test_a_positive_radius_changes_the_trajectory(name):
    params, batches = helpers.small_params(), helpers.small_batches(3)
    ours = helpers.descend(helpers.optimizer(name, rho=0.5), params, batches)[-1]
    base = helpers.descend(helpers.BASES["momentum"](), params, batches)[-1]
    assert float(trees.norm(jax.tree.map(jnp.subtract, ours, base))) > 1e-4


def test_gsam_without_weight_is_sam():
    params, batches = helpers.small_params(), helpers.small_batches(5)
    gsam = optax.chain(sam_optax.gsam(rho=0.5, alpha=0.0), helpers.BASES["momentum"]())
    sam = optax.chain(sam_optax.sam(rho=0.5), helpers.BASES["momentum"]())
    chex.assert_trees_all_equal(helpers.descend(gsam, params, batches), helpers.descend(sam, params, batches))


def test_clean_gsam_without_weight_is_the_base():
    params, batches = helpers.small_params(), helpers.small_batches(5)
    gsam = optax.chain(sam_optax.gsam(rho=0.5, alpha=0.0, minimize="clean"), helpers.BASES["momentum"]())
    chex.assert_trees_all_equal(
        helpers.descend(gsam, params, batches), helpers.descend(helpers.BASES["momentum"](), params, batches)
    )


@pytest.mark.parametrize("seed", range(3))
def test_what_gsam_adds_is_orthogonal_to_the_perturbed_gradient(seed, x64):
    clean, perturbed = gradients(seed)
    added = jax.tree.map(jnp.subtract, combine(sam_optax.gap_guided(0.5), clean, perturbed), perturbed)
    assert float(trees.norm(added)) > 0.1
    np.testing.assert_allclose(trees.inner(added, perturbed), 0.0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_what_clean_gsam_adds_is_orthogonal_to_the_clean_gradient(seed, x64):
    clean, perturbed = gradients(seed)
    added = jax.tree.map(jnp.subtract, combine(sam_optax.gap_guided_clean(0.5), clean, perturbed), clean)
    assert float(trees.norm(added)) > 0.1
    np.testing.assert_allclose(trees.inner(added, clean), 0.0, atol=1e-10)


@pytest.mark.parametrize("make", [sam_optax.gap_guided, sam_optax.gap_guided_clean])
def test_what_gsam_adds_is_proportional_to_alpha(make, x64):
    clean, perturbed = gradients()
    at = {alpha: combine(make(alpha), clean, perturbed) for alpha in (0.0, 0.25, 0.5)}
    once, twice = (jax.tree.map(jnp.subtract, at[alpha], at[0.0]) for alpha in (0.25, 0.5))
    chex.assert_trees_all_close(jax.tree.map(lambda x: 2 * x, once), twice, atol=1e-14)


@pytest.mark.parametrize("make", [sam_optax.gap_guided, sam_optax.gap_guided_clean])
def test_gsam_adds_nothing_for_parallel_gradients(make, x64):
    clean, _ = gradients()
    perturbed = jax.tree.map(lambda x: -3 * x, clean)
    chex.assert_trees_all_close(
        combine(make(0.5), clean, perturbed), combine(make(0.0), clean, perturbed), rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("rho", [0.0, 0.1, 2.0])
def test_the_gradient_of_sam_on_a_quadratic_is_that_at_the_shifted_point(rho, x64):
    matrix, w = jnp.diag(jnp.array([1.0, 10.0, 0.1])) + 0.5, jnp.array([1.0, -2.0, 3.0])
    gradient = helpers.quadratic_gradient(matrix)
    tx = sam_optax.sam(rho)
    updates, _ = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
    g = np.asarray(matrix) @ np.asarray(w)
    np.testing.assert_allclose(updates, matrix @ (w + rho * g / np.linalg.norm(g)), rtol=1e-12)


@scheduled_methods
def test_a_schedule_is_read_once_per_update_whether_perturbed_or_not(name):
    """At every step, the offset equals that of the plain method with the radius of the step, from the same state."""
    scheduled, plain = methods.METHODS[name], methods.METHODS[name]._replace(variant="plain")
    params, batches = helpers.small_params(), helpers.small_batches(4)
    state, value_and_grad = scheduled(rho=0.1).init(params), sam_optax.value_and_grad(helpers.small_loss)
    for step, batch in enumerate(batches):
        _, grads, grad_fn = value_and_grad(params, *batch)
        call = {"grad_fn": grad_fn, "perturb": True}
        expected = plain(rho=methods.rising(0.1)(step)).update(grads, state, params, **call)[1]
        after = scheduled(rho=0.1).update(grads, state, params, **call)[1]
        length = sam_optax.diagnostics(after).perturbation_norm
        np.testing.assert_allclose(length, sam_optax.diagnostics(expected).perturbation_norm, rtol=1e-5)
        assert length > 0.01
        state = scheduled(rho=0.1).update(grads, state, params, perturb=step == 0, grad_fn=grad_fn)[1]


@pytest.mark.parametrize("make", [sam_optax.gap_guided, sam_optax.gap_guided_clean])
def test_the_weight_of_the_gap_follows_its_schedule_over_all_updates(make):
    clean, perturbed = gradients()
    scheduled = make(optax.piecewise_constant_schedule(0.5, {2: 0.5}))
    first, state = scheduled.update(clean, perturbed, scheduled.init(clean))
    _, state = scheduled.skipped(clean, state)
    third, state = scheduled.update(clean, perturbed, state)
    chex.assert_trees_all_close(first, combine(make(0.5), clean, perturbed))
    chex.assert_trees_all_close(third, combine(make(0.25), clean, perturbed))


SAME_AS_SAM = {
    "wsam": lambda rho: sam_optax.wsam(rho, gamma=0.5),
    "unified_sam": lambda rho: sam_optax.unified_sam(rho, lam=1.0),
    "look_sam": lambda rho: sam_optax.look_sam(rho, k=1),
    "friendly_sam": lambda rho: sam_optax.friendly_sam(rho, sigma=0.0),
    "every": lambda rho: sam_optax.sam(rho, when=sam_optax.every(1)),
    "after": lambda rho: sam_optax.sam(rho, when=sam_optax.after(0)),
}


@pytest.mark.parametrize("name", SAME_AS_SAM)
def test_methods_with_a_hyperparameter_at_its_limit_equal_sam(name, x64):
    params, batches = helpers.small_params(), helpers.small_batches(5)
    ours, sam = (optax.chain(make(0.5), helpers.BASES["momentum"]()) for make in (SAME_AS_SAM[name], sam_optax.sam))
    chex.assert_trees_all_close(
        helpers.descend(ours, params, batches), helpers.descend(sam, params, batches), rtol=0, atol=1e-13
    )


def test_look_sam_equals_its_product_at_every_kth_step(x64):
    """The table of promises contains the product, which has a `when` argument like the others."""
    params, batches = helpers.small_params(), helpers.small_batches(7)
    look, product = sam_optax.look_sam(0.5, k=3), methods.METHODS["look_sam"](rho=0.5, when=sam_optax.every(3))
    runs = (helpers.descend(optax.chain(tx, helpers.BASES["momentum"]()), params, batches) for tx in (look, product))
    chex.assert_trees_all_equal(*runs)


SAME_AS_BASE = {
    "wsam": lambda: sam_optax.wsam(0.5, gamma=0.0),
    "after": lambda: sam_optax.sam(0.5, when=sam_optax.after(99)),
    "bernoulli": lambda: sam_optax.sam(0.5, when=sam_optax.bernoulli(0.0, jax.random.key(0))),
}


@pytest.mark.parametrize("name", SAME_AS_BASE)
def test_methods_with_a_hyperparameter_at_the_other_limit_equal_the_base(name, x64):
    params, batches = helpers.small_params(), helpers.small_batches(5)
    ours = optax.chain(SAME_AS_BASE[name](), helpers.BASES["momentum"]())
    base = helpers.descend(helpers.BASES["momentum"](), params, batches)
    chex.assert_trees_all_close(helpers.descend(ours, params, batches), base, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_stable_sam_has_the_direction_of_one_gradient_and_the_length_of_the_other(seed, x64):
    clean, perturbed = gradients(seed)
    stable = combine(sam_optax.stabilized(), clean, perturbed)
    np.testing.assert_allclose(trees.norm(stable), trees.norm(clean), rtol=1e-10)
    np.testing.assert_allclose(trees.inner(stable, perturbed), trees.norm(stable) * trees.norm(perturbed), rtol=1e-10)


@pytest.mark.parametrize("gamma", [0.2, 0.9])
def test_wsam_weights_the_sharpness(gamma, x64):
    clean, perturbed = gradients()
    rise = jax.tree.map(jnp.subtract, perturbed, clean)
    expected = jax.tree.map(lambda g, r: g + gamma / (1 - gamma) * r, clean, rise)
    chex.assert_trees_all_close(combine(sam_optax.weighted(gamma), clean, perturbed), expected, rtol=1e-10)
    chex.assert_trees_all_close(combine(sam_optax.surplus(), clean, perturbed), rise, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_look_sam_keeps_a_direction_of_length_one_orthogonal_to_the_clean_gradient(seed, x64):
    clean, perturbed = gradients(seed)
    combiner = sam_optax.reuse(0.7)
    found, state = combiner.update(clean, perturbed, combiner.init(clean))
    chex.assert_trees_all_equal(found, perturbed)
    np.testing.assert_allclose(trees.norm(state.direction), 1.0, rtol=1e-12)
    np.testing.assert_allclose(trees.inner(state.direction, clean), 0.0, atol=1e-10)
    other, _ = gradients(seed + 10)
    between, _ = combiner.skipped(other, state)
    added = jax.tree.map(jnp.subtract, between, other)
    np.testing.assert_allclose(trees.norm(added), 0.7 * trees.norm(other), rtol=1e-10)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("factor", [1.0, -3.0, 0.0])
def test_look_sam_does_not_turn_rounding_errors_into_a_direction(dtype, factor, x64):
    clean = jax.tree.map(lambda x: x.astype(dtype), gradients()[0])
    combiner = sam_optax.reuse(0.7)
    _, state = combiner.update(clean, jax.tree.map(lambda x: factor * x, clean), combiner.init(clean))
    np.testing.assert_array_equal(trees.norm(state.direction), 0.0)


def test_msam_descends_the_perturbed_loss_along_the_momentum_on_a_quadratic(x64):
    """One step from rest: `w₁ = w₀ − lr A w₀` and the shifted point is `ρ` further along `−v = −A w₀`."""
    matrix, w = jnp.diag(jnp.array([1.0, 10.0])), jnp.array([1.0, -2.0])
    tx = sam_optax.msam(optax.sgd(0.1, momentum=0.9), rho=0.5)
    g = np.asarray(matrix) @ np.asarray(w)
    updates, state = tx.update(jnp.asarray(g), tx.init(w), w)
    shifted = optax.apply_updates(w, updates)
    np.testing.assert_allclose(shifted, w - 0.1 * g - 0.5 * g / np.linalg.norm(g), rtol=1e-12)
    np.testing.assert_allclose(sam_optax.msam_eval_params(state, shifted), w - 0.1 * g, rtol=1e-12)


def test_weighted_sam_at_every_kth_step_has_the_weight_of_k_steps(x64):
    """init2winit's sharpness term, as docs/methods.md composes it: `g + α k (g_s − g)` at every k-th step."""
    alpha, k = 0.7, 3
    weight = alpha * k
    method = sam_optax.sharpness_aware(
        sam_optax.normalized_ascent(0.3), sam_optax.weighted(weight / (1 + weight)), when=sam_optax.every(k)
    )
    params, batches = helpers.small_params(), helpers.small_batches(2 * k)
    gradient, state = jax.grad(helpers.small_loss), method.init(params)
    for i, batch in enumerate(batches):
        clean = gradient(params, *batch)
        found, state = method.update(clean, state, params, grad_fn=lambda at, batch=batch: gradient(at, *batch))
        scale = 0.3 / trees.norm(clean)
        at = jax.tree.map(lambda w, g, scale=scale: w + scale * g, params, clean)
        share = weight if i % k == 0 else 0.0
        expected = jax.tree.map(lambda g, s, a=share: g + a * (s - g), clean, gradient(at, *batch))
        chex.assert_trees_all_close(found, expected, rtol=1e-10)


def test_a_radius_for_each_layer_under_one_norm_scales_the_parts_of_one_direction(x64):
    """The recipe of docs/methods.md for μP²."""
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    scales = {"a": optax.scale(0.5), "b": optax.scale(0.1)}
    by_layer = optax.chain(
        sam_optax.normalized_ascent(1.0), optax.multi_transform(scales, {"dense": {"kernel": "a", "bias": "b"}})
    )
    grads = jax.grad(helpers.small_loss)(params, *batch)
    offset, _ = by_layer.update(grads, by_layer.init(params), params)
    length = trees.norm(grads)
    np.testing.assert_allclose(offset["dense"]["kernel"], 0.5 * grads["dense"]["kernel"] / length, rtol=1e-10)
    np.testing.assert_allclose(offset["dense"]["bias"], 0.1 * grads["dense"]["bias"] / length, rtol=1e-10)
