"""When a step pays for a second pass."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax

POLICIES = {"always": sam_optax.always, "every_1": lambda: sam_optax.every(1), "every_3": lambda: sam_optax.every(3)}


def perturbed_steps(policy: sam_optax.Policy, steps: int) -> list[int]:
    """The steps at which `perturb=None` made a second pass, as the diagnostics tell."""
    tx, w = sam_optax.sam(when=policy), jnp.ones(2)
    update = jax.jit(lambda state: tx.update(w, state, w, grad_fn=lambda w: 2 * w))
    state, seen = tx.init(w), []
    for step in range(steps):
        updates, state = update(state)
        if np.isfinite(sam_optax.diagnostics(state).cosine):
            seen.append(step)
            assert updates[0] > 1
        else:
            np.testing.assert_array_equal(updates, w)
    return seen


def test_always_perturbs_at_every_step():
    assert perturbed_steps(sam_optax.always(), 4) == [0, 1, 2, 3]


def test_every_k_perturbs_at_the_first_step_and_each_kth():
    assert perturbed_steps(sam_optax.every(3), 8) == [0, 3, 6]


@pytest.mark.parametrize("name", POLICIES)
def test_the_plain_and_the_traced_form_agree(name):
    policy = POLICIES[name]()
    state = policy.init(jnp.ones(2))
    for step in range(7):
        decision, state = policy.decide(jnp.asarray(step), jnp.ones(2), state)
        assert bool(decision) == policy.at(step)
        assert type(policy.at(step)) is bool


def test_always_decides_in_python_and_compiles_no_branch():
    tx, w = sam_optax.sam(), jnp.ones(2)
    program = str(jax.make_jaxpr(lambda state: tx.update(w, state, w, grad_fn=lambda w: w))(tx.init(w)))
    assert "cond[" not in program


def test_a_static_decision_overrules_the_policy_and_compiles_no_branch():
    tx, w = sam_optax.sam(when=sam_optax.every(2)), jnp.ones(2)

    def program(perturb: bool | None) -> str:
        update = lambda state: tx.update(w, state, w, grad_fn=lambda w: w, perturb=perturb)  # noqa: E731
        return str(jax.make_jaxpr(update)(tx.init(w)))

    assert ["cond[" in program(perturb) for perturb in (None, True, False)] == [True, False, False]


def test_a_policy_of_the_users_own_sees_the_count_and_every_clean_gradient():
    """Perturb where the gradient is longer than the mean of the lengths before it."""

    def decide(count: Any, clean: Any, total: Any) -> tuple[Any, Any]:
        norm = jnp.linalg.norm(clean)
        return norm * count > total, total + norm

    policy = sam_optax.Policy(init=lambda params: jnp.zeros(()), decide=decide, at=lambda step: True)
    tx, w = sam_optax.sam(when=policy), jnp.ones(1)
    state, seen = tx.init(w), []
    for size in (1.0, 2.0, 1.0, 3.0):
        _, state = tx.update(size * w, state, w, grad_fn=lambda w: w)
        seen.append(bool(np.isfinite(sam_optax.diagnostics(state).cosine)))
    assert seen == [False, True, False, True]
    assert state.policy == 7.0


def test_a_perturbation_with_memory_sees_the_gradients_of_skipped_steps():
    ascent = optax.chain(optax.trace(0.9), sam_optax.normalized_ascent())
    tx, w = sam_optax.sharpness_aware(ascent, sam_optax.perturbed_gradient()), jnp.ones(1)
    state = tx.init(w)
    for perturb in (True, False, False):
        _, state = tx.update(w, state, w, grad_fn=lambda w: w, perturb=perturb)
    np.testing.assert_allclose(state.perturbation[0].trace, 1 + 0.9 + 0.81, rtol=1e-6)
