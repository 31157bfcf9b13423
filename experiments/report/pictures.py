"""The pictures that need only the table of runs: differences, test error against its cost, sharpness against the loss.

In all pictures, a strategy has a colour and a dash, and a method has a marker.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.cli import drawing
from experiments.cli.drawing import Picture
from experiments.report.answers import Column
from experiments.report.groups import FEW, Group, Study
from experiments.report.paired import TEST_ERROR, Answer, Difference, Measure, direct_pairs
from experiments.sharpness.columns import loss_column, protocols_of
from experiments.study import labels

_IN_A_ROW, _MOST_MEASURES = 3, 6
_INK = drawing.PALETTE[0]
_CURVATURES = ("top eigenvalue, ", "trace, ")


def table_pictures(study: Study, columns: Sequence[Column], measures: Sequence[Measure], folder: Path) -> list[Picture]:
    """Draws the pictures of a study into a folder: the differences first."""
    return [
        *_differences(study, columns, measures, folder),
        *_against_gradients(study, folder),
        *_against_loss(study, folder),
    ]


def draw_differences(study: Study, found: dict[str, list[Difference]], measures: Sequence[Measure]) -> Figure:
    """Draws the differences of each comparison: a panel per measure, and a row per comparison and method."""
    rows = [
        (name, row) for name, pairs in found.items() for row in study.rows if any(p.first.row == row for p in pairs)
    ]
    with mpl.rc_context(drawing.STYLE):
        height = 0.9 + 0.24 * len(rows) + 0.12 * len(found)
        figure = Figure(figsize=(3.0 + 2.8 * len(measures), height + 0.3), layout="constrained")
        panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        places = _places(rows)
        for panel, measure in zip(panels, measures, strict=True):
            for (name, method), place in zip(rows, places, strict=True):
                for each in found[name]:
                    if each.measure == measure and each.first.row == method:
                        _draw_difference(panel, each, place, study)
            panel.axvline(0, color="0.4", linewidth=1)
            panel.set_title(measure.name, fontsize=10)
            panel.set_xlabel("ratio A ÷ B" if measure.is_ratio else "difference A − B in points")
            if measure.is_ratio:
                drawing.label_ratios(panel)
        middles = {name: np.mean([p for row, p in zip(rows, places, strict=True) if row[0] == name]) for name in found}
        panels[0].set_yticks(list(middles.values()), list(middles))
        panels[0].tick_params(axis="y", labelsize=9, length=0)
        panels[0].set_ylim(max(places) + 0.7, min(places) - 0.7)
        for panel in panels:
            panel.grid(axis="y", visible=False)
        drawing.add_legend(figure, list(panels), is_above=True)
    return figure


def _differences(study: Study, columns: Sequence[Column], measures: Sequence[Measure], folder: Path) -> list[Picture]:
    found = {
        column.heading(): [pair for claim in column.claims.values() for pair in claim.found.values() if pair]
        for column in columns
    }
    shown = list(measures)
    if not any(found.values()) and len(study.groups) <= FEW:
        found, shown = {f"{p.first.name} − {p.second.name}": [p] for p in direct_pairs(study.groups)}, [TEST_ERROR]
    found = {name: pairs for name, pairs in found.items() if any(math.isfinite(p.low) for p in pairs)}
    shown = [
        m for m in shown if any(p.measure == m and math.isfinite(p.low) for pairs in found.values() for p in pairs)
    ]
    if not found:
        return []
    figure = draw_differences(study, found, shown)
    what = "test error, A − B, and ratios of sharpness, A ÷ B," if len(shown) > 1 else "test error, A − B,"
    caption = (
        f"Differences in {what} with 95% intervals. Left of the line, A is better. Filled markers are differences "
        "that are shown, and open markers inconclusive ones."
    )
    return [drawing.save(figure, "Differences with their intervals", caption, folder, "differences")]


def _places(rows: Sequence[tuple[str, str]]) -> list[float]:
    """Returns the heights of rows, with a gap between two comparisons."""
    places, place = [], 0.0
    for index, (name, _) in enumerate(rows):
        place += 1.0 if index == 0 or rows[index - 1][0] == name else 1.5
        places.append(place)
    return places


def _draw_difference(panel: Axes, found: Difference, place: float, study: Study) -> None:
    if not math.isfinite(found.low):
        return
    style: dict[str, Any] = drawing.marker_style(study.rows.index(found.first.row))
    style |= {"color": _INK, "markersize": 6.5, "linestyle": "none"}
    face: dict[str, Any] = {} if found.answer is not Answer.OPEN else {"markerfacecolor": "white"}
    panel.plot([found.low, found.high], [place, place], color=_INK, linewidth=1.4)
    panel.plot([], [], label=found.first.row, **style)  # for the legend, where all markers are filled
    panel.plot(found.mean, place, **(style | face))


def _against_gradients(study: Study, folder: Path) -> list[Picture]:
    if len({group.gradient_evaluations for group in study.groups}) < 2:
        return []
    with mpl.rc_context(drawing.STYLE):
        figure, panels = drawing.grid(len(study.rows), _IN_A_ROW, (3.2, 2.9), sharey=True)
        for number, (panel, row) in enumerate(zip(panels, study.rows, strict=True)):
            for column in study.columns:
                inside = [group for group in study.groups if (group.row, group.column) == (row, column)]
                _draw_costs(panel, inside, study, number)
            panel.set_title(row, fontsize=10)
        drawing.name_axes(panels, _IN_A_ROW, "gradient evaluations", "test error, %")
        if drawing.are_far_apart([group.gradient_evaluations for group in study.groups]):
            drawing.make_logarithmic(panels[0], "x")
        ends = [mean + sign * deviation for g in study.groups for mean, deviation in [_spread(g)] for sign in (-1, 1)]
        means = [_spread(group)[0] for group in study.groups]
        is_logarithmic = drawing.are_far_apart(means)
        drawing.cut(panels, means if is_logarithmic else ends, can_be_logarithmic=is_logarithmic)
        drawing.add_legend(figure, panels)
    caption = f"{_over(study)}. Lower is better, and further left is cheaper."
    if any(group.qualifier for group in study.groups):
        caption += " A line joins the lengths for which one strategy was run."
    return [drawing.save(figure, "Test error against gradient evaluations", caption, folder)]


def _draw_costs(panel: Axes, groups: Sequence[Group], study: Study, number: int) -> None:
    if not groups:
        return
    found = sorted((group.gradient_evaluations, *_spread(group)) for group in groups)
    where, means, deviations = zip(*found, strict=True)
    style = drawing.line_style(study.columns.index(groups[0].column), len(study.columns))
    name = labels.heading(groups[0].column)
    panel.errorbar(where, means, deviations, label=name, capsize=2, **style, **drawing.marker_style(number))


def _spread(group: Group) -> tuple[float, float]:
    errors = 100 * group.values("test_error")
    return float(errors.mean()), float(errors.std(ddof=1)) if len(errors) > 1 else 0.0


def _over(study: Study) -> str:
    return f"Mean ± standard deviation over {len(study.seeds)} seeds" if len(study.seeds) > 1 else "One seed"


def _against_loss(study: Study, folder: Path) -> list[Picture]:
    measured = _measured_columns(study)[:_MOST_MEASURES]
    if not measured:
        return []
    with mpl.rc_context(drawing.STYLE):
        figure, panels = drawing.grid(len(measured), _IN_A_ROW, (3.3, 2.9), sharey=False)
        for panel, (column, loss) in zip(panels, measured, strict=True):
            points = [_draw_points(panel, group, study, column, loss) for group in study.groups]
            across, up = (np.concatenate(each) for each in zip(*points, strict=True))
            for values, name in ((across, "x"), (up, "y")):
                if drawing.are_far_apart(values):
                    drawing.make_logarithmic(panel, name)
            panel.set_title(column.rpartition(", ")[0].replace(" at ", " at ρ "), fontsize=10)
        drawing.name_axes(panels, _IN_A_ROW, "training loss", "sharpness")
        drawing.add_legend(figure, panels)
    markers = ", ".join(f"{sign} {row}" for sign, row in zip("●■▲◆▼✚✖★" * len(study.rows), study.rows, strict=False))
    caption = (
        "A point per run, after the last epoch. If all points lie on one line, the measure says little beyond the "
        f"loss; strategies that differ at equal loss differ in flatness. Markers: {markers}."
    )
    return [drawing.save(figure, "Sharpness against training loss", caption, folder)]


def _draw_points(panel: Axes, group: Group, study: Study, column: str, loss: str) -> tuple[np.ndarray, np.ndarray]:
    across, up = group.values(loss), group.values(column)
    known = (across > 0) & (up > 0)
    style: dict[str, Any] = drawing.marker_style(study.rows.index(group.row)) | {"linestyle": "none"}
    color = drawing.shades(len(study.columns))[study.columns.index(group.column)]
    style |= {"color": color, "markersize": 4, "markerfacecolor": "none"}
    kind = f"{group.row}, {labels.heading(group.column)}" if len(study.groups) <= FEW else labels.heading(group.column)
    panel.plot(across[known], up[known], label=kind, **style)
    return across[known], up[known]


def _measured_columns(study: Study) -> list[tuple[str, str]]:
    """Returns the columns of sharpness and curvature that have two values or more, each with the column of its loss."""
    protocols = protocols_of([group.runs for group in study.groups])
    names = [protocol.column(rho) for protocol, radii in protocols.items() for rho in radii]
    first = len(next(iter(protocols.values()), []))
    curvatures = [name for name in study.runs if str(name).startswith(_CURVATURES)]
    ordered = [*names[:first], *map(str, curvatures), *names[first:]]
    found = [(name, loss_column(name.partition(", ")[2])) for name in ordered]
    return [
        (name, loss)
        for name, loss in found
        if sum(int(((group.values(name) > 0) & (group.values(loss) > 0)).sum()) for group in study.groups) > 1
    ]
