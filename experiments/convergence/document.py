"""The document of the convergence study: Markdown with tables and pictures.

The pictures show gradient norms against updates and against examples, with two logarithmic axes.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.cli import drawing
from experiments.cli.tables import Rows, as_markdown, mean_and_deviation
from experiments.convergence.gradient_norms import Curves, fitted_slope, late_rate
from experiments.convergence.network_study import NetworkStudy, TimesToTarget
from experiments.convergence.quadratic_study import Floor, QuadraticStudy, Trajectory
from experiments.training.methods import METHODS

Trajectories = dict[tuple[str, str], Trajectory]
"""The results on the quadratic, by method and strategy."""

Times = dict[tuple[str, str], list[TimesToTarget]]
"""The costs until each target of the study, by method and strategy."""

Floors = dict[str, list[Floor]]
"""The floors (the stationary gradient norms), by method."""


def rate_rows(curves: Curves) -> Rows:
    """Returns the rate at which the full gradient's norm decreases in the second half, and the minima of both norms."""
    heading = ("method", "strategy", "updates", "slope by updates", "slope by examples", "min ‖∇f‖", "min ‖∇f(w + ε)‖")
    rows: Rows = [heading]
    for (method, strategy), curve in curves.items():
        slopes = [str(late_rate(places, curve.gradient)) for places in (curve.updates, curve.examples)]
        least = [_least(norms) for norms in (curve.gradient, curve.sam_gradient)]
        rows.append((METHODS[method].title, strategy, str(curve.updates[-1]), *slopes, *least))
    return rows


def target_tables(times: Times) -> list[tuple[str, Rows]]:
    """Returns a table per target: the cost until it is reached, the mean over the runs that reach it."""
    heading = ("method", "strategy", "runs", "epochs", "examples", "updates", "gradient evaluations")
    tables = []
    for number, target in enumerate(each.target for each in next(iter(times.values()))):
        rows: Rows = [heading]
        for (method, strategy), found in times.items():
            reached = [cost for cost in found[number].costs if cost is not None]
            runs = f"{len(reached)} of {len(found[number].costs)}"
            columns = [[x for cost in reached if (x := getattr(cost, name)) is not None] for name in _COSTS]
            rows.append((METHODS[method].title, strategy, runs, *(_mean(column) for column in columns)))
        tables.append((_TARGETS[target.quantity].format(target.value), rows))
    return tables


def _mean(values: list[int]) -> str:
    return f"{sum(values) / len(values):,.0f}" if values else "–"


def bound_rows(trajectories: Trajectories) -> Rows:
    """Returns the measured values on the quadratic and their upper bounds, which docs/convergence.md proves."""
    rows: Rows = [("method", "strategy", "mean ‖∇f‖²", "at most", "last ‖∇f‖²", "at most")]
    for (method, strategy), (_, *squares) in trajectories.items():
        rows.append((METHODS[method].title, strategy, *(f"{value:.3g}" for value in squares)))
    return rows


def floor_rows(floors: Floors) -> Rows:
    """Returns the floors of each method, relative to the exact floor of SGD."""
    rows: Rows = [("η", "b", "√E‖∇f‖² of SGD, exact", *(METHODS[method].title for method in floors))]
    for same in zip(*floors.values(), strict=True):
        first = same[0]
        rows.append((f"{first.rate:g}", str(first.batch_size), f"{math.sqrt(first.sgd):.4g}", *map(_ratio, same)))
    return rows


def slope_rows(floors: dict[str, Floors]) -> Rows:
    """Returns the exponents with which the floors scale in the batch size and in the learning rate."""
    rows: Rows = [("method", "slope by b", "slope by η")]
    for method in floors["rate"]:
        slopes = [_slope(by_method[method], name) for name, by_method in floors.items()]
        rows.append((METHODS[method].title, *(f"{slope:+.3f}".replace("-", "−") for slope in slopes)))
    return rows


def _ratio(floor: Floor) -> str:
    """Formats the floor relative to the exact floor of SGD, with its standard error if there are several chains."""
    ratio = math.sqrt(floor.square / floor.sgd)
    error = floor.standard_error / (2 * floor.square) * ratio  # a root has half the relative error of the square
    return f"{ratio:.3f} ± {error:.3f}" if math.isfinite(error) else f"{ratio:.3f}"


def _slope(floors: list[Floor], name: str) -> float:
    where = np.asarray([getattr(floor, name) for floor in floors])
    return fitted_slope(where, np.sqrt([floor.square for floor in floors]))


def _least(values: np.ndarray) -> str:
    """Formats the mean and standard deviation of the minima over repetitions; a dash if a repetition diverged."""
    return mean_and_deviation(np.min(values, axis=1).tolist(), ".3g") if np.isfinite(values).all() else "–"


_RATES = (
    "The slopes of log ‖∇f‖ against the logarithms of updates and of examples are fitted over the second half of "
    "training; ± is the standard error of their mean. The smallest norms are given with their standard deviation."
)
_COSTS = ("epoch", "examples", "updates", "gradient_evaluations")
_TARGETS = {
    "test_accuracy": "The cost until the test accuracy is first at least {:.1%} at a measurement: means over the runs "
    "that reach it.",
    "grad_norm": "The cost until the norm of the full gradient is first at most {:g} at a measurement: means over the "
    "runs that reach it.",
}
_BOUNDS = "The mean of ‖∇f‖², weighted by the learning rate, and its last value, each with its proved upper bound."
_FLOORS = "The measured floor of √E‖∇f‖² at a constant learning rate and batch size, relative to SGD's exact value."
_SLOPES = "The exponents of the floors in b and η. In theory they are −½ and ½ while noise exceeds the effect of ρ."
_NORMS = {
    "gradient": ("Norm of the full gradient", "‖∇f(w)‖"),
    "sam_gradient": ("Norm of the full SAM gradient", "‖∇f(w + ρ ∇f/‖∇f‖)‖"),
}


class Part(NamedTuple):
    """A part of the document.

    Attributes:
      title: the heading.
      settings: a few sentences that describe the runs.
      tables: pairs of a caption and a table.
      pictures: the pictures in the folder of the document.
    """

    title: str
    settings: str
    tables: list[tuple[str, Rows]]
    pictures: list[drawing.Picture]


def quadratic_part(study: QuadraticStudy, trajectories: Trajectories, floors: dict[str, Floors], folder: Path) -> Part:
    """Returns the part on the quadratic, and saves its pictures.

    Args:
      study: the settings of the study.
      trajectories: the results by method and strategy.
      floors: the floors over the batch sizes and over the rates, with the keys `batch_size` and `rate`.
      folder: the folder of the document, for the pictures.
    """
    curves = {key: each.curve for key, each in trajectories.items()}
    tables = [(_RATES, rate_rows(curves)), (_BOUNDS, bound_rows(trajectories))]
    tables += [(_FLOORS, floor_rows(each)) for each in floors.values()]
    tables.append((_SLOPES, slope_rows(floors)))
    bounce = study.problem.bouncing_norm(study.learning_rate, study.rho)
    settings = (
        f"The loss is ½ wᵀAw in {study.dimensions} dimensions with curvatures from {study.least_curvature:g} to 1. The "
        f"noise of a coordinate has a standard deviation of {study.noise:g} per example. The {study.chains} runs have "
        f"η = {study.learning_rate:g}, ρ = {study.rho:g} and {study.examples} examples per epoch. The plans are "
        f"{study.constant_plan} and {study.increasing_plan}. Without noise, the gradient norm of SAM would converge to "
        f"{bounce:.3g}. docs/convergence.md derives the theory."
    )
    pictures = _draw(curves, "the quadratic", "quadratic", folder)
    caption = "The floors of the methods and of SGD, against the batch size and the learning rate."
    pictures.append(drawing.save(draw_floors(floors), "Floors", caption, folder, "quadratic-floors"))
    return Part("A stochastic quadratic", settings, tables, pictures)


def network_part(study: NetworkStudy, title: str, curves: Curves, times: Times) -> Part:
    """Returns the part on networks, and saves its pictures.

    Args:
      study: the settings of the study.
      title: the network and the data set, such as `small_resnet on digits`.
      curves: the curves by method and strategy.
      times: the costs until each target, by method and strategy.
    """
    statistics = "the statistics of these examples" if study.reestimate_batchnorm else "running statistics"
    settings = (
        f"Gradients are of the training loss over all examples, without augmentation; BatchNorm uses {statistics}. "
        f"SAM's gradient has ρ = {study.measured_rho:g} for every method. The plans are {study.constant_plan} and "
        f"{study.increasing_plan}, and the seeds are {', '.join(map(str, study.seeds))}."
    )
    pictures = _draw(curves, title, "networks", study.output)
    return Part(f"Networks: {title}", settings, [(_RATES, rate_rows(curves)), *target_tables(times)], pictures)


def markdown(parts: Sequence[Part]) -> str:
    """Returns the document as Markdown."""
    texts = []
    for part in parts:
        blocks = [f"# {part.title}", part.settings]
        for caption, rows in part.tables:
            blocks += [as_markdown(rows), caption]
        for picture in part.pictures:
            blocks += [f"## {picture.title}", picture.caption, f"![{picture.title}]({picture.path.name})"]
        texts.append("\n\n".join(blocks) + "\n")
    return "\n".join(texts)


def _draw(curves: Curves, title: str, stem: str, folder: Path) -> list[drawing.Picture]:
    pictures = []
    for norm, (name, formula) in _NORMS.items():
        figure = draw_norms(norm, f"{name}: {title}", curves)
        caption = f"The mean of {formula} over the repetitions, against updates and against examples."
        pictures.append(drawing.save(figure, name, caption, folder, f"{stem}-{norm.replace('_', '-')}"))
    return pictures


_AXES = {"updates": "updates", "examples": "examples seen"}
_APART = 0.08  # the distance between the labels of lines, as a fraction of a panel's height


def draw_norms(norm: str, title: str, curves: Curves) -> Figure:
    """Draws one row of panels per method and one line per strategy: the mean over repetitions.

    Args:
      norm: a key of `_NORMS`.
      title: the title of the picture.
      curves: the measured norms.
    """
    methods = list(dict.fromkeys(method for method, _ in curves))
    strategies = list(dict.fromkeys(strategy for _, strategy in curves))
    with mpl.rc_context(drawing.STYLE):
        figure = Figure(figsize=(10, 0.6 + 2.6 * len(methods)), layout="constrained")
        panels = figure.subplots(len(methods), len(_AXES), sharey=True, sharex="col", squeeze=False)
        for method, row in zip(methods, panels, strict=True):
            of_method = {strategy: curve for (name, strategy), curve in curves.items() if name == method}
            row[0].set_ylabel(f"{METHODS[method].title}: {_NORMS[norm][1]}")
            for panel, axis in zip(row, _AXES, strict=True):
                for name, curve in of_method.items():
                    heights = np.mean(getattr(curve, norm), axis=0)
                    look = _look(strategies.index(name), len(strategies))
                    panel.loglog(getattr(curve, axis), heights, label=name, **look)
        for panel, label in zip(panels[-1], _AXES.values(), strict=True):
            panel.set_xlabel(label)
        drawing.make_logarithmic(panels[0, 0])  # the other panels share its y axis
        figure.suptitle(title)
        figure.draw_without_rendering()  # this fixes the limits of the axes
        for panel in panels.flat:
            _write_names(panel)
    return figure


def draw_floors(floors: dict[str, Floors]) -> Figure:
    """Draws the floor of each method against the batch size and against the rate, and the exact floor of SGD."""
    with mpl.rc_context(drawing.STYLE):
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, (name, by_method) in zip(panels, floors.items(), strict=True):
            some = next(iter(by_method.values()))
            where = [getattr(floor, name) for floor in some]
            panel.loglog(where, np.sqrt([floor.sgd for floor in some]), color="0.75", linewidth=6, label="SGD, exact")
            for i, (method, found) in enumerate(by_method.items()):
                heights = np.sqrt([floor.square for floor in found])
                panel.loglog(where, heights, label=METHODS[method].title, **_look(i, len(by_method)))
            panel.set_xlabel("batch size b" if name == "batch_size" else "learning rate η")
            panel.set_xticks(where, [f"{x:g}" for x in where])
            panel.xaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("floor of √E‖∇f‖²")
        panels[0].legend(frameon=False)
        figure.suptitle("The floor of the gradient norm at a constant batch size and learning rate, on the quadratic")
    return figure


def _look(index: int, count: int) -> dict[str, Any]:
    """Returns the style of a line; each line has a different lightness, dash pattern and marker."""
    dash, marker = drawing.DASHES[index % len(drawing.DASHES)], drawing.MARKERS[index % len(drawing.MARKERS)]
    lines = {"color": drawing.shades(count)[index], "linestyle": dash, "linewidth": 1.4}
    return lines | {"marker": marker, "markersize": 4, "markevery": 0.12}


def _write_names(panel: Axes) -> None:
    """Writes the label of each line to the right of the panel, at the height of the line's end, without overlaps."""
    ends = {str(line.get_label()): np.asarray(line.get_xydata())[-1] for line in panel.get_lines()}
    to_axes = panel.transData + panel.transAxes.inverted()
    heights = {name: float(to_axes.transform(end)[1]) for name, end in ends.items() if np.isfinite(end[1])}
    place = -np.inf
    for name in sorted(heights, key=heights.__getitem__):
        place = max(heights[name], place + _APART)
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6}
        looks = {"va": "center", "fontsize": 8, "arrowprops": line, "annotation_clip": False}
        panel.annotate(name, tuple(ends[name]), (1.03, place), textcoords="axes fraction", **looks)
