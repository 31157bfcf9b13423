"""Each method against its formula, written out in NumPy with the network's gradient derived by hand."""

from collections.abc import Callable

import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers

Tree = dict[str, np.ndarray]
BIASES = ("b1", "b2")
RHO, ALPHA, ETA = 0.3, 0.4, 0.01


def gradient(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
    """Back-propagation through the golden network."""
    hidden = np.tanh(x @ w["w1"] + w["b1"])
    logits = hidden @ w["w2"] + w["b2"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    delta = (odds / odds.sum(axis=1, keepdims=True) - np.eye(4)[y]) / len(y)
    behind = (delta @ w["w2"].T) * (1 - hidden**2)
    return {"w1": x.T @ behind, "b1": behind.sum(axis=0), "w2": hidden.T @ delta, "b2": delta.sum(axis=0)}


def dot(a: Tree, b: Tree) -> float:
    return sum(np.vdot(a[k], b[k]) for k in a)


def moved(w: Tree, g: Tree, scale: Tree | None = None) -> Tree:
    """`w + ρ T² g / ‖T g‖`, with `T = 1` where there is no scale."""
    t = {k: np.ones_like(w[k]) for k in w} if scale is None else scale
    stretched = {k: t[k] * g[k] for k in w}
    length = RHO / np.sqrt(dot(stretched, stretched))
    return {k: w[k] + length * t[k] * stretched[k] for k in w}


def sam(w: Tree, *batch: np.ndarray) -> Tree:
    return gradient(moved(w, gradient(w, *batch)), *batch)


def asam(w: Tree, *batch: np.ndarray) -> Tree:
    scale = {k: np.ones_like(w[k]) if k in BIASES else np.abs(w[k]) + ETA for k in w}
    return gradient(moved(w, gradient(w, *batch), scale), *batch)


def gsam(w: Tree, *batch: np.ndarray) -> Tree:
    g, g_s = gradient(w, *batch), sam(w, *batch)
    along = dot(g, g_s) / dot(g_s, g_s)
    return {k: g_s[k] - ALPHA * (g[k] - along * g_s[k]) for k in w}


def gsam_clean(w: Tree, *batch: np.ndarray) -> Tree:
    g, g_s = gradient(w, *batch), sam(w, *batch)
    along = dot(g, g_s) / dot(g, g)
    return {k: g[k] + ALPHA * (g_s[k] - along * g[k]) for k in w}


def with_momentum(method: Callable[..., Tree], w: Tree, batches: list[tuple[np.ndarray, ...]]) -> list[Tree]:
    velocity, history = {k: np.zeros_like(w[k]) for k in w}, []
    for batch in batches:
        g = method(w, *batch)
        velocity = {k: 0.9 * velocity[k] + g[k] for k in w}
        w = {k: w[k] - 0.1 * velocity[k] for k in w}
        history.append(w)
    return history


CASES = {
    "sam": (lambda: sam_optax.sam(RHO), sam),
    "asam": (lambda: sam_optax.asam(RHO, ETA, exempt=sam_optax.by_path(lambda path: path in BIASES)), asam),
    "gsam": (lambda: sam_optax.gsam(RHO, ALPHA), gsam),
    "gsam_clean": (lambda: sam_optax.gsam(RHO, ALPHA, minimize="clean"), gsam_clean),
}


@pytest.mark.parametrize("name", CASES)
def test_eight_steps_with_momentum_follow_the_formula(name, x64):
    make, formula = CASES[name]
    golden = helpers.golden()
    tx = optax.chain(make(), optax.sgd(0.1, momentum=0.9))
    ours = helpers.descend(tx, golden.params, golden.batches, helpers.golden_loss)
    params = {k: np.asarray(x) for k, x in golden.params.items()}
    theirs = with_momentum(formula, params, [tuple(map(np.asarray, batch)) for batch in golden.batches])
    for w, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(helpers.golden_vector(w), helpers.golden_vector(expected), rtol=0, atol=1e-12)
