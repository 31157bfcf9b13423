"""The largest eigenvalues: compared with dense ones, where the Krylov space ends early, and in low precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import primitives
from jax.flatten_util import ravel_pytree

from sam_optax import trees
from sam_optax.sharpness import lanczos, matrices
from sam_optax.sharpness.eigenvalues import eigenpairs, top_eigenvalue
from tests.selection import combinations
from tests.sharpness import curvature

gauss_newton = matrices.gauss_newton(curvature.outputs)


def of_matrix(matrix, number=1, **options):
    """The pairs of a quadratic's Hessian."""
    return eigenpairs(curvature.quadratic(matrix), jnp.zeros(len(matrix)), [jnp.ones(1)], number, **options)


def check_pairs(matrix, found, atol):
    vectors = np.stack([ravel_pytree(v)[0] for v in found.vectors])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), rtol=0, atol=atol)
    np.testing.assert_allclose(vectors @ matrix, np.asarray(found.values)[:, None] * vectors, rtol=0, atol=atol)


def test_eigenpairs_equal_those_of_the_dense_hessian(x64):
    found = eigenpairs(curvature.loss, curvature.params(), curvature.batches(), 26, steps=50)
    hessian = curvature.dense_hessian()
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(hessian)[::-1], rtol=0, atol=1e-12)
    check_pairs(hessian, found, atol=1e-11)


def test_eigenpairs_equal_those_of_the_dense_gauss_newton_matrix(x64):
    found = eigenpairs(
        curvature.loss_of_outputs, curvature.params(), curvature.batches(), 3, matrix=gauss_newton, steps=26
    )
    dense = curvature.dense_gauss_newton()
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(dense)[::-1][:3], rtol=0, atol=1e-12)
    check_pairs(dense, found, atol=1e-11)


def test_vectors_are_trees_like_the_parameters():
    found = eigenpairs(curvature.loss, curvature.params(), curvature.batches(), 2, steps=5)
    for vector in found.vectors:
        trees.check_alike("vector", vector, curvature.params(), "")
        np.testing.assert_allclose(trees.norm(vector), 1.0, rtol=1e-5)


def test_the_top_eigenvalue_is_the_first(x64):
    call = (curvature.loss, curvature.params(), curvature.batches())
    np.testing.assert_allclose(top_eigenvalue(*call), np.linalg.eigvalsh(curvature.dense_hessian())[-1], rtol=1e-6)
    assert top_eigenvalue(*call) == eigenpairs(*call, 2).values[0]


def test_the_largest_eigenvalue_is_the_most_positive(x64):
    np.testing.assert_allclose(of_matrix(np.diag([-9.0, -4.0, 1.0]), 2).values, [1.0, -4.0], rtol=1e-12)
    np.testing.assert_allclose(of_matrix(-np.eye(3) - np.ones((3, 3))).values, [-1.0], rtol=1e-12)


def test_more_steps_approach_the_eigenvalue_from_below(x64):
    matrix = curvature.symmetric(100)
    found = [float(of_matrix(matrix, steps=steps).values[0]) for steps in (1, 4, 16, 64)]
    assert found == sorted(found)
    assert found[0] < found[1] - 1
    np.testing.assert_allclose(found[-1], np.linalg.eigvalsh(matrix)[-1], rtol=1e-12)


def test_the_key_affects_only_the_start_vector(x64):
    matrix = curvature.symmetric(30)
    at = lambda steps, seed: float(of_matrix(matrix, steps=steps, key=jax.random.key(seed)).values[0])  # noqa: E731
    assert at(3, 1) == at(3, 1)
    assert abs(at(3, 1) - at(3, 2)) > 1e-3
    np.testing.assert_allclose(at(30, 1), at(30, 2), rtol=1e-12)
    assert float(of_matrix(matrix, steps=3).values[0]) == at(3, 0)


REPEATED = {
    "a multiple of one": [2.0] * 6,
    "zero": [0.0] * 6,
    "rank one": [3.0, 0, 0, 0, 0, 0],
    "twice": [5.0, 5, 1, 1, 1, 1],
    "thrice": [5.0, 5, 5, -1, -2, -3],
    "below zero": [-2.0, -2, -3, -3, -3, -3],
}


@combinations(
    lambda name, seed, dtype: (
        name in {"a multiple of one", "zero", "rank one", "twice"}
        and (seed, dtype) == ((1, np.float32) if name in {"rank one", "twice"} else (0, np.float64))
    ),
    name=REPEATED,
    seed=(0, 1),
    dtype=(np.float32, np.float64),
)
def test_eigenpairs_are_correct_where_the_krylov_space_ends_early(name, seed, dtype, x64):
    """Also in a rotated basis, where the space ends only up to rounding."""
    values = np.array(REPEATED[name])
    basis = np.linalg.qr(curvature.symmetric(6, seed))[0] if seed else np.eye(6)
    matrix = (basis * values @ basis.T).astype(dtype)
    params, atol = jnp.zeros(6, dtype), 50 * float(np.finfo(dtype).eps)
    for number in (2, 6):
        found = eigenpairs(curvature.quadratic(matrix), params, [np.ones(1, dtype)], number)
        np.testing.assert_allclose(found.values, values[:number], rtol=0, atol=atol)
        check_pairs(matrix, found, atol)


def test_the_gauss_newton_matrix_of_one_output_has_one_direction(x64):
    matrix = matrices.gauss_newton(lambda w, x: x @ w)
    found = eigenpairs(lambda z, x: jnp.mean(z**2) / 2, jnp.zeros(50), [jnp.ones((1, 50))], 2, matrix=matrix)
    np.testing.assert_allclose(found.values, [50.0, 0.0], rtol=0, atol=1e-12)


def test_one_parameter_is_enough():
    found = eigenpairs(lambda w, x: jnp.mean(x) * w**2, jnp.array(3.0), [jnp.ones(2)])
    np.testing.assert_allclose(found.values, [2.0], rtol=1e-6)
    assert found.vectors[0].shape == ()


def test_a_loss_that_is_not_a_number_has_no_eigenvalue():
    assert jnp.isnan(top_eigenvalue(lambda w, x: jnp.sum(w**2) * jnp.nan, jnp.ones(4), [jnp.ones(1)]))


def test_the_curvature_of_narrow_parameters_is_taken_in_float32():
    narrow = curvature.params(jnp.bfloat16)
    found = eigenpairs(curvature.loss, narrow, curvature.batches(), steps=26)
    wide = eigenpairs(curvature.loss, trees.widen(narrow), curvature.batches(), steps=26)
    assert found.values.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(found.vectors))
    np.testing.assert_allclose(found.values, wide.values, rtol=1e-6)
    np.testing.assert_allclose(trees.norm(found.vectors[0]), 1.0, rtol=1e-5)
    exact = eigenpairs(curvature.loss, curvature.params(), curvature.batches(), steps=26).values
    np.testing.assert_allclose(found.values, exact, rtol=0.02)


def test_no_product_is_inside_a_compiled_loop(monkeypatch):
    """Gradients of convolutions are slow on the CPU inside compiled loops."""

    def refuse(*args, **kwargs):
        raise AssertionError("a loop is compiled")

    for primitive in (primitives.scan_p, primitives.while_p):
        monkeypatch.setattr(primitive, "bind", refuse)
    values, *_ = lanczos.ritz(lambda v: jnp.array([1.0, 2.0, 3.0]) * v, jnp.ones(3), 3)
    np.testing.assert_allclose(values, [1.0, 2.0, 3.0], rtol=1e-5)


def test_every_product_runs_compiled():
    """Otherwise it would run operation by operation, because matfree's loop runs with compilation disabled."""
    compiled, is_traced = [], []

    def loss(w, x):
        compiled.append(isinstance(w, jax.core.Tracer) and not jax.config.jax_disable_jit)
        return jnp.mean(x) * jnp.sum(w**2) / 2

    def product(vector):
        is_traced.append(isinstance(vector, jax.core.Tracer))
        return matrices.flat_operator(matrices.hessian, loss, jnp.ones(3), [jnp.ones(1)]).matvec(vector)

    lanczos.ritz(product, jnp.arange(3.0), 3)
    assert is_traced == 3 * [False]
    assert all(compiled)


def test_impossible_numbers_are_refused():
    for options in ({"number": 0}, {"steps": 0}, {"steps": 2.5}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
            of_matrix(np.eye(3), **options)
    for options in ({"number": 4}, {"number": 3, "steps": 2}):
        with pytest.raises(ValueError, match="give a smaller number"):
            of_matrix(np.eye(3), **options)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_curvature_whose_squares_leave_the_range_is_exact(scale):
    hessian = np.diag([1.0, 4.0, 9.0]).astype(np.float32)

    def loss_fn(w, x):
        return scale * (jnp.mean(x) * jnp.sum(jnp.diag(hessian) * w**2) / 2)

    found = eigenpairs(loss_fn, jnp.zeros(3), [jnp.ones(1)], 3)
    np.testing.assert_allclose(np.asarray(found.values, np.float64) / scale, [9, 4, 1], rtol=1e-5)
    assert top_eigenvalue(loss_fn, jnp.zeros(3), [jnp.ones(1)]) / scale == pytest.approx(9, rel=1e-5)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda w, x: w**2, r"The loss of a batch is of shape \(3,\)"),
        (lambda w, x: (jnp.sum(w), 1), "The loss of a batch is a tuple"),
        (lambda w, x: jnp.sum(w) * (1 + 2j), "The loss of a batch has the dtype complex64"),
    ],
)
def test_a_loss_that_is_no_real_scalar_is_refused(loss_fn, message):
    with pytest.raises(ValueError, match=message):
        top_eigenvalue(loss_fn, jnp.ones(3), [jnp.ones(1)])


def test_outputs_that_have_no_gradient_are_refused():
    matrix = matrices.gauss_newton(lambda w, x: jnp.round(w).astype(jnp.int32))
    with pytest.raises(ValueError, match="outputs_fn returns an array of dtype int32: give real floating outputs"):
        top_eigenvalue(lambda z, x: jnp.sum(z), jnp.ones(3), [jnp.ones(1)], matrix=matrix)
