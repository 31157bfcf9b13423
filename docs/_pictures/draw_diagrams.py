"""Draws the diagrams of the guide: `python docs/_pictures/draw_diagrams.py`, in a few seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sam_optax import BatchPlan

DOCS = Path(__file__).parents[1]
STYLE: Any = {"axes.spines.right": False, "axes.spines.top": False, "font.size": 10}
COLOURS = ("#00224e", "#7d7c78", "#c9a727")  # they differ in lightness
PLANS = {"constant": "25x128", "increasing": "5x16,5x32,5x64,5x128,5x256", "late_switch": "20x16,5x256"}
EXAMPLES = 512  # in the training set of the digits study


def one_step() -> Figure:
    """Draws the path of a step through a chain: both passes, the combination, and the base optimizer."""
    boxes = {
        (0, 1): ("parameters w,\nbatch", ""),
        (1, 1): ("first pass\nloss and gradient g at w", "value_and_grad"),
        (2, 1): ("perturbation\noffset ε from g", "sam, gsam, …"),
        (2, 0): ("second pass\ngradient at w + ε, same batch", "grad_fn"),
        (1, 0): ("combiner\nfrom both gradients, one", "sam, gsam, …"),
        (0, 0): ("base optimizer\nupdate of w", "optax.sgd, …"),
    }
    figure = Figure(figsize=(8.4, 2.8), layout="constrained")
    panel = figure.subplots()
    panel.set(xlim=(-0.4, 2.45), ylim=(-0.6, 1.6))
    panel.axis("off")
    frame = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": COLOURS[0]}
    placed = {at: panel.text(*at, text, ha="center", va="center", bbox=frame) for at, (text, _) in boxes.items()}
    for (across, up), (_, note) in boxes.items():
        panel.text(across, 1.42 if up else -0.5, note, ha="center", family="monospace", fontsize=9, color="0.3")
    route = list(boxes)
    for start, end in zip(route, [*route[1:], route[0]], strict=True):
        ends = {"patchA": placed[start].get_bbox_patch(), "patchB": placed[end].get_bbox_patch()}
        panel.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": COLOURS[0], **ends})
    return figure


def batch_plans() -> Figure:
    """Draws three plans of the study with the same number of epochs, against epochs and against updates."""
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    with mpl.rc_context(STYLE):
        panels = figure.subplots(1, 2, sharey=True)
        for (name, text), colour, style in zip(PLANS.items(), COLOURS, ("-", "--", "-."), strict=True):
            plan = BatchPlan.parse(text)
            updates = np.arange(plan.total_steps(EXAMPLES) + 1)
            sizes = [plan.batch_size_at_step(int(at), EXAMPLES) for at in updates[:-1]]
            line: Mapping[str, Any] = {"where": "post", "color": colour, "linestyle": style, "label": name}
            epochs = [plan.examples_at(int(at), EXAMPLES) / EXAMPLES for at in updates]
            for panel, along in zip(panels, (epochs, updates), strict=True):
                panel.step(along, [*sizes, sizes[-1]], **line)
        panels[0].set(xlabel="epoch", ylabel="batch size (log scale)", yscale="log")
        panels[0].set_yticks([16, 32, 64, 128, 256], ["16", "32", "64", "128", "256"])
        panels[0].minorticks_off()
        panels[1].set(xlabel="update")
        panels[1].legend(frameon=False)
    return figure


def main() -> None:
    """Draws all diagrams."""
    for name, figure in {"one_step": one_step(), "batch_plans": batch_plans()}.items():
        figure.savefig(DOCS / "pictures" / f"{name}.png", dpi=130)


if __name__ == "__main__":
    main()
