"""Differences between groups, seed by seed."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.report.paired import difference, differences
from experiments.report.study_tables import difference_rows
from tests.experiments.written_runs import ERRORS, only_study, write_run, write_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path)


def test_a_paired_difference_is_what_a_paired_t_test_says(folder: Path) -> None:
    groups = {group.name: group for group in only_study(folder).groups}
    one, other = groups["GSAM, increasing"], groups["SGD, constant"]
    found = difference(one, other)
    test = stats.ttest_rel(*(100 * np.asarray(ERRORS[key]) for key in (("gsam", "increasing"), ("sgd", "constant"))))
    interval = test.confidence_interval(0.95)
    assert found.mean == pytest.approx(
        100 * (np.mean(ERRORS["gsam", "increasing"]) - np.mean(ERRORS["sgd", "constant"]))
    )
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.seeds == 3


def test_a_difference_has_a_direction_only_where_its_interval_leaves_zero_out(folder: Path) -> None:
    pairs = differences(only_study(folder).groups)
    assert len(pairs) == 6
    assert {(pair.first.name, pair.second.name): pair.direction for pair in pairs if pair.is_direct} == {
        ("SGD, increasing", "SGD, constant"): "lower",
        ("GSAM, increasing", "GSAM, constant"): "lower",
        ("GSAM, constant", "SGD, constant"): "–",
        ("GSAM, increasing", "SGD, increasing"): "lower",
    }
    for pair, row in zip(pairs, difference_rows(pairs)[1:], strict=True):
        assert (row[-1] == "lower", row[-1] == "higher") == (pair.high < 0, pair.low > 0)
        assert pair.is_clear == (row[-1] != "–")


@pytest.mark.parametrize(
    ("errors", "loss", "verdict"),
    [((0.12, 0.25), 0.5, "–"), ((0.2, 0.3), 0.5, "no spread"), ((0.20, 0.301), None, "diverged: 2")],
)
def test_nothing_is_inferred_of_differences_that_are_all_alike_or_of_runs_that_diverged(
    tmp_path: Path, errors: tuple[float, ...], loss: float | None, verdict: str
) -> None:
    for seed, error in enumerate(errors):
        write_run(tmp_path / f"sgd{seed}", 0.1 + 0.1 * seed, method="sgd", batch_plan="4x128", seed=seed)
        write_run(tmp_path / f"sam{seed}", error, loss, method="sam", batch_plan="4x128", seed=seed)
    (pair,) = differences(only_study(tmp_path).groups)
    assert (pair.direction, pair.is_clear) == (verdict, False)


def test_pairs_are_made_by_seed_and_not_by_order(tmp_path: Path) -> None:
    for seed, error in ((0, 0.1), (1, 0.2), (2, 0.3)):
        write_run(tmp_path / f"sgd{seed}", error, method="sgd", batch_plan="4x128", seed=seed)
    for seed, error in ((1, 0.21), (2, 0.31), (3, 0.9)):
        write_run(tmp_path / f"sam{seed}", error, method="sam", batch_plan="4x128", seed=seed)
    (pair,) = differences(only_study(tmp_path).groups)
    assert (pair.seeds, pair.mean) == (2, pytest.approx(1.0))


def test_one_seed_makes_no_difference(tmp_path: Path) -> None:
    for method in ("sgd", "sam"):
        write_run(tmp_path / method, 0.1, method=method, batch_plan="4x128")
    assert differences(only_study(tmp_path).groups) == []
