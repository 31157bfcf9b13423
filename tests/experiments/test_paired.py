"""Differences between groups, paired by seed, and the cases in which they allow no conclusion."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.report.paired import TEST_ERROR, direct_pairs
from tests.experiments.written_runs import ERRORS, only_study, write_run, write_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path)


def test_a_paired_difference_equals_that_of_a_paired_t_test(folder: Path) -> None:
    groups = {group.name: group for group in only_study(folder).groups}
    found = TEST_ERROR.compare(groups["GSAM, increasing"], groups["SGD, constant"])
    errors = [100 * np.asarray(ERRORS[key]) for key in (("gsam", "increasing"), ("sgd", "constant"))]
    interval = stats.ttest_rel(*errors).confidence_interval(0.95)
    assert found.mean == pytest.approx(errors[0].mean() - errors[1].mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.seeds == 3


def test_a_conclusion_needs_an_interval_that_excludes_zero(folder: Path) -> None:
    answers = {(p.first.name, p.second.name): p.answer.value for p in direct_pairs(only_study(folder).groups)}
    assert answers == {
        ("SGD, increasing", "SGD, constant"): "✓",
        ("GSAM, increasing", "GSAM, constant"): "✓",
        ("GSAM, constant", "SGD, constant"): "?",
        ("GSAM, increasing", "SGD, increasing"): "✓",
    }


@pytest.mark.parametrize(
    ("first", "second", "loss", "obstacle"),
    [
        ((0.12, 0.25, 0.31), (0.1, 0.2, 0.3), 0.5, ""),
        ((0.2, 0.3, 0.4), (0.1, 0.2, 0.3), 0.5, "no spread"),
        ((0.2, 0.301, 0.4), (0.1, 0.2, 0.3), None, "3 of the runs diverged"),
        ((0.12, 0.25), (0.1, 0.2), 0.5, "fewer than 3 seeds"),
        ((0.12,), (0.1,), 0.5, "fewer than 3 seeds"),
    ],
)
def test_reasons_against_a_conclusion(
    tmp_path: Path, first: tuple[float, ...], second: tuple[float, ...], loss: float | None, obstacle: str
) -> None:
    for seed, (one, other) in enumerate(zip(first, second, strict=True)):
        write_run(tmp_path / f"sam{seed}", one, loss, method="sam", batch_plan="4x128", seed=seed)
        write_run(tmp_path / f"sgd{seed}", other, method="sgd", batch_plan="4x128", seed=seed)
    (pair,) = direct_pairs(only_study(tmp_path).groups)
    assert (pair.obstacle, pair.answer.value) == (obstacle, "?")
    assert np.isfinite(pair.low) == (len(first) > 2)


def test_no_conclusion_between_cells_that_have_not_learned(tmp_path: Path) -> None:
    for seed in range(3):
        for method, error in (("sgd", 0.9), ("sam", 0.95)):
            own = error + 0.001 * seed ** (1 if method == "sgd" else 2)
            path = write_run(tmp_path / f"{method}{seed}", own, method=method, seed=seed) / "result.json"
            path.write_text(path.read_text().replace('"train_error": 0.1', f'"train_error": {0.85 if seed else 0.69}'))
    (pair,) = direct_pairs(only_study(tmp_path).groups)
    assert (pair.first.accuracy, pair.obstacle) == (pytest.approx(0.2, abs=0.01), "")
    path.write_text(path.read_text().replace("0.85", "0.9"))
    (pair,) = direct_pairs(only_study(tmp_path).groups)
    assert (pair.obstacle, pair.answer.value) == ("training accuracy below 20%", "?")


def test_runs_are_paired_by_seed_and_not_by_order(tmp_path: Path) -> None:
    for seed, error in ((0, 0.1), (1, 0.2), (2, 0.3)):
        write_run(tmp_path / f"sgd{seed}", error, method="sgd", batch_plan="4x128", seed=seed)
    for seed, error in ((1, 0.21), (2, 0.31), (3, 0.9)):
        write_run(tmp_path / f"sam{seed}", error, method="sam", batch_plan="4x128", seed=seed)
    (pair,) = direct_pairs(only_study(tmp_path).groups)
    assert (pair.seeds, pair.mean) == (2, pytest.approx(1.0))
