"""The authors' own trajectories, to 1e-12 in 64 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import sam_optax
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


def adaptive_le_sam() -> optax.GradientTransformation:
    """The authors' adaptive form, by a chain: the gradient in units of each weight."""
    scale = optax.stateless(lambda grads, params: jax.tree.map(lambda g, w: jnp.abs(w) * g, grads, params))
    ascent = optax.chain(scale, sam_optax.loss_increase_ascent(0.1, None))
    return optax.chain(sam_optax.sharpness_aware(ascent, sam_optax.perturbed_gradient()), optax.sgd(0.1))


MORE = {
    "lesam_sigma0.1_rhomax0.5": lambda: optax.chain(sam_optax.le_sam(sigma=0.1, rho_max=0.5), optax.sgd(0.1)),
    "lesam_sigma0.35_nocap": lambda: optax.chain(sam_optax.le_sam(sigma=0.35, rho_max=None), optax.sgd(0.1)),
    "lesam_adaptive_sigma0.1_nocap": adaptive_le_sam,
    "ksam_optax_k1_rho0.1": lambda: k_step_sam(1, 0.1),
    "ksam_optax_k4_rho0.1": lambda: k_step_sam(4, 0.1),
    "ksam_optax_k1_rho0.05": lambda: k_step_sam(1, 0.05),
    "ksam_optax_k4_rho0.025": lambda: k_step_sam(4, 0.025),
}
"""Of `more_methods_mlp.npz`."""

COMPARED = ("ksam", "lesam")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_trajectory_is_that_of_the_authors(name, x64):
    golden = helpers.golden()
    history = helpers.descend(OPTIMIZERS[name](), golden.params, golden.batches, helpers.golden_loss)
    ours = np.stack([helpers.golden_vector(params) for params in history])
    np.testing.assert_allclose(ours, golden.trajectories[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MORE)
def test_the_trajectory_of_a_newer_method_is_that_of_its_code(name, x64):
    golden = helpers.golden("more_methods_mlp")
    history = helpers.descend(MORE[name](), golden.params, golden.batches, helpers.golden_loss)
    ours = np.stack([helpers.golden_vector(params) for params in history])
    np.testing.assert_allclose(ours, golden.trajectories[name], rtol=0, atol=1e-12)


def test_every_trajectory_is_compared(x64):
    assert set(helpers.golden().trajectories) == set(OPTIMIZERS)
    compared = tuple(name for name in helpers.golden("more_methods_mlp").trajectories if name.startswith(COMPARED))
    assert set(compared) == set(MORE)
