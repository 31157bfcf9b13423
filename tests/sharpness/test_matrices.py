"""Products with curvature matrices: compared with dense matrices, over batches, and what is refused."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sam_optax.sharpness import matrices
from tests.sharpness import curvature

gauss_newton = matrices.gauss_newton(curvature.outputs)


def dense(operator):
    """The dense matrix, from products with unit vectors."""
    return np.stack([operator.matvec(row) for row in jnp.eye(operator.size, dtype=operator.dtype)], axis=1)


def hessian_operator(batches):
    return matrices.flat_operator(matrices.hessian, curvature.loss, curvature.params(), batches)


def gauss_newton_operator(batches):
    return matrices.flat_operator(gauss_newton, curvature.loss_of_outputs, curvature.params(), batches)


def test_the_hessian_over_batches_is_that_of_all_examples(x64):
    np.testing.assert_allclose(
        dense(hessian_operator(curvature.batches())), curvature.dense_hessian(), rtol=0, atol=1e-14
    )


def test_the_gauss_newton_matrix_is_the_curvature_of_the_loss_between_jacobians(x64):
    found = dense(gauss_newton_operator(curvature.batches()))
    np.testing.assert_allclose(found, curvature.dense_gauss_newton(), rtol=0, atol=1e-14)
    assert np.linalg.eigvalsh(found)[0] > -1e-14
    assert np.linalg.eigvalsh(curvature.dense_hessian())[0] < -1e-3  # which the Hessian is not


def test_of_a_linear_model_both_matrices_are_the_same(x64):
    outputs_fn = lambda w, batch: batch["x"] @ w["kernel"] + w["bias"]  # noqa: E731
    loss_fn = lambda w, batch: curvature.loss_of_outputs(outputs_fn(w, batch), batch)  # noqa: E731
    params = {"kernel": jnp.linspace(-1, 1, 6).reshape(3, 2), "bias": jnp.zeros(2)}
    full = matrices.flat_operator(matrices.hessian, loss_fn, params, curvature.batches())
    half = matrices.flat_operator(
        matrices.gauss_newton(outputs_fn), curvature.loss_of_outputs, params, curvature.batches()
    )
    np.testing.assert_allclose(dense(half), dense(full), rtol=0, atol=1e-14)
    assert np.linalg.norm(dense(full)) > 0.1


@pytest.mark.parametrize("make", [hessian_operator, gauss_newton_operator])
def test_the_order_of_batches_does_not_matter(make, x64):
    vector = jnp.linspace(-1, 1, 26)
    there, back = (make(curvature.batches()[::step]).matvec(vector) for step in (1, -1))
    np.testing.assert_allclose(there, back, rtol=0, atol=1e-14)


def test_each_batch_is_weighted_by_its_size():
    loss_fn = curvature.quadratic(np.eye(2))
    operator = matrices.flat_operator(matrices.hessian, loss_fn, jnp.zeros(2), [jnp.zeros(1), jnp.full(3, 4.0)])
    np.testing.assert_allclose(operator.matvec(jnp.array([1.0, -2.0])), [3.0, -6.0], rtol=1e-6)


def test_flat_vectors_unravel_to_trees_like_the_parameters():
    params = {"a": jnp.ones((2, 2), jnp.bfloat16), "b": {"c": jnp.ones(3)}}
    loss_fn = lambda w, x: jnp.sum(w["a"] ** 2) + jnp.sum(w["b"]["c"] ** 2)  # noqa: E731
    operator = matrices.flat_operator(matrices.hessian, loss_fn, params, [jnp.ones(1)])
    assert (operator.size, operator.dtype) == (7, jnp.float32)
    tree = operator.unravel(jnp.arange(7.0))
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, params)
    assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_array_equal(ravel_pytree(tree)[0], np.arange(7))


def test_a_second_call_traces_nothing_again():
    traced = []

    def loss_fn(w, batch):
        traced.append(1)
        return curvature.loss(w, batch)

    for seed in (1, 2):
        batches = curvature.batches((4, 4, 3), seed)
        matrices.flat_operator(matrices.hessian, loss_fn, curvature.params(), batches).matvec(jnp.ones(26))
        assert len(traced) == 2  # one for each shape


def test_a_product_is_compiled_even_where_jit_is_disabled():
    """matfree runs its loop with compilation disabled."""
    traced = []

    def matrix(loss_fn, params, batch, vector):
        traced.append(isinstance(vector, jax.core.Tracer))
        return vector

    operator = matrices.flat_operator(matrix, curvature.loss, jnp.ones(2), [jnp.ones(1)])
    with jax.disable_jit():
        operator.matvec(jnp.ones(2))
    assert traced == [True]


def product(params, x):
    return matrices.flat_operator(matrices.hessian, curvature.quadratic(np.eye(2)), params, [x]).matvec(jnp.ones(2))


TRACED = {
    "compiled": lambda: jax.jit(product)(jnp.ones(2), jnp.ones(1)),
    "closed over": jax.jit(lambda: product(np.ones(2), np.ones(1))),
    "parameters": lambda: jax.jacobian(lambda w: product(w, jnp.ones(1)))(jnp.ones(2)),
    "batch": lambda: jax.jacobian(lambda x: product(jnp.ones(2), x))(jnp.ones(1)),
}


@pytest.mark.parametrize("name", TRACED)
def test_calls_inside_a_transformation_are_refused(name):
    with pytest.raises(ValueError, match="Call it outside"):
        TRACED[name]()


BAD = {
    "matrix": ({"matrix": 3}, "matrix is of type int: give a function"),
    "loss_fn": ({"loss_fn": None}, "loss_fn is of type NoneType: give a function"),
    "integers": ({"params": jnp.arange(2)}, "dtype int32"),
    "no parameters": ({"params": {}}, "at least one parameter"),
    "one batch": ({"batches": jnp.ones(3)}, "batches is one batch"),
    "no batches": ({"batches": []}, "batches is empty"),
    "product": ({"matrix": lambda loss_fn, w, batch, v: (v,)}, "return a tree like params"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_arguments_are_named(name):
    given, message = BAD[name]
    call = {"matrix": matrices.hessian, "loss_fn": curvature.quadratic(np.eye(2)), "params": jnp.ones(2)}
    with pytest.raises(ValueError, match=message):
        matrices.flat_operator(**(call | {"batches": [jnp.ones(1)]} | given)).matvec(jnp.ones(2))


def test_outputs_fn_must_be_a_function():
    with pytest.raises(ValueError, match="outputs_fn is of type int: give a function"):
        matrices.gauss_newton(3)


def test_missing_matfree_is_reported_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matfree", None)
    monkeypatch.delitem(sys.modules, "matfree.decomp", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'sam_optax\[curvature\]'"):
        matrices.import_matfree("decomp")
