"""Optax's wrapping optimizers, around and after a method, and bases whose momentum MSAM does not find."""

from typing import Any

import chex
import jax
import optax
import optax.contrib
import pytest

import sam_optax
from tests import helpers, methods, optimizers

RHO = 0.3


@pytest.mark.parametrize("base", [name for name, base in optimizers.ALL.items() if not base.known])
def test_msam_refuses_a_base_whose_momentum_it_does_not_find(base):
    tx = sam_optax.msam(optimizers.ALL[base](), RHO)
    with pytest.raises(ValueError, match=r"^base keeps 0 momenta of a known kind.* or direction="):
        tx.init(helpers.small_params())


@pytest.mark.parametrize("name", ["sam", "gsam"])
def test_schedule_free_around_a_chain_equals_the_chain_with_schedule_free(name, x64):
    """Schedule-free optimizers use the gradient only in their base."""
    method, rate, params, batches = methods.NAMED[name](rho=RHO), 0.1, helpers.small_params(), helpers.small_batches(3)
    around = optax.contrib.schedule_free(optax.chain(method, optax.sgd(rate)), rate)
    behind = optax.chain(method, optax.contrib.schedule_free(optax.sgd(rate), rate))
    ours, theirs = (helpers.descend(tx, params, batches) for tx in (around, behind))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12)


def test_mechanic_after_a_method_is_tuned_by_the_gradient_of_the_method(x64):
    """It equals Mechanic by itself on the perturbed gradient."""
    mechanic = optax.contrib.mechanize(optax.adam(1.0))
    tx = optax.chain(sam_optax.sam(RHO), mechanic)
    expected = mechanic_steps(mechanic, lambda clean, perturbed: (perturbed, {}))
    chex.assert_trees_all_close(helpers.descend(tx, helpers.small_params(), helpers.small_batches(3)), expected)


def test_mechanic_around_a_chain_is_tuned_by_the_clean_gradient(x64):
    """Its base still descends on the perturbed gradient."""
    adam = optax.adam(1.0)

    def update(updates: Any, state: Any, params: Any = None, *, perturbed: Any) -> tuple[Any, Any]:
        return adam.update(perturbed, state, params)

    mechanic = optax.contrib.mechanize(optax.GradientTransformationExtraArgs(adam.init, update))
    tx = optax.contrib.mechanize(optax.chain(sam_optax.sam(RHO), adam))
    expected = mechanic_steps(mechanic, lambda clean, perturbed: (clean, {"perturbed": perturbed}))
    chex.assert_trees_all_close(helpers.descend(tx, helpers.small_params(), helpers.small_batches(3)), expected)


def mechanic_steps(mechanic: optax.GradientTransformationExtraArgs, given: Any) -> list[Any]:
    """The parameters after each step of Mechanic; `given` picks its gradient and its extra arguments."""
    params, gradient = helpers.small_params(), jax.jit(jax.grad(helpers.small_loss))
    state, history = mechanic.init(params), []
    for batch in helpers.small_batches(3):
        clean = gradient(params, *batch)
        scale = RHO / optax.tree.norm(clean)
        perturbed = gradient(jax.tree.map(lambda w, g: w + scale * g, params, clean), *batch)  # noqa: B023
        grads, extra = given(clean, perturbed)
        updates, state = mechanic.update(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history
