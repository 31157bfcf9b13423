"""Invalid numbers are refused when the object is made, by a `ValueError` that names the number and the remedy."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax

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
    "xsam.rho": sam_optax.xsam,
    "xsam.alpha": lambda x: sam_optax.xsam(alpha=x),
    "le_sam.sigma": sam_optax.le_sam,
    "le_sam.rho_max": lambda x: sam_optax.le_sam(rho_max=x),
    "unified_sam.rho": lambda x: sam_optax.unified_sam(rho=x),
    "sam_sps.rho": lambda x: sam_optax.sam_sps(rho=x),
    "sam_sps.max_rate": lambda x: sam_optax.sam_sps(max_rate=x),
    "sam_sps.weight_decay": lambda x: sam_optax.sam_sps(weight_decay=x),
    "bsam.learning_rate": lambda x: sam_optax.bsam(x, 10),
    "bsam.damping": lambda x: sam_optax.bsam(0.1, 10, damping=x),
    "bsam.prior_precision": lambda x: sam_optax.bsam(0.1, 10, prior_precision=x),
    "bsam_value_and_grad.rho": lambda x: sam_optax.bsam_value_and_grad(abs, x),
    "stable_sam.rho": lambda x: sam_optax.stable_sam(rho=x),
    "msam.rho": lambda x: sam_optax.msam(optax.sgd(0.1, momentum=0.9), rho=x),
    "gap_guided.alpha": sam_optax.gap_guided,
    "gap_guided_clean.alpha": sam_optax.gap_guided_clean,
}

PLAIN = (".eta", "friendly_sam.sigma")  # these arguments accept no schedule

FRACTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "friendly_sam.lam": (lambda x: sam_optax.friendly_sam(lam=x), "a number from 0 to 1"),
    "vasso.theta": (lambda x: sam_optax.vasso(theta=x), "a number from 0 to 1"),
    "unified_sam.lam": (lambda x: sam_optax.unified_sam(lam=x), "a number from 0 to 1"),
    "bernoulli.probability": (lambda x: sam_optax.bernoulli(x, jax.random.key(0)), "a number from 0 to 1"),
    "ae_sam.rate": (lambda x: sam_optax.ae_sam(0.0, x), "a number from 0 to 1"),
    "last.fraction": (lambda x: sam_optax.last(x, sam_optax.BatchPlan.parse("2x4"), 8), "a number from 0 to 1"),
    "track_noise.decay": (
        lambda x: sam_optax.track_noise(sam_optax.sam(), decay=x),
        "a number of at least 0 and below 1",
    ),
    "rate_for_growth.warmup_start": (
        lambda x: sam_optax.rate_for_growth(sam_optax.BatchPlan.parse("2x4"), 0.1, "none", warmup_start=x),
        "a number from 0 to 1",
    ),
    "sam_sps.lam": (lambda x: sam_optax.sam_sps(lam=x), "a number from 0 to 1"),
    "bsam.b1": (lambda x: sam_optax.bsam(0.1, 10, b1=x), "a number of at least 0 and below 1"),
    "bsam.b2": (lambda x: sam_optax.bsam(0.1, 10, b2=x), "a number of at least 0 and below 1"),
    "wsam.gamma": (lambda x: sam_optax.wsam(gamma=x), "a number of at least 0 and below 1"),
    "weighted.gamma": (sam_optax.weighted, "a number of at least 0 and below 1"),
    "wsam_decoupled.gamma": (
        lambda x: sam_optax.wsam_decoupled(optax.sgd(0.1), 0.1, gamma=x),
        "a number of at least 0 and below 1",
    ),
}

NUMBERS = [-0.1, float("nan"), float("inf"), float("-inf"), np.float32(-1.0), np.array(np.nan)]
STRANGERS = ["0.1", None, True, [0.1], np.ones(2), 1j, np.array(True)]


def refused(message: str) -> Any:
    return pytest.raises(ValueError, match=message)


@pytest.mark.parametrize("value", [1e39, np.float64(1e300), 2**130], ids=repr)
@pytest.mark.parametrize("case", FACTORIES)
def test_a_number_that_is_infinite_in_float32_is_refused(case, value):
    with refused(rf"^{case.partition('.')[2]} is {re.escape(repr(value))}, which is infinite in float32: give "):
        FACTORIES[case](value)


def test_an_integer_too_large_for_a_float_is_refused():
    with refused("give a finite number of at least 0"):
        sam_optax.sam(rho=10**400)


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
@pytest.mark.parametrize("case", FACTORIES)
def test_a_number_must_be_finite_and_not_negative(case, value):
    with refused(rf"^{case.partition('.')[2]} is {re.escape(repr(value))}: give a finite number of at least 0\.$"):
        FACTORIES[case](value)


OPTIONAL = {"le_sam.rho_max"}  # None means no limit
TREES = {"wsam_decoupled.learning_rate"}  # a list of rates is a tree that must match the parameters


@pytest.mark.parametrize("value", STRANGERS, ids=repr)
@pytest.mark.parametrize("case", FACTORIES)
def test_values_other_than_numbers_are_refused(case, value):
    if case in TREES and isinstance(value, list):
        with refused("^learning_rate has no rate for params at 'w': give a number or a schedule for each part"):
            FACTORIES[case](value).init({"w": jnp.ones(2)})
        return
    if case in OPTIONAL and value is None:
        FACTORIES[case](value)
        return
    with refused(rf"^{case.partition('.')[2]} is {re.escape(repr(value))}: give a number, or an Optax schedule"):
        FACTORIES[case](value)


@pytest.mark.parametrize("case", [case for case in FACTORIES if not case.endswith(PLAIN)])
def test_a_schedule_must_start_with_a_valid_number(case):
    name = case.partition(".")[2]
    with refused(rf"^{name}, a schedule, is .*-0\.5.* at its first step: give a finite number of at least 0\.$"):
        FACTORIES[case](optax.linear_schedule(-0.5, 1.0, 10))
    with refused(rf"^{name}, a schedule, is 'a' at its first step: give a number"):
        FACTORIES[case](lambda step: "a")


@pytest.mark.parametrize("case", [case for case in FACTORIES if case.endswith(PLAIN)])
def test_schedules_are_refused_for_constant_arguments(case):
    with refused(f"^{case.partition('.')[2]} is <function .*: give a number. It cannot follow a schedule"):
        FACTORIES[case](lambda step: 0.1)


@pytest.mark.parametrize("value", [0, 0.0, 1, np.float32(0.1), np.int64(1), np.array(0.1)], ids=repr)
@pytest.mark.parametrize("case", FACTORIES)
def test_every_kind_of_valid_number_is_accepted(case, value):
    made = FACTORIES[case](value)
    assert callable(getattr(made, "init", made))


@pytest.mark.parametrize("case", FACTORIES)
def test_traced_numbers_are_not_checked(case):
    made = []
    jax.eval_shape(lambda x: made.append(FACTORIES[case](x)), jnp.asarray(-1.0))
    assert callable(getattr(made[0], "init", made[0]))


@pytest.mark.parametrize("value", [-0.1, 1.1, 2, float("nan"), np.float32(-1.0)], ids=repr)
@pytest.mark.parametrize("case", FRACTIONS)
def test_a_fraction_outside_of_its_bounds_is_refused(case, value):
    make, wanted = FRACTIONS[case]
    with refused(rf"^{case.partition('.')[2]} is {re.escape(repr(value))}: give {wanted}\.$"):
        make(value)


@pytest.mark.parametrize("value", STRANGERS, ids=repr)
@pytest.mark.parametrize("case", FRACTIONS)
def test_a_fraction_that_is_no_number_is_refused(case, value):
    with refused(rf"^{case.partition('.')[2]} is {re.escape(repr(value))}: give a number, or an Optax schedule"):
        FRACTIONS[case][0](value)


@pytest.mark.parametrize("case", FRACTIONS)
def test_a_fraction_of_one_is_accepted_where_it_makes_sense(case):
    make, wanted = FRACTIONS[case]
    assert make(0) is not None
    if "below" in wanted:
        with refused(f"^{case.partition('.')[2]} is 1.0"):
            make(1.0)
    else:
        assert make(1.0) is not None
