"""The pictures of what runs recorded: quantities during training, noise scales, sharpness over radii, and landscapes.

They need the folders of the runs. A panel shows a method, and a line a strategy, with a band over the seeds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report import drawing, labels
from experiments.report.drawing import Picture
from experiments.report.groups import FEW, Group, Study
from experiments.report.matches import papers_cells
from experiments.report.run_curves import Curve, Curves, curves_of, mean_curves
from experiments.report.runs_table import PAPERS_RADIUS, Way, headline, ways_of, worst_cases
from experiments.runner.finished_runs import Run
from experiments.sharpness.protocol import SharpnessProtocol
from experiments.training import records
from sam_optax.sharpness import Curve as RadiusCurve
from sam_optax.sharpness import Landscape
from sam_optax.sharpness.plots import plot_curve, plot_landscapes

_IN_A_ROW = 3
_NOISE = "It is measured on mini-batches, whose noise falls as the batch grows."
_AXES = {"epoch": "epochs", "step": "updates"}
_OF_LANDSCAPE = ("examples", "normalize_logits", "reestimate_batchnorm")


@dataclass(frozen=True)
class Quantity:
    """A quantity that a picture shows.

    Attributes:
      name: the name of its curve.
      title: the title of its picture.
      axis: the label of its axis, with the unit.
      note: what a reader has to know about it.
      is_set: whether it is set before a step, and not measured.
    """

    name: str
    title: str
    axis: str
    note: str = ""
    is_set: bool = False


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
    cells = papers_cells(study) if study.is_large else study.groups
    curves = {group.name: mean_curves(curves_of(run.folder) for run in group.runs["run"]) for group in cells}
    return [
        *_over(TEST_ERROR, "epoch", study, cells, curves, folder),
        *_sharpness_over_epochs(study, folder),
        *_noise_scales(study, folder),
    ]


def further_pictures(study: Study, folder: Path) -> list[Picture]:
    """Draws all other quantities; nothing if the folders of the runs are gone."""
    if not _has_folders(study):
        return []
    cells = papers_cells(study)[: 2 * FEW] if study.is_large else study.groups
    curves = {group.name: mean_curves(curves_of(run.folder) for run in group.runs["run"]) for group in cells}
    drawn = [*_over(TEST_ERROR, "step", study, cells, curves, folder)]
    for quantity in _QUANTITIES:
        drawn += _over(quantity, "epoch", study, cells, curves, folder)
    return [*drawn, *_over_radii(study, cells, folder), *_landscapes(study, folder)]


def draw_quantity(quantity: Quantity, axis: str, study: Study, curves: Mapping[str, Curve]) -> Figure:
    """Draws a quantity during training.

    Args:
      quantity: the quantity.
      axis: the horizontal axis, `epoch` or `step`.
      study: the study.
      curves: the mean curve of each group that has the quantity, by its name.
    """
    drawn = [group for group in study.groups if group.name in curves]
    rows = [row for row in study.rows if any(group.row == row for group in drawn)]
    if quantity.is_set and _is_same_for_all(drawn, curves):
        drawn, rows = [group for group in drawn if group.row == rows[0]], ["all methods"] if len(rows) > 1 else rows
    columns = list(dict.fromkeys(group.column for group in drawn))
    columns = [column for column in study.columns if column in columns]
    with mpl.rc_context(drawing.STYLE):
        figure, panels = drawing.grid(len(rows), _IN_A_ROW, (3.3, 2.9), sharey=True)
        for panel, row in zip(panels, rows, strict=True):
            for group in (group for group in drawn if row in (group.row, "all methods")):
                style = drawing.line_style(columns.index(group.column), len(columns))
                if not quantity.is_set:
                    style |= drawing.marker_style(study.rows.index(group.row)) | {"markevery": 0.2, "markersize": 4.5}
                _draw(panel, axis, quantity, curves[group.name], _label(group, drawn), style)
            panel.set_title(row, fontsize=10)
        values = np.concatenate([curves[group.name].values for group in drawn])
        is_logarithmic = drawing.cut(panels, values, can_be_logarithmic=quantity.name not in ("cosine", "rho"))
        if quantity.name == "batch_size":
            sizes = size_ticks(values)
            panels[0].set_yticks(sizes, [f"{size:.0f}" for size in sizes])
        drawing.whole_numbers(panels)
        ends = np.concatenate([getattr(curves[group.name], axis) for group in drawn])
        if ends.max() > ends.min():
            panels[0].set_xlim(ends.min(), ends.max())
        name = f"{quantity.axis} (log scale)" if is_logarithmic else quantity.axis
        drawing.name_axes(panels, _IN_A_ROW, _AXES[axis], name)
        drawing.legend_below(figure, panels)
    return figure


def size_ticks(values: np.ndarray) -> np.ndarray:
    """Returns the batch sizes; doublings of the first if there are many, as means over seeds are."""
    sizes = np.unique(values[np.isfinite(values)])
    return sizes if len(sizes) <= 8 else sizes[0] * 2.0 ** np.arange(int(np.log2(sizes[-1] / sizes[0])) + 1)


def most_followed(runs: Sequence[Run]) -> tuple[SharpnessProtocol, float] | None:
    """Returns the protocol and the radius with which most runs were measured after several epochs."""
    counts = Counter(key for run in runs for key, found in _by_setting(run).items() if len(found) > 1)
    if not counts:
        return None
    most = max(counts.values())
    often = [key for key, count in counts.items() if count == most]
    first = min({way for way, _ in often}, key=lambda way: Way(way.title).order)
    return first, min((rho for way, rho in often if way == first), key=lambda rho: (rho != PAPERS_RADIUS, rho))


def followed(run: Run, way: SharpnessProtocol, rho: float) -> Curve | None:
    """Returns the worst case over the epochs; None unless there are two values."""
    found = _by_setting(run).get((way, rho), [])
    if len(found) < 2:
        return None
    epoch, step, values = np.asarray([(each.epoch, each.step, each.sharpness) for each in found], np.float64).T
    return Curve(epoch, step, values, np.zeros(len(values)))  # null is NaN


def most_common_curve(groups: Sequence[Group]) -> SharpnessProtocol | None:
    """Returns the protocol of the curves over radii that most groups have."""
    counts = Counter(way for group in groups for way in set.intersection(*(set(_curves(r)) for r in group.runs["run"])))
    return min(counts, key=lambda way: (-counts[way], *Way(way.title).order), default=None)


def radius_curves(groups: Sequence[Group], way: SharpnessProtocol) -> dict[str, RadiusCurve]:
    """Returns the mean curve over radii of each group of which all runs have one."""
    found = {group.name: [_curves(run).get(way) for run in group.runs["run"]] for group in groups}
    return {name: _mean_curve([each for each in of_it if each]) for name, of_it in found.items() if all(of_it)}


def two_landscapes(study: Study) -> dict[str, Landscape]:
    """Returns the landscapes of the flattest and of the sharpest run of a seed; of any two if that is unknown."""
    by_seed = [_landscapes_of(study, seed) for seed in study.seeds]
    found = max(by_seed, key=len, default=[])  # of the first of the seeds that have the most
    known = [each for each in found if each[0] is not None]
    ordered = sorted(known, key=lambda each: each[0] or 0.0) if len(known) > 1 else found
    return {name: landscape for _, name, landscape in (ordered if len(ordered) < 2 else [ordered[0], ordered[-1]])}


def _has_folders(study: Study) -> bool:
    return all(run is not None for run in study.runs["run"])


def _over(
    quantity: Quantity, axis: str, study: Study, cells: Sequence[Group], curves: Mapping[str, Curves], folder: Path
) -> list[Picture]:
    having = {group.name: curves[group.name][quantity.name] for group in cells if quantity.name in curves[group.name]}
    values = np.concatenate([each.values for each in having.values()] or [np.array([])])
    finite = values[np.isfinite(values)]
    if not len(finite) or (quantity.is_set and np.isclose(finite.min(), finite.max())):
        return []
    figure = draw_quantity(quantity, axis, study, having)
    caption = " ".join(filter(None, [_caption(quantity, study, cells), quantity.note]))
    suffix = "" if axis == "epoch" else f"-over-{_AXES[axis]}"
    return [drawing.save(figure, f"{quantity.title} over {_AXES[axis]}", caption, folder, quantity.name + suffix)]


def _caption(quantity: Quantity, study: Study, cells: Sequence[Group]) -> str:
    several = len(study.seeds) > 1 and not quantity.is_set
    words = "The mean over the seeds, with a band of ± one standard deviation." if several else ""
    if len(cells) == len(study.groups):
        return words
    return f"{words} {len(cells)} of {len(study.groups)} groups are drawn: the paper's cells, at equal epochs.".strip()


def _is_same_for_all(groups: Sequence[Group], curves: Mapping[str, Curve]) -> bool:
    """Returns whether the curves of a strategy are the same for all methods."""
    first = {group.column: curves[group.name] for group in reversed(groups) if group.row == groups[0].row}
    others = [(curves[group.name], first.get(group.column)) for group in groups]
    return all(b is not None and np.array_equal(a.values, b.values) and np.array_equal(a.step, b.step) for a, b in others)


def _label(group: Group, drawn: Sequence[Group]) -> str:
    """Returns the strategy, with what distinguishes it if its panel has it more than once."""
    alike = [each for each in drawn if (each.row, each.column) == (group.row, group.column)]
    name = labels.heading(group.column) + (f", {group.remark}" if len(alike) > 1 else "")
    return name


def _draw(panel: Axes, axis: str, quantity: Quantity, curve: Curve, label: str, style: dict[str, Any]) -> None:
    where, values = getattr(curve, axis), curve.values
    if quantity.is_set:
        style = style | ({"drawstyle": "steps-post"} if quantity.name == "batch_size" else {})
    panel.plot(where, values, label=label, **style)
    if np.any(curve.spread > 0) and not quantity.is_set:
        low = values - curve.spread
        low = np.where(low > 0, low, np.minimum(values, 1e-12)) if np.all(values[np.isfinite(values)] > 0) else low
        panel.fill_between(where, low, values + curve.spread, color=style["color"], alpha=0.15, linewidth=0)


def _sharpness_over_epochs(study: Study, folder: Path) -> list[Picture]:
    setting = most_followed(list(study.runs["run"]))
    if setting is None:
        return []
    cells, found = papers_cells(study), {}
    for group in cells:
        inside = [followed(run, *setting) for run in group.runs["run"]]
        known = [{SHARPNESS.name: curve} for curve in inside if curve is not None]
        curves = mean_curves(known) if len(known) == len(inside) else {}
        if SHARPNESS.name in curves and np.isfinite(curves[SHARPNESS.name].values).any():
            found[group.name] = curves
    if not found:
        return []
    note = f"The worst case at ρ {setting[1]:.3g}, {setting[0].title}."
    inside = [group for group in cells if group.name in found]
    return _over(replace(SHARPNESS, note=note), "epoch", study, inside, found, folder)


def _noise_scales(study: Study, folder: Path) -> list[Picture]:
    groups = [group for group in study.groups if group.config.adaptive is not None]
    if not groups:
        return []
    with mpl.rc_context(drawing.STYLE):
        figure, panels = drawing.grid(len(groups), _IN_A_ROW, (3.3, 2.9), sharey=True)
        for panel, group in zip(panels, groups, strict=True):
            for run in group.runs["run"]:
                _draw_noise(panel, run)
            panel.set_title(group.name, fontsize=9)
        drawing.make_logarithmic(panels[0])
        drawing.whole_numbers(panels)
        drawing.name_axes(panels, _IN_A_ROW, "epochs", "examples (log scale)")
        drawing.legend_below(figure, panels)
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
    style: dict[str, Any] = {"color": drawing.PALETTE[0], "linewidth": 1.4, "linestyle": "--", "drawstyle": "steps-post"}
    panel.plot(size.epoch, size.values, label="batch size", **style)


def _over_radii(study: Study, cells: Sequence[Group], folder: Path) -> list[Picture]:
    way = most_common_curve(cells)
    if way is None:
        return []
    curves = radius_curves(cells, way)
    single = ways_of([group.runs for group in study.groups]).get(Way(way.title), [])
    caption = f"The worst case over radii, mean over the seeds ({way.title}). Dotted: radii of single values."
    if len(curves) < len(study.groups):
        caption += f" {len(curves)} of {len(study.groups)} groups are drawn: those of which all runs have a curve."
    figure = plot_curve(curves, sorted({PAPERS_RADIUS, *single}))
    return [drawing.save(figure, "Sharpness over radii", caption, folder)]


def _landscapes(study: Study, folder: Path) -> list[Picture]:
    found = two_landscapes(study)
    if not found:
        return []
    caption = (
        "The loss along two random directions, scaled filter by filter to the length of the weights: the flattest and "
        "the sharpest run whose landscape was measured."
    )
    return [drawing.save(plot_landscapes(found), "Loss landscapes", caption, folder)]


def _by_setting(run: Run) -> dict[tuple[SharpnessProtocol, float], list[records.WorstCase]]:
    found: dict[tuple[SharpnessProtocol, float], list[records.WorstCase]] = {}
    for epoch in sorted({record.epoch for record in run.sharpness}):
        for way, radii in worst_cases(run, epoch).items():
            for rho, record in radii.items():
                found.setdefault((way, rho), []).append(record)
    return found


def _curves(run: Run) -> dict[SharpnessProtocol, records.WorstCaseCurve]:
    return {
        SharpnessProtocol.of(record): record
        for record in run.sharpness
        if isinstance(record, records.WorstCaseCurve) and record.epoch == run.epochs
    }


def _mean_curve(found: Sequence[records.WorstCaseCurve]) -> RadiusCurve:
    rho, sharpness, first_order, error = (
        np.mean([_array(getattr(record, name)) for record in found], axis=0)
        for name in ("rho", "sharpness", "first_order", "error")
    )
    slope = np.gradient(np.log(np.where(sharpness > 0, sharpness, np.nan)), np.log(rho))
    loss = float(np.mean(_array([record.loss for record in found])))
    return RadiusCurve(rho, sharpness, first_order, slope, error, loss, found[0].parameters, found[0].norm)


def _landscapes_of(study: Study, seed: int) -> list[tuple[float | None, str, Landscape]]:
    """Returns sharpness, name and landscape of the runs of a seed that were measured in the same way."""
    found = [
        (group, run, record)
        for group in study.groups
        for run in (group.runs["run"].loc[[seed]] if seed in group.runs.index else [])
        for record in run.sharpness
        if isinstance(record, records.Landscape) and record.epoch == run.epochs
        if np.isfinite(_array(record.loss)[len(record.loss) // 2, len(record.loss) // 2])
    ]
    settings = [tuple(getattr(record, name) for name in _OF_LANDSCAPE) for _, _, record in found]
    return [
        (
            _sharpness_of(run, study),
            f"{group.name}, seed {seed}",
            Landscape(_array(record.coordinates), jnp.asarray(_array(record.loss))),
        )
        for (group, run, record), way in zip(found, settings, strict=True)
        if way == settings[0]
    ]


def _sharpness_of(run: Run, study: Study) -> float | None:
    """Returns the sharpness of a run that the table of errors has."""
    for way, radii in ways_of([group.runs for group in study.groups]).items():
        found = {protocol.title: cases for protocol, cases in worst_cases(run).items()}
        record = found.get(way.title, {}).get(headline(radii))
        return record and record.sharpness
    return None


def _array(values: object) -> np.ndarray:
    """Returns the numbers of a record, in which null is a number that is not finite."""
    return np.asarray(values, dtype=float)
