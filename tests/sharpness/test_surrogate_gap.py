"""The surrogate gap, and the sharpness of m examples."""

import jax.numpy as jnp
import numpy as np
import pytest

from sam_optax import sharpness
from tests.sharpness import published, quadratics

CURVATURE = np.array([1.0, 3.0, 0.5, 2.0, 4.0])
W = np.array([0.3, -0.2, 1.0, -0.7, 0.4])
BATCHES = [jnp.asarray(CURVATURE[None]), jnp.full((3, 5), 2.0)]


def test_the_gap_is_the_rise_along_the_gradient(x64):
    found = sharpness.surrogate_gap(quadratics.loss_fn, quadratics.tree(W), BATCHES, rho=0.3)
    for curvature, gap in zip((CURVATURE, np.full(5, 2.0)), found.per_batch, strict=True):
        moved = W + 0.3 * curvature * W / np.linalg.norm(curvature * W)
        assert gap == pytest.approx(0.5 * np.sum(curvature * (moved**2 - W**2)), rel=1e-12)
    assert found.gap == pytest.approx(float(0.25 * found.per_batch[0] + 0.75 * found.per_batch[1]))


def test_the_gap_is_at_most_the_worst_case_and_equal_for_a_small_radius(x64):
    for rho, of_it in ((1e-5, 0.9999), (0.3, 0.1)):
        gap = sharpness.surrogate_gap(quadratics.loss_fn, quadratics.tree(W), BATCHES, rho=rho).gap
        worst = sharpness.worst_case(quadratics.loss_fn, quadratics.tree(W), BATCHES, rho=rho, norm="l2").sharpness
        assert of_it * worst <= gap <= worst * (1 + 1e-6)


def test_only_the_leaves_of_the_mask_are_perturbed(x64):
    found = sharpness.surrogate_gap(
        quadratics.loss_fn, quadratics.tree(W), BATCHES[:1], rho=0.3, mask={"a": True, "b": False}
    )
    gradient = CURVATURE * W * np.array([1, 1, 1, 0, 0])
    moved = W + 0.3 * gradient / np.linalg.norm(gradient)
    assert found.gap == pytest.approx(0.5 * np.sum(CURVATURE * (moved**2 - W**2)), rel=1e-12)


def test_without_a_gradient_the_gap_is_zero():
    assert sharpness.surrogate_gap(quadratics.loss_fn, quadratics.tree(0 * W), BATCHES).gap == 0


def test_fewer_examples_have_a_higher_worst_case(x64):
    found = sharpness.m_sharpness(
        published.loss_fn, published.params(), published.batches(), (4, 16, 32), rho=0.01, steps=3
    )
    values = [found[m].sharpness for m in (4, 16, 32)]
    assert values == sorted(values, reverse=True)
    whole = sharpness.worst_case(published.loss_fn, published.params(), published.batches(), rho=0.01, steps=3)
    assert found[32].sharpness == whole.sharpness
    assert found[4].per_batch.shape == (24,)
    assert found[4].loss == pytest.approx(float(whole.loss), rel=1e-12)


@pytest.mark.parametrize(("ms", "named"), [((5,), "ms holds 5"), ((0,), "ms is 0"), ((), "ms is empty")])
def test_indivisible_parts_are_refused(ms, named):
    with pytest.raises(ValueError, match=named):
        sharpness.m_sharpness(published.loss_fn, published.params(), published.batches(), ms, rho=0.01)


def test_the_gap_refuses_a_negative_radius():
    with pytest.raises(ValueError, match="rho"):
        sharpness.surrogate_gap(quadratics.loss_fn, quadratics.tree(W), BATCHES, rho=-0.1)
