"""Planned contrasts: the best control, the paired t-test, Holm's adjustment, and the cells without a verdict."""

import re
import sys
from itertools import product
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats

from experiments import contrasts as program
from experiments import presets
from experiments.config import Config
from experiments.report.groups import studies
from experiments.report.planned_contrasts import (
    Cells,
    Contrast,
    Outcome,
    cells_of,
    contrast_sentence,
    contrast_table,
    holm,
    outcomes,
    read_contrasts,
)
from experiments.report.runs_table import table_of
from experiments.runner.finished_runs import Run, find_runs
from experiments.training.records import Result
from tests.experiments.written_runs import write_run

PLANNED = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/contrasts.toml"))
CONTRAST = Contrast("Does growth help?", "sam-increasing", ("sam-constant", "sam-constant_first"))
MISSING = Contrast("Does it help SGD?", "sgd-increasing", ("sam-constant",))
FILE = """
[[contrast]]
question = "Does growth help?"
cell = "sam-increasing"
controls = ["sam-constant", "sam-constant_first"]
"""


def runs_with(train_error: float | None = 0.3, **errors: list[float]) -> list[Run]:
    """Runs with these test errors in percent, seed by seed."""
    loss = None if train_error is None else 1.0
    costs: dict[str, Any] = {"updates": 16, "gradient_evaluations": 32, "seconds": 1.0}
    return [
        Run(
            Path(f"study/{name.replace('__', '-')}-{seed}"),
            Config.from_settings(method="sam", batch_plan="4x128", seed=seed),
            Result(train_loss=loss, train_error=train_error, test_loss=1.0, test_error=error / 100, **costs),
            [],
        )
        for name, found in errors.items()
        for seed, error in enumerate(found)
    ]


def cells(train_error: float | None = 0.3, **errors: list[float]) -> Cells:
    return cells_of(table_of(runs_with(train_error, **errors)))


def outcome(found: Cells, learned: float = 0.2) -> Outcome:
    """The outcome of the contrast alone, whose p-value is not adjusted."""
    return outcomes([CONTRAST], found, learned)[0]


ERRORS = {
    "sam__increasing": [60.0, 61.0, 62.5],
    "sam__constant": [66.0, 66.5, 67.0],
    "sam__constant_first": [63.0, 64.0, 66.0],
}


def test_the_control_is_the_best_one_and_the_test_is_paired() -> None:
    found = outcome(cells(**ERRORS))
    assert (found.found.second.name, found.found.seeds) == ("sam-constant_first", 3)
    paired = np.subtract(ERRORS["sam__increasing"], ERRORS["sam__constant_first"])
    expected: Any = stats.ttest_rel(ERRORS["sam__increasing"], ERRORS["sam__constant_first"])
    assert found.found.mean == pytest.approx(paired.mean())
    assert found.p_value == pytest.approx(expected.pvalue)
    half_width = stats.t.ppf(0.975, 2) * paired.std(ddof=1) / 3**0.5
    assert found.found.high == pytest.approx(paired.mean() + half_width)


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
        ({"sam__increasing": [60.0, 66.0, 65.0]}, 0.3, "inconclusive"),
        ({"sam__increasing": [62.0, 63.0, 65.0]}, 0.3, "no verdict: no spread"),  # the differences are equal
        ({name: errors[:2] for name, errors in ERRORS.items()}, 0.3, "no verdict: fewer than 3 seeds"),
        ({}, 0.9, "no verdict: training accuracy below 20%"),
        ({}, None, "no verdict: 6 of the runs diverged"),
    ],
)
def test_verdicts(changed: dict[str, list[float]], train_error: float | None, expected: str) -> None:
    assert outcome(cells(train_error, **ERRORS | changed)).verdict == expected


def test_a_table_has_a_row_for_each_contrast() -> None:
    [_, row] = contrast_table([outcome(cells(**ERRORS))]).rows
    assert row[:5] == (
        "Does growth help?",
        "sam-increasing",
        "sam-constant_first (the best of 2 controls)",
        "3",
        "−3.17",
    )
    assert row[-1] == "lower error"
    few = cells(**{name: errors[:2] for name, errors in ERRORS.items()})
    [_, row] = contrast_table([outcome(few)]).rows
    assert row[5:] == ("–", "–", "no verdict: fewer than 3 seeds")


def test_an_incomplete_contrast_has_no_verdict_but_counts_in_the_adjustment() -> None:
    found = outcomes([CONTRAST, MISSING], cells(**ERRORS))
    assert found[1].verdict == "no verdict: a cell was not run, or the cells have no seed in common"
    rows = contrast_table(found).rows
    single = contrast_table([outcome(cells(**ERRORS))]).rows
    assert float(rows[1][6]) == pytest.approx(2 * float(single[1][6]), rel=0.01)
    assert rows[2][2:7] == ("–",) * 5


def test_a_contrast_without_a_verdict_has_no_p_value() -> None:
    equal = outcome(cells(**ERRORS | {"sam__increasing": [62.0, 63.0, 65.0]}))  # the differences have no spread
    assert contrast_table([equal]).rows[1][6] == "–"
    assert "adjusted p" not in contrast_sentence(equal)


def test_cells_are_named_as_the_studies_name_them_whatever_their_folders(tmp_path: Path) -> None:
    for seed, (name, plan) in product(range(3), (("constant", "4x128"), ("increasing", "2x64,2x256"))):
        write_run(tmp_path / f"s{seed}" / name, 0.1 * (seed + 1), method="sgd", batch_plan=plan, seed=seed)
    table = table_of(find_runs(sorted(tmp_path.glob("s?"))))
    named = {name: cell.name for name, cell in cells_of(table, studies(table)).items()}
    assert named == {"constant": "SGD, constant", "increasing": "SGD, increasing (+B)"}


def test_the_error_limit_of_a_learned_cell_can_be_chosen() -> None:
    assert outcome(cells(0.6, **ERRORS), 0.5).verdict == "no verdict: training accuracy below 50%"
    assert outcome(cells(0.6, **ERRORS), 0.3).verdict == "lower error"


def test_the_summary_states_the_contrasts_in_sentences() -> None:
    found = outcomes([CONTRAST, MISSING], cells(**ERRORS))
    assert list(map(contrast_sentence, found)) == [
        (
            "Planned: Does growth help? Lower error, −3.17 points (−3.88 to −2.45; adjusted p 0.00552; 3 seeds): "
            "sam-increasing − sam-constant_first (the best of 2 controls)."
        ),
        "Planned: Does it help SGD? No verdict: a cell was not run, or the cells have no seed in common.",
    ]


def test_the_sentence_of_a_contrast_with_one_seed_has_no_interval() -> None:
    single = cells(**{name: errors[:1] for name, errors in ERRORS.items()})
    sentence = contrast_sentence(outcome(single))
    assert re.fullmatch(
        r"Planned: Does growth help\? No verdict: fewer than 3 seeds, −\d\.\d\d points \(1 seed\): .*\.", sentence
    )


def test_runs_of_several_studies_are_refused() -> None:
    first, *_ = runs_with(sam__increasing=[60.0])
    again = first._replace(folder=Path("other") / first.folder.name)
    changed = first._replace(folder=Path("other/sam-increasing-1"), config=first.config.with_settings(seed=1, rho=0.1))
    for second in (again, changed):
        with pytest.raises(ValueError, match=r"^sam-increasing names runs of several studies: give the folder of one"):
            cells_of(table_of([first, second]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no contrasts"),
        ("", "has 0 contrasts: give from 1 to 4"),
        (FILE * 5, "has 5 contrasts: give from 1 to 4"),
        ("[[contrast]]\nquestion = 'why'", "needs question, cell and a list of controls"),
        ("[[contrast]]\nquestion = 'why'\ncell = 'a'\ncontrols = 'b'", "needs question, cell and a list of controls"),
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
    monkeypatch.setattr(program, "find_runs", lambda folders: runs_with(**ERRORS))
    words = ["study", str(tmp_path / "contrasts.toml"), "--output", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["contrasts", *words])
    program.main()
    assert "−3.17" in capsys.readouterr().out
    text = (tmp_path / "table.md").read_text()
    assert "| Does growth help? | sam-increasing | sam-constant_first (the best of 2 controls) | 3 | −3.17 |" in text
    assert "lower error" in text


@pytest.mark.parametrize("path", PLANNED, ids=[path.parent.name for path in PLANNED])
def test_the_contrasts_of_a_row_compare_its_own_cells(path: Path) -> None:
    cells = {cell.folder.name.removesuffix("-0") for cell in presets.load(path.parent.name).study.run_specs()}
    for contrast in read_contrasts(path):
        assert {contrast.cell, *contrast.controls} <= cells
