"""Planned contrasts: comparisons of cells that are written down before the first run, corrected for their number.

A contrast compares the test error of a cell with that of the best of its controls, seed by seed. Its p-value is that of
a two-sided paired t-test. The p-values of a file are adjusted by Holm's method (Holm, 1979, "A simple sequentially
rejective multiple test procedure"), which bounds the probability of any false conclusion.
"""

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from experiments.cli.tables import Rows
from experiments.report.paired import FEWEST_SEEDS, LEARNED
from experiments.report.tables import Table
from experiments.training.exceptions import reason_of

MOST = 4
"""The largest number of contrasts of a study."""

CAPTION = (
    "The difference is the test error of the cell minus that of its best control, after the last epoch, in percentage "
    "points, paired by seed. p is that of a paired t-test, adjusted for the number of contrasts by Holm's method. “Not "
    "shown” does not mean that there is no effect."
)
"""What a reader of the table has to know."""

_LEVEL = 0.05
_ROUNDING = 1e-9  # percentage points
_KEYS = {"question", "cell", "controls"}

Cells = dict[str, pd.DataFrame]
"""The rows of the table of runs, indexed by seed, by cell, `METHOD-STRATEGY` or `METHOD-STRATEGY-equal_updates`."""


@dataclass(frozen=True)
class Contrast:
    """A comparison of a cell with the best of its controls.

    Attributes:
      question: the question that it answers.
      cell: the name of the cell.
      controls: the names of the controls. The best one has the lowest mean test error.
    """

    question: str
    cell: str
    controls: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a contrast.

    Attributes:
      contrast: the contrast.
      control: the best of the controls.
      seeds: the number of seeds that both cells have.
      difference: the mean test error of the cell minus that of the control, in percentage points.
      half_width: half of the width of the 95% interval of the difference; NaN with fewer than three seeds.
      p_value: the p-value of the paired t-test; 1 with fewer than three seeds.
      not_learned: the cells whose training accuracy is below the limit; there is then no verdict.
    """

    contrast: Contrast
    control: str
    seeds: int
    difference: float
    half_width: float
    p_value: float
    not_learned: tuple[str, ...]


def read_contrasts(path: Path) -> list[Contrast]:
    """Reads the contrasts of a study from a TOML file with a table `[[contrast]]` for each.

    Raises:
      ValueError: If the file cannot be read, if a contrast has other keys than `question`, `cell` and `controls`, or if
        there are none or more than four.
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file).get("contrast", [])
        made = [_contrast(each) for each in found]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} holds no contrasts ({reason_of(error)}): give a file with tables [[contrast]]."
        ) from error
    if not 1 <= len(made) <= MOST:
        raise ValueError(f"{path} has {len(made)} contrasts: give from 1 to {MOST}.")
    return made


def _contrast(values: dict[str, Any]) -> Contrast:
    if set(values) != _KEYS or not values["controls"] or not all(isinstance(each, str) for each in values["controls"]):
        raise ValueError("a contrast needs question, cell and a list of controls")
    return Contrast(str(values["question"]), str(values["cell"]), tuple(values["controls"]))


def cells_of(table: pd.DataFrame) -> Cells:
    """Returns the runs of a study by the names of their cells, which their folders have."""
    known = table[table["folder"].notna()]
    names = [folder.removesuffix(f"-{seed}") for folder, seed in zip(known["folder"], known["seed"], strict=True)]
    return {str(name): rows.set_index("seed", drop=False) for name, rows in known.groupby(names, sort=False)}


def outcome(contrast: Contrast, cells: Cells, learned: float) -> Outcome:
    """Returns the outcome of a contrast.

    Args:
      contrast: the contrast.
      cells: the runs of the study.
      learned: the training accuracy of the last epoch, as a fraction, below which a cell gets no verdict.

    Raises:
      ValueError: If a cell has no runs, or if the cells share no seed.
    """
    names = (contrast.cell, *contrast.controls)
    if missing := [name for name in names if name not in cells]:
        raise ValueError(f"the study has no run of {missing[0]}: run it first.")
    seeds = sorted(set.intersection(*(set(cells[name].index) for name in names)))
    if not seeds:
        raise ValueError(f"the cells {', '.join(names)} share no seed: run them with the same seeds.")
    errors = {name: 100 * cells[name].loc[seeds, "test_error"] for name in names}
    control = min(contrast.controls, key=lambda name: errors[name].mean())
    paired = (errors[contrast.cell] - errors[control]).to_list()
    half, p_value = _test(paired)
    below = tuple(name for name in (contrast.cell, control) if _accuracy(cells[name], seeds) < learned)
    return Outcome(contrast, control, len(seeds), sum(paired) / len(paired), half, p_value, below)


def _test(paired: Sequence[float]) -> tuple[float, float]:
    """Returns half of the width of the 95% interval of the mean, and the p-value of the t-test.

    With fewer than three differences, or equal ones, nothing can be inferred: the p-value is 1.
    """
    if len(paired) < FEWEST_SEEDS:
        return math.nan, 1.0
    if max(paired) - min(paired) < _ROUNDING:
        return 0.0, 1.0
    found: Any = stats.ttest_1samp(paired, 0.0)
    interval = found.confidence_interval(1 - _LEVEL)
    return float(interval.high - interval.low) / 2, float(found.pvalue)


def _accuracy(runs: pd.DataFrame, seeds: Sequence[int]) -> float:
    """Returns the mean training accuracy in the last epoch; a run that diverged has learned nothing."""
    return float(1 - runs.loc[list(seeds), "train_error"].fillna(1.0).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values adjusted by Holm's method, in the order given.

    The i-th smallest of n p-values, from i = 0, is multiplied by n − i. An adjusted p-value is at least as large as
    those of the smaller ones, and at most 1.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def verdict(found: Outcome, adjusted: float) -> str:
    """Returns the verdict: whether the cell has a lower or a higher error; "not shown" is not "no effect"."""
    if found.not_learned:
        return f"no verdict: {' and '.join(found.not_learned)} has not learned"
    if found.seeds < FEWEST_SEEDS:
        return f"no verdict: {found.seeds} of {FEWEST_SEEDS} seeds"
    if not adjusted < _LEVEL:
        return "not shown"
    return "lower error" if found.difference < 0 else "higher error"


def planned_table(path: Path | None, table: pd.DataFrame) -> Table:
    """Returns the planned contrasts of a study; contrasts of cells that were not run have no verdict.

    Args:
      path: the file of the contrasts; None: there are none.
      table: the table of runs.

    Raises:
      ValueError: If the file cannot be read.
    """
    if path is None:
        return Table([])
    outcomes, missing, cells = [], [], cells_of(table)
    for contrast in read_contrasts(path):
        try:
            outcomes.append(outcome(contrast, cells, LEARNED))
        except ValueError:
            missing.append(contrast)
    return Table(list(contrast_rows(outcomes, missing)), CAPTION, "Planned contrasts")


def contrast_rows(outcomes: Sequence[Outcome], missing: Sequence[Contrast] = ()) -> Rows:
    """Returns a table with one row per contrast; p-values are adjusted for those whose cells were not run, too."""
    adjusted = holm([*(found.p_value for found in outcomes), *(1.0 for _ in missing)])[: len(outcomes)]
    heading = ("question", "cell", "best control", "seeds", "difference, points", "95% interval", "p, Holm", "verdict")
    rows: Rows = [heading]
    for found, p_value in zip(outcomes, adjusted, strict=True):
        middle, half = found.difference, found.half_width
        interval = f"{middle - half:+.2f} to {middle + half:+.2f}".replace("-", "−") if math.isfinite(half) else "–"
        p_shown = f"{p_value:.3g}" if found.seeds >= FEWEST_SEEDS else "–"
        difference = f"{middle:+.2f}".replace("-", "−")
        cells = (found.contrast.cell, found.control)
        rows.append(
            (found.contrast.question, *cells, str(found.seeds), difference, interval, p_shown, verdict(found, p_value))
        )
    return [*rows, *((each.question, each.cell, *("–",) * 5, "no verdict: not all cells were run") for each in missing)]
