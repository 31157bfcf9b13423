"""The views of a batch as one picture: a row for each image, a column for each step."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.showing.views import View
from experiments.training.atomic_write import replacing

_SIDE = 1.5  # inches
_SMALLEST = 1e-6  # of what a target differs by


def draw(views: list[View], rows: int, path: Path) -> None:
    """Draw the first images of a batch, with their targets, as a PNG.

    Args:
      views: of one batch.
      rows: how many images, at most; where the batch is smaller, all.
      path: of the file.
    """
    rows = min(rows, len(views[0].images))
    brightest = max(int(views[0].images.max()), 1)  # of grey images, whose levels may be few
    figure = Figure(figsize=(_SIDE * len(views), (_SIDE + 0.3) * rows + 0.3), layout="constrained")
    columns = figure.subplots(rows, len(views), squeeze=False).T
    for view, panels in zip(views, columns, strict=True):
        for panel, image, target in zip(panels, view.images, view.targets, strict=False):
            tells_more = view is views[0] or view is views[-1]
            _draw_image(panel, image, in_words(target) if tells_more else "", brightest)
        panels[0].set_title(view.step.replace("_", " "), fontsize=9)
    with replacing(path) as new:
        figure.savefig(new, format="png", dpi=120)


def in_words(target: np.ndarray) -> str:
    """A target in a few words: a label, or the classes of a distribution that stand out.

    Args:
      target: an integer, or a distribution over the classes, `(classes,)`.
    """
    if not target.ndim:
        return f"label {target}"
    base = target.min()
    outstanding = [label for label in np.argsort(-target) if target[label] > base + _SMALLEST]
    words = ", ".join(f"{label}: {100 * target[label]:.0f}%" for label in outstanding)
    return words if base < _SMALLEST else f"{words}\neach other: {100 * base:.2g}%"


def _draw_image(panel: Axes, image: np.ndarray, text: str, brightest: int) -> None:
    is_grey = image.shape[-1] == 1
    panel.imshow(image[..., 0] if is_grey else image, cmap="gray" if is_grey else None, vmin=0, vmax=brightest)
    panel.set(xticks=[], yticks=[])
    panel.set_xlabel(text, fontsize=8)
