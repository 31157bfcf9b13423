"""The document of the convergence study: Markdown with tables and pictures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.cli.tables import Rows, as_markdown, mean_and_deviation
from experiments.convergence.gradient_norms import Curves, fitted_slope, late_rate
from experiments.convergence.network_study import NetworkStudy
from experiments.convergence.norm_plots import NORMS, Floors, draw_floors, draw_norms
from experiments.convergence.quadratic_study import Course, Floor, QuadraticStudy
from experiments.report.drawing import Picture, save
from experiments.training.methods import METHODS


def rate_rows(curves: Curves) -> Rows:
    """How fast the norm of the full gradient falls at last, and how far both norms come down."""
    heading = ("method", "strategy", "updates", "slope by updates", "slope by examples", "least ‖∇f‖", "least, SAM's")
    rows: Rows = [heading]
    for (method, strategy), curve in curves.items():
        slopes = [str(late_rate(places, curve.gradient)) for places in (curve.updates, curve.examples)]
        least = [_least(norms) for norms in (curve.gradient, curve.sam_gradient)]
        rows.append((METHODS[method].title, strategy, str(curve.updates[-1]), *slopes, *least))
    return rows


def bound_rows(courses: dict[tuple[str, str], Course]) -> Rows:
    """What was measured on the quadratic, and what docs/convergence.md proves that it is at most."""
    rows: Rows = [("method", "strategy", "mean ‖∇f‖²", "at most", "last ‖∇f‖²", "at most")]
    for (method, strategy), (_, *squares) in courses.items():
        rows.append((METHODS[method].title, strategy, *(f"{value:.3g}" for value in squares)))
    return rows


def floor_rows(floors: dict[str, list[Floor]]) -> Rows:
    """The floors of each method, in units of SGD's exact one."""
    rows: Rows = [("η", "b", "√E‖∇f‖², SGD, exactly", *(METHODS[method].title for method in floors))]
    for same in zip(*floors.values(), strict=True):
        first = same[0]
        rows.append((f"{first.rate:g}", str(first.batch_size), f"{math.sqrt(first.sgd):.4g}", *map(_ratio, same)))
    return rows


def slope_rows(by_batch_size: dict[str, list[Floor]], by_rate: dict[str, list[Floor]]) -> Rows:
    """The exponents of the floors in batch size and rate."""
    rows: Rows = [("method", "slope by b", "slope by η")]
    for method, floors in by_batch_size.items():
        slopes = [_slope(floors, "batch_size"), _slope(by_rate[method], "rate")]
        rows.append((METHODS[method].title, *(f"{slope:+.3f}".replace("-", "−") for slope in slopes)))
    return rows


def _ratio(floor: Floor) -> str:
    """The floor in units of SGD's exact one, with its standard error; a single chain has none."""
    ratio = math.sqrt(floor.square / floor.sgd)
    error = floor.standard_error / (2 * floor.square) * ratio  # of a root, half the relative error of the square
    return f"{ratio:.3f} ± {error:.3f}" if math.isfinite(error) else f"{ratio:.3f}"


def _slope(floors: list[Floor], name: str) -> float:
    where = np.asarray([getattr(floor, name) for floor in floors])
    return fitted_slope(where, np.sqrt([floor.square for floor in floors]))


def _least(values: np.ndarray) -> str:
    """Mean and deviation over repetitions of the least value; a dash where one has diverged."""
    return mean_and_deviation(np.min(values, axis=1).tolist(), ".3g") if np.isfinite(values).all() else "–"


_RATES = (
    "Slopes of the logarithm of ‖∇f‖, fitted over the second half of the updates, and of the examples, with the "
    "standard error of their mean; the least norm on the way, mean ± standard deviation."
)
_BOUNDS = "Mean over the updates, weighted by the rate, and after the last one; and what is proved to be the most."
_FLOORS = "Where √E‖∇f‖² stops at a constant rate and batch size; measured, in units of SGD's exact value."
_SLOPES = "The floors' exponents; in theory −½ and ½ while noise is larger than what ρ adds."
_TITLES = {"gradient": "Norm of the full gradient", "sam_gradient": "Norm of the full SAM gradient"}


class Part(NamedTuple):
    """A part of the document.

    Attributes:
      title: its heading.
      settings: what was run, in a few sentences.
      tables: with their captions.
      pictures: in the document's folder.
    """

    title: str
    settings: str
    tables: list[tuple[str, Rows]]
    pictures: list[Picture]


def quadratic_part(
    study: QuadraticStudy, courses: dict[tuple[str, str], Course], by_batch_size: Floors, by_rate: Floors, folder: Path
) -> Part:
    """The part on the quadratic.

    Args:
      study: its settings.
      courses: by method and strategy.
      by_batch_size: the floors over batch sizes.
      by_rate: the floors over rates.
      folder: of the document, where the pictures go.
    """
    curves = {key: each.curve for key, each in courses.items()}
    tables = [
        (_RATES, rate_rows(curves)),
        (_BOUNDS, bound_rows(courses)),
        (_FLOORS, floor_rows(by_batch_size)),
        (_FLOORS, floor_rows(by_rate)),
        (_SLOPES, slope_rows(by_batch_size, by_rate)),
    ]
    bounce = study.problem.bouncing_norm(study.learning_rate, study.rho)
    settings = (
        f"½ wᵀAw in {study.dimensions} dimensions, curvatures from {study.least_curvature:g} to 1, noise of deviation "
        f"{study.noise:g} a coordinate and example, η {study.learning_rate:g}, ρ {study.rho:g}, {study.chains} runs; "
        f"constant plan {study.constant_plan}, increasing plan {study.increasing_plan}, {study.examples} examples an "
        f"epoch. Without noise SAM would end at ‖∇f‖ = {bounce:.3g}. "
        "docs/convergence.md derives what to expect."
    )
    pictures = _draw(curves, "the quadratic", "quadratic", folder)
    pictures.append(
        save(draw_floors(by_batch_size, by_rate), "Floors", "On the quadratic.", folder, "quadratic-floors")
    )
    return Part("A stochastic quadratic", settings, tables, pictures)


def network_part(study: NetworkStudy, title: str, curves: Curves) -> Part:
    """The part on networks.

    Args:
      study: its settings.
      title: what was trained: `small_resnet on digits`.
      curves: by method and strategy.
    """
    statistics = "the statistics of these examples" if study.reestimate_batchnorm else "its running statistics"
    settings = (
        f"The training loss over all examples, without augmentation, BatchNorm in inference mode with {statistics}; ρ "
        f"{study.measured_rho:g} in SAM's gradient, for every method. Constant plan {study.constant_plan}, increasing "
        f"plan {study.increasing_plan}, seeds {', '.join(map(str, study.seeds))}."
    )
    pictures = _draw(curves, title, "networks", study.output)
    return Part(f"Networks: {title}", settings, [(_RATES, rate_rows(curves))], pictures)


def markdown(parts: Sequence[Part]) -> str:
    """The document."""
    texts = []
    for part in parts:
        blocks = [f"# {part.title}", part.settings]
        for caption, rows in part.tables:
            blocks += [as_markdown(rows), caption]
        for picture in part.pictures:
            blocks += [f"## {picture.title}", picture.caption, f"![{picture.title}]({picture.path.name})"]
        texts.append("\n\n".join(blocks) + "\n")
    return "\n".join(texts)


def _draw(curves: Curves, title: str, stem: str, folder: Path) -> list[Picture]:
    pictures = []
    for norm, text in NORMS.items():
        figure = draw_norms(norm, f"{_TITLES[norm]}: {title}", curves)
        caption = f"{text}, mean over the repetitions, against updates and against examples."
        pictures.append(save(figure, _TITLES[norm], caption, folder, f"{stem}-{norm.replace('_', '-')}"))
    return pictures
