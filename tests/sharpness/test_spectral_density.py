"""The spectral density: the moments of the eigenvalues, and a smooth density of mass one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_optax.sharpness.spectrum import SpectralDensity, spectral_density
from tests.selection import combinations
from tests.sharpness import curvature


def of_matrix(matrix, **options):
    return spectral_density(curvature.quadratic(matrix), jnp.zeros(len(matrix)), [jnp.ones(1)], **options)


def moments(found, power):
    """The moments, one row per probe."""
    return np.sum(np.asarray(found.weights) * np.asarray(found.nodes) ** power, axis=-1)


def of_network(**options):
    return spectral_density(curvature.loss, curvature.params(), curvature.batches(), **options)


def test_each_probe_has_weights_of_sum_one(x64):
    found = of_network(steps=7, samples=3)
    assert found.nodes.shape == found.weights.shape == (3, 7)
    assert np.all(found.weights >= 0)
    assert np.all(np.diff(found.nodes) > 0)
    np.testing.assert_allclose(moments(found, 0), 1.0, rtol=1e-12)


@pytest.mark.parametrize("power", range(1, 8))
def test_a_diagonal_matrix_has_the_moments_of_its_entries(power, x64):
    """Every vector of signs weights all entries equally. Four nodes are exact up to the seventh power only."""
    entries = np.linspace(-1, 2, 40)
    found = of_matrix(np.diag(entries), steps=4, samples=2)
    np.testing.assert_allclose(moments(found, power), np.mean(entries**power), rtol=1e-10)
    assert np.all(np.abs(moments(found, 8) - np.mean(entries**8)) > 1e-3)


@pytest.mark.parametrize("power", [pytest.param(1, marks=pytest.mark.long), 2])
def test_the_network_has_the_moments_of_its_hessian(power, x64):
    found = moments(of_network(steps=3, samples=60), power)
    expected = np.mean(np.linalg.eigvalsh(curvature.dense_hessian()) ** power)
    error = np.std(found, ddof=1) / np.sqrt(60)
    assert abs(np.mean(found) - expected) < 5 * error
    assert error < expected / 4


def test_with_all_steps_the_nodes_are_the_eigenvalues(x64):
    matrix = curvature.symmetric(8)
    found = of_matrix(matrix, samples=2)
    np.testing.assert_allclose(found.nodes, np.stack([np.linalg.eigvalsh(matrix)] * 2), rtol=0, atol=1e-12)


@combinations(
    lambda values, dtype: dtype == np.float64 or len(set(values)) > 1,
    values=([2.0] * 5, [0.0] * 5, [3.0, 3.0, 3.0, -1.0, -1.0]),
    dtype=(np.float32, np.float64),
)
def test_a_probe_that_ends_early_is_exact_and_padded(values, dtype, x64):
    matrix, params = np.diag(values).astype(dtype), jnp.zeros(5, dtype)
    found = spectral_density(curvature.quadratic(matrix), params, [np.ones(1, dtype)], samples=3)
    assert found.nodes.shape == (3, 5)
    for power in range(4):
        np.testing.assert_allclose(moments(found, power), np.mean(np.array(values) ** power), rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found.weights[:, len(set(values)) :], 0.0)
    assert set(np.round(np.asarray(found.nodes).ravel(), 4)) == set(values)


def test_the_density_is_a_mean_of_gaussians(x64):
    found = SpectralDensity(jnp.array([[0.0, 1.0], [1.0, 1.0]]), jnp.array([[0.25, 0.75], [1.0, 0.0]]))
    at = np.linspace(-3, 4, 1401).reshape(3, 467)
    gaussian = lambda centre: np.exp(-((at - centre) ** 2) / (2 * 0.3**2)) / (0.3 * np.sqrt(2 * np.pi))  # noqa: E731
    density = found.density(at, 0.3)
    assert density.shape == at.shape
    np.testing.assert_allclose(density, 0.125 * gaussian(0.0) + 0.875 * gaussian(1.0), rtol=1e-10)
    np.testing.assert_allclose(np.trapezoid(density.ravel(), at.ravel()), 1.0, rtol=1e-6)


def test_the_order_of_batches_does_not_matter(x64):
    call = (curvature.loss, curvature.params())
    there, back = (spectral_density(*call, curvature.batches()[::s], steps=4, samples=1) for s in (1, -1))
    np.testing.assert_allclose(there.nodes, back.nodes, rtol=0, atol=1e-10)


def test_the_key_affects_only_the_probes(x64):
    matrix = curvature.symmetric(10)
    at = lambda seed: np.asarray(of_matrix(matrix, steps=3, samples=2, key=jax.random.key(seed)).nodes)  # noqa: E731
    np.testing.assert_array_equal(at(1), at(1))
    assert np.all(np.abs(at(1) - at(2)) > 1e-6)
    assert np.all(np.abs(at(1)[0] - at(1)[1]) > 1e-6)  # the probes differ
    np.testing.assert_array_equal(of_matrix(matrix, steps=3, samples=2).nodes, at(0))


def test_impossible_numbers_are_refused():
    for options in ({"samples": 0}, {"steps": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
            of_matrix(np.eye(3), **options)
    found = of_matrix(np.eye(3), samples=1)
    for width in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="width is"):
            found.density(np.zeros(2), width)
