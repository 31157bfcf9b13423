"""The pictures of what runs recorded: quantities during training, noise scales, sharpness over radii, and landscapes.

They need the folders of the runs. A panel shows a method, and a line a strategy, with a band over the seeds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.cli import drawing
from experiments.cli.drawing import Picture
from experiments.report.groups import FEW, Group, Study
from experiments.report.matches import papers_groups
from experiments.runner.finished_runs import Run
from experiments.runner.run_curves import Curve, Curves, curves_of, mean_curves
from experiments.sharpness.columns import ProtocolColumns, headline, protocols_of
from experiments.sharpness.run_records import PAPERS_RADIUS, followed, landscapes, most_followed, radius_curves
from experiments.study import labels
from sam_optax.sharpness import Landscape
from sam_optax.sharpness.plots import plot_curve, plot_landscapes

_IN_A_ROW = 3
_NOISE = "It is measured on mini-batches, whose noise falls as the batch grows."
_AXES = {"epoch": "epochs", "step": "updates"}


@dataclass(frozen=True)
class Quantity:
    """A quantity that a picture shows; if it `is_set`, it is a setting of a step, and otherwise a step measures it."""

    name: str
    title: str
    axis: str
    note: str = ""
    is_set: bool = False


@dataclass(frozen=True)
class DrawnGroups:
    """The groups that are drawn, with their mean curves by name."""

    study: Study
    groups: Sequence[Group]
    curves: Mapping[str, Curves]


TEST_ERROR = Quantity("test_error", "Test error", "test error, %")
SHARPNESS = Quantity("sharpness", "Sharpness", "sharpness")
_TRAIN_LOSS = Quantity("train_loss", "Training loss", "cross-entropy, mean of the epoch")
_QUANTITIES = (
    _TRAIN_LOSS,
    Quantity("grad_norm", "Norm of the mini-batch gradient", "norm, mean of the epoch", _NOISE),
    Quantity("perturbed_grad_norm", "Norm of the gradient at the perturbed point", "norm, mean of the epoch", _NOISE),
    Quantity("cosine", "Cosine of the angle between both gradients", "cosine, mean of the epoch"),
    Quantity(
        "surrogate_gap",
        "Perturbed loss minus clean loss",
        "cross-entropy, mean of the epoch",
        "It is measured on mini-batches and grows with ρ, so compare methods of the same radius.",
    ),
    Quantity("batch_size", "Batch size", "examples", is_set=True),
    Quantity("learning_rate", "Learning rate", "learning rate", is_set=True),
    Quantity("rho", "Radius of the perturbation", "radius ρ", is_set=True),
)


def main_pictures(study: Study, folder: Path) -> list[Picture]:
    """Draws the test error and the sharpness during training; nothing if the folders of the runs are gone."""
    if not _has_folders(study):
        return []
    groups = papers_groups(study) if study.is_large else study.groups
    curves = {group.name: mean_curves(curves_of(run.folder) for run in group.recorded()) for group in groups}
    return [
        *_over("epoch", TEST_ERROR, DrawnGroups(study, groups, curves), folder),
        *_sharpness_over_epochs(study, folder),
        *_noise_scales(study, folder),
    ]


def further_pictures(study: Study, folder: Path) -> list[Picture]:
    """Draws all other quantities; nothing if the folders of the runs are gone."""
    if not _has_folders(study):
        return []
    groups = papers_groups(study)[: 2 * FEW] if study.is_large else study.groups
    curves = {group.name: mean_curves(curves_of(run.folder) for run in group.recorded()) for group in groups}
    drawn = _over("step", TEST_ERROR, DrawnGroups(study, groups, curves), folder)
    for quantity in _QUANTITIES:
        drawn += _over("epoch", quantity, DrawnGroups(study, groups, curves), folder)
    return [*drawn, *_over_radii(study, groups, folder), *_landscapes(study, folder)]


def draw_quantity(quantity: Quantity, axis: str, study: Study, curves: Mapping[str, Curve]) -> Figure:
    """Draws a quantity along `epoch` or `step`: the mean curve of each group that has it, by its name."""
    drawn = [group for group in study.groups if group.name in curves]
    rows = [row for row in study.rows if any(group.row == row for group in drawn)]
    if quantity.is_set and _is_same_for_all(drawn, curves):
        drawn, rows = [group for group in drawn if group.row == rows[0]], ["all methods"] if len(rows) > 1 else rows
    with mpl.rc_context(drawing.STYLE):
        figure, panels = drawing.grid(len(rows), _IN_A_ROW, (3.3, 2.9), sharey=True)
        for panel, row in zip(panels, rows, strict=True):
            for group in (group for group in drawn if row in (group.row, "all methods")):
                style = drawing.line_style(study.columns.index(group.column), len(study.columns))
                if not quantity.is_set:
                    style |= drawing.marker_style(study.rows.index(group.row)) | {"markevery": 0.2, "markersize": 4.5}
                _draw(panel, axis, quantity, curves[group.name], {"label": _label(group, drawn)} | style)
            panel.set_title(row, fontsize=10)
        values = np.concatenate([curves[group.name].values for group in drawn])
        is_logarithmic = drawing.cut(panels, values, can_be_logarithmic=quantity.name not in ("cosine", "rho"))
        if quantity.name == "batch_size":
            sizes = size_ticks(values)
            panels[0].set_yticks(sizes, [f"{size:.0f}" for size in sizes])
        drawing.whole_numbers(panels)
        ends = np.concatenate([getattr(curves[group.name], axis) for group in drawn])
        margin = 0.02 * (ends.max() - ends.min())
        if margin > 0:
            panels[0].set_xlim(ends.min() - margin, ends.max() + margin)
        name = f"{quantity.axis}\n(log scale)" if is_logarithmic else quantity.axis
        drawing.name_axes(panels, _IN_A_ROW, _AXES[axis], name)
        drawing.add_legend(figure, panels)
    return figure


def size_ticks(values: np.ndarray) -> np.ndarray:
    """Returns the batch sizes; doublings of the first if there are many, as means over seeds are."""
    sizes = np.unique(values[np.isfinite(values)])
    return sizes if len(sizes) <= 8 else sizes[0] * 2.0 ** np.arange(int(np.log2(sizes[-1] / sizes[0])) + 1)


def _has_folders(study: Study) -> bool:
    return all(len(group.recorded()) == len(group.runs) for group in study.groups)


def _over(axis: str, quantity: Quantity, drawn: DrawnGroups, folder: Path) -> list[Picture]:
    study, curves = drawn.study, drawn.curves
    having = {
        group.name: curves[group.name][quantity.name] for group in drawn.groups if quantity.name in curves[group.name]
    }
    values = np.concatenate([each.values for each in having.values()] or [np.array([])])
    finite = values[np.isfinite(values)]
    if not len(finite) or (quantity.is_set and np.isclose(finite.min(), finite.max())):
        return []
    figure = draw_quantity(quantity, axis, study, having)
    caption = " ".join(filter(None, [_caption(quantity, study, drawn.groups), quantity.note]))
    suffix = "" if axis == "epoch" else f"-over-{_AXES[axis]}"
    return [drawing.save(figure, f"{quantity.title} over {_AXES[axis]}", caption, folder, quantity.name + suffix)]


def _caption(quantity: Quantity, study: Study, groups: Sequence[Group]) -> str:
    several = len(study.seeds) > 1 and not quantity.is_set
    words = "The mean over the seeds, with a band of ± one standard deviation." if several else ""
    if len(groups) == len(study.groups):
        return words
    return f"{words} {len(groups)} of {len(study.groups)} groups are drawn: the paper's cells, at equal epochs.".strip()


def _is_same_for_all(groups: Sequence[Group], curves: Mapping[str, Curve]) -> bool:
    """Returns whether the curves of a strategy are the same for all methods."""
    first = {group.column: curves[group.name] for group in reversed(groups) if group.row == groups[0].row}
    others = [(curves[group.name], first.get(group.column)) for group in groups]
    return all(
        b is not None and np.array_equal(a.values, b.values) and np.array_equal(a.step, b.step) for a, b in others
    )


def _label(group: Group, drawn: Sequence[Group]) -> str:
    """Returns the strategy, with what distinguishes it if its panel has it more than once."""
    alike = [each for each in drawn if (each.row, each.column) == (group.row, group.column)]
    return labels.heading(group.column) + (f", {group.qualifier}" if len(alike) > 1 else "")


def _draw(panel: Axes, axis: str, quantity: Quantity, curve: Curve, style: dict[str, Any]) -> None:
    where, values = getattr(curve, axis), curve.values
    style = style | ({"markevery": None} if np.isfinite(values).sum() < 2 else {})  # of a run that diverged at once
    style |= {"drawstyle": "steps-post"} if quantity.name == "batch_size" else {}
    panel.plot(where, values, **style)
    if np.any(curve.spread > 0) and not quantity.is_set:
        low = values - curve.spread
        low = np.where(low > 0, low, np.minimum(values, 1e-12)) if np.all(values[np.isfinite(values)] > 0) else low
        panel.fill_between(where, low, values + curve.spread, color=style["color"], alpha=0.15, linewidth=0)


def _sharpness_over_epochs(study: Study, folder: Path) -> list[Picture]:
    setting = most_followed([run for group in study.groups for run in group.recorded()])
    if setting is None:
        return []
    groups, found = papers_groups(study), {}
    for group in groups:
        inside = [followed(run, *setting) for run in group.recorded()]
        known = [{SHARPNESS.name: curve} for curve in inside if curve is not None]
        curves = mean_curves(known) if len(known) == len(inside) else {}
        if SHARPNESS.name in curves and np.isfinite(curves[SHARPNESS.name].values).any():
            found[group.name] = curves
    if not found:
        return []
    note = f"The worst case at ρ {setting[1]:.3g}, {setting[0].title}."
    inside = [group for group in groups if group.name in found]
    return _over("epoch", replace(SHARPNESS, note=note), DrawnGroups(study, inside, found), folder)


def _noise_scales(study: Study, folder: Path) -> list[Picture]:
    groups = [group for group in study.groups if group.config.adaptive is not None]
    if not groups:
        return []
    with mpl.rc_context(drawing.STYLE):
        figure, panels = drawing.grid(len(groups), _IN_A_ROW, (3.3, 2.9), sharey=True)
        for panel, group in zip(panels, groups, strict=True):
            for run in group.recorded():
                _draw_noise(panel, run)
            panel.set_title(group.name, fontsize=9)
        drawing.make_logarithmic(panels[0])
        drawing.whole_numbers(panels)
        drawing.name_axes(panels, _IN_A_ROW, "epochs", "examples (log scale)")
        drawing.add_legend(figure, panels)
    caption = (
        "A panel per group, a line per seed. At the end of an epoch, the noise scale decides on the batch size of the "
        "next one. A line has a gap where the noise was too large to measure the gradient."
    )
    return [drawing.save(figure, "Noise scale and batch size over epochs", caption, folder)]


def _draw_noise(panel: Axes, run: Run) -> None:
    curves = curves_of(run.folder)
    scale, size = curves["noise_scale"], curves["batch_size"]
    values = np.where(scale.values > 0, scale.values, np.nan)  # an estimate that has no logarithm
    panel.plot(scale.epoch, values, label="noise scale of the epoch", color=drawing.PALETTE[5], linewidth=1.0)
    style: dict[str, Any] = {"linewidth": 1.4, "linestyle": "--", "drawstyle": "steps-post"}
    panel.plot(size.epoch, size.values, label="batch size", color=drawing.PALETTE[0], **style)


def _over_radii(study: Study, groups: Sequence[Group], folder: Path) -> list[Picture]:
    """Draws the curves in the protocol that most groups have."""
    by_group = {group.name: radius_curves(group.recorded()) for group in groups}
    counts = Counter(ProtocolColumns(protocol.title) for found in by_group.values() for protocol in found)
    if not counts:
        return []
    protocol = min(counts, key=lambda protocol: (-counts[protocol], *protocol.order))
    curves = {n: curve for n, found in by_group.items() for p, curve in found.items() if p.title == protocol.title}
    single = protocols_of([group.runs for group in study.groups]).get(protocol, [])
    caption = f"The worst case over radii, mean over the seeds ({protocol.title}). Dotted: radii of single values."
    if len(curves) < len(study.groups):
        caption += f" {len(curves)} of {len(study.groups)} groups are drawn: those of which all runs have a curve."
    figure = plot_curve(curves, sorted({PAPERS_RADIUS, *single}))
    return [drawing.save(figure, "Sharpness over radii", caption, folder)]


def two_landscapes(study: Study) -> dict[str, Landscape]:
    """Returns the landscapes of the flattest and of the sharpest run of a seed; of the first two if that is unknown."""
    protocols = protocols_of([group.runs for group in study.groups])
    column = next((protocol.column(headline(radii)) for protocol, radii in protocols.items()), "")
    most: list[tuple[float, str, Landscape]] = []
    for seed in study.seeds:
        groups = [group for group in study.groups if seed in group.seeds]
        found = landscapes([group.recorded()[group.seeds.index(seed)] for group in groups])
        named = [
            (float(groups[i].values(column, [seed])[0]), f"{groups[i].name}, seed {seed}", each)
            for i, each in found.items()
        ]
        most = max(most, named, key=len)
    known = sorted((each for each in most if np.isfinite(each[0])), key=lambda each: each[0])
    ends = known if len(known) > 1 else most
    return {name: landscape for _, name, landscape in ([ends[0], ends[-1]] if len(ends) > 1 else ends)}


def _landscapes(study: Study, folder: Path) -> list[Picture]:
    found = two_landscapes(study)
    if not found:
        return []
    caption = (
        "The loss along two random directions, scaled filter by filter to the length of the weights: the flattest and "
        "the sharpest run whose landscape was measured."
    )
    return [drawing.save(plot_landscapes(found), "Loss landscapes", caption, folder)]
