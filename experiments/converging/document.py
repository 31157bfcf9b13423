"""What the convergence study says, as Markdown with pictures beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.cli.tables import Rows, as_markdown
from experiments.converging.curve import Curves
from experiments.converging.pictures import NORMS, Floors, draw_floors, draw_norms
from experiments.converging.quadratic_study import Course, QuadraticStudy
from experiments.converging.tables import bound_rows, floor_rows, rate_rows, slope_rows
from experiments.report.drawing import Picture, save

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
      told: what was run.
      tables: with their captions.
      pictures: in the document's folder.
    """

    title: str
    told: str
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
    told = (
        f"½ wᵀAw in {study.dimensions} dimensions, curvatures from {study.least_curvature:g} to 1, noise of deviation "
        f"{study.noise:g} a coordinate and example, η {study.learning_rate:g}, ρ {study.rho:g}, {study.chains} runs; "
        f"constant plan {study.constant_plan}, increasing plan {study.increasing_plan}, {study.examples} examples an "
        f"epoch. Without noise SAM would end at ‖∇f‖ = {bounce:.3g}. "
        "docs/convergence.md derives what to expect."
    )
    floors = save(draw_floors(by_batch_size, by_rate), "Floors", "On the quadratic.", folder, "quadratic-floors")
    return Part("A stochastic quadratic", told, tables, [*_draw(curves, "the quadratic", "quadratic", folder), floors])


def network_part(title: str, told: str, curves: Curves, folder: Path) -> Part:
    """The part on networks.

    Args:
      title: what was trained: `small_resnet on digits`.
      told: how.
      curves: by method and strategy.
      folder: of the document, where the pictures go.
    """
    return Part(f"Networks: {title}", told, [(_RATES, rate_rows(curves))], _draw(curves, title, "networks", folder))


def markdown(parts: Sequence[Part]) -> str:
    """The document."""
    return "\n".join(map(_text, parts))


def _draw(curves: Curves, title: str, stem: str, folder: Path) -> list[Picture]:
    return [
        save(
            draw_norms(norm, f"{_TITLES[norm]}: {title}", curves),
            _TITLES[norm],
            f"{text}, mean over the repetitions, against updates and against examples.",
            folder,
            f"{stem}-{norm.replace('_', '-')}",
        )
        for norm, text in NORMS.items()
    ]


def _text(part: Part) -> str:
    blocks = [f"# {part.title}", part.told]
    for caption, rows in part.tables:
        blocks += [as_markdown(rows), caption]
    for picture in part.pictures:
        blocks += [f"## {picture.title}", picture.caption, f"![{picture.title}]({picture.path.name})"]
    return "\n\n".join(blocks) + "\n"
