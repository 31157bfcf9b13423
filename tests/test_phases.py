"""A step in two phases is the step in one call: exactly without `jit`, and to 1e-12 in float64 when compiled."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers, methods
from tests.selection import some_of

gradient = jax.grad(helpers.small_loss)
value_and_grad = sam_optax.value_and_grad(helpers.small_loss)
every_two_phase_method = methods.where(lambda name: not name.startswith("repeated"), ["wsam_decoupled"])
few_two_phase_methods = some_of(
    [name for name in (*methods.METHODS, "wsam_decoupled") if not name.startswith("repeated")],
    ("gsam", "vasso", "sam_every_2", "wsam_decoupled"),
)

CHAINS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(0.1), sam_optax.gsam(), optax.adamw(0.01)),
    "injected": lambda: optax.inject_hyperparams(
        lambda rho: optax.chain(sam_optax.sam(rho), optax.sgd(0.1, momentum=0.9)),
    )(rho=lambda count: 0.05 * (1 + count)),
    "finite": lambda: optax.apply_if_finite(optax.chain(sam_optax.sam(), optax.sgd(0.1)), 2),
    "guarded": lambda: sam_optax.skip_nonfinite(optax.chain(sam_optax.gsam(), optax.sgd(0.1))),
    "bare": lambda: optax.chain(sam_optax.without_diagnostics(sam_optax.vasso()), optax.sgd(0.1)),
    "one_ascent_step": lambda: optax.chain(
        sam_optax.sharpness_aware(
            sam_optax.repeated_ascent(optax.chain(optax.contrib.normalize(), optax.sgd(0.1)), steps=1),
            sam_optax.gap_guided(),
        ),
        optax.sgd(0.1),
    ),
    "decoupled_rates": lambda: sam_optax.wsam_decoupled(
        optax.adam(0.01), learning_rate={"dense": {"kernel": 0.1, "bias": 0.2}}, rho=0.1
    ),
    "adaptive_policy": lambda: optax.chain(sam_optax.sam(when=sam_optax.ae_sam(threshold=0.0)), optax.sgd(0.1)),
    "random_policy": lambda: optax.chain(
        sam_optax.gsam(when=sam_optax.bernoulli(0.5, jax.random.key(0))), optax.sgd(0.1)
    ),
}


def in_one_call(tx: Any, decisions: list[bool | None], compile_: Callable[..., Any]) -> list[Any]:
    """The updates and the states of some steps by `update`."""

    @functools.partial(compile_, static_argnames="perturb")
    def step(params: Any, state: Any, *batch: Any, perturb: bool | None) -> Any:
        loss, grads, grad_fn = value_and_grad(params, *batch)
        return tx.update(grads, state, params, grad_fn=grad_fn, perturb=perturb, value=loss)

    params = helpers.small_params()
    state, found = tx.init(params), []
    for batch, perturb in zip(helpers.small_batches(len(decisions)), decisions, strict=True):
        updates, state = step(params, state, *batch, perturb=perturb)
        params = optax.apply_updates(params, updates)
        found.append((updates, state))
    return found


def in_two_phases(tx: Any, decisions: list[bool | None], compile_: Callable[..., Any]) -> list[Any]:
    """The same by `ascend` and `descend`, with gradients computed outside of both."""
    phases = sam_optax.two_phases(tx)
    ascend, descend = compile_(phases.ascend, static_argnames="perturb"), compile_(phases.descend)
    passes = compile_(value_and_grad)
    params = helpers.small_params()
    state, found = phases.init(params), []
    for batch, perturb in zip(helpers.small_batches(len(decisions)), decisions, strict=True):
        loss, grads, _ = passes(params, *batch)
        perturbed, pending = ascend(grads, state, params, perturb=perturb, value=loss)
        perturbed_loss, perturbed_grads, _ = passes(perturbed, *batch)
        updates, state = descend(perturbed_grads, pending, params, perturbed_value=perturbed_loss, value=loss)
        params = optax.apply_updates(params, updates)
        found.append((updates, state))
    return found


def uncompiled(function: Callable[..., Any], static_argnames: Any = None) -> Callable[..., Any]:
    return function


DECISIONS: list[bool | None] = [None, True, False, None]


@every_two_phase_method
def test_two_phases_equal_one_call_exactly(name):
    tx = helpers.optimizer(name)
    both = (run(tx, [None, False, True], uncompiled) for run in (in_one_call, in_two_phases))
    chex.assert_trees_all_equal(*both)


@few_two_phase_methods
def test_compiled_phases_equal_one_call_up_to_rounding(name, x64):
    tx = helpers.optimizer(name)
    one, two = (run(tx, DECISIONS, jax.jit) for run in (in_one_call, in_two_phases))
    chex.assert_trees_all_close(two, one, rtol=0, atol=1e-12)


@some_of(CHAINS, quick=("decoupled_rates", "adaptive_policy"))
def test_whole_chains_can_be_split_into_two_phases(name, x64):
    exactly = (run(CHAINS[name](), DECISIONS, uncompiled) for run in (in_one_call, in_two_phases))
    chex.assert_trees_all_equal(*exactly)
    one, two = (run(CHAINS[name](), DECISIONS, jax.jit) for run in (in_one_call, in_two_phases))
    chex.assert_trees_all_close(two, one, rtol=0, atol=1e-12)


def test_the_first_phase_returns_where_the_method_makes_its_second_pass():
    asked = []

    def recorded(params: Any) -> Any:
        asked.append(params)
        return gradient(params, *batch)

    tx, params, (batch,) = CHAINS["clipped"](), helpers.small_params(), helpers.small_batches(1)
    tx.update(gradient(params, *batch), tx.init(params), params, grad_fn=recorded)
    phases = sam_optax.two_phases(tx)
    perturbed, _ = phases.ascend(gradient(params, *batch), phases.init(params), params)
    chex.assert_trees_all_equal([perturbed], asked)


@pytest.mark.parametrize("perturb", [False, None], ids=["static", "by_the_policy"])
def test_a_skipped_step_does_not_perturb_and_ignores_the_second_gradient(perturb):
    tx = optax.chain(sam_optax.sam(when=sam_optax.after(3)), optax.sgd(0.1))
    phases, params, (batch,) = sam_optax.two_phases(tx), helpers.small_params(), helpers.small_batches(1)
    grads = gradient(params, *batch)
    perturbed, pending = phases.ascend(grads, phases.init(params), params, perturb=perturb)
    chex.assert_trees_all_equal(perturbed, params)
    nan = jax.tree.map(lambda x: x * jnp.nan, grads)
    expected = tx.update(grads, tx.init(params), params, perturb=False)
    chex.assert_trees_all_equal(phases.descend(nan, pending, params), expected)
    if perturb is False:
        chex.assert_trees_all_equal(phases.descend(None, pending, params), expected)


def test_hidden_leaves_are_not_perturbed():
    phases = sam_optax.two_phases(sam_optax.sam(rho=0.5, mask=methods.KERNELS))
    params, (batch,) = helpers.small_params(), helpers.small_batches(1)
    perturbed, _ = phases.ascend(gradient(params, *batch), phases.init(params), params)
    chex.assert_trees_all_equal(perturbed["dense"]["bias"], params["dense"]["bias"])
    moved = perturbed["dense"]["kernel"] - params["dense"]["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(moved), 0.5, rtol=1e-5)


def test_the_state_is_the_ordinary_one_and_a_pending_step_has_another_structure():
    tx, params, (batch,) = CHAINS["clipped"](), helpers.small_params(), helpers.small_batches(1)
    phases = sam_optax.two_phases(tx)
    state, grads = phases.init(params), gradient(params, *batch)
    assert helpers.shapes(state) == helpers.shapes(tx.init(params))
    _, pending = phases.ascend(grads, state, params)
    assert jax.tree.structure(pending) != jax.tree.structure(state)
    chex.assert_trees_all_equal(pending.grads, grads)
    _, after = phases.descend(grads, pending, params)
    assert helpers.shapes(after) == helpers.shapes(state)


def test_each_phase_is_compiled_once():
    phases = sam_optax.two_phases(CHAINS["adaptive_policy"]())
    ascend, descend = jax.jit(phases.ascend), jax.jit(phases.descend)
    params = helpers.small_params()
    state = phases.init(params)
    for batch in helpers.small_batches(3):
        perturbed, pending = ascend(gradient(params, *batch), state, params)
        _, state = descend(gradient(perturbed, *batch), pending, params)
    assert (ascend._cache_size(), descend._cache_size()) == (1, 1)


def test_the_parameters_keep_their_dtype():
    params = helpers.small_params(jnp.bfloat16)
    phases = sam_optax.two_phases(optax.chain(sam_optax.sam(when=sam_optax.every(2)), optax.sgd(0.1)))
    perturbed, _ = jax.jit(phases.ascend)(params, phases.init(params), params)
    assert helpers.shapes(perturbed) == helpers.shapes(params)


def test_a_perturbation_of_each_device_is_not_averaged():
    tx = sam_optax.average_over("devices", sam_optax.sam(rho=0.5))
    phases, params = sam_optax.two_phases(tx), helpers.small_params()
    stacked = [jnp.stack(x) for x in zip(*helpers.small_batches(2), strict=True)]

    def both(*batch: Any) -> Any:
        grads = gradient(params, *batch)
        perturbed, pending = phases.ascend(grads, tx.init(params), params)
        updates, _ = phases.descend(gradient(perturbed, *batch), pending, params)
        expected, _ = tx.update(grads, tx.init(params), params, grad_fn=lambda at: gradient(at, *batch))
        return updates, expected

    found, expected = jax.vmap(both, axis_name="devices")(*stacked)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_nonfinite_gradients_are_skipped_in_either_phase():
    phases, params = sam_optax.two_phases(CHAINS["guarded"]()), helpers.small_params()
    state, nan = phases.init(params), jax.tree.map(lambda x: x * jnp.nan, params)
    perturbed, pending = phases.ascend(nan, state, params)
    chex.assert_trees_all_equal(perturbed, params)
    for updates, after in (
        phases.descend(params, pending, params),
        phases.descend(nan, phases.ascend(params, state, params)[1], params),
    ):
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
        assert int(after.skipped) == 1


def test_tracking_noise_uses_the_noise_that_it_is_given():
    tx, params = sam_optax.track_noise(sam_optax.sam()), helpers.small_params()
    phases, terms = sam_optax.two_phases(tx), sam_optax.NoiseTerms(signal=2.0, noise=64.0)
    noise = sam_optax.Noise(clean=terms, perturbed=terms)
    _, pending = phases.ascend(params, phases.init(params), params)
    _, state = phases.descend(params, pending, params, noise=noise)
    assert sam_optax.measured_noise(state).perturbed.scale == 32.0


REPEATED = sam_optax.repeated_ascent(optax.sgd(0.1), steps=2)
REFUSED = [
    (lambda: sam_optax.msam(optax.sgd(0.1, momentum=0.9)), "tx holds no sharpness-aware method with a second pass"),
    (lambda: optax.sgd(0.1), "tx holds no sharpness-aware method with a second pass"),
    (lambda: optax.chain(sam_optax.sam(), sam_optax.gsam()), "tx holds 2 sharpness-aware methods"),
    (
        lambda: sam_optax.sharpness_aware(optax.chain(REPEATED), sam_optax.perturbed_gradient()),
        "tx holds a repeated_ascent with several steps",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_optimizers_without_two_phases_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        sam_optax.two_phases(make()).init(helpers.small_params())


def test_a_perturbation_that_asks_for_gradients_is_refused():
    def update(updates: Any, state: Any, params: Any = None, *, grad_fn: Any, **extra: Any) -> tuple[Any, Any]:
        return grad_fn(params), state

    curious = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    phases = sam_optax.two_phases(sam_optax.sharpness_aware(curious, sam_optax.perturbed_gradient()))
    params = helpers.small_params()
    with pytest.raises(ValueError, match="two_phases knows the clean gradient alone"):
        phases.ascend(params, phases.init(params), params)


def test_phases_in_the_wrong_order_are_refused():
    phases, params = sam_optax.two_phases(sam_optax.sam()), helpers.small_params()
    state = phases.init(params)
    _, pending = phases.ascend(params, state, params)
    with pytest.raises(ValueError, match="pending is of type SharpnessAwareState"):
        phases.descend(params, state, params)
    with pytest.raises(ValueError, match="state is a pending step"):
        phases.ascend(params, pending, params)
    with pytest.raises(ValueError, match="perturbed_grads does not have the structure of params"):
        phases.descend(params["dense"], pending, params)
    with pytest.raises(ValueError, match="perturbed_value is"):
        phases.descend(params, pending, params, perturbed_value=jnp.ones(2))
