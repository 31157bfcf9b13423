"""Which measures are invariant when a layer is scaled up and its successor down, and which are not."""

import jax
import jax.numpy as jnp
import pytest

from sam_optax import sharpness
from tests.selection import some_of

INPUTS = jax.random.normal(jax.random.key(0), (8, 3))
FACTOR = 8.0  # a power of two, so that scaling rounds nothing


def _network():
    first, second = (jax.random.normal(jax.random.key(k), shape, float) for k, shape in ((1, (3, 4)), (2, (4, 2))))
    return {"first": first, "second": second}


def _rescaled(params):
    return {"first": FACTOR * params["first"], "second": params["second"] / FACTOR}


def _loss_fn(params, batch):
    return jnp.mean((jax.nn.relu(batch @ params["first"]) @ params["second"] - 1) ** 2)


def _worst(norm, adaptive):
    return lambda loss_fn, params, batches: (
        sharpness.worst_case(loss_fn, params, batches, rho=0.3, norm=norm, adaptive=adaptive).sharpness
    )


def _average(norm, adaptive):
    return lambda loss_fn, params, batches: (
        sharpness.average_case(loss_fn, params, batches, rho=0.3, norm=norm, adaptive=adaptive, samples=5).sharpness
    )


INVARIANT = {
    "worst case, adaptive linf": _worst("linf", True),
    "worst case, adaptive l2": _worst("l2", True),
    "average case, adaptive Gaussian": _average("l2", True),
    "average case, adaptive uniform": _average("linf", True),
    "m-sharpness, adaptive": lambda *of: sharpness.m_sharpness(*of, (4,), rho=0.3, adaptive=True)[4].sharpness,
    "curve, adaptive": lambda *of: sharpness.curve(*of, rhos=[0.3], adaptive=True).sharpness[0],
    "landscape, filter-normalised": lambda *of: sharpness.landscape(*of, coordinates=jnp.array([0.5])).loss[0, 0],
}
VARYING = {
    "worst case, linf": _worst("linf", False),
    "worst case, l2": _worst("l2", False),
    "average case, Gaussian": _average("l2", False),
    "average case, uniform": _average("linf", False),
    "surrogate gap": lambda *of: sharpness.surrogate_gap(*of, rho=0.3).gap,
    "top eigenvalue": sharpness.top_eigenvalue,
    "m-sharpness": lambda *of: sharpness.m_sharpness(*of, (4,), rho=0.3)[4].sharpness,
    "curve": lambda *of: sharpness.curve(*of, rhos=[0.3]).sharpness[0],
    "spectral density": lambda *of: sharpness.spectral_density(*of, samples=1).nodes.max(),
    "trace": lambda *of: sharpness.trace(*of).value,
}


def _both(measure):
    params = _network()
    return tuple(float(measure(_loss_fn, each, [INPUTS])) for each in (params, _rescaled(params)))


@some_of(
    INVARIANT, quick=("worst case, adaptive linf", "average case, adaptive Gaussian", "landscape, filter-normalised")
)
def test_adaptive_measures_are_invariant_to_rescaling(name, x64):
    before, after = _both(INVARIANT[name])
    assert after == pytest.approx(before, rel=1e-9)


@some_of(VARYING, quick=("worst case, linf", "average case, Gaussian", "top eigenvalue"))
def test_absolute_measures_change_under_rescaling(name, x64):
    before, after = _both(VARYING[name])
    assert after != pytest.approx(before, rel=0.1)


def test_normalised_logits_are_invariant_to_their_scale(x64):
    def loss_fn(params, batch):
        logits = sharpness.normalize_logits(batch @ params)
        return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

    params = jax.random.normal(jax.random.key(3), (3, 4), float)
    before, after = (_worst("linf", True)(loss_fn, scale * params, [INPUTS]) for scale in (1.0, FACTOR))
    assert after == pytest.approx(float(before), rel=1e-9)


def test_equal_logits_have_a_finite_gradient():
    gradient = jax.grad(lambda z: jnp.sum(sharpness.normalize_logits(z)[..., 0]))(jnp.ones((2, 3)))
    assert jnp.isfinite(gradient).all()
    assert sharpness.normalize_logits(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16
