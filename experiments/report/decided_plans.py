"""Batch plans that were decided while the runs trained: what came out, and the noise scale that they followed."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.cli.tables import Rows
from experiments.report.curves import NOISE_SCALE
from experiments.report.drawing import STYLE, legend_below, make_logarithmic
from experiments.report.groups import Group, Study
from experiments.report.panels import grid, name_axes
from experiments.report.run_curves import curves_of
from experiments.runner.finished_runs import Run

CAPTION = (
    "A panel a group, a line a seed. At the end of an epoch its noise scale decides, by the rule, on the batch size of "
    "the next one; where the line is broken, the noise drowned the gradient."
)
_IN_A_ROW = 3


def decided_groups(study: Study) -> list[Group]:
    """The groups whose batch plan was decided on the way."""
    return [group for group in study.groups if group.config.adaptive is not None]


def plan_rows(study: Study) -> Rows:
    """A row a group: the plans that came out, with their seeds; the heading alone where all plans were known."""
    heading = ("method", "asked for", "plans that came out")
    return [heading, *((group.row, group.config.batch_plan, _plans(group)) for group in decided_groups(study))]


def against_noise(groups: Sequence[Group]) -> Figure:
    """Draw noise scale and batch size over epochs, for each seed."""
    with mpl.rc_context(STYLE):
        figure, panels = grid(len(groups), _IN_A_ROW, (1.0, 2.9), (0.9, 2.9), sharey=True)
        for panel, group in zip(panels, groups, strict=True):
            for run in group.runs:
                _draw(panel, run)
            panel.set_title(group.name, fontsize=9)
        make_logarithmic(panels[0])
        name_axes(panels, _IN_A_ROW, "epochs", "examples (log scale)")
        legend_below(figure, panels[0], 2)
    return figure


def _plans(group: Group) -> str:
    """`2x16,23x256 (seeds 0, 2); 3x16,22x256 (seed 1)`."""
    seeds: dict[str, list[int]] = {}
    for run in group.runs:
        seeds.setdefault(str(run.plan), []).append(run.config.seed)
    return "; ".join(
        f"{plan} (seed{'s' * (len(inside) > 1)} {', '.join(map(str, inside))})" for plan, inside in seeds.items()
    )


def _draw(panel: Axes, run: Run) -> None:
    curves = curves_of(run.folder)
    scale, size = curves[NOISE_SCALE.name], curves["batch_size"]
    values = np.where(scale.values > 0, scale.values, np.nan)  # an estimate that has no logarithm
    panel.plot(scale.epoch, values, label="noise scale of the epoch", color="0.6", linewidth=1.0)
    style = {"color": "black", "linewidth": 1.4, "linestyle": "--", "drawstyle": "steps-post"}
    panel.plot(size.epoch, size.values, label="batch size", **style)
