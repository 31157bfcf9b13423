"""Reductions over trees equal those of NumPy in 64 bits, for every tree and its dtypes."""

from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_optax import trees

SHAPES = st.sampled_from([(), (3,), (2, 3), (0,)])
DTYPES = st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16])


@st.composite
def leaves(draw: st.DrawFn) -> np.ndarray:
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(size=draw(SHAPES))
    return values.astype(draw(DTYPES))


def containers(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from("abc"), inside) | st.tuples(inside, st.none())


PYTREES = st.recursive(leaves(), containers, max_leaves=6)


def wide_dot(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(float(np.sum(np.asarray(x, np.float64) * np.asarray(y, np.float64))) for x, y in pairs)


@hypothesis.given(PYTREES)
def test_the_norm_is_that_of_all_leaves_together(tree):
    np.testing.assert_allclose(trees.norm(tree), np.sqrt(wide_dot(tree, tree)), rtol=1e-5)


@hypothesis.given(PYTREES, st.floats(-10, 10))
def test_the_inner_product_is_the_sum_over_all_leaves(tree, factor):
    other = jax.tree.map(lambda x: np.float32(factor) * np.cos(np.asarray(x, np.float32)), tree)
    size = abs(factor) * np.sqrt(wide_dot(tree, tree)) + 1
    np.testing.assert_allclose(trees.inner(tree, other), wide_dot(tree, other), rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_norm_of_millions_of_entries_is_accurate(dtype):
    values = np.random.default_rng(0).uniform(size=4_000_000).astype(dtype)
    norm = trees.norm({"a": values[:1_000_000], "b": values[1_000_000:]})
    np.testing.assert_allclose(norm, np.sqrt(wide_dot(values, values)), rtol=1e-5)


def test_types_may_be_mixed_in_a_tree():
    tree = {"half": jnp.full(4, 1e4, jnp.float16), "brain": jnp.full(4, 3.0, jnp.bfloat16), "single": jnp.ones(2)}
    np.testing.assert_allclose(trees.norm(tree), np.sqrt(4e8 + 36 + 2), rtol=1e-6)


@pytest.mark.parametrize("empty", [(), {}, [], None, {"a": jnp.zeros(0)}])
def test_the_norm_of_an_empty_tree_is_zero_in_32_bits(empty):
    assert trees.norm(empty) == 0
    assert trees.norm(empty).dtype == jnp.float32


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((), "float32"),
        (("bfloat16",), "float32"),
        (("float16", "bfloat16"), "float32"),
        (("float16", "float32"), "float32"),
        (("bfloat16", "float64"), "float64"),
    ],
)
def test_the_accumulator_is_as_wide_as_the_widest_leaf_and_no_narrower_than_32_bits(dtypes, expected, x64):
    tree = [jnp.ones(2, dtype) for dtype in dtypes]
    assert trees.accumulator_dtype(tree) == expected
    assert trees.norm(tree).dtype == expected
    assert {x.dtype for x in trees.widen(tree)} <= {jnp.dtype(expected)}


def test_a_leaf_may_be_a_python_number():
    assert trees.norm({"a": 3.0, "b": 4.0}) == 5.0


def test_casting_uses_the_dtype_of_each_leaf_of_the_other_tree():
    tree, like = {"a": jnp.ones(2), "b": jnp.ones(())}, {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones((), jnp.float16)}
    assert jax.tree.map(lambda x: x.dtype, trees.cast_like(tree, like)) == jax.tree.map(lambda x: x.dtype, like)


def test_paths_are_names_joined_by_slashes():
    tree = {"dense": {"kernel": 1.0, "value": 2.0}, "list": [3.0, (4.0,)], "nothing": None}
    assert trees.leaf_paths(tree) == ["dense/kernel", "dense/value", "list/0", "list/1/0"]
    assert trees.leaf_paths(5.0) == [""]


def test_the_attribute_of_a_variable_is_no_part_of_its_path():
    assert trees.leaf_paths(nnx.state(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))) == ["bias", "kernel"]
