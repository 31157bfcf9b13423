"""Panels of one picture, side by side and row below row."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def grid(
    count: int, in_a_row: int, width: tuple[float, float], height: tuple[float, float], *, sharey: bool
) -> tuple[Figure, Sequence[Axes]]:
    """So many panels on one figure, which share their horizontal axis.

    Args:
      count: of the panels, at least one.
      in_a_row: at most.
      width: of the figure, in inches: in all, and for each panel of a row.
      height: of the figure, in inches: in all, and for each row.
      sharey: whether the vertical axis is one, too.

    Returns:
      The figure and its panels.
    """
    across = min(in_a_row, count)
    down = -(-count // across)
    size = width[0] + width[1] * across, height[0] + height[1] * down
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=sharey, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.set_visible(False)
    for panel in panels[max(count - across, 0) : count]:
        panel.tick_params(labelbottom=True)
    return figure, list(panels[:count])


def name_axes(panels: Sequence[Axes], in_a_row: int, horizontal: str, vertical: str) -> None:
    """Label the axes of the lowest panels and of the first ones of each row.

    Args:
      panels: all of a figure.
      in_a_row: at most.
      horizontal: the label below.
      vertical: the label beside.
    """
    across = min(in_a_row, len(panels))
    for panel in panels[len(panels) - across :]:
        panel.set_xlabel(horizontal)
    for panel in panels[::across]:
        panel.set_ylabel(vertical)
