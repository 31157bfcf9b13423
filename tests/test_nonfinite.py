"""A nonfinite pass leaves parameters and state unchanged."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import sam_optax
from tests import helpers, methods
from tests.selection import combinations, some_of

OPTIMIZERS = [*methods.NAMED, "reuse-friendly-scheduled", *methods.WRAPPERS]
PASSES = [(name, "first") for name in OPTIMIZERS] + [(name, "second") for name in OPTIMIZERS if "msam" not in name]
BAD = [jnp.nan, jnp.inf, -jnp.inf]
FEW = ("gsam", "msam", "wsam_decoupled")


def is_quick(where: tuple[str, str], value: float) -> bool:
    """Quick cases: NaN in the passes of each kind of method, and infinities for a few methods."""
    return where[0] in (methods.OF_EACH_KIND if np.isnan(value) else FEW)


def passes(params: Any, batch: Any) -> tuple[Any, Any, Any]:
    return sam_optax.value_and_grad(helpers.small_loss)(params, *batch)


def spoiled(tree: Any, value: Any) -> Any:
    """`tree` with one entry that is not finite."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [leaves[0].at[0].set(value), *leaves[1:]])


@combinations(is_quick, where=PASSES, value=BAD)
def test_a_step_with_a_nonfinite_pass_changes_nothing(where, value):
    name, which = where
    tx = sam_optax.skip_nonfinite(helpers.optimizer(name, rho=0.5))
    params, (first, second, third) = helpers.small_params(), helpers.small_batches(3)
    step = helpers.make_step(tx)
    params, state = step(params, tx.init(params), *first)
    _, grads, grad_fn = passes(params, second)
    if which == "first":
        grads = spoiled(grads, value)
    else:
        grad_fn = lambda at: spoiled(grads, value)  # noqa: E731
    updates, after = tx.update(grads, state, params, grad_fn=grad_fn)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    chex.assert_trees_all_equal(after.inner, state.inner)
    assert (int(after.skipped), bool(after.last_finite)) == (1, False)
    again, expected = step(params, after, *third), step(params, state, *third)
    chex.assert_trees_all_equal(again[0], expected[0])
    assert bool(again[1].last_finite)


@some_of(OPTIMIZERS, quick=methods.OF_EACH_KIND)
def test_finite_steps_equal_those_of_the_optimizer(name, x64):
    params, batches = helpers.small_params(), helpers.small_batches(4)
    tx = helpers.optimizer(name, rho=0.5)
    ours = helpers.descend(sam_optax.skip_nonfinite(tx), params, batches)
    chex.assert_trees_all_close(ours, helpers.descend(tx, params, batches), rtol=0, atol=1e-13)


def test_optax_does_not_detect_a_nonfinite_second_pass():
    """This is why the library has its own guard."""
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    _, grads, _ = passes(params, batch)
    call = {"grad_fn": lambda at: spoiled(grads, jnp.nan)}
    guarded = optax.apply_if_finite(helpers.optimizer("sam"), 3)
    ours = sam_optax.skip_nonfinite(helpers.optimizer("sam"))
    theirs = guarded.update(grads, guarded.init(params), params, **call)[0]
    assert any(np.any(np.isnan(x)) for x in jax.tree.leaves(theirs))
    chex.assert_tree_all_finite(ours.update(grads, ours.init(params), params, **call)[0])


def test_a_loss_that_overflows_only_at_the_perturbed_point_is_skipped():
    tx = sam_optax.skip_nonfinite(optax.chain(sam_optax.sam(1.0), optax.sgd(0.1)))
    value_and_grad = sam_optax.value_and_grad(lambda w: jnp.sum(jnp.where(w > 2.5, jnp.exp(1000 * w), w**2)))
    w = jnp.array([2.0])
    _, grads, grad_fn = value_and_grad(w)
    updates, state = tx.update(grads, tx.init(w), w, grad_fn=grad_fn)
    assert (float(updates[0]), int(state.skipped)) == (0.0, 1)


BEHIND = {
    "clip": lambda: optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)),
    "lion": lambda: optax.lion(0.1),
    "sign": lambda: optax.chain(optax.scale_by_sign(), optax.sgd(0.1)),
}


@combinations(
    lambda name, behind, value: name in ("gsam", "perturbed-friendly-masked") and (value > 0) == (name == "gsam"),
    name=("sam", "gsam", "asam", "perturbed-friendly-masked"),
    behind=BEHIND,
    value=(jnp.inf, -jnp.inf),
)
def test_transforms_after_the_method_do_not_hide_a_nonfinite_pass(name, behind, value):
    tx = sam_optax.skip_nonfinite(helpers.optimizer(name, BEHIND[behind]()))
    params, (first, second) = helpers.small_params(), helpers.small_batches(2)
    params, state = helpers.make_step(tx)(params, tx.init(params), *first)
    assert bool(state.last_finite)
    _, grads, _ = passes(params, second)
    updates, after = tx.update(grads, state, params, grad_fn=lambda at: spoiled(grads, value))
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    chex.assert_trees_all_equal(after.inner, state.inner)


def test_an_initially_infinite_state_does_not_block_steps():
    tx = sam_optax.skip_nonfinite(
        optax.chain(sam_optax.sam(), optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=2))
    )
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    _, state = helpers.make_step(tx)(params, tx.init(params), *batch)
    assert bool(state.last_finite)


def test_the_guard_passes_on_the_static_decision_and_the_diagnostics():
    tx = sam_optax.skip_nonfinite(helpers.optimizer("sam", when=sam_optax.every(2)))
    step, params = helpers.make_step(tx), helpers.small_params()
    state = tx.init(params)
    for i, batch in enumerate(helpers.small_batches(3)):
        params, state = step(params, state, *batch, perturb=sam_optax.every(2).at(i))
        assert np.isfinite(sam_optax.diagnostics(state).cosine) == (i != 1)


def test_an_empty_tree_is_finite():
    tx = sam_optax.skip_nonfinite(optax.chain(sam_optax.sam(), optax.sgd(0.1)))
    updates, state = tx.update({}, tx.init({}), {}, grad_fn=lambda at: at)
    assert updates == {}
    assert bool(state.last_finite)
