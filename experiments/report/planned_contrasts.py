"""Planned contrasts: comparisons of cells that are written down before the first run, corrected for their number.

A contrast compares the test error of a cell with that of the best of its controls, seed by seed. Its p-value is that of
a two-sided paired t-test. The p-values of a file are adjusted by Holm's method (Holm, 1979, "A simple sequentially
rejective multiple test procedure"), which bounds the probability of any false conclusion.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from experiments.cli.tables import Table, counted, signed
from experiments.report.groups import Group, Study
from experiments.report.paired import LEARNED, TEST_ERROR, Difference, difference, shared_seeds
from experiments.study import labels
from experiments.training.exceptions import reason_of

MOST = 4  # contrasts of a study
CAPTION = (
    "The difference is the test error of the cell minus that of its control, after the last epoch, in percentage "
    "points, paired by seed, with its 95% interval, which is not adjusted. p is that of a paired t-test, adjusted for "
    "the number of contrasts by Holm's method; the verdict follows from it. Of several controls, the one with the "
    "lowest error on the same runs is taken, which favours it. “Inconclusive” does not mean that there is no effect."
)
_HEADING = ("question", "cell", "control", "seeds", "difference, points", "95% interval", "p, Holm", "verdict")
_LEVEL, INCONCLUSIVE = 0.05, "inconclusive"

Cells = dict[str, Group]  # by `METHOD-STRATEGY` or `METHOD-STRATEGY-equal_updates`


@dataclass(frozen=True)
class Contrast:
    """A comparison of a cell with the best of its controls, which has the lowest mean test error.

    Attributes:
      question: the question that it answers.
      cell: the name of the cell.
      controls: the names of the controls.
    """

    question: str
    cell: str
    controls: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a contrast.

    Attributes:
      contrast: the contrast.
      cell: the name of the cell to show.
      found: the difference of the cell from the best control; None if not all cells were run with a common seed.
      p_value: the p-value of the paired t-test, which `outcomes` adjusts; 1 if nothing may be concluded.
    """

    contrast: Contrast
    cell: str
    found: Difference | None
    p_value: float = 1.0

    @property
    def control(self) -> str:
        """The name of the best control to show, and of how many it is the best; a dash if it is unknown."""
        if self.found is None:
            return "–"
        count = len(self.contrast.controls)
        return self.found.second.name + (f" (the best of {count} controls)" if count > 1 else "")

    @property
    def verdict(self) -> str:
        """Whether the cell has a lower or a higher error; "inconclusive" is not "no effect"."""
        if self.found is None:
            return "no verdict: a cell was not run, or the cells have no seed in common"
        if self.found.obstacle:
            return f"no verdict: {self.found.obstacle}"
        if not self.p_value < _LEVEL:
            return INCONCLUSIVE
        return "lower error" if self.found.mean < 0 else "higher error"


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
    controls = values.get("controls")
    is_list = isinstance(controls, list) and controls and all(isinstance(each, str) for each in controls)
    if set(values) != {"question", "cell", "controls"} or not is_list:
        raise ValueError("a contrast needs question, cell and a list of controls")
    return Contrast(str(values["question"]), str(values["cell"]), tuple(values["controls"]))


def cells_of(table: pd.DataFrame, found: Sequence[Study] = ()) -> Cells:
    """Returns the runs of a study by the names of their cells, which their folders have.

    Args:
      table: the table of runs.
      found: studies that name the cells in words: `SAM, increasing (+B)` for `sam-increasing`.

    Raises:
      ValueError: If two runs of a cell have the same seed or differ in more than the seed, so that they belong to
        different studies.
    """
    words = {
        folder: labels.heading(each.name) for study in found for each in study.groups for folder in each.runs["folder"]
    }
    known = table[table["folder"].notna()]
    names = [f"{folder}".removesuffix(f"-{seed}") for folder, seed in zip(known["folder"], known["seed"], strict=True)]
    cells = {}
    for name in dict.fromkeys(names):
        runs = known[[each == name for each in names]].set_index("seed", drop=False).rename_axis(None)
        if runs.index.has_duplicates or len({config.with_settings(seed=0) for config in runs["config"]}) > 1:
            raise ValueError(f"{name} names runs of several studies: give the folder of one study with its contrasts.")
        cells[name] = Group(words.get(str(runs["folder"].iloc[0]), name), "", runs["config"].iloc[0], runs)
    return cells


def outcomes(contrasts: Sequence[Contrast], cells: Cells, learned: float = LEARNED) -> list[Outcome]:
    """Returns the outcomes of all contrasts of a study, with adjusted p-values.

    Cells with a training accuracy below `learned` get no verdict.
    """
    found = [_outcome(contrast, cells, learned) for contrast in contrasts]
    adjusted = holm([each.p_value for each in found])
    return [replace(each, p_value=p_value) for each, p_value in zip(found, adjusted, strict=True)]


def _outcome(contrast: Contrast, cells: Cells, learned: float) -> Outcome:
    names = (contrast.cell, *contrast.controls)
    shown = cells[contrast.cell].name if contrast.cell in cells else contrast.cell
    seeds = shared_seeds(*(cells[name] for name in names)) if all(name in cells for name in names) else []
    if not seeds:
        return Outcome(contrast, shown, None)
    control = min(contrast.controls, key=lambda name: float(cells[name].values("test_error", seeds).mean()))
    found = replace(difference(cells[contrast.cell], cells[control], TEST_ERROR, seeds), learned=learned)
    paired = TEST_ERROR.values(found.first, seeds) - TEST_ERROR.values(found.second, seeds)
    test: Any = None if found.obstacle else stats.ttest_1samp(paired, 0.0)
    return Outcome(contrast, shown, found, 1.0 if test is None else float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values adjusted by Holm's method, in the order given.

    The i-th smallest of n p-values, from i = 0, is multiplied by n − i. An adjusted p-value is at least as large as
    those of the smaller ones, and at most 1.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def contrast_table(found: Sequence[Outcome]) -> Table:
    """Returns a table with one row per contrast."""
    rows = [(each.contrast.question, each.cell, each.control, *_numbers(each), each.verdict) for each in found]
    return Table([_HEADING, *rows], CAPTION, "Planned contrasts: the primary outcome")


def _numbers(outcome: Outcome) -> tuple[str, ...]:
    """Returns the seeds, the difference, its interval, and the adjusted p-value."""
    if (found := outcome.found) is None:
        return ("–",) * 4
    p_value = "–" if found.obstacle else f"{outcome.p_value:.3g}"
    return str(found.seeds), signed(found.mean), TEST_ERROR.interval(found) or "–", p_value


def contrast_sentence(outcome: Outcome) -> str:
    """Returns the outcome as a sentence for the headline."""
    words = f"Planned: {outcome.contrast.question} {outcome.verdict[0].upper()}{outcome.verdict[1:]}"
    if (found := outcome.found) is None:
        return f"{words}."
    p_value = "" if found.obstacle else f"adjusted p {outcome.p_value:.3g}"
    precision = "; ".join(filter(None, [TEST_ERROR.interval(found), p_value, counted("seed", found.seeds)]))
    return f"{words}, {TEST_ERROR.effect(found)} ({precision}): {outcome.cell} − {outcome.control}."
