"""The paper's figures beside ours, where a cell of its tables was run as it stands there."""

import dataclasses
import functools
import statistics

from experiments import presets
from experiments.cli.tables import Rows, mean_and_deviation
from experiments.config import Config
from experiments.presets import Published
from experiments.report import labels, sharpness
from experiments.report.groups import Group, Study
from experiments.report.protocols import PAPERS_RADIUS

REMARK = "The paper has one run a cell. Its sharpness is compared with ours at ρ 0.0002, of as many examples as above."


def published_rows(study: Study) -> Rows:
    """A row a cell of the paper that was run: error and sharpness, ours and the paper's; else the heading alone."""
    heading = ("cell", "our test error, %", "the paper's test error, %", "our sharpness", "the paper's sharpness")
    found = [(group, _published().get(_config(group))) for group in study.groups]
    return [heading, *(_row(group, of_paper, study) for group, of_paper in found if of_paper is not None)]


def _row(group: Group, of_paper: Published, study: Study) -> tuple[str, ...]:
    protocols = [
        way for way, radii in sharpness.protocols_of(study).items() if PAPERS_RADIUS in radii and not way.departures
    ]
    found = sharpness.numbers(group.runs, protocols[0], PAPERS_RADIUS) if protocols else []
    return (
        f"{group.row}, {labels.heading(labels.strategy(group.config))}",
        mean_and_deviation([100 * run.result.test_error for run in group.runs]),
        f"{of_paper.error:.2f}",
        f"{statistics.mean(found):.4g}" if found else "–",
        f"{of_paper.sharpness:.2f}",
    )


def _config(group: Group) -> Config:
    """What was really run, chosen settings included."""
    return group.runs[0].config.with_settings(seed=0).effective


@functools.cache
def _published() -> dict[Config, Published]:
    """What was published, by the config that it is published of."""
    found = {}
    for name in presets.NAMES:
        row = presets.load(name)
        for (method, strategy), figures in row.published.items():
            study = dataclasses.replace(
                row.study, methods=(method,), strategies=(strategy,), seeds=(0,), match=("epochs",)
            )
            found |= {cell.config.effective: figures for cell in study.cells()}
    return found
