"""The picture of a study: test error and batch size, against epochs and against updates."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from experiments.grid import METHODS, STRATEGIES, Cell
from experiments.table import LABELS
from experiments.training import metrics

# Each strategy has its own lightness and each method its own dash, so that the picture reads in grey.
_COLOURS = {"constant": "#000000", "increasing": "#d55e00", "cosine": "#7db8e0"}
_DASHES = {"sgd": ":", "sam": "--", "gsam": "-"}
_BATCH_WIDTHS = {"constant": 4.5, "increasing": 1.6, "cosine": 1.6}  # the cosine's batch size is the constant's
_AXES = {"epoch": "epochs", "step": "updates"}


def draw(cells: list[Cell], title: str, path: Path) -> None:
    """Draw the mean over seeds of every method and strategy, into a PNG file."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=(3, 1))
    figure.suptitle(title)
    for strategy in STRATEGIES:
        for method in METHODS:
            curves = _mean_curves([c for c in cells if (c.method, c.strategy) == (method, strategy)])
            style = {"color": _COLOURS[strategy], "linestyle": _DASHES[method], "linewidth": 1.6}
            for column, axis in enumerate(_AXES):
                label = f"{method.upper()}, {LABELS[strategy]}"
                panels[0, column].plot(curves[axis], 100 * curves["test_error"], label=label, **style)
        for column, axis in enumerate(_AXES):
            starts = np.concatenate([[0], curves[axis]])
            sizes = np.concatenate([curves["batch_size"][:1], curves["batch_size"]])
            width = _BATCH_WIDTHS[strategy]
            panels[1, column].step(starts, sizes, where="pre", color=_COLOURS[strategy], linewidth=width)
    _label(panels, sorted({stage.batch_size for cell in cells for stage in cell.config.plan.stages}))
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def _label(panels: Any, batch_sizes: list[int]) -> None:
    panels[0, 0].set(ylabel="test error, % (log scale)", yscale="log")
    panels[0, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[1, 0].set(ylabel="batch size (log scale)", yscale="log", yticks=batch_sizes)
    for name, panel in zip(_AXES.values(), panels[1], strict=True):
        panel.set_xlabel(name)
    for panel in panels[:, 0]:
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
    for panel in panels.flat:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)


def _mean_curves(cells: list[Cell]) -> dict[str, np.ndarray]:
    """Each field of the epochs' records, averaged over the runs, `(epochs,)`."""
    runs = [list(metrics.read(cell.folder / "metrics.jsonl", "epoch")) for cell in cells]
    names = ("epoch", "step", "batch_size", "test_error")
    return {name: np.mean([[record[name] for record in run] for run in runs], axis=0) for name in names}
