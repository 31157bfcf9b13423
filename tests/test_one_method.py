"""Two methods in one optimizer are refused by every function that gets the whole state."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from sam_optax.validation import check_one_method
from tests import methods

PARAMS = {"body": jnp.ones(3), "head": jnp.ones(2)}
SGD = optax.sgd(0.1, momentum=0.9)

SEVERAL = {
    "two in a chain": lambda: optax.chain(sam_optax.sam(0.5), sam_optax.sam(0.1), SGD),
    "one in an inner chain": lambda: optax.chain(
        sam_optax.gsam(), optax.chain(optax.clip(1.0), sam_optax.vasso()), SGD
    ),
    "injected": lambda: optax.chain(
        optax.inject_hyperparams(sam_optax.sam)(rho=0.1), sam_optax.wsam_decoupled(SGD, 0.1)
    ),
    "sam and msam": lambda: optax.chain(sam_optax.sam(), sam_optax.msam(SGD)),
    "msam twice": lambda: optax.chain(sam_optax.msam(SGD), sam_optax.msam(SGD)),
}
ONE = {
    "none": lambda: SGD,
    "in a chain": lambda: optax.chain(sam_optax.sam(), SGD),
    "around the base": lambda: sam_optax.wsam_decoupled(SGD, 0.1),
    "msam": lambda: sam_optax.msam(SGD),
    "skipping": lambda: sam_optax.skip_nonfinite(optax.apply_if_finite(optax.chain(sam_optax.sam(), SGD), 3)),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_methods_are_refused_with_the_remedy(name):
    message = r"^opt_state holds 2 sharpness-aware methods, expected one: .*optax\.multi_transform\(.*normalized_ascent"
    with pytest.raises(ValueError, match=message):
        check_one_method("opt_state", SEVERAL[name]().init(PARAMS))


@pytest.mark.parametrize("name", ONE)
def test_one_method_or_none_is_accepted(name):
    check_one_method("opt_state", ONE[name]().init(PARAMS))


def partitions(make: Any) -> optax.GradientTransformation:
    return optax.multi_transform({"a": make(), "b": make()}, {"body": "a", "head": "b"})


def test_msam_in_disjoint_partitions_counts_once_and_before_another_method_as_a_second():
    several = partitions(lambda: sam_optax.msam(SGD))
    check_one_method("opt_state", several.init(PARAMS))
    with pytest.raises(ValueError, match=r"^opt_state holds 3 sharpness-aware methods"):
        check_one_method("opt_state", optax.chain(sam_optax.sam(), several).init(PARAMS))


SEEN_WHOLE = {"tx": sam_optax.skip_nonfinite, "method": sam_optax.track_noise}


@pytest.mark.parametrize("argument", SEEN_WHOLE)
@pytest.mark.parametrize("name", SEVERAL)
def test_functions_of_the_whole_optimizer_refuse_several_methods(name, argument):
    tx = SEEN_WHOLE[argument](SEVERAL[name]())
    with pytest.raises(ValueError, match=f"^{argument} holds 2 sharpness-aware methods, expected one"):
        tx.init(PARAMS)


MULTI_STEPS = {
    "sam": lambda: optax.MultiSteps(optax.chain(sam_optax.sam(), SGD), 4),
    "wsam_decoupled": lambda: optax.chain(optax.clip(1.0), optax.MultiSteps(sam_optax.wsam_decoupled(SGD, 0.1), 4)),
}


@pytest.mark.parametrize("argument", SEEN_WHOLE)
@pytest.mark.parametrize("name", MULTI_STEPS)
def test_functions_of_the_whole_optimizer_refuse_a_method_inside_accumulation(name, argument):
    tx = SEEN_WHOLE[argument](MULTI_STEPS[name]())
    with pytest.raises(ValueError, match=rf"^{argument} holds .* inside optax\.MultiSteps, .*micro_batches="):
        tx.init(PARAMS)


@pytest.mark.parametrize(
    "tx", [optax.MultiSteps(sam_optax.msam(SGD), 4), sam_optax.wsam_decoupled(optax.MultiSteps(SGD, 4), 0.1)]
)
def test_accumulation_around_msam_or_inside_decoupled_wsam_is_accepted(tx):
    check_one_method("opt_state", tx.init(PARAMS))


def test_bsam_inside_accumulation_is_refused_also_by_its_passes():
    """Its update would get the magnitude of the last micro-batch only."""
    tx, remedy = optax.MultiSteps(sam_optax.bsam(0.1, 10), 4), r"inside optax\.MultiSteps, .*: divide the batch by"
    with pytest.raises(ValueError, match=rf"^opt_state holds bsam {remedy}"):
        check_one_method("opt_state", tx.init(PARAMS))
    fn = sam_optax.bsam_value_and_grad(lambda w, x: jnp.mean(x @ w), shards=2)
    with pytest.raises(ValueError, match=rf"^state holds bsam {remedy}"):
        fn(jnp.ones(2), tx.init(jnp.ones(2)), jax.random.key(0), jnp.eye(2))


PARTS = {
    "msam": lambda: sam_optax.msam(optax.chain(sam_optax.sam(), SGD)),
    "msam_in_msam": lambda: sam_optax.msam(sam_optax.msam(SGD)),
    "wsam_decoupled": lambda: sam_optax.wsam_decoupled(optax.chain(sam_optax.gsam(), SGD), 0.1),
    "msam_in_wsam_decoupled": lambda: sam_optax.wsam_decoupled(partitions(lambda: sam_optax.msam(SGD)), 0.1),
    "perturbation": lambda: sam_optax.sharpness_aware(sam_optax.sam(), sam_optax.perturbed_gradient()),
    "msam_as_perturbation": lambda: sam_optax.sharpness_aware(sam_optax.msam(SGD), sam_optax.perturbed_gradient()),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_method_inside_another_is_refused(name):
    argument = "perturbation" if "perturbation" in name else "base"
    with pytest.raises(ValueError, match=f"^{argument} holds a sharpness-aware method, which replaces .*: give "):
        PARTS[name]().init(PARAMS)


def test_one_method_can_have_a_radius_for_each_partition(x64):
    """The supported way: each group has its own `ε = ρ g/‖g‖`, with the norm over the group, and one second pass."""
    radii, labels = {"body": 0.5, "head": 0.1}, {"body": "body", "head": {"kernel": "head", "bias": "head"}}
    perturbation = optax.multi_transform(
        {name: sam_optax.normalized_ascent(rho) for name, rho in radii.items()}, labels
    )
    tx = optax.chain(sam_optax.sharpness_aware(perturbation, sam_optax.perturbed_gradient()), optax.sgd(0.1))
    w = {"body": jnp.array([3.0, -4.0]), "head": {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([2.0])}}
    gradient = jax.grad(lambda w: sum(jnp.sum(x**4) for x in jax.tree.leaves(w)) / 4)  # w³ in each entry
    updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)

    body, head = np.array([3.0, -4.0]), np.array([1.0, 2.0, 2.0])
    body, head = (w + rho * w**3 / np.linalg.norm(w**3) for w, rho in ((body, 0.5), (head, 0.1)))
    expected = {"body": -0.1 * body**3, "head": {"kernel": -0.1 * head[:2] ** 3, "bias": -0.1 * head[2:] ** 3}}
    chex.assert_trees_all_close(updates, expected, rtol=1e-10)
    np.testing.assert_allclose(sam_optax.diagnostics(state).perturbation_norm, np.hypot(0.5, 0.1), rtol=1e-10)


def test_groups_can_have_their_own_radii_under_one_norm(x64):
    """As the parameter groups of the best known PyTorch code do: `ε_group = ρ_group g_group / ‖g‖`."""
    scales = optax.multi_transform({"a": optax.scale(0.05), "b": optax.scale(0.1)}, {"body": "a", "head": "b"})
    perturbation = optax.chain(sam_optax.normalized_ascent(1.0), scales)
    tx = sam_optax.sharpness_aware(perturbation, sam_optax.perturbed_gradient())
    w = {"body": jnp.array([3.0, 0.0]), "head": jnp.array([0.0, 4.0])}
    grads, _ = tx.update(w, tx.init(w), w, grad_fn=lambda at: at)  # for ½‖w‖², whose gradient is w
    expected = {"body": np.array([3.0 + 0.05 * 0.6, 0.0]), "head": np.array([0.0, 4.0 + 0.1 * 0.8])}
    chex.assert_trees_all_close(grads, expected, rtol=1e-10)


@pytest.mark.parametrize("name", methods.PERTURBATIONS)
def test_a_perturbation_of_a_partition_ignores_the_other_parameters(name):
    make = methods.PERTURBATIONS[name]
    labels = {"body": "a", "head": "b"}
    both, reference = optax.multi_transform({"a": make(0.5), "b": optax.set_to_zero()}, labels), make(0.5)
    w, g = {"body": jnp.array([1.0, 2.0]), "head": jnp.ones(2)}, {"body": jnp.array([3.0, -1.0]), "head": jnp.ones(2)}
    state, reference_state = both.init(w), reference.init({"body": w["body"]})
    for _ in range(2):
        offset, state = both.update(g, state, w)
        expected, reference_state = reference.update({"body": g["body"]}, reference_state, {"body": w["body"]})
    chex.assert_trees_all_close(offset, expected | {"head": np.zeros(2)}, rtol=1e-6)
