"""The methods' formulas in NumPy, with the golden network's gradient derived by hand, without our library or JAX.

A transcription is a function without arguments that returns a new `estimate(w, x, y)` → gradient to descend on.
"""

from collections.abc import Callable

import numpy as np

Tree = dict[str, np.ndarray]
Estimate = Callable[[Tree, np.ndarray, np.ndarray], Tree]

BIASES = ("b1", "b2")
RHO, ALPHA, ETA, SIGMA, LAM, THETA, GAMMA, K = 0.3, 0.4, 0.01, 0.8, 0.7, 0.4, 0.8, 3


def forward(w: Tree, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hidden = np.tanh(x @ w["w1"] + w["b1"])
    return hidden, hidden @ w["w2"] + w["b2"]


def slope(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of the mean cross-entropy with respect to the logits."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True) - np.eye(4)[y]) / len(y)


def pull_back(w: Tree, x: np.ndarray, delta: np.ndarray) -> Tree:
    """Back-propagation of `delta`, a gradient with respect to the logits."""
    hidden, _ = forward(w, x)
    behind = (delta @ w["w2"].T) * (1 - hidden**2)
    return {"w1": x.T @ behind, "b1": behind.sum(axis=0), "w2": hidden.T @ delta, "b2": delta.sum(axis=0)}


def gradient(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
    return pull_back(w, x, slope(forward(w, x)[1], y))


def dot(a: Tree, b: Tree) -> float:
    return float(sum(np.vdot(a[k], b[k]) for k in a))


def norm(a: Tree) -> float:
    return float(np.sqrt(dot(a, a)))


def mix(a: float, x: Tree, b: float, y: Tree) -> Tree:
    """`a x + b y`."""
    return {k: a * x[k] + b * y[k] for k in x}


def moved(w: Tree, d: Tree, rho: float = RHO, scale: Tree | None = None) -> Tree:
    """`w + ρ T² d / ‖T d‖`, with `T = 1` if there is no scale."""
    t = {k: np.ones_like(w[k]) for k in w} if scale is None else scale
    stretched = {k: t[k] * d[k] for k in w}
    return {k: w[k] + rho / norm(stretched) * t[k] * stretched[k] for k in w}


def both(w: Tree, x: np.ndarray, y: np.ndarray) -> tuple[Tree, Tree]:
    """`g` and SAM's `g_s`."""
    g = gradient(w, x, y)
    return g, gradient(moved(w, g), x, y)


def sam() -> Estimate:
    return lambda w, x, y: both(w, x, y)[1]


def asam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        scale = {k: np.ones_like(w[k]) if k in BIASES else np.abs(w[k]) + ETA for k in w}
        return gradient(moved(w, gradient(w, x, y), scale=scale), x, y)

    return estimate


def ported_asam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        scale = {k: np.abs(w[k]) for k in w}
        return gradient(moved(w, gradient(w, x, y), scale=scale), x, y)

    return estimate


def gsam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        g, g_s = both(w, x, y)
        orthogonal = mix(1, g, -dot(g, g_s) / dot(g_s, g_s), g_s)
        return mix(1, g_s, -ALPHA, orthogonal)

    return estimate


def gsam_clean() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        g, g_s = both(w, x, y)
        return mix(1, g, ALPHA, mix(1, g_s, -dot(g, g_s) / dot(g, g), g))

    return estimate


def friendly_sam() -> Estimate:
    mean: list[Tree] = []

    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        g = gradient(w, x, y)
        own = mix(1, g, -SIGMA, mean[-1]) if mean else g
        mean.append(mix(LAM, mean[-1], 1 - LAM, g) if mean else g)
        return gradient(moved(w, own), x, y)

    return estimate


def vasso() -> Estimate:
    mean: list[Tree] = []

    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        g = gradient(w, x, y)
        mean.append(mix(1 - THETA, mean[-1], THETA, g) if mean else g)
        m = mean[-1]
        return gradient({k: w[k] + RHO * m[k] / (norm(m) + 1e-7) for k in w}, x, y)

    return estimate


def unified_sam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        g = gradient(w, x, y)
        return gradient(mix(1, w, RHO * (1 - LAM + LAM / norm(g)), g), x, y)

    return estimate


def le_sam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        g = gradient(w, x, y)
        return gradient(mix(1, w, min(SIGMA / norm(g), RHO) / norm(g), g), x, y)

    return estimate


def xsam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        g, g_s = both(w, x, y)
        v_0, v_1 = ({k: each[k] / norm(each) for k in w} for each in (g, g_s))
        angle = np.arccos(dot(v_0, v_1))
        turned = mix(np.sin((1 - ALPHA) * angle), v_0, np.sin(ALPHA * angle), v_1)
        return {k: norm(g_s) / np.sin(angle) * turned[k] for k in w}

    return estimate


def unnormalised_sam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        return gradient(mix(1, w, RHO, gradient(w, x, y)), x, y)

    return estimate


def stable_sam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        g, g_s = both(w, x, y)
        return {k: norm(g) / norm(g_s) * g_s[k] for k in w}

    return estimate


def wsam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        share = GAMMA / (1 - GAMMA)
        return mix(1 - share, (pair := both(w, x, y))[0], share, pair[1])

    return estimate


def look_sam() -> Estimate:
    kept: list[Tree] = []
    steps: list[int] = []

    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        g = gradient(w, x, y)
        steps.append(len(steps))
        if steps[-1] % K:
            return mix(1, g, ALPHA * norm(g), kept[-1])
        _, g_s = both(w, x, y)
        rest = mix(1, g_s, -dot(g, g_s) / (dot(g, g) + 1e-12), g)
        kept.append({k: rest[k] / norm(rest) for k in rest})
        return g_s

    return estimate


def functional_sam() -> Estimate:
    def estimate(w: Tree, x: np.ndarray, y: np.ndarray) -> Tree:
        return pull_back(moved(w, gradient(w, x, y)), x, slope(forward(w, x)[1], y))

    return estimate


def with_momentum(estimate: Estimate, w: Tree, batches: list[tuple[np.ndarray, np.ndarray]]) -> list[Tree]:
    """The parameters after each step of SGD with a rate of 0.1 and a momentum of 0.9."""
    velocity, history = {k: np.zeros_like(w[k]) for k in w}, []
    for batch in batches:
        velocity = mix(0.9, velocity, 1, estimate(w, *batch))
        w = mix(1, w, -0.1, velocity)
        history.append(w)
    return history


def wsam_decoupled_with_momentum(w: Tree, batches: list[tuple[np.ndarray, np.ndarray]]) -> list[Tree]:
    velocity, history = {k: np.zeros_like(w[k]) for k in w}, []
    for batch in batches:
        g, g_s = both(w, *batch)
        velocity = mix(0.9, velocity, 1, g)
        w = mix(1, w, -0.1, velocity)
        w = mix(1, w, -0.1 * GAMMA / (1 - GAMMA), mix(1, g_s, -1, g))
        history.append(w)
    return history


def msam_with_adamw(w: Tree, batches: list[tuple[np.ndarray, np.ndarray]]) -> list[Tree]:
    """The shifted parameters of MSAM around AdamW: rate 0.01, β 0.9 and 0.999, decay 0.05 at the unshifted ones."""
    first = second = {k: np.zeros_like(w[k]) for k in w}
    shifted, history = w, []
    for t, batch in enumerate(batches, start=1):
        g = gradient(shifted, *batch)
        first = mix(0.9, first, 0.1, g)
        second = {k: 0.999 * second[k] + 0.001 * g[k] ** 2 for k in w}
        step = {k: (first[k] / (1 - 0.9**t)) / (np.sqrt(second[k] / (1 - 0.999**t)) + 1e-8) for k in w}
        w = {k: w[k] - 0.01 * (step[k] + 0.05 * w[k]) for k in w}
        shifted = mix(1, w, -RHO / (norm(first) + 1e-12), first)
        history.append(shifted)
    return history
