"""The study on the quadratic: the curves of the strategies, and the floors at a constant batch size and rate."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments.config import checks
from experiments.convergence import gradient_norms
from experiments.convergence.gradient_norms import REACH, Assumptions, Course, Curve, Quadratic, standard_error
from experiments.study import strategies
from experiments.training import learning_rate, optimizer
from sam_optax import BatchPlan

_POINTS = 120  # points of a curve over the updates, and again over the examples
_SETTLED = 20  # the length of a run that measures a floor, in decay times (to 1/e) of the slowest coordinate


@dataclass(frozen=True, kw_only=True)
class QuadraticStudy:
    """Minimise ½ wᵀAw with noisy gradients, with each strategy, and at constant batch sizes and learning rates.

    Attributes:
      dimensions: The dimension of w.
      least_curvature: The smallest curvature. The curvatures are evenly spaced, in logarithms, from this value to 1.
      noise: The standard deviation of each coordinate of one example's gradient.
      rho: The radius of SAM and GSAM.
      alpha: The weight of GSAM's surrogate gap.
      learning_rate: The learning rate of the strategies.
      examples: The number of examples of an epoch.
      constant_plan: The batch plan of the strategies constant, cosine and linear.
      increasing_plan: The batch plan of the strategy increasing.
      floor_batch_sizes: The batch sizes at which the floor is measured, with the first of the floor rates.
      floor_rates: The learning rates at which the floor is measured, with the first of the floor batch sizes.
      radius_updates: The number of updates of the runs that compare a constant radius with a falling one.
      radius_batch_size: The batch size of these runs if their learning rate falls.
      radius_growing_sizes: The batch sizes of these runs if their batch grows, in stages of equal updates.
      chains: The number of independent runs per measurement.
      seed: The seed of the noise.
    """

    dimensions: int = 20
    least_curvature: float = 0.1
    noise: float = 1.0
    rho: float = 0.1
    alpha: float = 0.02
    learning_rate: float = 0.5
    examples: int = 16384
    constant_plan: str = "100x256"
    increasing_plan: str = "20x16,20x64,20x256,20x1024,20x4096"
    floor_batch_sizes: tuple[int, ...] = (4, 32, 256, 2048, 16384)
    floor_rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    radius_updates: int = 4000
    radius_batch_size: int = 4096
    radius_growing_sizes: tuple[int, ...] = (16, 64, 256, 1024, 4096, 16384, 65536, 262144)
    chains: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dimensions", "examples", "radius_updates", "radius_batch_size", "chains"):
            checks.check_count(name, getattr(self, name))
        for name in ("noise", "rho", "alpha"):
            checks.check_number(name, getattr(self, name))
        for name in ("constant_plan", "increasing_plan"):
            checks.check_plan(name, getattr(self, name))
            BatchPlan.parse(getattr(self, name)).total_steps(self.examples)
        checks.check_seeds((self.seed,), "seed")
        if self.noise == 0:
            raise ValueError("noise is 0: floors are relative to that of SGD, which is 0 then: give a number above 0.")
        for name in ("least_curvature", "learning_rate", "floor_rates"):
            values = np.asarray(getattr(self, name))
            if not values.size or not np.all((values > 0) & (values <= 1)):
                raise ValueError(f"{name} is {getattr(self, name)}: the theory needs a number above 0, at most 1.")
        for name in ("floor_batch_sizes", "radius_growing_sizes"):
            if not (sizes := getattr(self, name)) or min(sizes) < 1:
                raise ValueError(f"{name} is {sizes}: give positive integers.")
        if self.radius_updates % len(self.radius_growing_sizes):
            stages = len(self.radius_growing_sizes)
            raise ValueError(f"radius_updates is {self.radius_updates}: give a multiple of {stages}, for equal stages.")

    @property
    def problem(self) -> Quadratic:
        """The quadratic that is minimised."""
        return Quadratic(np.geomspace(self.least_curvature, 1.0, self.dimensions), self.noise)


class Trajectory(NamedTuple):
    """The results of a method with a strategy on the quadratic.

    Attributes:
      curve: the norms, one repetition per chain.
      mean_square: `Σ η_t E‖∇f(w_t)‖² / Σ η_t`, measured.
      mean_bound: the upper bound of `mean_square`.
      last_square: `E‖∇f(w_T)‖²`, measured.
      last_bound: the upper bound of `last_square`.
    """

    curve: Curve
    mean_square: float
    mean_bound: float
    last_square: float
    last_bound: float


class Floor(NamedTuple):
    """The stationary gradient norm of a method at a constant batch size and rate.

    Attributes:
      rate: the learning rate.
      batch_size: the number of examples per update.
      square: `E‖∇f‖²`, measured.
      standard_error: the standard error of `square`, over the chains.
      sgd: the exact `E‖∇f‖²` of SGD.
    """

    rate: float
    batch_size: int
    square: float
    standard_error: float
    sgd: float


def follow(study: QuadraticStudy, method: str, strategy: str) -> Trajectory:
    """Runs a method with a strategy from `w = (1, …, 1)`.

    Args:
      study: the settings of the study.
      method: a key of `REACH`.
      strategy: an element of `strategies.NAMES` whose plan is known in advance.
    """
    problem, start = study.problem, np.ones(study.dimensions)
    course = _course_of(study, strategy)
    curve = simulate(study, method, course, start)
    rates, batch_sizes, scales = course
    reach = REACH[method](study.rho * scales, study.alpha * scales)
    given = Assumptions(problem.value(start), problem.smoothness, problem.deviation, reach)
    squares = np.mean(np.square(curve.gradient), axis=0)
    mean_square = float(np.sum(rates * squares[:-1]) / np.sum(rates))
    mean_most = gradient_norms.mean_bound(rates, batch_sizes, given)
    last_most = gradient_norms.last_bound(rates, batch_sizes, given, problem.curvature)
    return Trajectory(_thinned(curve), mean_square, mean_most, float(squares[-1]), last_most)


def floor(study: QuadraticStudy, method: str, rate: float, batch_size: int) -> Floor:
    """Measures the floor of a method: the mean over the last three quarters of a run.

    The run is long compared with the decay time of the slowest coordinate.
    """
    problem = study.problem
    updates = round(_SETTLED / (min(study.floor_rates) * problem.curvature))  # equal for all floors: one compilation
    start = np.zeros(study.dimensions)
    course = Course.at_constant_radius(np.full(updates, rate), np.full(updates, batch_size))
    norms = simulate(study, method, course, start).gradient
    squares = np.mean(np.square(norms[:, updates // 4 :]), axis=1)
    exact = problem.stationary_square(rate, batch_size)
    return Floor(rate, batch_size, float(squares.mean()), standard_error(squares), exact)


def _course_of(study: QuadraticStudy, strategy: str) -> Course:
    """Returns the settings of each update of a strategy."""
    constant, increasing = map(BatchPlan.parse, (study.constant_plan, study.increasing_plan))
    plan = strategies.plan_of_strategy(strategy, constant, increasing)
    positions = [plan.epoch_at(step, study.examples) for step in range(plan.total_steps(study.examples))]
    rate = learning_rate.parse(strategies.rate_of(strategy, plan.epochs), study.learning_rate, plan.epochs)
    rates = np.asarray(np.broadcast_to(rate(np.asarray(positions, np.float32)), len(positions)), np.float64)
    course = Course.at_constant_radius(rates, np.asarray([plan.batch_size_at(position) for position in positions]))
    if strategy in strategies.FALLING_RADIUS:
        return course._replace(radius_scales=rates / study.learning_rate)
    return course


def _thinned(curve: Curve) -> Curve:
    """Keeps points that are evenly spaced in the logarithm of the updates, and in the logarithm of the examples."""
    _, first, *_, last = curve.examples
    by_updates = np.geomspace(1, len(curve.updates) - 1, _POINTS).round().astype(int)
    by_examples = np.searchsorted(curve.examples, np.geomspace(first, last, _POINTS))
    at = np.union1d(by_updates, np.minimum(by_examples, len(curve.updates) - 1))
    return Curve(*(each[..., at] for each in curve))


def simulate(study: QuadraticStudy, method: str, course: Course, start: np.ndarray) -> Curve:
    """Simulates independent runs from one start, each with its own noise; both passes of a step have the same noise.

    Args:
      study: the problem, the method's radius and weight, the number of runs, and the seed of their noise.
      method: a key of `METHODS`, followed by SGD without momentum.
      course: the settings of each update.
      start: the first parameters, `(dimensions,)`.

    Returns:
      The norms before each update and after the last one. The SAM gradient has the radius of the update that follows;
      after the last update, that of the last one.
    """
    as_array = functools.partial(jnp.asarray, dtype=jnp.float32)
    noises = study.noise / np.sqrt(course.batch_sizes)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(study.seed), jnp.arange(len(noises)))
    steps = (keys, as_array(course.rates), as_array(noises), as_array(course.radius_scales))
    radius = {"rho": as_array(study.rho), "alpha": as_array(study.alpha)}
    first = jnp.broadcast_to(as_array(start), (study.chains, study.dimensions))
    norms = _run(method, as_array(study.problem.spectrum), radius, steps, first)
    updates, examples = np.arange(len(noises) + 1), np.cumsum([0, *course.batch_sizes])
    return Curve(updates, examples, *map(np.asarray, norms))


_Steps = tuple[Array, Array, Array, Array]  # for each update: key, learning rate, deviation of the noise, radius scale


@functools.partial(jax.jit, static_argnums=0)
def _run(method: str, spectrum: Array, radius: dict[str, Array], steps: _Steps, first: Array) -> list[Array]:
    """Computes both norms before each update and after the last one, `(chains, updates + 1)`."""
    tx = optimizer.create(optimizer.Settings(method))
    measure = jax.vmap(functools.partial(_norms, spectrum), (None, 0))

    def update(w: Array, opt_state: Any, noise: Array, hyperparameters: dict[str, Array]) -> Any:
        grad_fn = lambda w: spectrum * w + noise  # noqa: E731 - the gradient of the batch, for both passes
        opt_state = optimizer.inject(opt_state, hyperparameters)
        updates, opt_state = tx.update(grad_fn(w), opt_state, w, grad_fn=grad_fn)
        return optax.apply_updates(w, updates), opt_state

    def step(carry: tuple[Array, Any], now: _Steps) -> Any:
        key, rate, noise, scale = now
        w, opt_state = carry
        drawn = noise * jax.random.normal(key, w.shape)
        scaled = {name: scale * value for name, value in radius.items()}
        moved = jax.vmap(update, (0, 0, 0, None))(w, opt_state, drawn, {"learning_rate": rate, **scaled})
        return moved, measure(scaled["rho"], w)

    (last, _), along = jax.lax.scan(step, (first, jax.vmap(tx.init)(first)), steps)
    ends = measure(steps[-1][-1] * radius["rho"], last)
    return [jnp.concatenate([each.T, end[:, None]], axis=1) for each, end in zip(along, ends, strict=True)]


def _norms(spectrum: Array, rho: Array, w: Array) -> tuple[Array, Array]:
    gradient = spectrum * w
    norm = jnp.linalg.norm(gradient)
    offset = rho * gradient / jnp.where(norm > 0, norm, 1)
    return norm, jnp.linalg.norm(gradient + spectrum * offset)
