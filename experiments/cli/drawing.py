"""The style of pictures and their files: small, readable in grey, and equal for equal runs."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from experiments.training.atomic_write import replacing

DASHES = ("-", "--", ":", "-.", (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PALETTE = ("#1c1c1c", "#620e2c", "#0c459a", "#066f5c", "#e04523", "#b876d7", "#ec9e06", "#8ad0ee")
"""Eight colours of different hues, whose lightness rises from 10 to 80 in equal steps."""

STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.alpha": 0.3,
    "svg.hashsalt": "sam_optax",  # equal runs give equal files
}
_DPI = 110
_COLOURS = 128  # of a PNG
_TICKS = ((30, (1, 2, 5)), (300, (1, 3)), (float("inf"), (1,)))  # of a decade, up to a ratio of the ends
_FAR_APART = 8  # times: from there on an axis is logarithmic
_LEGEND_WIDTH = 120  # characters in ten inches
_LINE_HEIGHT = 0.2  # of a legend, in inches


@dataclass(frozen=True)
class Picture:
    """A picture, as a PNG on disk, and as a drawing for the page.

    Attributes:
      title: what it shows.
      caption: what to look at.
      path: the PNG.
      drawing: the picture for the page, as SVG; for a picture of an earlier report, the bytes of its PNG.
      commit: the commit with which it was drawn, if it is not the one of this report.
    """

    title: str
    caption: str
    path: Path
    drawing: bytes
    commit: str = ""

    @property
    def as_data_url(self) -> str:
        """The drawing as an address, so that it is part of a page."""
        kind = "png" if self.drawing.startswith(b"\x89PNG") else "svg+xml"
        return f"data:image/{kind};base64,{base64.b64encode(self.drawing).decode('ascii')}"


def save(figure: Figure, title: str, caption: str, folder: Path, name: str | None = None) -> Picture:
    """Writes the figure into the folder, as a PNG of few colours, and keeps it as a drawing.

    Args:
      figure: the figure.
      title: what it shows.
      caption: what to look at.
      folder: the folder of the file.
      name: the name of the file without its ending; None: the words of the title.
    """
    drawing, pixels = BytesIO(), BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(drawing, format="svg", metadata={"Date": None})
        figure.savefig(pixels, format="png", dpi=_DPI)
    path = folder / f"{name or title.lower().replace(' ', '-')}.png"
    few = Image.open(pixels).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    with replacing(path) as new:
        few.save(new, format="png", optimize=True)
    return Picture(title, caption, path, drawing.getvalue())


def shades(count: int) -> list[str]:
    """Returns colours that are spread over the lightness of the palette; beyond eight, they repeat."""
    if count > len(PALETTE):
        return [PALETTE[index % len(PALETTE)] for index in range(count)]
    return [PALETTE[round(place)] for place in np.linspace(0, len(PALETTE) - 1, max(count, 2))][:count]


def line_style(index: int, count: int) -> dict[str, Any]:
    """Returns the colour and the dash of the strategy with this number, of `count` strategies."""
    dash = DASHES[(index + index // len(PALETTE)) % len(DASHES)]
    return {"color": shades(count)[index], "linestyle": dash, "linewidth": 1.6}


def marker_style(index: int) -> dict[str, Any]:
    """Returns the marker of the method with this number; more than eight methods have open markers."""
    face = {"markerfacecolor": "white"} if index // len(MARKERS) % 2 else {}
    return {"marker": MARKERS[index % len(MARKERS)], "markersize": 5.5, **face}


def grid(count: int, in_a_row: int, size: tuple[float, float], *, sharey: bool) -> tuple[Figure, list[Axes]]:
    """Returns a figure with panels that share their horizontal axis.

    Args:
      count: the number of panels, at least one.
      in_a_row: the largest number of panels in a row.
      size: the width and the height of a panel, in inches.
      sharey: whether the panels share their vertical axis.
    """
    across = min(in_a_row, count)
    down = -(-count // across)
    figure = Figure(figsize=(max(size[0] * across, 5.0), 0.6 + size[1] * down), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=sharey, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.set_visible(False)
    for panel in panels[max(count - across, 0) : count]:
        panel.tick_params(labelbottom=True)
    return figure, list(panels[:count])


def name_axes(panels: Sequence[Axes], in_a_row: int, horizontal: str, vertical: str) -> None:
    """Labels the horizontal axes of the lowest panels, and the vertical axes of the first ones of each row."""
    across = min(in_a_row, len(panels))
    for panel in panels[len(panels) - across :]:
        panel.set_xlabel(horizontal)
    for panel in panels[::across]:
        panel.set_ylabel(vertical)


def add_legend(figure: Figure, panels: Sequence[Axes], *, is_above: bool = False) -> None:
    """Adds one legend below or above all panels, with each label of any panel once."""
    named: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if named:
        across = figure.get_figwidth() / 10
        columns = max(1, min(5, int(_LEGEND_WIDTH * across) // max(len(label) + 8 for label in named)))
        lines = -(-len(named) // columns)
        figure.set_figheight(figure.get_figheight() + _LINE_HEIGHT * max(0, lines - 2))  # `grid` has room for two
        where = "outside upper center" if is_above else "outside lower center"
        figure.legend(named.values(), named.keys(), loc=where, ncols=columns, frameon=False)


def label_ratios(panel: Axes) -> None:
    """Labels an axis of logarithms with ratios."""
    low, high = panel.get_xlim()
    candidates = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100])
    shown = [float(each) for each in candidates if low <= math.log(each) <= high]
    if len(shown) > 5:
        shown = [each for each in shown if f"{each:g}"[-1] == "1" or f"{each:g}".startswith("1")]
    panel.set_xticks([math.log(each) for each in shown], [f"×{each:g}" for each in shown])


def cut(panels: Sequence[Axes], values: Sequence[float] | np.ndarray, *, can_be_logarithmic: bool = True) -> bool:
    """Limits a shared vertical axis to the values, and returns whether it is logarithmic."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return False
    low, high = float(finite.min()), float(finite.max())
    is_logarithmic = can_be_logarithmic and are_far_apart(finite)
    if is_logarithmic:
        margin = (high / low) ** 0.05
        panels[0].set_ylim(low / margin, high * margin)
        make_logarithmic(panels[0])
    elif high > low:
        panels[0].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    return is_logarithmic


def whole_numbers(panels: Sequence[Axes]) -> None:
    """Puts the ticks of the horizontal axes at whole numbers."""
    for panel in panels:
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def are_far_apart(values: Sequence[float] | np.ndarray) -> bool:
    """Returns whether a logarithmic axis shows the values better."""
    finite = np.asarray(values)[np.isfinite(values)]
    return len(finite) > 0 and finite.min() > 0 and finite.max() >= _FAR_APART * finite.min()


def make_logarithmic(panel: Axes, name: str = "y") -> None:
    """Makes an axis logarithmic, with plain numbers at a few ticks.

    Args:
      panel: the panel, in which everything is drawn.
      name: the axis: `x` or `y`.
    """
    getattr(panel, f"set_{name}scale")("log")
    axis = getattr(panel, f"{name}axis")
    low, high = sorted(getattr(panel, f"get_{name}lim")())
    axis.set_major_locator(LogLocator(subs=next(subs for most, subs in _TICKS if high <= most * low)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
