"""Each measure of sharpness against the loss: a panel a measure, a point a run.

Where the points of all strategies lie on one line, a measure tells little beyond the loss; strategies that differ at
equal loss differ in flatness.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.reporting import labels
from experiments.reporting.drawing import MARKERS, STYLE, are_far_apart, legend_below, make_logarithmic, shades
from experiments.reporting.groups import Study
from experiments.reporting.runs import Run
from experiments.reporting.sharpness import ways_of
from experiments.reporting.ways import Way, worst_cases
from experiments.training.writers import Record

_MOST_PANELS = 6
_IN_A_ROW = 3


class Point(NamedTuple):
    """A run at its end.

    Attributes:
      loss: of the training examples that sharpness was measured of, without perturbation.
      value: the measure.
    """

    loss: float
    value: float


def measures_of(study: Study) -> dict[str, dict[str, list[Point]]]:
    """For each measure the points of the runs that have it, by the kind of their strategy."""
    found: dict[str, dict[str, list[Point]]] = {}
    ways = ways_of(study)
    for group in study.groups:
        for run in group.runs:
            for title, value in _measured(run, ways).items():
                loss = _loss(run)
                if loss is not None and value > 0 and loss > 0:
                    kind = labels.heading(_kind(group.column))
                    found.setdefault(title, {}).setdefault(kind, []).append(Point(loss, value))
    enough = {title: points for title, points in found.items() if sum(map(len, points.values())) > 1}
    return dict(list(enough.items())[:_MOST_PANELS])


def against_loss(measures: dict[str, dict[str, list[Point]]]) -> Figure:
    """Draw what `measures_of` found."""
    kinds = list(dict.fromkeys(kind for points in measures.values() for kind in points))
    across = min(_IN_A_ROW, len(measures))
    down = -(-len(measures) // across)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.0 + 2.8 * across, 0.9 + 2.9 * down), layout="constrained")
        panels = figure.subplots(down, across, sharex=True, squeeze=False).ravel()
        for panel, (title, points) in zip(panels, measures.items(), strict=False):
            _draw(panel, points, kinds)
            panel.set_title(title, fontsize=10)
        for panel in panels[len(measures) :]:
            panel.set_visible(False)
        for panel in panels[len(measures) - across : len(measures)]:
            panel.set_xlabel("training loss, cross-entropy")
        for panel in panels[::across]:
            panel.set_ylabel("sharpness")
        legend_below(figure, max(panels, key=lambda panel: len(panel.lines)), 4)
    return figure


def _draw(panel: Axes, points: dict[str, list[Point]], kinds: Sequence[str]) -> None:
    for kind, inside in points.items():
        number = kinds.index(kind)
        style = {"marker": MARKERS[number % len(MARKERS)], "color": shades(len(kinds))[number], "linestyle": "none"}
        panel.plot(*zip(*inside, strict=True), label=kind, markersize=4, markerfacecolor="none", **style)
    losses, values = zip(*(point for inside in points.values() for point in inside), strict=True)
    for numbers, name in ((losses, "x"), (values, "y")):
        if are_far_apart(numbers):
            make_logarithmic(panel, name)


def _measured(run: Run, ways: dict[Way, list[float]]) -> dict[str, float]:
    """The measures of the trained network: worst cases in each way and at each radius of the study, curvature."""
    found: dict[str, float | None] = {}
    for way, radii in ways.items():
        for rho in radii:
            title = ", ".join([*way.departures, f"worst case, ρ {rho:.3g}"])
            found.setdefault(title, worst_cases(run).get(way, {}).get(rho, {}).get("sharpness"))
    found |= {
        _CURVATURES[record["kind"]][0]: record[_CURVATURES[record["kind"]][1]]
        for record in _at_end(run)
        if record["kind"] in _CURVATURES
    }
    return {title: value for title, value in found.items() if value is not None}


_CURVATURES = {"top_eigenvalue": ("top eigenvalue of the Hessian", "eigenvalue"), "trace": ("trace", "value")}


def _loss(run: Run) -> float | None:
    return next((record["loss"] for record in _at_end(run) if record["kind"] == "worst_case"), None)


def _at_end(run: Run) -> list[Record]:
    return [record for record in run.sharpness if record["epoch"] == run.config.plan.epochs]


def _kind(column: str) -> str:
    """The strategy without its batch sizes: constant batches are one kind."""
    return column.partition(",")[0].rstrip(" 0123456789")
