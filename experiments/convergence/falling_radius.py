"""What a falling radius changes: SAM and GSAM on the quadratic and on a worst case, with both kinds of radius.

The learning rate falls, with a radius that falls in proportion to it, or the batch grows, with a radius that falls in
proportion to the noise of its gradient.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import sam_optax
from experiments.convergence.gradient_norms import Course, standard_error
from experiments.convergence.quadratic_study import QuadraticStudy, simulate
from experiments.training import learning_rate

CONSTANT, FALLING = "constant", "falling"
FALLING_RATE, GROWING_BATCH = "falling learning rate", "growing batch"

_LAST = 10  # the last tenth of the updates is averaged


class Result(NamedTuple):
    """The gradient norms of a method with one kind of radius.

    Attributes:
      squares: `E‖∇f‖²` before each update and after the last one, measured, `(updates + 1,)`.
      expected: the same by `Quadratic.expected_squares`, `(updates + 1,)`.
      last: the mean of `‖∇f‖²` over the last tenth of the updates.
      standard_error: the standard error of `last`, over the runs.
      expected_last: the mean of `expected` over the last tenth.
      last_sam: the mean of the squared norm at SAM's perturbed point over the last tenth; None for SGD.
    """

    squares: np.ndarray
    expected: np.ndarray
    last: float
    standard_error: float
    expected_last: float
    last_sam: float | None


Results = dict[tuple[str, str, str], Result]
"""The results by `FALLING_RATE` or `GROWING_BATCH`, method, and `CONSTANT` or `FALLING`; SGD has `CONSTANT` alone."""


def courses(study: QuadraticStudy) -> dict[str, dict[str, Course]]:
    """Returns the course with a constant and with a falling radius, for a falling learning rate and a growing batch.

    The learning rate falls along a cosine to 1%, at a constant batch size, and the radius is proportional to it. The
    batch grows in stages of equal updates, at a constant learning rate, and the radius is proportional to `1/√b`, as
    the noise of the gradient is.
    """
    updates, sizes = study.radius_updates, np.asarray(study.radius_growing_sizes)
    schedule = learning_rate.parse("cosine", study.learning_rate, updates)
    cosine = np.asarray(schedule(np.arange(updates, dtype=np.float32)), np.float64)
    grown = np.repeat(sizes, updates // len(sizes))
    falling_rate = Course.at_constant_radius(cosine, np.full(updates, study.radius_batch_size))
    growing_batch = Course.at_constant_radius(np.full(updates, study.learning_rate), grown)
    return {
        FALLING_RATE: {
            CONSTANT: falling_rate,
            FALLING: falling_rate._replace(radius_scales=cosine / study.learning_rate),
        },
        GROWING_BATCH: {
            CONSTANT: growing_batch,
            FALLING: growing_batch._replace(radius_scales=np.sqrt(sizes[0] / grown)),
        },
    }


def compare(study: QuadraticStudy, methods: list[str]) -> Results:
    """Runs every method with a constant and with a falling radius, from `w = (1, …, 1)`.

    Args:
      study: the settings of the study.
      methods: keys of `REACH`.
    """
    return {
        (change, method, radius): _result(study, method, course)
        for change, by_radius in courses(study).items()
        for method in methods
        for radius, course in by_radius.items()
        if method != "sgd" or radius == CONSTANT
    }


def _result(study: QuadraticStudy, method: str, course: Course) -> Result:
    start = np.ones(study.dimensions)
    curve = simulate(study, method, course, start)
    squares, sam_squares = np.square(curve.gradient), np.square(curve.sam_gradient)
    expected = study.problem.expected_squares(course, 0.0 if method == "sgd" else study.rho, start)
    late = slice(-max(1, study.radius_updates // _LAST), None)
    by_run = squares[:, late].mean(axis=1)
    last_sam = None if method == "sgd" else float(sam_squares[:, late].mean())
    return Result(
        squares.mean(axis=0),
        expected,
        float(by_run.mean()),
        standard_error(by_run),
        float(expected[late].mean()),
        last_sam,
    )


def worst_case_gradient(rho: float) -> Any:
    """Returns the derivative of a function of one variable on which SAM with radius `rho` stops where it is `rho`.

    It is `w` for `w ≥ 0`, `−w` on `[−ρ, 0]`, `w + 2ρ` on `[−2ρ, −ρ]`, and 0 below: the function is 1-smooth, and
    bounded below.
    """
    return lambda w: jnp.where(w >= 0, w, jnp.maximum(jnp.minimum(w + 2 * rho, -w), 0))


def worst_case(study: QuadraticStudy) -> dict[str, np.ndarray]:
    """Runs SAM without noise on the worst case, from `w = −ρ/2`, with the falling learning rate.

    Returns:
      The norm of the gradient before each update and after the last one, by the kind of radius.
    """
    gradient = worst_case_gradient(study.rho)

    def norms(course: Course) -> np.ndarray:
        tx = optax.inject_hyperparams(lambda rate, rho: optax.chain(sam_optax.sam(rho), optax.sgd(rate)))(0.0, 0.0)

        def step(carry: tuple[Array, Any], now: tuple[Array, Array]) -> Any:
            w, state = carry
            state = state._replace(hyperparams={"rate": now[0], "rho": study.rho * now[1]})
            updates, state = tx.update(gradient(w), state, w, grad_fn=gradient)
            return (optax.apply_updates(w, updates), state), jnp.abs(gradient(w))

        first = jnp.asarray(-study.rho / 2)
        steps = jnp.asarray(course.rates, jnp.float32), jnp.asarray(course.radius_scales, jnp.float32)
        (last, _), along = jax.lax.scan(step, (first, tx.init(first)), steps)
        return np.append(np.asarray(along), abs(float(gradient(last))))

    return {radius: norms(course) for radius, course in courses(study)[FALLING_RATE].items()}
