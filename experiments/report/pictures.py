"""The pictures of a study: a quantity each, against epochs and against updates."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.report.curves import QUANTITIES, Quantity
from experiments.report.drawing import STYLE, are_far_apart, legend_below, line_style, make_logarithmic, shades
from experiments.report.groups import Group, Study
from experiments.report.paired import Difference
from experiments.report.run_curves import Curve, Curves

_LEGEND_WIDTH = 120  # characters
_AXES = {"epoch": "epochs", "step": "updates"}
_LINEAR = ("cosine", "rho")
_MOST_TICKS = 8  # labels at more would run into one another


class _Line(NamedTuple):
    """One curve of a picture, which may stand for several groups."""

    label: str
    curve: Curve
    style: dict[str, Any]


def draw_quantity(quantity: Quantity, study: Study, curves: Mapping[str, Curves]) -> Figure:
    """Draw the quantity of every group.

    Args:
      quantity: what to draw.
      study: the groups.
      curves: the mean curves of each group that has the quantity, by its name.
    """
    lines = _lines(quantity, study, curves)
    columns = max(1, min(3, _LEGEND_WIDTH // max(len(line.label) + 8 for line in lines)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 4 + 0.2 * -(-len(lines) // columns)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for line in lines:
            for panel, axis in zip(panels, _AXES, strict=True):
                _plot(panel, axis, quantity, line)
        figure.suptitle(_title(quantity, study))
        panels[0].set_ylabel(quantity.axis)
        for panel, label in zip(panels, _AXES.values(), strict=True):
            panel.set_xlabel(label)
        _scale(panels[0], quantity, np.concatenate([line.curve.values for line in lines]))
        legend_below(figure, panels[0], columns)
    return figure


def draw_differences(study: Study, pairs: Sequence[Difference]) -> Figure:
    """Draw the paired differences in test error with their intervals, filled where these leave 0 out."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 1.4 + 0.24 * len(pairs)), layout="constrained")
        panel = figure.subplots()
        for row, pair in enumerate(pairs):
            face = "black" if pair.is_clear else "white"
            panel.plot([pair.low, pair.high], [row, row], color="black", linewidth=1)
            panel.plot(pair.mean, row, "o", color="black", markerfacecolor=face, markersize=5)
        panel.axvline(0, color="0.5", linewidth=1)
        panel.set(
            xlabel="percentage points, with 95% t interval (filled: leaves 0 out)",
            yticks=range(len(pairs)),
            yticklabels=[_pair(pair, len(study.seeds)) for pair in pairs],
            ylim=(len(pairs) - 0.5, -0.5),
        )
        panel.tick_params(axis="y", labelsize=8)
        figure.suptitle(f"Paired differences in test error: {study.title}")
    return figure


def _pair(pair: Difference, seeds: int) -> str:
    few = "" if pair.seeds == seeds else f" ({pair.seeds} seeds)"
    return f"{pair.first.name} less {pair.second.name}{few}"


def drawable(curves: Mapping[str, Curves]) -> list[Quantity]:
    """The quantities that some group has, with a finite value."""

    def is_there(quantity: Quantity) -> bool:
        return any(np.isfinite(each[quantity.name].values).any() for each in curves.values() if quantity.name in each)

    return list(filter(is_there, QUANTITIES))


def _title(quantity: Quantity, study: Study) -> str:
    sizes = {len(group.runs) for group in study.groups}
    is_mean = not quantity.is_set and len(sizes) == 1 and max(sizes) > 1
    return f"{quantity.title}: {study.title}" + (f", mean over {max(sizes)} seeds" if is_mean else "")


def _lines(quantity: Quantity, study: Study, curves: Mapping[str, Curves]) -> list[_Line]:
    """A line for each group; where several groups coincide, one line with a label for all of them."""
    together: list[list[Group]] = []
    for group in study.groups:
        if group.name in curves:
            curve = curves[group.name][quantity.name]
            alike = [each for each in together if _coincide(curves[each[0].name][quantity.name], curve)]
            if alike:
                alike[0].append(group)
            else:
                together.append([group])
    drawn = [group for alike in together for group in alike]
    lines = [
        _Line(_label(each, drawn), curves[each[0].name][quantity.name], _style(each[0], study)) for each in together
    ]
    return _stacked(lines) if quantity.is_set else lines


def _stacked(lines: list[_Line]) -> list[_Line]:
    """What is set meets for whole stretches: each line is thinner than those below it."""
    widths = np.linspace(min(6.0, 2.5 * len(lines) - 1.1), 1.4, len(lines))
    return [
        line._replace(style=line.style | {"linestyle": "-", "linewidth": width})
        for line, width in zip(lines, widths, strict=True)
    ]


def _coincide(one: Curve, other: Curve) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def _label(alike: list[Group], drawn: list[Group]) -> str:
    """`all`, the strategies that the groups make up, or their names."""
    if len(alike) == len(drawn) > 1:
        return "all runs"
    columns = dict.fromkeys(group.column for group in alike)
    inside = [group for group in drawn if group.column in columns]
    if len(alike) == len(inside) > len(columns):
        return " and ".join(columns)
    return "; ".join(f"{group.name} (diverged)" if group.diverged else group.name for group in alike)


def _style(group: Group, study: Study) -> dict[str, Any]:
    """Each strategy has its own lightness and each method its own dash, so that the picture reads in grey."""
    shade = shades(len(study.columns))[study.columns.index(group.column)]
    return {"color": shade, **line_style(study.rows.index(group.row))}


def _plot(panel: Axes, axis: str, quantity: Quantity, line: _Line) -> None:
    where, values = getattr(line.curve, axis), line.curve.values
    drawstyle = "steps-post" if quantity.name == "batch_size" else "default"
    is_point = np.isfinite(values).sum() == 1  # which a line would not show
    marker: dict[str, Any] = {"marker": "o"} if is_point else {}
    panel.plot(where, values, label=line.label, drawstyle=drawstyle, **(line.style | marker))


def _scale(panel: Axes, quantity: Quantity, values: np.ndarray) -> None:
    """Logarithmic, with plain numbers at its ticks, where the values allow it and are far enough apart."""
    if quantity.name in _LINEAR or not are_far_apart(values):
        return
    make_logarithmic(panel)
    panel.set_ylabel(f"{quantity.axis} (log scale)")
    if quantity.name == "batch_size":
        panel.set_yticks(_size_ticks(values))
        panel.yaxis.set_minor_locator(NullLocator())


def _size_ticks(values: np.ndarray) -> np.ndarray:
    """The batch sizes; where they are many, as the means over seeds that decided apart are, doublings of the first."""
    sizes = np.unique(values[np.isfinite(values)])
    if len(sizes) <= _MOST_TICKS:
        return sizes
    return sizes[0] * 2.0 ** np.arange(int(np.log2(sizes[-1] / sizes[0])) + 1)
