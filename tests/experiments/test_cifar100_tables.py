"""The tables of CIFAR-100 in README.md and in docs/results have the figures of the committed runs."""

import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

from experiments.cli.tables import three_digits
from experiments.runner import finished_file
from experiments.runner.finished_file import FinishedRun
from experiments.training.records import WorstCase

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "docs" / "results" / "cifar100_resnet8" / "runs.jsonl"
METHODS = ("SGD", "SAM", "GSAM")
RUNS_OF_A_SEED = 17

IN_README = ("constant", "increasing", "cosine", "constant_first")  # columns of the table
IN_RESULTS = (*IN_README, "constant equal_updates", "constant_tuned", "constant_mean", "reversed")  # rows of the table

Runs: TypeAlias = Mapping[str, Mapping[int, FinishedRun]]
"""Finished runs by the name of the cell and by seed."""


@pytest.fixture(scope="module")
def runs() -> Runs:
    cells: dict[str, dict[int, FinishedRun]] = {}
    for run in finished_file.read(RECORDS).values():
        cell, _, seed = run.name.partition(", seed ")
        cells.setdefault(cell, {})[int(seed)] = run
    return cells


def complete_seeds(runs: Runs) -> list[int]:
    seeds = {seed for records in runs.values() for seed in records}
    return [seed for seed in sorted(seeds) if sum(seed in records for records in runs.values()) == RUNS_OF_A_SEED]


def shown(runs: Runs, method: str, strategy: str) -> str:
    """Returns a cell of a table over the complete seeds: `76.28 / 0.362`, or `76.28 ± 0.40 / 0.362`."""
    cell = runs.get(f"{method.lower()} {strategy}", {})
    found = [cell[seed] for seed in complete_seeds(runs) if seed in cell]
    if not found:
        return "–"
    errors = [error(run) for run in found]
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    return f"{statistics.mean(errors):.2f}{spread} / {three_digits(statistics.mean(map(sharpness, found)))}"


def error(run: FinishedRun) -> float:
    assert run.result.test_error is not None
    return 100 * run.result.test_error


def sharpness(run: FinishedRun) -> float:
    measured = [each for each in run.sharpness if isinstance(each, WorstCase) and each.rho == pytest.approx(0.0002)]
    assert measured[0].sharpness is not None
    return measured[0].sharpness


def updates(runs: Runs, strategy: str) -> str:
    return f"{runs[f'sgd {strategy}'][0].result.updates:,}"


def table(page: str, heading: str) -> list[list[str]]:
    """Returns the rows below the first heading that contains a text, each as its cells."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.search(rf"^\|[^\n]*{re.escape(heading)}[^\n]*\n\|[-:|]+\n((?:\|[^\n]*\n)+)", text, flags=re.MULTILINE)
    assert lines, f"no table of {heading} in {page}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1].splitlines()]


def test_the_table_of_the_readme_has_the_figures_of_the_runs(runs: Runs) -> None:
    expected = [[method, *(shown(runs, method, each) for each in IN_README)] for method in METHODS]
    assert table("README.md", "CIFAR-100: test error") == [
        *expected,
        ["updates", *(updates(runs, each) for each in IN_README)],
    ]


def test_the_table_of_the_results_has_the_figures_of_the_runs(runs: Runs) -> None:
    rows = table("docs/results/README.md", "test error, % / sharpness | SGD | SAM | GSAM")
    ours = [row[1:] for row in rows if "the paper" not in row[0]]
    assert ours == [[*(shown(runs, method, each) for method in METHODS), updates(runs, each)] for each in IN_RESULTS]
    assert len(rows) > len(ours), "the table lacks the paper's rows"


def test_the_pages_state_how_many_runs_are_finished(runs: Runs) -> None:
    finished, planned = sum(map(len, runs.values())), 3 * RUNS_OF_A_SEED
    stated = re.findall(r"(\d+) of 51", (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8"))
    assert set(stated) == ({str(finished)} if finished < planned else set())
