"""Test error against what training costs: a panel a method, a point a group, a line a strategy."""

import statistics
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report import labels
from experiments.report.drawing import MARKERS, STYLE, are_far_apart, legend_below, make_logarithmic, shades
from experiments.report.groups import Group, Study
from experiments.report.panels import grid, name_axes

_IN_A_ROW = 3


def against_gradients(study: Study) -> Figure:
    """Draw the test error of every group, mean ± standard deviation, against its gradient evaluations.

    Points of one method and strategy, which differ in their length, are joined.
    """
    rows = study.rows
    with mpl.rc_context(STYLE):
        figure, panels = grid(len(rows), _IN_A_ROW, (2.2, 2.7), (0.9, 2.9), sharey=True)
        for panel, row in zip(panels, rows, strict=True):
            for number, column in enumerate(study.columns):
                inside = [group for group in study.groups if (group.row, group.column) == (row, column)]
                _draw(panel, inside, number, len(study.columns))
            panel.set_title(row, fontsize=10)
        name_axes(panels, _IN_A_ROW, "gradient evaluations", "test error, %")
        _scale(panels[0], study.groups)
        legend_below(figure, max(panels, key=lambda panel: len(panel.containers)), 4)
    return figure


def _draw(panel: Axes, groups: Sequence[Group], number: int, count: int) -> None:
    if not groups:
        return
    found = sorted((group.gradient_evaluations, *_spread(group)) for group in groups)
    where, means, deviations = zip(*found, strict=True)
    panel.errorbar(
        where,
        means,
        deviations,
        label=labels.heading(groups[0].column),
        color=shades(count)[number],
        marker=MARKERS[number % len(MARKERS)],
        markersize=5,
        markerfacecolor="white" if number // len(MARKERS) % 2 else None,
        linewidth=0.9,
        capsize=2,
    )


def _spread(group: Group) -> tuple[float, float]:
    errors = [100 * run.result.test_error for run in group.runs]
    return statistics.mean(errors), statistics.stdev(errors) if len(errors) > 1 else 0.0


def _scale(panel: Axes, groups: Sequence[Group]) -> None:
    if are_far_apart([group.gradient_evaluations for group in groups]):
        make_logarithmic(panel, "x")
    if are_far_apart([_spread(group)[0] for group in groups]):
        make_logarithmic(panel)
