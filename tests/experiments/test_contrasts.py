"""Planned contrasts: the best control, the paired t-test, Holm's adjustment, and the cells without a verdict."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats

from experiments import contrasts as program
from experiments import presets
from experiments.report.planned_contrasts import (
    Contrast,
    cells_of,
    contrast_rows,
    holm,
    outcome,
    read_contrasts,
    verdict,
)

PLANNED = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/contrasts.toml"))
CONTRAST = Contrast("Does growth help?", "sam-increasing", ("sam-constant", "sam-constant_first"))
FILE = """
[[contrast]]
question = "Does growth help?"
cell = "sam-increasing"
controls = ["sam-constant", "sam-constant_first"]
"""


def cells(train_error: float | None = 0.3, **errors: list[float]) -> Any:
    """Runs with these test errors in percent, seed by seed."""
    return cells_of(
        SimpleNamespace(
            folder=Path(f"study/{name.replace('__', '-')}-{seed}"),
            config=SimpleNamespace(seed=seed),
            result=SimpleNamespace(test_error=error / 100, train_error=train_error),
        )
        for name, found in errors.items()
        for seed, error in enumerate(found)
    )


ERRORS = {
    "sam__increasing": [60.0, 61.0, 62.5],
    "sam__constant": [66.0, 66.5, 67.0],
    "sam__constant_first": [63.0, 64.0, 66.0],
}


def test_the_control_is_the_best_one_and_the_test_is_paired() -> None:
    found = outcome(CONTRAST, cells(**ERRORS), 0.2)
    assert (found.control, found.seeds) == ("sam-constant_first", 3)
    paired = np.subtract(ERRORS["sam__increasing"], ERRORS["sam__constant_first"])
    expected: Any = stats.ttest_rel(ERRORS["sam__increasing"], ERRORS["sam__constant_first"])
    assert found.difference == pytest.approx(paired.mean())
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 2) * paired.std(ddof=1) / 3**0.5)


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_monotone_and_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.asarray(adjusted)[order]) >= 0)
    for p_value, found in zip(p_values, adjusted, strict=True):
        assert p_value <= found <= min(1, len(p_values) * p_value) + 1e-12 or found == max(adjusted)
    assert adjusted[order[0]] == pytest.approx(min(1, len(p_values) * p_values[order[0]]))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(
    ("changed", "train_error", "expected"),
    [
        ({}, 0.3, "lower error"),
        ({"sam__increasing": [70.0, 71.5, 73.0]}, 0.3, "higher error"),
        ({"sam__increasing": [60.0, 66.0, 65.0]}, 0.3, "not shown"),
        ({"sam__increasing": [62.0, 63.0, 65.0]}, 0.3, "not shown"),  # the differences are equal: there is no spread
        ({name: errors[:2] for name, errors in ERRORS.items()}, 0.3, "no verdict: 2 of 3 seeds"),
        ({}, 0.9, "no verdict: sam-increasing and sam-constant_first has not learned"),
        ({}, None, "no verdict: sam-increasing and sam-constant_first has not learned"),
    ],
)
def test_verdicts(changed: dict[str, list[float]], train_error: float | None, expected: str) -> None:
    found = outcome(CONTRAST, cells(train_error, **ERRORS | changed), 0.2)
    assert verdict(found, holm([found.p_value])[0]) == expected


def test_a_table_has_a_row_for_each_contrast() -> None:
    [_, row] = contrast_rows([outcome(CONTRAST, cells(**ERRORS), 0.2)])
    assert row[:5] == ("Does growth help?", "sam-increasing", "sam-constant_first", "3", "−3.17")
    assert row[-1] == "lower error"
    [_, row] = contrast_rows([outcome(CONTRAST, cells(**{name: errors[:2] for name, errors in ERRORS.items()}), 0.2)])
    assert row[5:] == ("–", "–", "no verdict: 2 of 3 seeds")


def test_a_cell_without_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="the study has no run of sam-constant_first: run it first"):
        outcome(CONTRAST, cells(sam__increasing=[1.0], sam__constant=[2.0]), 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no contrasts"),
        ("", "has 0 contrasts: give from 1 to 4"),
        (FILE * 5, "has 5 contrasts: give from 1 to 4"),
        ("[[contrast]]\nquestion = 'why'", "needs question, cell and a list of controls"),
        ("not toml", "holds no contrasts"),
    ],
)
def test_a_file_without_contrasts_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "contrasts.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_contrasts(path)


def test_the_program_prints_and_writes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "contrasts.toml").write_text(FILE)
    runs = [run for by_seed in cells(**ERRORS).values() for run in by_seed.values()]
    monkeypatch.setattr(program, "find_runs", lambda folders: runs)
    words = ["study", str(tmp_path / "contrasts.toml"), "--output", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["contrasts", *words])
    program.main()
    assert "−3.17" in capsys.readouterr().out
    text = (tmp_path / "table.md").read_text()
    assert "| Does growth help? | sam-increasing | sam-constant_first | 3 | −3.17 |" in text
    assert "lower error" in text


@pytest.mark.parametrize("path", PLANNED, ids=[path.parent.name for path in PLANNED])
def test_the_contrasts_of_a_row_compare_cells_that_it_has(path: Path) -> None:
    cells = {cell.folder.name.removesuffix("-0") for cell in presets.load(path.parent.name).study.cells()}
    for contrast in read_contrasts(path):
        assert {contrast.cell, *contrast.controls} <= cells
