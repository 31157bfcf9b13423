"""Invalid arguments raise a `ValueError` that names the argument and the remedy."""

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


def trees_of(*names: str) -> Any:
    return dict.fromkeys(names, jnp.ones(2))


def update(tx: optax.GradientTransformation, **call: Any) -> Any:
    """One update with valid arguments, except for those in `call`."""
    right = {"updates": trees_of("a", "b"), "params": trees_of("a", "b"), "grad_fn": lambda params: params}
    call = right | call
    return optax.with_extra_args_support(tx).update(
        call.pop("updates"), tx.init(trees_of("a", "b")), call.pop("params"), **call
    )


def refused(message: str) -> Any:
    return pytest.raises(ValueError, match=message)


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
        (lambda: sam_optax.value_and_grad(abs, loss_scale=0.0), r"^loss_scale is 0.0: give a finite number above 0"),
        (lambda: sam_optax.value_and_grad(abs, loss_scale=-2.0), r"^loss_scale is -2.0: give a finite number above 0"),
        (lambda: sam_optax.value_and_grad(abs, second_pass_args=1), r"^second_pass_args is 1: give a function"),
        (
            lambda: sam_optax.value_and_grad(abs, measure_noise=True),
            r"^measure_noise is True, and the batch has one part",
        ),
        (lambda: sam_optax.track_noise(0.1), r"^method is 0.1: give an optax.GradientTransformation"),
        (lambda: sam_optax.norm_test(1.0), r"^theta is 1.0: give a number above 0 and below 1"),
        (lambda: sam_optax.norm_test(0), r"^theta is 0: give a finite number above 0"),
        (lambda: sam_optax.noise_scale_rule(-1.0), r"^multiple is -1.0: give a finite number above 0"),
        (lambda: sam_optax.functional_value_and_grad(None, abs), r"^model_fn is None: give a function"),
        (lambda: sam_optax.functional_value_and_grad(abs, None), r"^logits_loss is None: give a function"),
    ],
)
def test_a_bad_argument_is_refused_when_the_object_is_made(make, message):
    with refused(message):
        make()


@pytest.mark.parametrize("minimize", ["Clean", "", None])
def test_gsam_refuses_an_unknown_loss_to_minimize(minimize):
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
        with refused(
            rf"^{name} does not have the leaves of params: give one bool for each leaf\. Its number of leaves is"
        ):
            update(MASKED[name](given))


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_injected_like_a_schedule_is_refused_with_the_remedy(name):
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
        (lambda params: (params, 0.0), "does not have the structure of params"),
        (lambda params: {"a": params["a"]}, "does not have the structure of params"),
        (lambda params: None, "does not have the structure of params"),
        (lambda params: {"a": params["a"], "b": jnp.ones(3)}, r"has shape \(3,\) at 'b', where params has \(2,\)"),
    ],
)
def test_the_second_pass_returns_a_gradient_and_nothing_else(wrong, message, perturb):
    with refused(rf"^What grad_fn returned {message}.*it maps parameters to their gradient, and nothing else"):
        update(sam_optax.sam(when=sam_optax.every(2)), grad_fn=wrong, perturb=perturb)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"a": jnp.ones(2)}, "does not have the structure of params"),
        ([jnp.ones(2), jnp.ones(2)], "does not have the structure of params"),
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
    with refused(r"^params holds optax\.MaskedNode: .*with its argument mask=\.$"):
        update(wrap(sam_optax.sam()))


@pytest.mark.parametrize("dtype", ["complex64", "int32", "bool"])
def test_parameters_without_addition_are_refused_by_their_path(dtype):
    params = {"dense": {"kernel": jnp.ones(2), "count": jnp.ones(2, dtype)}}
    message = rf"^params has a leaf of dtype {dtype} at 'dense/count': only real floating leaves .* Remove"
    with refused(message):
        sam_optax.sam().init(params)
    with refused(message):
        sam_optax.sam().update(params, sam_optax.sam().init(trees_of("a")), params, grad_fn=lambda params: params)


@pytest.mark.parametrize("leaf", [jnp.tanh, "relu", object()], ids=["function", "text", "object"])
def test_parameters_that_are_no_arrays_are_refused_by_their_path(leaf):
    with refused(r"^params has .* at 'dense/activation', where .*: remove the leaves that are not arrays"):
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
    with refused(rf"^k is {k!r}: give a positive integer, the number of steps from one second pass to the next\. "):
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
def test_parts_of_a_method_of_the_wrong_kind_are_refused(arguments, message):
    right = {"perturbation": sam_optax.normalized_ascent(), "combiner": sam_optax.perturbed_gradient()}
    with refused(f"^{message}"):
        sam_optax.sharpness_aware(**(right | arguments))


@pytest.mark.parametrize("grad_fn", [None, lambda params: params])
def test_tracking_noise_needs_a_second_pass_that_measures_it(grad_fn):
    with refused(r"^grad_fn is .*, which measures no noise: call .*value_and_grad\(\.\.\., measure_noise=True\)"):
        update(sam_optax.track_noise(sam_optax.sam()), grad_fn=grad_fn)


@pytest.mark.parametrize(("trackers", "found"), [((), 0), ((sam_optax.track_noise(), sam_optax.track_noise()), 2)])
def test_reading_the_noise_needs_exactly_one_tracker(trackers, found):
    state = optax.chain(*trackers, optax.sgd(0.1)).init(jnp.ones(2))
    with refused(rf"^opt_state holds {found} states of track_noise, expected exactly one"):
        sam_optax.measured_noise(state)


def test_measuring_noise_needs_more_than_one_shard():
    fn = sam_optax.sharpness_aware_grad(lambda w, x: jnp.mean(w * x), sam_optax.sam(), measure_noise=True)
    with refused("^small is 8, and large 8: the noise shows between a batch and its parts"):
        fn(jnp.ones(()), sam_optax.sam().init(jnp.ones(())), jnp.ones(8))


def test_a_path_predicate_is_a_function():
    with refused("^predicate is 'bias': give a function from a leaf's path"):
        sam_optax.by_path("bias")
