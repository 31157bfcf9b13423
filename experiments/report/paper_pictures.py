"""The paper's pictures: accuracy and sharpness over epochs, a panel a strategy, a line a method."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments.report import labels
from experiments.report.drawing import STYLE, are_far_apart, legend_below, line_style, make_logarithmic, shades
from experiments.report.groups import Group
from experiments.report.panels import grid, name_axes
from experiments.report.run_curves import Curve

_IN_A_ROW = 4


def along_epochs(
    groups: Sequence[Group], curves: Mapping[str, Curve], axis: str, *, can_be_logarithmic: bool = True
) -> Figure:
    """Draw a quantity over epochs.

    Args:
      groups: of the paper's cells.
      curves: the mean curve of each group that has the quantity, by its name.
      axis: the label of its axis, with the unit.
      can_be_logarithmic: whether that is, where the values are far apart.
    """
    drawn = [group for group in groups if group.name in curves]
    columns = list(dict.fromkeys(group.column for group in _ordered(drawn)))
    rows = list(dict.fromkeys(group.row for group in drawn))
    with mpl.rc_context(STYLE):
        figure, panels = grid(len(columns), _IN_A_ROW, (2.0, 2.8), (0.5, 2.9), sharey=True)
        for group in drawn:
            curve, number = curves[group.name], rows.index(group.row)
            style = {"color": shades(len(rows))[number], **line_style(number)}
            panels[columns.index(group.column)].plot(curve.epoch, curve.values, label=group.row, **style)
        for panel, column in zip(panels, columns, strict=True):
            panel.set_title(labels.heading(column), fontsize=10)
        values = np.concatenate([curves[group.name].values for group in drawn])
        is_logarithmic = can_be_logarithmic and are_far_apart(values)
        if is_logarithmic:
            make_logarithmic(panels[0])
        name_axes(panels, _IN_A_ROW, "epochs", f"{axis} (log scale)" if is_logarithmic else axis)
        legend_below(figure, max(panels, key=lambda panel: len(panel.lines)), min(6, len(rows)))
    return figure


def accuracy(error: Curve) -> Curve:
    """The accuracy, in %, of a curve of the error in %."""
    return error._replace(values=100 - error.values)


def _ordered(groups: Sequence[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: labels.strategy_order(group.config))
