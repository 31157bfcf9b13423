"""The average case, compared with closed forms on quadratics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_optax import by_path, sharpness
from tests.sharpness import quadratics

CURVATURE = np.array([1.0, 3.0, 0.5, 2.0, 4.0])
W = np.array([0.3, -0.2, 1.0, -0.7, 0.4])


def _measure(batches=(CURVATURE[None],), **options):
    options = {"rho": 0.5, "samples": 400} | options
    return sharpness.average_case(quadratics.loss_fn, quadratics.tree(W), batches, **options)


@pytest.mark.parametrize(("norm", "variance"), [("l2", 1.0), ("linf", 1 / 3)])
@pytest.mark.parametrize("adaptive", [False, True])
def test_on_a_quadratic_it_is_half_the_variance_times_the_trace(norm, variance, adaptive, x64):
    unit = np.abs(W) if adaptive else np.ones(5)
    expected = 0.5 * 0.25 * variance * np.sum(CURVATURE * unit**2)
    found = _measure(norm=norm, adaptive=adaptive)
    assert abs(found.sharpness - expected) < 4 * found.standard_error
    assert found.standard_error < 0.2 * expected


def test_the_standard_error_falls_as_samples_are_added(x64):
    few, many = _measure(samples=25), _measure(samples=1600)
    assert 4 < few.standard_error / many.standard_error < 16
    assert jnp.isnan(_measure(samples=1).standard_error)


def test_the_mean_weights_batches_by_their_size(x64):
    batches = [CURVATURE[None], jnp.full((3, 5), 7.0)]
    found = _measure(batches)
    assert found.sharpness == pytest.approx(float(0.25 * found.per_batch[0] + 0.75 * found.per_batch[1]))
    assert found.per_batch[1] == pytest.approx(float(_measure(batches[1:]).sharpness))


def test_the_key_determines_the_samples(x64):
    values = [_measure(samples=2, key=jax.random.key(k)).sharpness for k in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_only_the_leaves_of_the_mask_are_perturbed(x64):
    found = _measure(mask=by_path(lambda path: path == "b"))
    assert abs(found.sharpness - 0.5 * 0.25 * 6.0) < 4 * found.standard_error


@pytest.mark.parametrize("loss_fn", [lambda w, batch: batch[:, 0], lambda w, batch: (jnp.sum(w["a"]), 1.0)])
def test_a_loss_that_is_not_a_scalar_is_refused(loss_fn):
    with pytest.raises(ValueError, match="The loss of a batch is"):
        sharpness.average_case(loss_fn, quadratics.tree(W), [jnp.ones((4, 5))], rho=0.1, samples=2)


def test_the_loss_is_traced_once():
    traces = []

    def counted(params, batch):
        traces.append(None)
        return quadratics.loss_fn(params, batch)

    for samples in (3, 5):
        sharpness.average_case(counted, quadratics.tree(W), [jnp.ones((1, 5))] * 2, rho=0.1, samples=samples)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("wrong", "named"), [({"samples": 0}, "samples is 0"), ({"rho": -1}, "rho"), ({"norm": 2}, "norm")]
)
def test_invalid_arguments_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        _measure(**wrong)
