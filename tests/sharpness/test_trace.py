"""The trace: exact from unit vectors, and from random signs within its error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_optax.sharpness import matrices
from sam_optax.sharpness.spectrum import trace
from tests.sharpness import curvature

gauss_newton = matrices.gauss_newton(curvature.outputs)


def of_matrix(matrix, **options):
    return trace(curvature.quadratic(matrix), jnp.zeros(len(matrix)), [jnp.ones(1)], **options)


def test_the_trace_is_exact_with_as_many_samples_as_parameters(x64):
    found = trace(curvature.loss, curvature.params(), curvature.batches(), samples=26)
    np.testing.assert_allclose(float(found), np.trace(curvature.dense_hessian()), rtol=1e-12)
    assert float(found.standard_error) == 0


def test_the_trace_is_that_of_the_requested_matrix(x64):
    call = (curvature.loss_of_outputs, curvature.params(), curvature.batches())
    found = trace(*call, matrix=gauss_newton, samples=26)
    np.testing.assert_allclose(float(found), np.trace(curvature.dense_gauss_newton()), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_trace_of_fewer_samples_is_within_its_error(seed, x64):
    call = (curvature.loss, curvature.params(), curvature.batches())
    found = trace(*call, samples=25, key=jax.random.key(seed))
    error = abs(float(found) - np.trace(curvature.dense_hessian()))
    assert 0 < error < 5 * found.standard_error


def test_the_standard_error_is_that_of_random_signs(x64):
    """One probe has the variance `2 Σ_{i≠j} A_ij²`."""
    matrix = curvature.symmetric(200)
    off_diagonal = matrix - np.diag(np.diag(matrix))
    expected = np.sqrt(2 * np.sum(off_diagonal**2) / 150)
    np.testing.assert_allclose(of_matrix(matrix, samples=150).standard_error, expected, rtol=0.25)


def test_of_a_diagonal_matrix_every_probe_is_exact(x64):
    found = of_matrix(np.diag(np.arange(20.0)), samples=3)
    np.testing.assert_allclose(found, (190.0, 0.0), rtol=0, atol=1e-12)


def test_of_one_sample_the_error_is_unknown():
    found = of_matrix(curvature.symmetric(5), samples=1)
    assert jnp.isfinite(found.value)
    assert jnp.isnan(found.standard_error)


def test_the_key_affects_only_the_probes():
    matrix = curvature.symmetric(10)
    at = lambda seed, samples: float(of_matrix(matrix, samples=samples, key=jax.random.key(seed)))  # noqa: E731
    assert at(1, 4) == at(1, 4)
    assert abs(at(1, 4) - at(2, 4)) > 1e-3
    assert at(1, 10) == at(2, 10)  # there are none
    assert float(of_matrix(matrix, samples=4)) == at(0, 4)


def test_narrow_parameters_accumulate_in_float32():
    """In bfloat16 the sum of these would stop at 256."""
    found = trace(lambda w, x: jnp.sum(w**2) / 2, jnp.ones(300, jnp.bfloat16), [jnp.ones(1)], samples=300)
    assert found.value.dtype == jnp.float32
    assert float(found) == 300


def test_an_impossible_number_is_refused():
    with pytest.raises(ValueError, match="samples is 0"):
        of_matrix(np.eye(2), samples=0)
