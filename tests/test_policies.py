"""Policies decide which steps make a second pass."""

from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax

POLICIES = {
    "always": sam_optax.always,
    "every_1": lambda: sam_optax.every(1),
    "every_3": lambda: sam_optax.every(3),
    "after_0": lambda: sam_optax.after(0),
    "after_4": lambda: sam_optax.after(4),
    "last_half": lambda: sam_optax.last(0.5, sam_optax.BatchPlan.parse("7x4"), 4),
    "bernoulli": lambda: sam_optax.bernoulli(0.5, jax.random.key(0)),
    "bernoulli_scheduled": lambda: sam_optax.bernoulli(optax.linear_schedule(0.0, 1.0, 7), jax.random.PRNGKey(1)),
}


def perturbed_steps(policy: sam_optax.Policy, steps: int) -> list[int]:
    """The steps at which `perturb=None` made a second pass, according to the diagnostics."""
    tx, w = sam_optax.sam(when=policy), jnp.ones(2)
    update = jax.jit(lambda state: tx.update(w, state, w, grad_fn=lambda w: 2 * w))
    state, steps_found = tx.init(w), []
    for step in range(steps):
        updates, state = update(state)
        if np.isfinite(sam_optax.diagnostics(state).cosine):
            steps_found.append(step)
            assert updates[0] > 1
        else:
            np.testing.assert_array_equal(updates, w)
    return steps_found


def test_always_perturbs_at_every_step():
    assert perturbed_steps(sam_optax.always(), 4) == [0, 1, 2, 3]


def test_every_k_perturbs_at_the_first_step_and_each_kth():
    assert perturbed_steps(sam_optax.every(3), 8) == [0, 3, 6]


def test_after_perturbs_from_its_step_onwards():
    assert perturbed_steps(sam_optax.after(3), 6) == [3, 4, 5]


PLAN = sam_optax.BatchPlan.parse("2x16,2x32")


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, []), (1.0, range(12)), (0.5, range(8, 12)), (0.75, range(4, 12)), (0.1, [])]
)
def test_last_perturbs_in_a_fraction_of_the_data_at_the_end(fraction, expected):
    policy = sam_optax.last(fraction, PLAN, 64)
    assert [step for step in range(12) if policy.at(step)] == list(expected)


@hypothesis.given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1))
def test_last_begins_with_its_epoch_and_does_not_stop(epochs, batch_size, fraction):
    plan = sam_optax.BatchPlan.from_stages([(epochs, batch_size), (epochs, 3 * batch_size)])
    policy = sam_optax.last(fraction, plan, 30)
    for step in range(plan.total_steps(30)):
        assert policy.at(step) == (plan.epoch_at(step, 30) >= (1 - fraction) * plan.epochs * (1 - 1e-12))


def test_the_start_of_the_last_part_is_exact():
    policy = sam_optax.last(0.7, sam_optax.BatchPlan.constant(4, 10), 8)
    assert [step for step in range(20) if policy.at(step)] == list(range(6, 20))


def test_the_start_of_the_last_part_is_exact_in_a_long_plan():
    policy = sam_optax.last(0.7, sam_optax.BatchPlan.parse("updates:100000000x4"))
    assert [step for step in range(29_999_998, 30_000_002) if policy.at(step)] == [30_000_000, 30_000_001]


def test_a_start_that_no_count_reaches_is_refused():
    with pytest.raises(ValueError, match="step is 3000000000, which the count of updates"):
        sam_optax.after(3_000_000_000)


@pytest.mark.parametrize("outlier", [1e10, 1e25, np.inf, np.nan])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1.0])
def test_a_gradient_that_is_too_large_does_not_change_the_statistics_of_ae_sam(outlier, threshold):
    policy, decisions = sam_optax.ae_sam(threshold), []
    before, state = [1.0, 2.0, 0.5], policy.init(jnp.zeros(2))
    for step, size in enumerate([*before, outlier, 2.0, 0.1]):
        decision, after = policy.decide(jnp.asarray(step), jnp.array([size, 0.0]), state)
        decisions.append(bool(decision))
        if size is outlier:
            jax.tree.map(np.testing.assert_array_equal, after, state)
        state = after
    assert decisions[3:] == [False, True, False]


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_bernoulli_perturbs_with_its_probability(probability):
    policy = sam_optax.bernoulli(probability, jax.random.key(3))
    share = np.mean([policy.at(step) for step in range(1000)])
    assert abs(share - probability) <= 4 * np.sqrt(probability * (1 - probability) / 1000)


def test_bernoulli_draws_independently_for_steps_and_keys():
    policies = [sam_optax.bernoulli(0.5, jax.random.key(seed)) for seed in (0, 1, 0)]
    one, other, again = (
        [policy.at(step) for step in range(steps)] for policy, steps in zip(policies, (64, 16, 16), strict=True)
    )
    assert one[:16] != other
    assert 0.35 < np.mean(np.diff(one)) < 0.65
    assert one[:16] == again


def test_a_policy_that_depends_on_the_gradient_is_decided_in_the_compiled_step():
    policy = sam_optax.ae_sam(0.0)
    assert policy.at(5) is None
    tx, w = sam_optax.sam(when=policy), jnp.ones(2)
    _, state = tx.update(w, tx.init(w), w, grad_fn=lambda w: w, perturb=policy.at(0))
    assert np.isfinite(sam_optax.diagnostics(state).cosine)


@pytest.mark.parametrize(("threshold", "expected"), [(-10.0, [0, 1, 2, 3, 4, 5]), (10.0, [0])])
def test_the_threshold_of_ae_sam_controls_how_often_it_perturbs(threshold, expected):
    tx, w = sam_optax.sam(when=sam_optax.ae_sam(threshold)), jnp.ones(2)
    state, steps_found = tx.init(w), []
    for step, size in enumerate((1.0, 1.3, 0.8, 1.1, 0.9, 1.2)):
        _, state = tx.update(size * w, state, w, grad_fn=lambda w: w)
        steps_found += [step] if np.isfinite(sam_optax.diagnostics(state).cosine) else []
    assert steps_found == expected


@pytest.mark.parametrize("name", POLICIES)
def test_the_plain_and_the_traced_form_agree(name):
    policy = POLICIES[name]()
    state = policy.init(jnp.ones(2))
    for step in range(7):
        decision, state = policy.decide(jnp.asarray(step), jnp.ones(2), state)
        assert bool(decision) == policy.at(step)
        assert type(policy.at(step)) is bool


def test_always_is_decided_in_python_without_a_compiled_branch():
    tx, w = sam_optax.sam(), jnp.ones(2)
    program = str(jax.make_jaxpr(lambda state: tx.update(w, state, w, grad_fn=lambda w: w))(tx.init(w)))
    assert "cond[" not in program


def test_a_static_decision_overrides_the_policy_without_a_compiled_branch():
    tx, w = sam_optax.sam(when=sam_optax.every(2)), jnp.ones(2)

    def program(perturb: bool | None) -> str:
        update = lambda state: tx.update(w, state, w, grad_fn=lambda w: w, perturb=perturb)  # noqa: E731
        return str(jax.make_jaxpr(update)(tx.init(w)))

    assert ["cond[" in program(perturb) for perturb in (None, True, False)] == [True, False, False]


def test_a_user_defined_policy_gets_the_count_and_every_clean_gradient():
    """Perturb where the gradient is longer than the mean of the lengths before it."""

    def decide(count: Any, clean: Any, total: Any) -> tuple[Any, Any]:
        norm = jnp.linalg.norm(clean)
        return norm * count > total, total + norm

    policy = sam_optax.Policy(init=lambda params: jnp.zeros(()), decide=decide, at=lambda step: True)
    tx, w = sam_optax.sam(when=policy), jnp.ones(1)
    state, is_perturbed = tx.init(w), []
    for size in (1.0, 2.0, 1.0, 3.0):
        _, state = tx.update(size * w, state, w, grad_fn=lambda w: w)
        is_perturbed.append(bool(np.isfinite(sam_optax.diagnostics(state).cosine)))
    assert is_perturbed == [False, True, False, True]
    assert state.policy == 7.0


def test_a_perturbation_with_memory_gets_the_gradients_of_skipped_steps():
    ascent = optax.chain(optax.trace(0.9), sam_optax.normalized_ascent())
    tx, w = sam_optax.sharpness_aware(ascent, sam_optax.perturbed_gradient()), jnp.ones(1)
    state = tx.init(w)
    for perturb in (True, False, False):
        _, state = tx.update(w, state, w, grad_fn=lambda w: w, perturb=perturb)
    np.testing.assert_allclose(state.perturbation[0].trace, 1 + 0.9 + 0.81, rtol=1e-6)
