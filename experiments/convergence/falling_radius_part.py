"""The part of the document on a falling radius: one table and one picture."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.cli import drawing
from experiments.cli.tables import Rows
from experiments.convergence.document import Part
from experiments.convergence.falling_radius import CONSTANT, FALLING, FALLING_RATE, GROWING_BATCH, Result, Results
from experiments.convergence.quadratic_study import QuadraticStudy
from experiments.training.methods import METHODS

_EVERY = 10  # updates between the points of a line
_NORMAL = 1.96  # standard errors in half a 95% interval
_LOOKS: dict[str, dict[str, Any]] = {
    "SGD": {"color": "0.7", "linewidth": 4.5},
    "SAM, constant ρ": {"color": drawing.shades(3)[2], "linewidth": 1.8},
    "SAM, falling ρ": {"color": drawing.shades(3)[0], "linewidth": 1.8, "linestyle": "--"},
}
_LINES = {("sgd", CONSTANT): "SGD", ("sam", CONSTANT): "SAM, constant ρ", ("sam", FALLING): "SAM, falling ρ"}
_TITLES = {
    FALLING_RATE: "Quadratic: cosine rate, constant batch",
    GROWING_BATCH: "Quadratic: growing batch, constant rate",
}
_TABLE = (
    "Root mean squares over the runs and the last tenth of the updates, with a 95% interval; their theory, and their "
    "ratio to SGD. The last column is the norm at SAM's perturbed point, at the radius of that update."
)
_CAPTION = (
    "Left and centre: √E‖∇f‖² against updates. The learning rate falls along a cosine to 1%, and ρ and α in proportion "
    "to it; or the batch grows, and ρ and α fall as 1/√b. Dotted lines are the theory of docs/convergence.md. Right: "
    "|f′| on the worst case of docs/convergence.md, without noise, with the cosine rate."
)


def radius_rows(results: Results) -> Rows:
    """Returns the norms that each method reaches, in theory and measured, and those at SAM's perturbed point."""
    rows: Rows = [("what changes", "method", "radius", "√E‖∇f‖²", "theory", "relative to SGD", "√E‖∇f(w + ε)‖²")]
    for (change, method, radius), result in results.items():
        sgd = results.get((change, "sgd", CONSTANT))
        ratio = "–" if sgd is None else f"{math.sqrt(result.last / sgd.last):.2f}"
        at_point = "–" if result.last_sam is None else f"{math.sqrt(result.last_sam):.3g}"
        theory = f"{math.sqrt(result.expected_last):.3g}"
        kind = "–" if method == "sgd" else radius
        rows.append((change, METHODS[method].title, kind, _interval(result), theory, ratio, at_point))
    return rows


def _interval(result: Result) -> str:
    """Formats the root with half its 95% interval, which has two significant digits; without it for a single run."""
    root = math.sqrt(result.last)
    half = _NORMAL * result.standard_error / (2 * root)  # a root has half the relative error of its square
    if not math.isfinite(half):
        return f"{root:.3g}"
    decimals = 1 - math.floor(math.log10(half))
    return f"{root:.{decimals}f} ± {half:.{decimals}f}"


def draw_radii(study: QuadraticStudy, results: Results, worst: dict[str, np.ndarray]) -> Figure:
    """Draws the norms of SGD and of SAM with both kinds of radius: a falling rate, a growing batch, and the worst case.

    Args:
      study: the settings of the study.
      results: the results on the quadratic.
      worst: the norms on the worst case, by the kind of radius.
    """
    with mpl.rc_context(drawing.STYLE):
        figure = Figure(figsize=(12, 4.2), layout="constrained")
        *panels, last = figure.subplots(1, 3, sharey=True)
        for panel, (change, title) in zip(panels, _TITLES.items(), strict=True):
            _draw_quadratic(panel, {key[1:]: each for key, each in results.items() if key[0] == change})
            panel.set_title(title, fontsize=10)
        bounce = study.problem.bouncing_norm(study.learning_rate, study.rho)
        panels[1].axhline(bounce, color="0.3", linewidth=0.8)
        panels[1].annotate("ηL²ρ/(2 − ηL)", (0, bounce), (4, 3), textcoords="offset points", fontsize=8)
        for radius, norms in worst.items():
            last.semilogx(np.arange(1, len(norms)), np.maximum(norms[1:], 1e-9), **_LOOKS[_LINES["sam", radius]])
        last.set_title("Worst case: cosine rate, no noise", fontsize=10)
        last.annotate("Lρ", (1, study.rho), (4, 5), textcoords="offset points", fontsize=8)
        panels[0].set_ylabel("‖∇f‖")
        panels[0].set_yscale("log")
        panels[0].set_ylim(*_limits(results))
        for panel in (*panels, last):
            panel.set_xlabel("updates")
        drawing.add_legend(figure, panels)
    return figure


def _draw_quadratic(panel: Axes, results: dict[tuple[str, str], Result]) -> None:
    for key, name in _LINES.items():
        if key in results:
            squares, expected = results[key].squares[::_EVERY], results[key].expected[::_EVERY]
            updates = _EVERY * np.arange(len(squares))
            panel.plot(updates, np.sqrt(squares), label=name, **_LOOKS[name])
            panel.plot(updates, np.sqrt(expected), color="black", linestyle=":", linewidth=1, label="theory")


def _limits(results: Results) -> tuple[float, float]:
    """Returns the limits of the vertical axis, which hold all values on the quadratic."""
    squares = np.concatenate([result.squares for result in results.values()])
    return 0.7 * math.sqrt(squares.min()), 1.4 * math.sqrt(squares.max())


def radius_part(study: QuadraticStudy, results: Results, worst: dict[str, np.ndarray], folder: Path) -> Part:
    """Returns the part on a falling radius, and saves its picture.

    Args:
      study: the settings of the study.
      results: the results on the quadratic.
      worst: the norms on the worst case, by the kind of radius.
      folder: the folder of the document, for the picture.
    """
    first, *_, last = study.radius_growing_sizes
    settings = (
        f"The quadratic is the same, with {study.chains} runs of {study.radius_updates} updates, η = "
        f"{study.learning_rate:g}, ρ = {study.rho:g} and α = {study.alpha:g} at the start. With a falling learning "
        f"rate, the batch size is {study.radius_batch_size}; the growing batch goes from {first} to {last} in "
        f"{len(study.radius_growing_sizes)} stages of equal updates."
    )
    figure = draw_radii(study, results, worst)
    picture = drawing.save(figure, "What a falling radius changes", _CAPTION, folder, "falling-radius")
    return Part("A falling radius", settings, [(_TABLE, radius_rows(results))], [picture])
