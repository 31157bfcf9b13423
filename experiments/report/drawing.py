"""How pictures look, and how they are kept: small, readable in grey, and the same for the same runs."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from experiments.training.atomic_write import replacing

DASHES = ("-", "--", ":", "-.", (0, (1, 3)))
WIDTHS = (1.4, 2.0, 1.8, 1.4, 1.8)  # dots look thinner than they are
MARKERS = ("o", "s", "^", "D", "v", "x", "P", "*")
STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.alpha": 0.3,
    "svg.hashsalt": "sam_optax",  # the same runs give the same file
}
_DPI = 110
_COLOURS = 128  # of a PNG
_TICKS = ((30, (1, 2, 5)), (300, (1, 3)), (float("inf"), (1,)))  # of a decade, up to a ratio of the ends
_FAR_APART = 8  # times: from there on an axis is logarithmic


class Picture(NamedTuple):
    """A picture, on disk as a PNG, and as a drawing for the page.

    Attributes:
      title: what it shows.
      caption: what is to be seen.
      path: of the PNG.
      drawing: the SVG.
    """

    title: str
    caption: str
    path: Path
    drawing: bytes


def save(figure: Figure, title: str, caption: str, folder: Path, name: str | None = None) -> Picture:
    """Write the figure into the folder, as a PNG of few colours, and keep it as a drawing.

    Args:
      figure: what was drawn.
      title: what it shows.
      caption: what is to be seen.
      folder: where it goes.
      name: of the file, without its ending; left out, the title's words.
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


def shades(count: int) -> np.ndarray:
    """So many colours, which differ in lightness."""
    return mpl.colormaps["cividis"](np.linspace(0, 0.85, max(count, 2)))


def line_style(index: int) -> dict[str, Any]:
    """Dash, width and marker of the line with this number, so that lines differ in grey, too."""
    again, dash = divmod(index, len(DASHES))
    marker = "" if again == 0 else MARKERS[(again - 1) % len(MARKERS)]
    return {"linestyle": DASHES[dash], "linewidth": WIDTHS[dash], "marker": marker, "markevery": 0.1}


def legend_below(figure: Figure, panel: Axes, columns: int) -> None:
    """One legend for all panels, below them: what the panel has, each label once."""
    handles, labels = panel.get_legend_handles_labels()
    once = dict(zip(reversed(labels), reversed(handles), strict=True))
    named = dict(reversed(once.items()))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns, frameon=False)


def are_far_apart(values: Sequence[float] | np.ndarray) -> bool:
    """Whether a logarithmic axis shows the values better."""
    finite = np.asarray(values)[np.isfinite(values)]
    return len(finite) > 0 and finite.min() > 0 and finite.max() >= _FAR_APART * finite.min()


def make_logarithmic(panel: Axes, name: str = "y") -> None:
    """Make an axis logarithmic, with plain numbers at a few ticks.

    Args:
      panel: in which everything is drawn.
      name: of the axis: `x` or `y`.
    """
    getattr(panel, f"set_{name}scale")("log")
    axis = getattr(panel, f"{name}axis")
    low, high = sorted(getattr(panel, f"get_{name}lim")())
    axis.set_major_locator(LogLocator(subs=next(subs for most, subs in _TICKS if high <= most * low)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
