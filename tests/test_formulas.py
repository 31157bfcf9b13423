"""Each method compared with its formula in NumPy, with the network's gradient derived by hand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers
from tests import transcriptions as formulas
from tests.transcriptions import ALPHA, ETA, GAMMA, LAM, RHO, SIGMA, THETA, K

BIASES = sam_optax.by_path(lambda path: path in formulas.BIASES)

METHODS: dict[str, Callable[[], optax.GradientTransformationExtraArgs]] = {
    "sam": lambda: sam_optax.sam(RHO),
    "asam": lambda: sam_optax.asam(RHO, ETA, exempt=BIASES),
    "ported_asam": lambda: sam_optax.ported_asam(RHO),
    "gsam": lambda: sam_optax.gsam(RHO, ALPHA),
    "gsam_clean": lambda: sam_optax.gsam(RHO, ALPHA, minimize="clean"),
    "friendly_sam": lambda: sam_optax.friendly_sam(RHO, SIGMA, LAM),
    "vasso": lambda: sam_optax.vasso(RHO, THETA),
    "unified_sam": lambda: sam_optax.unified_sam(RHO, LAM),
    "le_sam": lambda: sam_optax.le_sam(SIGMA, RHO),
    "xsam": lambda: sam_optax.xsam(RHO, ALPHA),
    "unnormalised_sam": lambda: sam_optax.unified_sam(RHO, lam=0.0),
    "stable_sam": lambda: sam_optax.stable_sam(RHO),
    "wsam": lambda: sam_optax.wsam(RHO, GAMMA),
    "look_sam": lambda: sam_optax.look_sam(RHO, ALPHA, K),
}


def numpy_golden() -> tuple[Any, Any]:
    golden = helpers.golden()
    params = {k: np.asarray(x) for k, x in golden.params.items()}
    return params, [(np.asarray(x), np.asarray(y)) for x, y in golden.batches]


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    for w, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(helpers.golden_vector(w), helpers.golden_vector(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_eight_steps_with_momentum_follow_the_formula(name, x64):
    golden = helpers.golden()
    tx = optax.chain(METHODS[name](), optax.sgd(0.1, momentum=0.9))
    ours = helpers.descend(tx, golden.params, golden.batches, helpers.golden_loss)
    assert_same(ours, formulas.with_momentum(getattr(formulas, name)(), *numpy_golden()))


def test_decoupled_wsam_follows_the_formula(x64):
    golden = helpers.golden()
    tx = sam_optax.wsam_decoupled(optax.sgd(0.1, momentum=0.9), 0.1, RHO, GAMMA)
    ours = helpers.descend(tx, golden.params, golden.batches, helpers.golden_loss)
    assert_same(ours, formulas.wsam_decoupled_with_momentum(*numpy_golden()))


def test_msam_around_adamw_follows_the_formula(x64):
    golden = helpers.golden()
    tx = sam_optax.msam(optax.adamw(0.01, weight_decay=0.05), RHO)
    ours = helpers.descend(tx, golden.params, golden.batches, helpers.golden_loss)
    assert_same(ours, formulas.msam_with_adamw(*numpy_golden()))


def test_functional_sam_follows_the_formula(x64):
    golden = helpers.golden()
    tx = optax.chain(sam_optax.sam(RHO), optax.sgd(0.1, momentum=0.9))
    value_and_grad = sam_optax.functional_value_and_grad(
        lambda w, x, y: jnp.tanh(x @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"],
        lambda logits, x, y: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y)),
    )

    @jax.jit
    def step(params, state, *batch):
        value, grads, grad_fn = value_and_grad(params, *batch)
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state, value, helpers.golden_loss(params, *batch)

    params, state, ours = golden.params, tx.init(golden.params), []
    for batch in golden.batches:
        params, state, value, loss = step(params, state, *batch)
        np.testing.assert_allclose(value, loss, rtol=1e-14)
        ours.append(params)
    assert_same(ours, formulas.with_momentum(formulas.functional_sam(), *numpy_golden()))


def test_ae_sam_perturbs_where_its_formula_says(x64):
    """The moving averages in plain Python floats, along a trajectory of SAM."""
    golden, thresholds = helpers.golden(), optax.linear_schedule(1.0, -1.0, 8)
    policy = sam_optax.ae_sam(thresholds, rate=0.6)
    tx = optax.chain(sam_optax.sam(RHO, when=policy), optax.sgd(0.5, momentum=0.9))
    step, params, state = helpers.make_step(tx, helpers.golden_loss), golden.params, tx.init(golden.params)
    mean, variance, perturbed_steps, expected = None, 0.0, [], []
    for i, (x, y) in enumerate(golden.batches):
        g = formulas.gradient({k: np.asarray(v) for k, v in params.items()}, np.asarray(x), np.asarray(y))
        square = formulas.dot(g, g)
        mean = square if mean is None else 0.6 * mean + 0.4 * square
        variance = 0.6 * variance + 0.4 * (square - mean) ** 2
        expected.append(square >= mean + float(thresholds(i)) * np.sqrt(variance))
        params, state = step(params, state, x, y)
        perturbed_steps.append(bool(np.isfinite(sam_optax.diagnostics(state).cosine)))
    assert perturbed_steps == expected
    assert 0 < sum(perturbed_steps) < len(perturbed_steps)
