"""Planned contrasts: comparisons of cells that are written down before the first run, corrected for their number.

A contrast compares the test error of a cell with that of the best of its controls, seed by seed. Its p-value is that of
a two-sided paired t-test. The p-values of a file are adjusted by Holm's method (Holm, 1979, "A simple sequentially
rejective multiple test procedure"), which bounds the probability of any false conclusion.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from experiments.cli.tables import Table, counted, signed
from experiments.report.groups import Group, Study
from experiments.report.paired import FEWEST_SEEDS, LEARNED, TEST_ERROR, Difference, difference, shared_seeds
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
_LEVEL = 0.05
_KEYS = {"question", "cell", "controls"}

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
      found: the difference of the cell from the best control; None if not all cells were run with a common seed.
      p_value: the p-value of the paired t-test; 1 if nothing may be concluded.
    """

    contrast: Contrast
    found: Difference | None
    p_value: float = 1.0

    def verdict(self, adjusted: float) -> str:
        """Returns whether the cell has a lower or a higher error; "inconclusive" is not "no effect"."""
        if self.found is None:
            return "no verdict: not all cells were run with a common seed"
        if self.found.obstacle:
            return f"no verdict: {self.found.obstacle}"
        if not adjusted < _LEVEL:
            return "inconclusive"
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
    if set(values) != _KEYS or not is_list:
        raise ValueError("a contrast needs question, cell and a list of controls")
    return Contrast(str(values["question"]), str(values["cell"]), tuple(values["controls"]))


def cells_of(table: pd.DataFrame) -> Cells:
    """Returns the runs of a study by the names of their cells, which their folders have.

    Raises:
      ValueError: If two runs of a cell have the same seed or differ in more than the seed, so that they belong to
        different studies.
    """
    known = table[table["folder"].notna()]
    names = [folder.removesuffix(f"-{seed}") for folder, seed in zip(known["folder"], known["seed"], strict=True)]
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    tables = {
        name: known.iloc[places].set_index("seed", drop=False).rename_axis(None) for name, places in found.items()
    }
    for name, runs in tables.items():
        if runs.index.has_duplicates or len({config.with_settings(seed=0) for config in runs["config"]}) > 1:
            raise ValueError(f"{name} names runs of several studies: give the folder of one study with its contrasts.")
    return {name: Group(name, "", next(iter(runs["config"])), runs) for name, runs in tables.items()}


def outcome(contrast: Contrast, cells: Cells, learned: float = LEARNED) -> Outcome:
    """Returns the outcome of a contrast; cells with a training accuracy below `learned` get no verdict."""
    names = (contrast.cell, *contrast.controls)
    seeds = shared_seeds(*(cells[name] for name in names)) if all(name in cells for name in names) else []
    if not seeds:
        return Outcome(contrast, None)
    control = min(contrast.controls, key=lambda name: float(cells[name].values("test_error", seeds).mean()))
    found = replace(difference(cells[contrast.cell], cells[control], TEST_ERROR, seeds), learned=learned)
    paired = TEST_ERROR.values(found.first, seeds) - TEST_ERROR.values(found.second, seeds)
    test: Any = None if found.obstacle else stats.ttest_1samp(paired, 0.0)
    return Outcome(contrast, found, 1.0 if test is None else float(test.pvalue))


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


def names_in_words(cells: Cells, found: Sequence[Study]) -> dict[str, str]:
    """Returns the names of cells as the studies have them: `SAM, increasing (+B)` for `sam-increasing`."""
    groups = {folder: group.name for study in found for group in study.groups for folder in group.runs["folder"]}
    return {name: labels.heading(groups[cell.runs["folder"].iloc[0]]) for name, cell in cells.items()}


def contrast_table(outcomes: Sequence[Outcome], names: Mapping[str, str] | None = None) -> Table:
    """Returns a table with one row per contrast.

    Args:
      outcomes: the outcomes.
      names: the names to show, by the name of the cell; None: the names in the file of the contrasts.
    """
    rows, shown = [], names or {}
    for each, p_value in zip(outcomes, holm([each.p_value for each in outcomes]), strict=True):
        found, contrast = each.found, each.contrast
        cell = shown.get(contrast.cell, contrast.cell)
        if found is None:
            rows.append((contrast.question, cell, *("–",) * 5, each.verdict(p_value)))
            continue
        control = shown.get(found.second.name, found.second.name)
        control += f" (the best of {len(contrast.controls)} controls)" if len(contrast.controls) > 1 else ""
        numbers = (str(found.seeds), signed(found.mean), TEST_ERROR.interval(found) or "–")
        p_shown = f"{p_value:.3g}" if found.seeds >= FEWEST_SEEDS else "–"
        rows.append((contrast.question, cell, control, *numbers, p_shown, each.verdict(p_value)))
    return Table([_HEADING, *rows], CAPTION, "Planned contrasts: the primary outcome")


def contrast_sentences(table: Table) -> list[str]:
    """Returns the rows of `contrast_table` as sentences for the headline."""
    return [
        f"Planned: {question} {verdict[0].upper()}{verdict[1:]}"
        + (f", {difference} points ({_precision(interval, seeds)}): {cell} − {control}." if control != "–" else ".")
        for question, cell, control, seeds, difference, interval, _, verdict in table.rows[1:]
    ]


def _precision(interval: str, seeds: str) -> str:
    return "; ".join(([] if interval == "–" else [interval]) + [counted("seed", int(seeds))])
