"""The curve over radii."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_optax import sharpness
from tests.sharpness import quadratics

CURVATURE = np.array([1.0, 3.0, 0.5, 2.0, 4.0])
W = np.array([0.3, -0.2, 1.0, -0.7, 0.4])
BATCHES = [jnp.asarray(CURVATURE[None])]


def _curve(**options):
    return sharpness.curve(quadratics.loss_fn, quadratics.tree(W), BATCHES, **options)


def test_each_point_of_the_curve_is_the_worst_case_at_its_radius(x64):
    rhos = (0.1, 0.01, 1.0)
    found = _curve(rhos=rhos, norm="l2", steps=9)
    assert list(found.rho) == sorted(rhos)
    for rho, value, first_order in zip(found.rho, found.sharpness, found.first_order, strict=True):
        single = sharpness.worst_case(
            quadratics.loss_fn, quadratics.tree(W), BATCHES, rho=float(rho), norm="l2", steps=9
        )
        assert (value, first_order) == (single.sharpness, single.first_order)
        assert found.loss == single.loss


def test_the_slope_goes_from_the_gradients_to_the_curvatures(x64):
    found = _curve(rhos=np.geomspace(1e-6, 1e6, 13))
    assert found.slope[:2] == pytest.approx(1.0, abs=1e-4)
    assert found.slope[-2:] == pytest.approx(2.0, abs=1e-4)
    assert np.all(np.diff(found.slope) > -1e-9)


def test_the_default_grid_is_centred_at_the_papers_radius():
    found = _curve(steps=1)
    assert found.rho[4] == pytest.approx(0.0002)
    assert np.diff(np.log10(found.rho)) == pytest.approx(0.5)
    assert found.num_parameters == 5
    assert _curve(steps=1, norm="l2").rho == pytest.approx(found.rho * np.sqrt(5))


def test_only_perturbed_parameters_are_counted():
    found = _curve(rhos=[0.1], mask={"a": False, "b": True})
    assert found.num_parameters == 2
    assert np.isnan(found.slope).all()


def test_the_error_is_that_at_the_maximiser(x64):
    batches = [jnp.ones((1, 5)), jnp.full((3, 5), 2.0)]

    def error_fn(params, batch):  # the largest weight, times a value that identifies the batch
        return jnp.max(jnp.abs(quadratics.flatten(params))) * batch[0, 0]

    found = sharpness.curve(
        quadratics.loss_fn, quadratics.tree(W), batches, rhos=[0.1, 0.5], steps=40, error_fn=error_fn
    )
    assert found.error == pytest.approx([1.75 * 1.1, 1.75 * 1.5])  # the corner, and the mean weighted by size
    assert _curve(rhos=[0.1]).error is None


def test_a_rise_below_the_rounding_of_the_loss_has_no_slope():
    def loss_fn(w, batch):
        return 1.0 + 0.1 * jnp.sum(w**2) * jnp.mean(batch)

    found = sharpness.curve(loss_fn, jnp.array([0.1, 0.1]), [jnp.ones(3)], rhos=[1e-5, 2e-5, 0.1, 0.2, 0.4])
    assert (found.sharpness > 0).all()
    assert np.isnan(found.slope[:2]).all()
    assert np.isfinite(found.slope[3:]).all()


def test_calls_inside_a_trace_are_refused():
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda w: sharpness.curve(quadratics.loss_fn, w, BATCHES, rhos=[0.1]).loss)(quadratics.tree(W))


def test_where_there_is_no_rise_there_is_no_slope():
    found = sharpness.curve(lambda w, x: jnp.mean(x) + 0 * jnp.sum(w), jnp.ones(2), [jnp.ones(3)], rhos=[0.1, 1.0])
    assert np.isnan(found.slope).all()


@pytest.mark.parametrize("rhos", [[], [0.0, 1.0], [0.1, 0.1], [-1.0], [float("inf")]])
def test_invalid_radii_are_refused(rhos):
    with pytest.raises(ValueError, match="rhos"):
        _curve(rhos=rhos)


def test_the_slope_next_to_a_rise_below_the_rounding_is_one_sided():
    found = sharpness.curve(lambda w, x: 1.0 + jnp.sum(w**2), jnp.ones(3), [jnp.ones(1)], rhos=[1e-9, 1e-3, 1e-2])
    assert np.isnan(found.slope[0])
    np.testing.assert_allclose(found.slope[1:], 1.0, rtol=0, atol=0.01)
