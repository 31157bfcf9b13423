"""Bad arguments end in a `ValueError` that names the argument and the remedy."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from tests import helpers, methods

FACTORIES = {
    "sam.rho": lambda x: sam_optax.sam(rho=x),
    "asam.rho": lambda x: sam_optax.asam(rho=x),
    "asam.eta": lambda x: sam_optax.asam(eta=x),
    "gsam.rho": lambda x: sam_optax.gsam(rho=x),
    "gsam.alpha": lambda x: sam_optax.gsam(alpha=x),
    "clean.alpha": lambda x: sam_optax.gsam(alpha=x, minimize="clean"),
    "normalized_ascent.rho": sam_optax.normalized_ascent,
    "adaptive_ascent.rho": sam_optax.adaptive_ascent,
    "adaptive_ascent.eta": lambda x: sam_optax.adaptive_ascent(0.5, x),
    "ported_asam.rho": lambda x: sam_optax.ported_asam(rho=x),
    "friendly_sam.rho": lambda x: sam_optax.friendly_sam(rho=x),
    "friendly_sam.sigma": lambda x: sam_optax.friendly_sam(sigma=x),
    "vasso.rho": lambda x: sam_optax.vasso(rho=x),
    "look_sam.rho": lambda x: sam_optax.look_sam(rho=x),
    "look_sam.alpha": lambda x: sam_optax.look_sam(alpha=x),
    "wsam.rho": lambda x: sam_optax.wsam(rho=x),
    "wsam_decoupled.rho": lambda x: sam_optax.wsam_decoupled(optax.sgd(0.1), 0.1, rho=x),
    "wsam_decoupled.learning_rate": lambda x: sam_optax.wsam_decoupled(optax.sgd(0.1), learning_rate=x),
    "unified_sam.rho": lambda x: sam_optax.unified_sam(rho=x),
    "stable_sam.rho": lambda x: sam_optax.stable_sam(rho=x),
    "msam.rho": lambda x: sam_optax.msam(optax.sgd(0.1, momentum=0.9), rho=x),
    "gap_guided.alpha": sam_optax.gap_guided,
    "gap_guided_clean.alpha": sam_optax.gap_guided_clean,
}

PLAIN = (".eta", ".sigma")  # these follow no schedule

FRACTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "friendly_sam.lam": (lambda x: sam_optax.friendly_sam(lam=x), "a number from 0 to 1"),
    "vasso.theta": (lambda x: sam_optax.vasso(theta=x), "a number from 0 to 1"),
    "unified_sam.lam": (lambda x: sam_optax.unified_sam(lam=x), "a number from 0 to 1"),
    "bernoulli.probability": (lambda x: sam_optax.bernoulli(x, jax.random.key(0)), "a number from 0 to 1"),
    "ae_sam.rate": (lambda x: sam_optax.ae_sam(0.0, x), "a number from 0 to 1"),
    "last.fraction": (lambda x: sam_optax.last(x, sam_optax.BatchPlan.parse("2x4"), 8), "a number from 0 to 1"),
    "wsam.gamma": (lambda x: sam_optax.wsam(gamma=x), "a number of at least 0 and below 1"),
    "weighted.gamma": (sam_optax.weighted, "a number of at least 0 and below 1"),
    "wsam_decoupled.gamma": (
        lambda x: sam_optax.wsam_decoupled(optax.sgd(0.1), 0.1, gamma=x),
        "a number of at least 0 and below 1",
    ),
}

NUMBERS = [-0.1, float("nan"), float("inf"), float("-inf"), np.float32(-1.0), np.array(np.nan)]
STRANGERS = ["0.1", None, True, [0.1], np.ones(2), 1j, np.array(True)]


def trees_of(*names: str) -> Any:
    return dict.fromkeys(names, jnp.ones(2))


def update(tx: optax.GradientTransformation, **call: Any) -> Any:
    """One update with everything right but what `call` replaces."""
    right = {"updates": trees_of("a", "b"), "params": trees_of("a", "b"), "grad_fn": lambda params: params}
    call = right | call
    return optax.with_extra_args_support(tx).update(
        call.pop("updates"), tx.init(trees_of("a", "b")), call.pop("params"), **call
    )


def refused(message: str) -> Any:
    return pytest.raises(ValueError, match=message)


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
@pytest.mark.parametrize("case", FACTORIES)
def test_a_number_must_be_finite_and_not_negative(case, value):
    with refused(rf"^{case.partition('.')[2]} is {re.escape(repr(value))}: give a finite number of at least 0\.$"):
        FACTORIES[case](value)


@pytest.mark.parametrize("value", STRANGERS, ids=repr)
@pytest.mark.parametrize("case", FACTORIES)
def test_what_is_no_number_is_refused(case, value):
    with refused(rf"^{case.partition('.')[2]} is {re.escape(repr(value))}: give a number, or an Optax schedule"):
        FACTORIES[case](value)


@pytest.mark.parametrize("case", [case for case in FACTORIES if not case.endswith(PLAIN)])
def test_a_schedule_must_start_with_a_good_number(case):
    name = case.partition(".")[2]
    with refused(rf"^{name}, a schedule, is .*-0\.5.* at its first step: give a finite number of at least 0\.$"):
        FACTORIES[case](optax.linear_schedule(-0.5, 1.0, 10))
    with refused(rf"^{name}, a schedule, is 'a' at its first step: give a number"):
        FACTORIES[case](lambda step: "a")


@pytest.mark.parametrize("case", [case for case in FACTORIES if case.endswith(PLAIN)])
def test_what_follows_no_schedule_refuses_one(case):
    with refused(f"^{case.partition('.')[2]} is <function .*: give a number, it follows no schedule"):
        FACTORIES[case](lambda step: 0.1)


@pytest.mark.parametrize("value", [0, 0.0, 1, np.float32(0.1), np.int64(1), np.array(0.1)], ids=repr)
@pytest.mark.parametrize("case", FACTORIES)
def test_every_kind_of_good_number_is_taken(case, value):
    assert callable(getattr(FACTORIES[case](value), "init", None))


@pytest.mark.parametrize("case", FACTORIES)
def test_traced_numbers_pass_unchecked(case):
    made = []
    jax.eval_shape(lambda x: made.append(FACTORIES[case](x)), jnp.asarray(-1.0))
    assert callable(made[0].init)


@pytest.mark.parametrize("value", [-0.1, 1.1, 2, float("nan"), np.float32(-1.0)], ids=repr)
@pytest.mark.parametrize("case", FRACTIONS)
def test_a_share_lies_between_its_bounds(case, value):
    make, wanted = FRACTIONS[case]
    with refused(rf"^{case.partition('.')[2]} is {re.escape(repr(value))}: give {wanted}\.$"):
        make(value)


@pytest.mark.parametrize("value", STRANGERS, ids=repr)
@pytest.mark.parametrize("case", FRACTIONS)
def test_a_share_is_a_number(case, value):
    with refused(rf"^{case.partition('.')[2]} is {re.escape(repr(value))}: give a number, or an Optax schedule"):
        FRACTIONS[case][0](value)


@pytest.mark.parametrize("case", FRACTIONS)
def test_a_share_of_one_is_taken_where_it_makes_sense(case):
    make, wanted = FRACTIONS[case]
    assert make(0) is not None
    if "below" in wanted:
        with refused("gamma is 1.0"):
            make(1.0)
    else:
        assert make(1.0) is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sam_optax.after(-1), r"^step is -1: give an integer of at least 0"),
        (lambda: sam_optax.after(1.5), r"^step is 1.5: give an integer of at least 0"),
        (lambda: sam_optax.look_sam(k=0), r"^k is 0: give a positive integer"),
        (lambda: sam_optax.bernoulli(0.5, 3), r"^key is 3: give one JAX random key"),
        (
            lambda: sam_optax.bernoulli(0.5, jax.random.split(jax.random.key(0))),
            r"(?s)^key is .*: give one JAX random key",
        ),
        (lambda: sam_optax.ae_sam("1"), r"^threshold is '1': give a number"),
        (lambda: sam_optax.ae_sam(float("inf")), r"^threshold is inf: give a finite number\."),
        (lambda: sam_optax.msam(0.1), r"^base is 0.1: give an optax.GradientTransformation"),
        (lambda: sam_optax.msam(optax.sgd(0.1, 0.9), direction="mu"), r"^direction is 'mu': give a function"),
        (lambda: sam_optax.wsam_decoupled(None, 0.1), r"^base is None: give an optax.GradientTransformation"),
        (lambda: sam_optax.skip_nonfinite(None), r"^tx is None: give an optax.GradientTransformation"),
        (lambda: sam_optax.average_over(None), r"^axis_name is None: give the name"),
        (lambda: sam_optax.average_over("i", 1), r"^method is 1: give an optax.GradientTransformation"),
        (lambda: sam_optax.sharpness_aware_grad(abs, None), r"^method is None: give an optax.GradientTransformation"),
        (lambda: sam_optax.sharpness_aware_grad(abs, sam_optax.sam(), m=0), r"^m is 0: give a positive integer"),
        (lambda: sam_optax.sharpness_aware_grad(None, sam_optax.sam()), r"^loss_fn is None: give a function"),
        (lambda: sam_optax.value_and_grad(abs, micro_batches=0), r"^micro_batches is 0: give a positive integer"),
        (lambda: sam_optax.value_and_grad(abs, loss_scale=0.0), r"^loss_scale is 0.0: give a positive number"),
        (lambda: sam_optax.value_and_grad(abs, loss_scale=-2.0), r"^loss_scale is -2.0: give a finite number"),
        (lambda: sam_optax.value_and_grad(abs, second_pass_args=1), r"^second_pass_args is 1: give a function"),
        (lambda: sam_optax.functional_value_and_grad(None, abs), r"^model_fn is None: give a function"),
        (lambda: sam_optax.functional_value_and_grad(abs, None), r"^logits_loss is None: give a function"),
    ],
)
def test_a_bad_argument_is_refused_when_the_object_is_made(make, message):
    with refused(message):
        make()


@pytest.mark.parametrize("minimize", ["Clean", "", None])
def test_gsam_minimizes_one_of_two_losses(minimize):
    with refused(rf"^minimize is {minimize!r}: give one of 'perturbed', 'clean'\.$"):
        sam_optax.gsam(minimize=minimize)


MASKED: dict[str, Callable[[Any], Any]] = {
    "mask": lambda mask: sam_optax.sam(mask=mask),
    "exempt": lambda mask: sam_optax.asam(exempt=mask),
}


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("leaf", [1, "yes", 0.5, np.ones(2)], ids=repr)
def test_a_mask_holds_bools(name, leaf):
    with refused(rf"^{name} has {re.escape(repr(leaf))} where a bool is expected: give a tree of bools"):
        MASKED[name]({"a": True, "b": leaf})
    with refused(rf"^{name} has {re.escape(repr(leaf))} where a bool is expected: give a tree of bools"):
        update(MASKED[name](lambda params: {"a": True, "b": leaf}))


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("mask", [{"a": True}, {"a": True, "c": True}, True, [True, False]], ids=repr)
def test_a_mask_has_the_leaves_of_the_parameters(name, mask):
    for given in (mask, lambda params: mask):
        with refused(rf"^{name} has leaves at .*, and params at \['a', 'b'\]: give one bool a leaf"):
            update(MASKED[name](given))


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_that_was_injected_as_if_it_were_a_schedule_is_refused_with_the_remedy(name):
    factory = {"mask": sam_optax.sam, "exempt": sam_optax.asam}[name]
    tx = optax.inject_hyperparams(factory)(rho=0.1, **{name: sam_optax.biases})
    with refused(rf"^{name} .* static_args"):
        update(tx)


@methods.every_method
def test_a_second_pass_needs_its_function(name):
    tx, params = methods.METHODS[name](rho=0.1), helpers.small_params()
    with refused(r"^grad_fn is missing: call update\(.*grad_fn=grad_fn\).*value_and_grad returns, or perturb=False"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("grad_fn", [0.5, {"a": 1.0}])
def test_a_second_pass_is_a_function(grad_fn):
    with refused(rf"^grad_fn is {re.escape(repr(grad_fn))}: give a function from parameters to their gradient"):
        update(sam_optax.sam(), grad_fn=grad_fn)


@methods.every_method
def test_an_update_needs_the_parameters(name):
    tx, params = methods.METHODS[name](rho=0.1), helpers.small_params()
    with refused(r"^params is missing: call update\(grads, state, params, grad_fn=grad_fn\)\.$"):
        tx.update(params, tx.init(params), grad_fn=lambda params: params)


def test_an_adaptive_offset_needs_the_parameters():
    ascent = sam_optax.adaptive_ascent()
    with refused("adaptive_ascent needs params: call update"):
        ascent.update(jnp.ones(2), ascent.init(jnp.ones(2)))


@pytest.mark.parametrize("perturb", [True, None])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda params: (params, 0.0), "has not the structure of params"),
        (lambda params: {"a": params["a"]}, "has not the structure of params"),
        (lambda params: None, "has not the structure of params"),
        (lambda params: {"a": params["a"], "b": jnp.ones(3)}, r"has shape \(3,\) at 'b', where params has \(2,\)"),
    ],
)
def test_the_second_pass_returns_a_gradient_and_nothing_else(wrong, message, perturb):
    with refused(rf"^What grad_fn returned {message}.*it maps parameters to their gradient, and nothing else"):
        update(sam_optax.sam(when=sam_optax.every(2)), grad_fn=wrong, perturb=perturb)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"a": jnp.ones(2)}, "has not the structure of params"),
        ([jnp.ones(2), jnp.ones(2)], "has not the structure of params"),
        ({"a": jnp.ones(2), "b": jnp.ones(())}, r"has shape \(\) at 'b', where params has \(2,\)"),
    ],
    ids=["leaf_missing", "list", "shape"],
)
def test_the_updates_are_a_gradient_of_these_parameters(wrong, message):
    for perturb in (True, False):
        with refused(rf"^updates {message}.*give the gradient with respect to these parameters"):
            update(sam_optax.sam(), updates=wrong, perturb=perturb)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sam: optax.masked(sam, {"a": True, "b": False}),
        lambda sam: optax.multi_transform({"x": sam, "y": optax.sgd(0.1)}, {"a": "x", "b": "y"}),
    ],
    ids=["masked", "multi_transform"],
)
def test_wrappers_that_hide_parameters_are_refused_for_the_mask(wrap):
    with refused(r"^params holds optax\.MaskedNode: .*by its argument mask=\.$"):
        update(wrap(sam_optax.sam()))


@pytest.mark.parametrize("dtype", ["complex64", "int32", "bool"])
def test_parameters_that_nothing_can_be_added_to_are_refused_by_their_path(dtype):
    params = {"dense": {"kernel": jnp.ones(2), "count": jnp.ones(2, dtype)}}
    message = rf"^params has a leaf of dtype {dtype} at 'dense/count': only real floating leaves .* Keep the others"
    with refused(message):
        sam_optax.sam().init(params)
    with refused(message):
        sam_optax.sam().update(params, sam_optax.sam().init(trees_of("a")), params, grad_fn=lambda params: params)


@pytest.mark.parametrize("leaf", [jnp.tanh, "relu", object()], ids=["function", "text", "object"])
def test_parameters_that_are_no_arrays_are_refused_by_their_path(leaf):
    with refused(r"^params has .* at 'dense/activation', where an array is expected: keep what is no array apart"):
        sam_optax.sam().init({"dense": {"kernel": jnp.ones(2), "activation": leaf}})


@pytest.mark.parametrize("perturb", [1, "yes", np.ones(1)], ids=repr)
def test_the_decision_is_a_bool_or_none(perturb):
    with refused(rf"^perturb is {re.escape(repr(perturb))}: give True, False or None"):
        update(sam_optax.sam(), perturb=perturb)


def test_a_traced_decision_is_refused_for_a_static_one():
    with refused('^perturb is .*: give True, False or None, and name it in .*static_argnames="perturb"'):
        jax.jit(lambda perturb: update(sam_optax.sam(), perturb=perturb))(True)


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "2", None])
def test_a_policy_counts_in_positive_integers(k):
    with refused(rf"^k is {k!r}: give a positive integer, the steps from one second pass to the next\. .*static_args"):
        sam_optax.every(k)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"perturbation": 0.1}, r"perturbation is 0\.1: give an optax\.GradientTransformation"),
        ({"combiner": sam_optax.perturbed_gradient}, r"combiner is <function .*: give a sam_optax\.Combiner"),
        ({"when": sam_optax.always}, r"when is <function .*: give a sam_optax\.Policy"),
        ({"when": 2}, r"when is 2: give a sam_optax\.Policy"),
    ],
)
def test_the_three_parts_are_of_their_kinds(arguments, message):
    right = {"perturbation": sam_optax.normalized_ascent(), "combiner": sam_optax.perturbed_gradient()}
    with refused(f"^{message}"):
        sam_optax.sharpness_aware(**(right | arguments))


def test_a_path_predicate_is_a_function():
    with refused("^predicate is 'bias': give a function from a leaf's path"):
        sam_optax.by_path("bias")
