"""The pictures of a study: a quantity each, against epochs and against updates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from experiments.reporting.curves import QUANTITIES, Curves, Quantity
from experiments.reporting.groups import Group, Study
from experiments.reporting.paired import Difference

_DASHES = ("-", "--", ":", "-.", (0, (1, 3)))
_WIDTHS = (1.4, 2.0, 1.8, 1.4, 1.8)  # dots look thinner than they are
_AXES = {"epoch": "epochs", "step": "updates"}
_LINEAR = ("cosine", "rho")
_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.alpha": 0.3,
    "svg.hashsalt": "sam_optax",  # the same runs give the same file
}


class _Line(NamedTuple):
    """One curve of a picture, which may stand for several groups."""

    label: str
    curves: Curves
    style: dict[str, Any]


def draw_quantity(quantity: Quantity, study: Study, curves: Mapping[str, Curves], stem: Path) -> None:
    """Draw the quantity of every group, as `stem`.svg and `stem`.png.

    Args:
      quantity: what to draw.
      study: the groups.
      curves: the mean curves of each group that has the quantity, by its name.
      stem: the path without its ending.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for line in _lines(quantity, study, curves):
            for panel, axis in zip(panels, _AXES, strict=True):
                _plot(panel, axis, quantity, line)
        seeds = f"mean over {len(study.seeds)} seeds" if len(study.seeds) > 1 else f"seed {study.seeds[0]}"
        figure.suptitle(f"{quantity.title}: {study.title}, {seeds}")
        panels[0].set_ylabel(quantity.axis)
        for panel, label in zip(panels, _AXES.values(), strict=True):
            panel.set_xlabel(label)
        _scale(panels[0], quantity, np.concatenate([each[quantity.name] for each in curves.values()]))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        _save(figure, stem)


def draw_differences(study: Study, pairs: list[Difference], stem: Path) -> None:
    """Draw the paired differences with their intervals, as `stem`.svg and `stem`.png."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 1.4 + 0.24 * len(pairs)), layout="constrained")
        panel = figure.subplots()
        for row, pair in enumerate(pairs):
            face = "black" if pair.holds else "white"
            panel.plot([pair.low, pair.high], [row, row], color="black", linewidth=1)
            panel.plot(pair.mean, row, "o", color="black", markerfacecolor=face, markersize=5)
        panel.axvline(0, color="0.5", linewidth=1)
        panel.set(
            xlabel="difference in test error, percentage points, with 95% t interval (filled: excludes 0)",
            yticks=range(len(pairs)),
            yticklabels=[f"{pair.first.name} less {pair.second.name}" for pair in pairs],
            ylim=(len(pairs) - 0.5, -0.5),
        )
        panel.tick_params(axis="y", labelsize=8)
        figure.suptitle(f"Paired differences in test error: {study.title}")
        _save(figure, stem)


def drawable(curves: Mapping[str, Curves]) -> list[Quantity]:
    """The quantities that some group has, with a finite value."""
    return [
        quantity
        for quantity in QUANTITIES
        if any(np.isfinite(each.get(quantity.name, np.nan)).any() for each in curves.values())
    ]


def _lines(quantity: Quantity, study: Study, curves: Mapping[str, Curves]) -> list[_Line]:
    """A line for each group; where several groups coincide, one line with a label for all of them."""
    together: list[list[Group]] = []
    for group in study.groups:
        if group.name not in curves:
            continue
        for alike in together:
            if _coincide(quantity, curves[alike[0].name], curves[group.name]):
                alike.append(group)
                break
        else:
            together.append([group])
    drawn = [group for alike in together for group in alike]
    lines = [_Line(_label(alike, drawn), curves[alike[0].name], _style(alike[0], study)) for alike in together]
    if quantity.is_set:  # these meet for whole stretches: each is thinner than those below it
        widths = 1.4 + 2.5 * np.arange(len(lines))[::-1]
        lines = [
            line._replace(style=line.style | {"linestyle": "-", "linewidth": width})
            for line, width in zip(lines, widths, strict=True)
        ]
    return lines


def _coincide(quantity: Quantity, one: Curves, other: Curves) -> bool:
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in (quantity.name, *_AXES))


def _label(alike: list[Group], drawn: list[Group]) -> str:
    """`all`, the strategies that the groups make up, or their names."""
    if len(alike) == len(drawn) > 1:
        return "all runs"
    columns = dict.fromkeys(group.column for group in alike)
    inside = [group for group in drawn if group.column in columns]
    if len(alike) == len(inside) > len(columns):
        return " and ".join(columns)
    return "; ".join(group.name for group in alike)


def _style(group: Group, study: Study) -> dict[str, Any]:
    """Each strategy has its own lightness and each method its own dash, so that the picture reads in grey."""
    column, row = study.columns.index(group.column), study.rows.index(group.row) % len(_DASHES)
    shades = mpl.colormaps["cividis"](np.linspace(0, 0.85, max(len(study.columns), 2)))
    return {"color": shades[column], "linestyle": _DASHES[row], "linewidth": _WIDTHS[row]}


def _plot(panel: Axes, axis: str, quantity: Quantity, line: _Line) -> None:
    where, values = line.curves[axis], line.curves[quantity.name]
    if not quantity.is_set:
        panel.plot(where, values, label=line.label, **line.style)
        return
    starts = np.concatenate([[0], where])  # what is set holds from the start of an epoch
    drawstyle = "steps-post" if quantity.name == "batch_size" else "default"
    values = np.concatenate([values, values[-1:]])
    panel.plot(starts, values, label=line.label, drawstyle=drawstyle, **line.style)


def _scale(panel: Axes, quantity: Quantity, values: np.ndarray) -> None:
    """Logarithmic, with plain numbers at its ticks, where all values allow it."""
    finite = values[np.isfinite(values)]
    if quantity.name in _LINEAR or finite.min() <= 0:
        return
    panel.set_yscale("log")
    panel.set_ylabel(f"{quantity.axis} (log scale)")
    if quantity.name == "batch_size":
        panel.set_yticks(np.unique(finite))
        panel.yaxis.set_minor_locator(NullLocator())
    else:
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _save(figure: Figure, stem: Path) -> None:
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=120)
