"""Laws of the offsets that hold for every gradient."""

import functools
from typing import Any

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax import trees
from tests import helpers

PERTURBATIONS = {
    "normalized": sam_optax.normalized_ascent,
    "adaptive": sam_optax.adaptive_ascent,
    "ported_adaptive": sam_optax.ported_adaptive_ascent,
    "friendly": sam_optax.friendly_ascent,
    "smoothed": sam_optax.smoothed_ascent,
    "unified_to_the_end": functools.partial(sam_optax.unified_ascent, lam=1.0),
    "adaptive_exempt": lambda rho: sam_optax.adaptive_ascent(rho, exempt=sam_optax.biases),
}


def offset_of(ascent: Any, gradient: Any, params: Any) -> Any:
    return ascent.update(gradient, ascent.init(params), params)[0]


def small_gradient(params: Any) -> Any:
    return jax.grad(helpers.small_loss)(params, *helpers.small_batches(1)[0])


@hypothesis.given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e6), st.integers(0, 99))
def test_the_offset_of_sam_has_length_rho_along_the_gradient(rho, size, seed):
    gradient = np.asarray(size * np.random.default_rng(seed).normal(size=5), np.float32)
    offset = np.asarray(offset_of(sam_optax.normalized_ascent(rho), gradient, jnp.zeros(5)))
    np.testing.assert_allclose(np.linalg.norm(offset), rho, rtol=1e-5)
    np.testing.assert_allclose(offset / rho, gradient / np.linalg.norm(gradient), rtol=1e-4)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_offset_does_not_depend_on_the_length_of_the_gradient(name, x64):
    params = helpers.small_params()
    gradient = small_gradient(params)
    longer = jax.tree.map(lambda g: 1000 * g, gradient)
    ascent = PERTURBATIONS[name](0.1)
    chex.assert_trees_all_close(offset_of(ascent, gradient, params), offset_of(ascent, longer, params), rtol=1e-6)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_offset_is_proportional_to_rho(name, x64):
    params = helpers.small_params()
    gradient = small_gradient(params)
    once, twice = (offset_of(PERTURBATIONS[name](rho), gradient, params) for rho in (0.1, 0.2))
    chex.assert_trees_all_close(jax.tree.map(lambda e: 2 * e, once), twice, rtol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.01, 0.5])
def test_the_offset_of_asam_has_length_rho_in_units_of_the_weights(eta, x64):
    params = helpers.small_params()
    offset = offset_of(sam_optax.adaptive_ascent(0.5, eta), small_gradient(params), params)
    relative = jax.tree.map(lambda e, w: e / (jnp.abs(w) + eta), offset, params)
    np.testing.assert_allclose(trees.norm(relative), 0.5, rtol=1e-12)


def test_asam_with_every_leaf_exempt_is_sam(x64):
    params = helpers.small_params()
    gradient = small_gradient(params)
    adaptive = sam_optax.adaptive_ascent(0.5, exempt=lambda params: jax.tree.map(lambda _: True, params))
    chex.assert_trees_all_close(
        offset_of(adaptive, gradient, params),
        offset_of(sam_optax.normalized_ascent(0.5), gradient, params),
        rtol=1e-10,
    )


def test_asam_without_eta_does_not_perturb_zero_weights():
    params, gradient = jnp.array([2.0, 0.0]), jnp.array([1.0, 5.0])
    assert offset_of(sam_optax.adaptive_ascent(1.0, 0.0), gradient, params)[1] == 0
    assert offset_of(sam_optax.adaptive_ascent(1.0, 0.01), gradient, params)[1] > 0


@pytest.mark.parametrize("factor", [0.1, 3.0, 1000.0])
def test_without_eta_asam_is_invariant_to_a_rescaling_of_two_layers(factor, x64):
    """`relu(x @ u) @ v` is invariant under `(c u, v / c)`, and so are ASAM's offset and perturbed loss."""
    u, v, x = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(3, 4), (4, 1), (8, 3)]))

    def loss(params: Any) -> jax.Array:
        return jnp.mean((jax.nn.relu(x @ params["u"]) @ params["v"] - 1.0) ** 2)

    def offset(params: Any) -> Any:
        return offset_of(sam_optax.adaptive_ascent(0.5, eta=0.0), jax.grad(loss)(params), params)

    plain, scaled = {"u": u, "v": v}, {"u": factor * u, "v": v / factor}
    e, e_scaled = offset(plain), offset(scaled)
    chex.assert_trees_all_close(e_scaled, {"u": factor * e["u"], "v": e["v"] / factor}, rtol=1e-9)
    perturbed = (loss(jax.tree.map(jnp.add, w, d)) for w, d in ((plain, e), (scaled, e_scaled)))
    np.testing.assert_allclose(*perturbed, rtol=1e-9)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_perturbed_loss_is_higher_to_first_order(name, x64):
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    offset = offset_of(PERTURBATIONS[name](1e-4), small_gradient(params), params)
    moved = jax.tree.map(jnp.add, params, offset)
    assert helpers.small_loss(moved, *batch) > helpers.small_loss(params, *batch)


def test_a_schedule_may_need_an_array_as_its_count():
    ascent = sam_optax.normalized_ascent(lambda step: 0.1 / (1.0 + step.astype(float)))
    offset, _ = ascent.update(jnp.array([3.0, 4.0]), ascent.init(jnp.zeros(2)))
    np.testing.assert_allclose(offset, [0.06, 0.08], rtol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_the_unified_offset_is_between_the_unnormalised_one_and_that_of_sam(lam, x64):
    params = helpers.small_params()
    gradient = small_gradient(params)
    offset = offset_of(sam_optax.unified_ascent(0.5, lam), gradient, params)
    normalised = offset_of(sam_optax.normalized_ascent(0.5), gradient, params)
    expected = jax.tree.map(lambda g, e: (1 - lam) * 0.5 * g + lam * e, gradient, normalised)
    chex.assert_trees_all_close(offset, expected, rtol=1e-12)


def test_the_fraction_of_the_unified_offset_follows_its_schedule():
    ascent = sam_optax.unified_ascent(0.5, optax.linear_schedule(1.0, 0.0, 2))
    gradient, state, lengths = jnp.array([3.0, 4.0]), ascent.init(jnp.zeros(2)), []
    for _ in range(3):
        offset, state = ascent.update(gradient, state)
        lengths.append(np.linalg.norm(offset))
    np.testing.assert_allclose(lengths, [0.5, 1.5, 2.5], rtol=1e-6)


def test_the_ported_adaptive_offset_is_asam_without_eta_and_exemption(x64):
    params = helpers.small_params()
    gradient = small_gradient(params)
    asam = offset_of(sam_optax.adaptive_ascent(0.5, eta=0.0), gradient, params)
    chex.assert_trees_all_close(offset_of(sam_optax.ported_adaptive_ascent(0.5), gradient, params), asam, rtol=1e-9)


def stream(size: int = 5) -> list[jax.Array]:
    return [jnp.asarray(np.random.default_rng(seed).normal(size=4)) for seed in range(size)]


def offsets_of(ascent: Any, gradients: list[jax.Array]) -> list[jax.Array]:
    state, offsets = ascent.init(gradients[0]), []
    for gradient in gradients:
        offset, state = ascent.update(gradient, state)
        offsets.append(offset)
    return offsets


def test_friendly_without_sigma_is_sam(x64):
    friendly, sam = (
        offsets_of(a, stream()) for a in (sam_optax.friendly_ascent(0.5, 0.0), sam_optax.normalized_ascent(0.5))
    )
    chex.assert_trees_all_close(friendly, sam, rtol=1e-12)


def test_smoothed_with_a_fraction_of_one_is_sam(x64):
    smoothed, sam = (
        offsets_of(a, stream()) for a in (sam_optax.smoothed_ascent(0.5, 1.0), sam_optax.normalized_ascent(0.5))
    )
    chex.assert_trees_all_close(smoothed, sam, rtol=1e-6)


def test_a_fraction_of_zero_keeps_the_first_direction(x64):
    first, *later = offsets_of(sam_optax.smoothed_ascent(0.5, 0.0), stream())
    for offset in later:
        chex.assert_trees_all_close(offset, first, rtol=1e-12)


def test_friendly_removes_the_component_common_to_all_batches(x64):
    """Of gradients `common + own`, the offset has the direction of `own` once the average is `common`."""
    common = jnp.array([1.0, 0.0, 0.0, 0.0])
    gradients = [common + sign * jnp.array([0.0, 0.1, 0.0, 0.0]) for sign in (1, -1) * 200]
    friendly = offsets_of(sam_optax.friendly_ascent(1.0, 1.0, 0.99), gradients)[-1]
    sam = offsets_of(sam_optax.normalized_ascent(1.0), gradients)[-1]
    assert abs(friendly[1]) > 0.99
    assert abs(sam[1]) < 0.2


@pytest.mark.parametrize("make", [sam_optax.friendly_ascent, sam_optax.smoothed_ascent])
def test_a_zero_gradient_after_others_gives_a_finite_offset(make):
    for offset in offsets_of(make(0.5), [jnp.zeros(4), *stream(2), jnp.zeros(4), jnp.zeros(4)]):
        assert np.all(np.isfinite(offset))
