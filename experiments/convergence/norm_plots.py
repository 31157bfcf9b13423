"""The pictures of gradient norms: against updates and against examples, logarithmic on both axes."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.convergence.gradient_norms import Curve, Curves
from experiments.convergence.quadratic_study import Floor
from experiments.report.drawing import DASHES, MARKERS, STYLE, make_logarithmic, shades
from experiments.training.methods import METHODS

NORMS = {"gradient": "‖∇f(w)‖", "sam_gradient": "‖∇f(w + ρ ∇f/‖∇f‖)‖"}
"""What is drawn of a curve, and how it is written."""

_AXES = {"updates": "updates", "examples": "examples seen"}
_APART = 0.08  # of a panel's height: between the labels of lines

Floors = dict[str, list[Floor]]
"""By method."""


def draw_norms(norm: str, title: str, curves: Curves) -> Figure:
    """Draw a row of panels a method and a line a strategy, the mean over repetitions.

    Args:
      norm: of `NORMS`.
      title: above the picture.
      curves: what was measured.
    """
    methods = list(dict.fromkeys(method for method, _ in curves))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.6 + 2.6 * len(methods)), layout="constrained")
        panels = figure.subplots(len(methods), len(_AXES), sharey=True, sharex="col", squeeze=False)
        ends = []
        for method, row in zip(methods, panels, strict=True):
            of_method = {strategy: curve for (name, strategy), curve in curves.items() if name == method}
            row[0].set_ylabel(f"{METHODS[method].title}: {NORMS[norm]}")
            ends += [_draw_lines(panel, axis, norm, of_method) for panel, axis in zip(row, _AXES, strict=True)]
        for panel, label in zip(panels[-1], _AXES.values(), strict=True):
            panel.set_xlabel(label)
        make_logarithmic(panels[0, 0])  # and the others, which share its axis
        figure.suptitle(title)
        figure.draw_without_rendering()  # the axes' limits are known from here on
        for panel, of_panel in zip(panels.flat, ends, strict=True):
            _write_names(panel, of_panel)
    return figure


def draw_floors(by_batch_size: Floors, by_rate: Floors) -> Figure:
    """Draw where each method stops, against the batch size and against the rate, and SGD's exact floor."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        pairs = (("batch size b, examples", "batch_size", by_batch_size), ("learning rate η", "rate", by_rate))
        for panel, (label, name, floors) in zip(panels, pairs, strict=True):
            some = next(iter(floors.values()))
            where = [getattr(floor, name) for floor in some]
            panel.loglog(where, np.sqrt([floor.sgd for floor in some]), color="0.75", linewidth=6, label="SGD, exactly")
            for i, (method, found) in enumerate(floors.items()):
                heights = np.sqrt([floor.square for floor in found])
                panel.loglog(where, heights, label=METHODS[method].title, **_look(i, len(floors)))
            panel.set_xlabel(label)
            panel.set_xticks(where, [f"{x:g}" for x in where])
            panel.xaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("√E‖∇f‖² where it stops")
        panels[0].legend(frameon=False)
        figure.suptitle("The floor of a constant batch size and rate, on the quadratic")
    return figure


def _draw_lines(panel: Axes, axis: str, norm: str, curves: dict[str, Curve]) -> dict[str, tuple[float, float]]:
    """Draw a line a curve; the end of each line, by its name."""
    ends = {}
    for i, (name, curve) in enumerate(curves.items()):
        where, heights = getattr(curve, axis), np.mean(getattr(curve, norm), axis=0)
        panel.loglog(where, heights, **_look(i, len(curves)))
        ends[name] = float(where[-1]), float(heights[-1])
    return ends


def _look(index: int, count: int) -> dict[str, Any]:
    """Each line has its own lightness, dash and marker."""
    dash, marker = DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)]
    lines = {"color": shades(count)[index], "linestyle": dash, "linewidth": 1.4}
    return lines | {"marker": marker, "markersize": 4, "markevery": 0.12}


def _write_names(panel: Axes, ends: dict[str, tuple[float, float]]) -> None:
    """The name of each line to the right of all, at the height of its end, and none upon another."""
    finite = {name: end for name, end in ends.items() if np.isfinite(end[1])}
    to_axes = panel.transData + panel.transAxes.inverted()
    heights = {name: float(to_axes.transform(end)[1]) for name, end in finite.items()}
    place = -np.inf
    for name in sorted(heights, key=heights.__getitem__):
        place = max(heights[name], place + _APART)
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6}
        looks = {"va": "center", "fontsize": 8, "arrowprops": line, "annotation_clip": False}
        panel.annotate(name, finite[name], (1.03, place), textcoords="axes fraction", **looks)
