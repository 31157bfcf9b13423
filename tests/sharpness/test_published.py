"""Against the values of the published script, on a network with BatchNorm."""

import pytest

from sam_optax import sharpness
from tests.sharpness import published
from tests.sharpness.published import CASES, Case


def _name(case: Case) -> str:
    return f"{case.norm}-{'adaptive' if case.adaptive else 'plain'}-{case.rho:g}-{case.steps}"


def _ours(case: Case) -> float:
    settings = {"rho": case.rho, "norm": case.norm, "adaptive": case.adaptive, "steps": case.steps}
    return float(sharpness.worst_case(published.loss_fn, published.params(), published.batches(), **settings).sharpness)


@pytest.mark.parametrize("case", [case for case in CASES if not case.halvings], ids=_name)
def test_without_halvings_the_values_are_equal(case, x64):
    assert _ours(case) == pytest.approx(case.sharpness, rel=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if case.halvings], ids=_name)
def test_with_halvings_ours_finds_as_much(case, x64):
    # the script goes on from the last point and not from the best one, so it may find less
    assert _ours(case) >= (1 - 1e-4) * case.sharpness


def test_there_are_cases_of_both_kinds_and_of_every_ball():
    assert {case.halvings > 0 for case in CASES} == {True, False}
    assert {(case.norm, case.adaptive) for case in CASES} == {(n, a) for n in ("linf", "l2") for a in (True, False)}
