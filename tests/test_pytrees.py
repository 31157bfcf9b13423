"""Parameters of any shape: hypothesis draws the trees."""

from typing import Any, NamedTuple

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax import trees
from tests import helpers, methods
from tests.selection import some_of


class Pair(NamedTuple):
    left: Any
    right: Any


SHAPES = st.sampled_from([(), (1,), (2,), (2, 3), (0,), (1, 1, 2)])
DTYPES = st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16])


@st.composite
def leaves(draw: Any) -> jax.Array:
    shape, seed = draw(SHAPES), draw(st.integers(0, 99))
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), draw(DTYPES))


def containers(children: Any) -> Any:
    return st.one_of(
        st.lists(children, max_size=3),
        st.dictionaries(st.sampled_from("abc"), children, max_size=3),
        st.tuples(children),
        st.builds(Pair, children, children),
        st.none(),
    )


TREES = st.recursive(leaves(), containers, max_leaves=6).map(lambda tree: {"tree": tree})
NAMES = [
    *methods.NAMED,
    "reuse-friendly-scheduled",
    "gap-adaptive-scheduled",
    "perturbed-normalized-masked",
    *methods.WRAPPERS,
]


def gradient(params: Any) -> Any:
    return jax.tree.map(lambda w: (w * w + 1).astype(w.dtype), params)


FEW = ("asam", "gsam", "reuse-friendly-scheduled", "perturbed-normalized-masked")


@some_of(NAMES, ("reuse-friendly-scheduled", "perturbed-normalized-masked", "msam", "wsam_decoupled"))
@hypothesis.given(params=TREES)
@hypothesis.settings(max_examples=12)
def test_every_tree_is_trained_and_comes_back_as_it_was(name, params):
    tx = helpers.optimizer(name, rho=0.1)
    state = tx.init(params)
    before = helpers.shapes((params, state))
    for _ in range(2):
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        chex.assert_tree_all_finite(updates)
        params = optax.apply_updates(params, updates)
    assert helpers.shapes((params, state)) == before
    assert jax.tree.structure(params) == jax.tree.structure(gradient(params))


EXACT = [name for name in methods.NAMED if methods.part(name, "combiner") == "perturbed"]


@some_of(EXACT, FEW)
@hypothesis.given(params=TREES)
@hypothesis.settings(max_examples=12)
def test_radius_zero_a_zero_gradient_and_a_skipped_step_give_the_base(name, params):
    base = helpers.BASES["momentum"]()
    zero = jax.tree.map(jnp.zeros_like, params)
    for rho, g, call in ((0.0, gradient(params), {}), (0.5, zero, {}), (0.5, gradient(params), {"perturb": False})):
        tx = helpers.optimizer(name, rho=rho)
        second = gradient if rho == 0.0 else lambda at: zero
        updates, _ = tx.update(g, tx.init(params), params, grad_fn=second, **call)
        chex.assert_trees_all_equal(updates, base.update(g, base.init(params), params)[0])


@hypothesis.given(params=TREES)
def test_the_offset_has_length_rho_for_every_nonzero_gradient(params):
    tx = sam_optax.sam(rho=0.5)
    _, state = tx.update(gradient(params), tx.init(params), params, grad_fn=gradient)
    expected = 0.5 if any(x.size for x in jax.tree.leaves(params)) else 0.0
    np.testing.assert_allclose(sam_optax.diagnostics(state).perturbation_norm, expected, rtol=2e-2)


@hypothesis.given(params=TREES)
def test_norms_are_those_of_all_entries(params):
    entries = np.concatenate([np.zeros(0), *(np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(params))])
    np.testing.assert_allclose(trees.norm(params), np.linalg.norm(entries), rtol=1e-5)


@hypothesis.given(params=TREES, bad=st.sampled_from([jnp.ones(2, complex), jnp.ones(2, int), jnp.array(True)]))
@hypothesis.settings(max_examples=20)
def test_a_leaf_that_cannot_be_perturbed_is_refused_anywhere_in_the_tree(params, bad):
    for tx in (sam_optax.sam(), sam_optax.msam(optax.sgd(0.1, 0.9)), sam_optax.wsam_decoupled(optax.sgd(0.1), 0.1)):
        with pytest.raises(ValueError, match=r"params has a leaf of dtype (complex64|int32|bool) at"):
            tx.init({"good": params, "bad": bad})
