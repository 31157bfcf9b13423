"""The tables of the convergence study, as rows of text."""

import math

import numpy as np

from experiments.cli.tables import Rows, mean_and_deviation
from experiments.converging.curve import Curves
from experiments.converging.quadratic_study import Course, Floor
from experiments.converging.rates import fitted_slope, late_rate
from experiments.training.methods import METHODS


def rate_rows(curves: Curves) -> Rows:
    """How fast the norm of the full gradient falls at last, and how far both norms come down."""
    heading = ("method", "strategy", "updates", "slope by updates", "slope by examples", "least ‖∇f‖", "least, SAM's")
    rows = [
        (
            METHODS[method].title,
            strategy,
            str(curve.updates[-1]),
            str(late_rate(curve.updates, curve.gradient)),
            str(late_rate(curve.examples, curve.gradient)),
            _least(curve.gradient),
            _least(curve.sam_gradient),
        )
        for (method, strategy), curve in curves.items()
    ]
    return [heading, *rows]


def bound_rows(courses: dict[tuple[str, str], Course]) -> Rows:
    """What was measured on the quadratic, and what docs/convergence.md proves that it is at most."""
    heading = ("method", "strategy", "mean ‖∇f‖²", "at most", "last ‖∇f‖²", "at most")
    rows = [
        (METHODS[method].title, strategy, *(f"{value:.3g}" for value in each[1:]))
        for (method, strategy), each in courses.items()
    ]
    return [heading, *rows]


def floor_rows(floors: dict[str, list[Floor]]) -> Rows:
    """The floors of each method, in units of SGD's exact one."""
    rows: Rows = [("η", "b", "√E‖∇f‖², SGD, exactly", *(METHODS[method].title for method in floors))]
    for same in zip(*floors.values(), strict=True):
        first = same[0]
        ratios = [math.sqrt(floor.square / floor.sgd) for floor in same]
        # of a root, half the relative error of the square
        errors = [floor.standard_error / (2 * floor.square) * ratio for floor, ratio in zip(same, ratios, strict=True)]
        shown = [_with_error(ratio, error) for ratio, error in zip(ratios, errors, strict=True)]
        rows.append((f"{first.rate:g}", str(first.batch_size), f"{math.sqrt(first.sgd):.4g}", *shown))
    return rows


def slope_rows(by_batch_size: dict[str, list[Floor]], by_rate: dict[str, list[Floor]]) -> Rows:
    """The exponents of the floors in batch size and rate."""
    rows: Rows = [("method", "slope by b", "slope by η")]
    for method, floors in by_batch_size.items():
        slopes = [_slope(floors, "batch_size"), _slope(by_rate[method], "rate")]
        rows.append((METHODS[method].title, *(f"{slope:+.3f}".replace("-", "−") for slope in slopes)))
    return rows


def _with_error(ratio: float, error: float) -> str:
    """The ratio alone where there is no error, of a single chain."""
    return f"{ratio:.3f} ± {error:.3f}" if math.isfinite(error) else f"{ratio:.3f}"


def _slope(floors: list[Floor], name: str) -> float:
    where = np.asarray([getattr(floor, name) for floor in floors])
    return fitted_slope(where, np.sqrt([floor.square for floor in floors]))


def _least(values: np.ndarray) -> str:
    """Mean and deviation over repetitions of the least value; a dash where one has diverged."""
    return mean_and_deviation(np.min(values, axis=1).tolist(), ".3g") if np.isfinite(values).all() else "–"
