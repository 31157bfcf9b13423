"""Trajectories of the authors' code, reproduced to 1e-12 in 64 bits."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import sam_optax
from sam_optax.methods import bayesian_sam
from tests import helpers

BIASES = sam_optax.by_path(lambda path: path in ("b1", "b2"))

OPTIMIZERS = {
    "sam_sgd_rho0.05": lambda: optax.chain(sam_optax.sam(rho=0.05), optax.sgd(0.1)),
    "sam_sgdm_wd_rho0.1": lambda: optax.chain(
        sam_optax.sam(rho=0.1), optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9)
    ),
    "gsam_sgd_rho0.05_alpha0.02": lambda: optax.chain(sam_optax.gsam(rho=0.05, alpha=0.02), optax.sgd(0.1)),
    "asam_official_rho0.5_eta0.01": lambda: optax.chain(
        sam_optax.asam(rho=0.5, eta=0.01, exempt=BIASES), optax.sgd(0.1)
    ),
    "fsam_sgd_rho0.1_sigma1_lambda0.9": lambda: optax.chain(
        sam_optax.friendly_sam(rho=0.1, sigma=1.0, lam=0.9), optax.sgd(0.1)
    ),
    "vasso_sgd_rho0.05_theta0.9": lambda: optax.chain(sam_optax.vasso(rho=0.05, theta=0.9), optax.sgd(0.1)),
    "looksam_sgdm_rho0.1_alpha0.7_k3": lambda: optax.chain(
        sam_optax.look_sam(rho=0.1, alpha=0.7, k=3), optax.sgd(0.1, momentum=0.9)
    ),
    "msam_sgd_lr0.1_mom0.9_rho0.3_wd0": lambda: sam_optax.msam(optax.sgd(0.1, momentum=0.9), rho=0.3),
}


def k_step_sam(steps: int, rho: float) -> optax.GradientTransformation:
    ascent = sam_optax.repeated_ascent(optax.chain(optax.contrib.normalize(), optax.sgd(rho)), steps)
    return optax.chain(sam_optax.sharpness_aware(ascent, sam_optax.perturbed_gradient()), optax.sgd(0.1))


BY_SIZE = optax.stateless(lambda grads, params: jax.tree.map(lambda g, w: jnp.abs(w) * g, grads, params))
"""Multiplies by the absolute value of each weight."""


def adaptive_le_sam() -> optax.GradientTransformation:
    """The authors' adaptive form as a chain: the gradient in units of each weight."""
    return optax.chain(with_perturbation(BY_SIZE, sam_optax.loss_increase_ascent(0.1, None)), optax.sgd(0.1))


def descended_with_search(every: int, rho: float, rho_max: float, steps: int = 1, **grid: float) -> np.ndarray:
    """The trajectory of XSAM, which searches `α` on the batch of every step or of each `every`-th step."""
    golden = helpers.golden("more_methods_mlp")
    method = optax.inject_hyperparams(sam_optax.xsam, static_args=("steps", "when", "mask"))
    tx = optax.chain(method(rho=rho, alpha=1.0, steps=steps), optax.sgd(0.1))
    params, history = golden.params, []
    state = tx.init(params)
    for number, batch in enumerate(golden.batches):
        if number % every == 0:
            options = {"rho": rho, "rho_max": rho_max, "steps": steps} | grid
            state[0].hyperparams["alpha"] = jnp.asarray(
                sam_optax.xsam_alpha(helpers.golden_loss, params, *batch, **options)
            )
        gradient = jax.grad(lambda w, batch=batch: helpers.golden_loss(w, *batch))
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        params = optax.apply_updates(params, updates)
        history.append(helpers.golden_vector(params))
    return np.stack(history)


SEARCHED = {
    "xsam_dynamic_every1_rho0.1_rhomax0.3": (1, 0.1, 0.3, 1, {}),
    "xsam_dynamic_every4_rho0.1_rhomax0.3": (4, 0.1, 0.3, 1, {}),
    "xsam_k3_dynamic_every1_rho0.3_rhomax0.6": (1, 0.3, 0.6, 3, {}),
    "xsam_dynamic_every1_rho0.5_rhomax1_amax8": (1, 0.5, 1.0, 1, {"alpha_max": 8.0, "spacing": 0.25}),
}
EXPLICIT = {
    "xsam_alpha0_rho0.1": (0.0, 1),
    "xsam_alpha0.5_rho0.1": (0.5, 1),
    "xsam_alpha1_rho0.1": (1.0, 1),
    "xsam_alpha1.5_rho0.1": (1.5, 1),
    "xsam_k3_alpha0.5_rho0.1": (0.5, 3),
}
"""The authors' angle has an error of 1e-10, which leaves 2e-12 in these trajectories."""


@pytest.mark.parametrize("name", EXPLICIT)
def test_the_trajectory_of_xsam_equals_that_of_the_authors(name, x64):
    golden, (alpha, steps) = helpers.golden("more_methods_mlp"), EXPLICIT[name]
    tx = optax.chain(sam_optax.xsam(0.1, alpha, steps), optax.sgd(0.1))
    history = helpers.descend(tx, golden.params, golden.batches, helpers.golden_loss)
    ours = np.stack([helpers.golden_vector(params) for params in history])
    np.testing.assert_allclose(ours, golden.trajectories[name], rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", SEARCHED)
def test_the_search_of_xsam_equals_that_of_the_authors(name, x64):
    *settings, grid = SEARCHED[name]
    expected = helpers.golden("more_methods_mlp").trajectories[name]
    np.testing.assert_allclose(descended_with_search(*settings, **grid), expected, rtol=0, atol=1e-11)


STEP_SIZES = {
    "samsps_rho0.1_wd0": {"weight_decay": 0.0},
    "samsps_defaults": {},
    "samsps_gammab0.3_rho0.1_wd0": {"max_rate": 0.3, "weight_decay": 0.0},
    "samsps_gammab10_rho0.1_wd0": {"max_rate": 10.0, "weight_decay": 0.0},
    "unifiedsps_lambd0.5_gammab10_rho0.1_wd0": {"lam": 0.5, "max_rate": 10.0, "weight_decay": 0.0},
    "samsps_fstar0.5_gammab10_rho0.1_wd0": {"optimal_loss": 0.5, "max_rate": 10.0, "weight_decay": 0.0},
    "samsps_fstar1_gammab10_rho0.8_wd0": {"rho": 0.8, "optimal_loss": 1.0, "max_rate": 10.0, "weight_decay": 0.0},
}


@pytest.mark.parametrize("name", STEP_SIZES)
def test_the_trajectory_and_the_step_sizes_of_sam_sps_equal_those_of_the_authors(name, x64):
    golden, tx = helpers.golden("more_methods_mlp"), sam_optax.sam_sps(**STEP_SIZES[name])
    value_and_grad = sam_optax.value_and_grad(helpers.golden_loss)
    params, state, history, rates = golden.params, tx.init(golden.params), [], []
    for batch in golden.batches:
        _, grads, grad_fn = value_and_grad(params, *batch)
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
        history.append(helpers.golden_vector(params))
        rates.append(state.combiner.rate)
    np.testing.assert_allclose(history, golden.trajectories[name], rtol=0, atol=1e-12)
    np.testing.assert_allclose(rates, side_array(f"gamma_{name}"), rtol=1e-11)


KEY = jax.random.key(0)


def given_noise(name: str, step: int) -> Any:
    """Replaces random draws by those of the authors' code at a step; a shard is identified by its key."""
    shards = 4 if "m4" in name else 1
    vectors = np.zeros((shards, 212)) if "nonoise" in name else side_array(f"noise_{name}")[step]

    def standard_normal(key: Any, like: Any) -> Any:
        keys = jax.vmap(functools.partial(jax.random.fold_in, KEY))(jnp.arange(shards))
        vector = jnp.asarray(vectors)[jnp.argmax((jax.random.key_data(keys) == jax.random.key_data(key)).all(1))]
        names = ("w1", "b1", "w2", "b2")
        parts = jnp.split(vector, np.cumsum([like[each].size for each in names[:-1]]))
        return {each: part.reshape(like[each].shape) for each, part in zip(names, parts, strict=True)}

    return standard_normal


BAYESIAN = {
    "bsam_nonoise_rho0.05": {},
    "bsam_nonoise_beta2_0.9_m4_rho0.05": {"b2": 0.9},
    "bsam_N2000_rho0.05": {},
}


@pytest.mark.parametrize("name", BAYESIAN)
def test_the_trajectory_and_the_scales_of_bsam_equal_those_of_the_authors(name, x64, monkeypatch):
    golden, examples = helpers.golden("more_methods_mlp"), 2000
    tx = sam_optax.bsam(0.1, examples, prior_precision=1e-3 * examples, **BAYESIAN[name])
    value_and_grad = sam_optax.bsam_value_and_grad(helpers.golden_loss, rho=0.05, shards=4 if "m4" in name else 1)
    params, state, history, scales = golden.params, tx.init(golden.params), [], []
    for step, batch in enumerate(golden.batches):
        monkeypatch.setattr(bayesian_sam, "_standard_normal", given_noise(name, step))
        _, grads, magnitude = value_and_grad(params, state, KEY, *batch)
        updates, state = tx.update(grads, state, params, magnitude=magnitude)
        params = optax.apply_updates(params, updates)
        history.append(helpers.golden_vector(params))
        scales.append(helpers.golden_vector(state.scale))
    np.testing.assert_allclose(history, golden.trajectories[name], rtol=0, atol=1e-12)
    np.testing.assert_allclose(scales, side_array(f"s_{name}"), rtol=0, atol=1e-12)


def side_array(name: str) -> np.ndarray:
    with np.load(Path(__file__).parent / "golden" / "more_methods_mlp.npz") as arrays:
        return arrays[name]


def centred(offset: Any, params: Any) -> Any:
    del params
    return jax.tree.map(lambda x: x - x.mean(0, keepdims=True) if x.ndim > 1 else x, offset)


def with_perturbation(*parts: optax.GradientTransformation) -> optax.GradientTransformation:
    return sam_optax.sharpness_aware(optax.chain(*parts), sam_optax.perturbed_gradient())


MORE = {
    "gcsam_rho0.1": lambda: optax.chain(
        with_perturbation(sam_optax.normalized_ascent(0.1), optax.stateless(centred)), optax.sgd(0.1)
    ),
    "lesam_sigma0.1_rhomax0.5": lambda: optax.chain(sam_optax.le_sam(sigma=0.1, rho_max=0.5), optax.sgd(0.1)),
    "lesam_sigma0.35_nocap": lambda: optax.chain(sam_optax.le_sam(sigma=0.35, rho_max=None), optax.sgd(0.1)),
    "lesam_adaptive_sigma0.1_nocap": adaptive_le_sam,
    "ksam_optax_k1_rho0.1": lambda: k_step_sam(1, 0.1),
    "ksam_optax_k4_rho0.1": lambda: k_step_sam(4, 0.1),
    "ksam_optax_k1_rho0.05": lambda: k_step_sam(1, 0.05),
    "ksam_optax_k4_rho0.025": lambda: k_step_sam(4, 0.025),
}
"""A method of `more_methods_mlp.npz`."""


def big_vision_gsam(rho: Any, alpha: float, **options: Any) -> Callable[[Any], optax.GradientTransformation]:
    """GSAM at the rates of the trajectory, with a radius that falls to its minimum."""

    def created(rates: jax.Array) -> optax.GradientTransformation:
        rate = lambda count: rates[count]  # noqa: E731
        radius = rho
        if isinstance(rho, tuple):
            radius = sam_optax.proportional_schedule(rate, lr_min=0.01, lr_max=0.1, rho_min=rho[1], rho_max=rho[0])
        return optax.chain(sam_optax.gsam(radius, alpha, **options), optax.sgd(rate))

    return created


def adaptive_big_vision_gsam(rates: jax.Array) -> optax.GradientTransformation:
    ascent = optax.chain(sam_optax.normalized_ascent(0.5), BY_SIZE)
    return optax.chain(
        sam_optax.sharpness_aware(ascent, sam_optax.gap_guided(0.3)), optax.sgd(lambda count: rates[count])
    )


BIG_VISION = {
    "bvgsam_rho0.1_alpha0.3": big_vision_gsam(0.1, 0.3),
    "bvgsam_adaptive_rho0.5_alpha0.3": adaptive_big_vision_gsam,
    "bvgsam_cos_rho0.6to0.1_alpha0.1": big_vision_gsam((0.6, 0.1), 0.1),
    "bvgsam_clean_cos_rho0.6to0.1_alpha0.1": big_vision_gsam((0.6, 0.1), 0.1, minimize="clean"),
}
UNCLAMPED = "bvgsam_warmup_negative_rho0.6to0.05_alpha0.1"
"""The radius of big_vision is negative in a warm-up from below `lr_min`; ours is not."""


def big_vision_difference(name: str, created: Callable[[Any], optax.GradientTransformation]) -> np.ndarray:
    golden = helpers.golden("more_methods_mlp")
    rates = jnp.asarray(side_array(f"lr_{name}"))
    history = helpers.descend(created(rates), golden.params, golden.batches, helpers.golden_loss)
    return np.stack([helpers.golden_vector(params) for params in history]) - golden.trajectories[name]


@pytest.mark.parametrize("name", BIG_VISION)
def test_gsam_equals_that_of_big_vision(name, x64):
    np.testing.assert_allclose(big_vision_difference(name, BIG_VISION[name]), 0, atol=1e-12)


def test_gsam_differs_from_big_vision_at_a_negative_radius(x64):
    assert np.abs(big_vision_difference(UNCLAMPED, big_vision_gsam((0.6, 0.05), 0.1))[0]).max() > 1e-6


COMPARED = ("ksam", "lesam", "xsam", "gcsam", "bvgsam", "samsps", "unifiedsps", "bsam")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_trajectory_equals_that_of_the_authors(name, x64):
    golden = helpers.golden()
    history = helpers.descend(OPTIMIZERS[name](), golden.params, golden.batches, helpers.golden_loss)
    ours = np.stack([helpers.golden_vector(params) for params in history])
    np.testing.assert_allclose(ours, golden.trajectories[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MORE)
def test_the_trajectory_of_a_newer_method_equals_that_of_its_code(name, x64):
    golden = helpers.golden("more_methods_mlp")
    history = helpers.descend(MORE[name](), golden.params, golden.batches, helpers.golden_loss)
    ours = np.stack([helpers.golden_vector(params) for params in history])
    np.testing.assert_allclose(ours, golden.trajectories[name], rtol=0, atol=1e-12)


def test_every_trajectory_is_compared(x64):
    assert set(helpers.golden().trajectories) == set(OPTIMIZERS)
    compared = tuple(name for name in helpers.golden("more_methods_mlp").trajectories if name.startswith(COMPARED))
    assert set(compared) == {*MORE, *EXPLICIT, *SEARCHED, *BIG_VISION, UNCLAMPED, *STEP_SIZES, *BAYESIAN}
