"""Comparison with the values of the published script, on a network with BatchNorm."""

import pytest

from sam_optax import sharpness
from tests.sharpness import published
from tests.sharpness.published import CASES, Case


def _name(case: Case) -> str:
    return f"{case.norm}-{'adaptive' if case.adaptive else 'plain'}-{case.rho:g}-{case.steps}"


def _ours(case: Case) -> float:
    settings = {"rho": case.rho, "norm": case.norm, "adaptive": case.adaptive, "steps": case.steps}
    return float(sharpness.worst_case(published.loss_fn, published.params(), published.batches(), **settings).sharpness)


def _is_of_another_ascent(case: Case) -> bool:
    """Whether it is the adaptive ℓ2 ball, where the script stops short of the maximum and our ascent does not."""
    return case.norm == "l2" and case.adaptive


QUICK = [("linf", False, 0.01), ("linf", True, 0.01), ("l2", False, 0.1), ("l2", True, 0.1)]
"""One radius of each ball."""


def _rows(cases: list[Case]) -> pytest.MarkDecorator:
    """All cases: in `make test` the short ascents of one radius of each ball, and a long one of the box."""
    rows = []
    for case in cases:
        is_quick = case[:3] in QUICK and (case.steps == 3 or case[:2] == ("linf", False))
        rows.append(pytest.param(case, marks=[] if is_quick else pytest.mark.long, id=_name(case)))
    return pytest.mark.parametrize("case", rows)


ALIKE = [case for case in CASES if not _is_of_another_ascent(case)]


@_rows([case for case in ALIKE if not case.halvings])
def test_without_halvings_the_values_are_equal(case, x64):
    assert _ours(case) == pytest.approx(case.sharpness, rel=1e-12)


@_rows([case for case in ALIKE if case.halvings])
def test_with_halvings_the_values_are_close(case, x64):
    assert _ours(case) == pytest.approx(case.sharpness, rel=1e-3)


@_rows([case for case in CASES if _is_of_another_ascent(case)])
def test_in_the_adaptive_ball_our_ascent_finds_a_higher_loss(case, x64):
    assert case.sharpness < _ours(case) < 2 * case.sharpness


def test_every_ball_has_cases_with_and_without_halvings():
    kinds = {(case.norm, case.adaptive, case.halvings > 0) for case in ALIKE}
    assert kinds == {(*ball, halved) for ball in (("linf", False), ("linf", True), ("l2", False)) for halved in (0, 1)}
