"""Each measure of sharpness against the loss: a panel a measure, a point a run.

Where the points of all strategies lie on one line, a measure tells little beyond the loss; strategies that differ at
equal loss differ in flatness.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report import labels
from experiments.report.drawing import MARKERS, STYLE, are_far_apart, legend_below, make_logarithmic, shades
from experiments.report.groups import Study
from experiments.report.panels import grid, name_axes
from experiments.report.protocols import worst_cases
from experiments.report.sharpness import protocols_of
from experiments.runner.finished_runs import Run
from experiments.sharpness.protocol import SharpnessProtocol
from experiments.training.records import SharpnessRecord, TopEigenvalue, Trace, WorstCase

_IN_A_ROW = 3


class Point(NamedTuple):
    """A run at its end.

    Attributes:
      loss: of the training examples that sharpness was measured of, without perturbation.
      value: the measure.
    """

    loss: float
    value: float


class _Measure(NamedTuple):
    """What a panel shows; of curvature the radius is 0."""

    kind: str
    way: SharpnessProtocol | None
    rho: float
    network: tuple[Any, ...]


def measures_of(study: Study) -> dict[str, dict[str, list[Point]]]:
    """For each measure the points of the runs that have it, by the kind of their strategy.

    Worst cases in the first way come first, then curvature, then worst cases in other ways.
    """
    found: dict[_Measure, dict[str, list[Point]]] = {}
    for group in study.groups:
        kind = labels.heading(_kind(group.column))
        for run in group.runs:
            for measure, point in _measured(run).items():
                if point.value > 0 and point.loss > 0:
                    found.setdefault(measure, {}).setdefault(kind, []).append(point)
    protocols = list(protocols_of(study))
    enough = [measure for measure, points in found.items() if sum(map(len, points.values())) > 1]
    ordered = sorted(enough, key=lambda measure: _order(measure, protocols))
    titles = [_title(measure) for measure in ordered]
    return {
        title if titles.count(title) == 1 else f"{title}, {_examples(measure)} examples": found[measure]
        for title, measure in zip(titles, ordered, strict=True)
    }


def against_loss(measures: dict[str, dict[str, list[Point]]]) -> Figure:
    """Draw what `measures_of` found."""
    kinds = list(dict.fromkeys(kind for points in measures.values() for kind in points))
    with mpl.rc_context(STYLE):
        figure, panels = grid(len(measures), _IN_A_ROW, (2.0, 2.8), (0.9, 2.9), sharey=False)
        for panel, (title, points) in zip(panels, measures.items(), strict=True):
            _draw(panel, points, kinds)
            panel.set_title(title, fontsize=10)
        name_axes(panels, _IN_A_ROW, "training loss, cross-entropy", "sharpness")
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


def _measured(run: Run) -> dict[_Measure, Point]:
    """The measures of the trained network, each with the loss of the same examples, measured in the same way."""
    found: dict[_Measure, tuple[float | None, float | None]] = {}
    for way, radii in worst_cases(run).items():
        for rho, record in radii.items():
            found[_Measure("worst_case", way, rho, ())] = record.loss, record.sharpness
    for record in _at_end(run):
        if isinstance(record, TopEigenvalue | Trace):
            measure = _Measure(record.kind, None, 0.0, _network_of(record))
            value = record.value if isinstance(record, Trace) else record.eigenvalue
            found[measure] = _loss(run, measure.network), value
    return {
        measure: Point(loss, value)
        for measure, (loss, value) in found.items()
        if loss is not None and value is not None
    }


_CURVATURES = {"top_eigenvalue": "top eigenvalue of the Hessian", "trace": "trace"}
_NETWORK = ("examples", "normalize_logits", "reestimate_batchnorm")


def _network_of(record: SharpnessRecord) -> tuple[Any, ...]:
    """Of which examples and which function a record is: those of equal ones have the same loss."""
    return tuple(getattr(record, name) for name in _NETWORK)


def _loss(run: Run, network: tuple[Any, ...]) -> float | None:
    return next(
        (each.loss for each in _at_end(run) if isinstance(each, WorstCase) and _network_of(each) == network), None
    )


def _title(measure: _Measure) -> str:
    if measure.way is None:
        departures = zip(("normalised logits", "BatchNorm re-estimated"), measure.network[1:], strict=True)
        return ", ".join([_CURVATURES[measure.kind], *(departure for departure, is_so in departures if is_so)])
    return ", ".join([*measure.way.departures, f"worst case, ρ {measure.rho:.3g}"])


def _examples(measure: _Measure) -> int:
    return measure.network[0] if measure.way is None else measure.way.examples


def _order(measure: _Measure, protocols: Sequence[SharpnessProtocol]) -> tuple[Any, ...]:
    """Ways that not all runs of a group share come last."""
    if measure.way is None:
        return 0.5, measure.kind, measure.network
    return (float(protocols.index(measure.way) if measure.way in protocols else len(protocols)), "", (measure.rho,))


def _at_end(run: Run) -> list[SharpnessRecord]:
    return [record for record in run.sharpness if record.epoch == run.epochs]


def _kind(column: str) -> str:
    """The strategy without its batch sizes: constant batches are one kind."""
    return column.partition(",")[0].rstrip(" 0123456789")
