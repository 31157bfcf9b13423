"""The study on the quadratic: the strategies' curves, and the floors of a constant batch and rate."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.config import checks
from experiments.convergence.gradient_norms import REACH, Assumptions, Curve, last_bound, mean_bound, standard_error
from experiments.convergence.stochastic_quadratic import Descent, Norms, Quadratic, simulate
from experiments.study import grid
from experiments.training import learning_rate
from sam_optax import BatchPlan

_POINTS = 120  # of a curve, by updates, and by examples
_SETTLED = 20  # times that the slowest coordinate takes to fall by e: how long a floor is watched


@dataclass(frozen=True, kw_only=True)
class QuadraticStudy:
    """Minimise ½ wᵀAw with noisy gradients, by the strategies, and at constant batches and rates.

    Attributes:
      dimensions: Of w.
      least_curvature: The curvatures lie evenly, in logarithms, from this one to 1.
      noise: The standard deviation of each coordinate of one example's gradient.
      rho: The radius of SAM and GSAM.
      alpha: The weight of GSAM's surrogate gap.
      learning_rate: Of the strategies.
      examples: Of an epoch.
      constant_plan: The batch plan of constant, cosine and linear.
      increasing_plan: The batch plan of increasing.
      floor_batch_sizes: Where the floor is measured, at the first of the floor rates.
      floor_rates: Where the floor is measured, at the first of the floor batch sizes.
      chains: Independent runs of each.
      seed: Determines their noise.
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
    chains: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dimensions", "examples", "chains"):
            checks.check_count(name, getattr(self, name))
        for name in ("noise", "rho", "alpha"):
            checks.check_number(name, getattr(self, name))
        for name in ("constant_plan", "increasing_plan"):
            checks.check_plan(name, getattr(self, name))
            BatchPlan.parse(getattr(self, name)).total_steps(self.examples)
        checks.check_seeds((self.seed,), "seed")
        if self.noise == 0:
            raise ValueError("noise is 0: floors are told in units of SGD's, which is 0 then, give a number above 0.")
        if not 0 < self.least_curvature <= 1:
            raise ValueError(f"least_curvature is {self.least_curvature}: give a number above 0, and at most 1.")
        for name, values in (("learning_rate", (self.learning_rate,)), ("floor_rates", self.floor_rates)):
            if not values or not all(0 < value <= 1 for value in values):
                raise ValueError(f"{name} is {getattr(self, name)}: the theory holds above 0, up to 1, give that.")
        if not self.floor_batch_sizes or min(self.floor_batch_sizes) < 1:
            raise ValueError(f"floor_batch_sizes is {self.floor_batch_sizes}: give positive integers.")

    @property
    def problem(self) -> Quadratic:
        """What is minimised."""
        return Quadratic(np.geomspace(self.least_curvature, 1.0, self.dimensions), self.noise)


class Course(NamedTuple):
    """What a method did on the quadratic by a strategy.

    Attributes:
      curve: the norms, one repetition a chain.
      mean_square: `Σ η_t E‖∇f(w_t)‖² / Σ η_t`, measured.
      mean_bound: what it can be at most.
      last_square: `E‖∇f(w_T)‖²`, measured.
      last_bound: what it can be at most.
    """

    curve: Curve
    mean_square: float
    mean_bound: float
    last_square: float
    last_bound: float


class Floor(NamedTuple):
    """Where a method stops at a constant batch size and rate.

    Attributes:
      rate: the learning rate.
      batch_size: examples of an update.
      square: `E‖∇f‖²`, measured.
      standard_error: of that, over the chains.
      sgd: the same of SGD, exactly.
    """

    rate: float
    batch_size: int
    square: float
    standard_error: float
    sgd: float


def follow(study: QuadraticStudy, method: str, strategy: str) -> Course:
    """A method by a strategy, from `w = (1, …, 1)`.

    Args:
      study: its settings.
      method: of `REACH`.
      strategy: of `strategies.PLANNED`.
    """
    problem, start = study.problem, np.ones(study.dimensions)
    rates, batch_sizes = _by_update(study, strategy)
    descent = Descent(method, rates, batch_sizes, study.rho, study.alpha)
    norms = simulate(problem, descent, start=start, chains=study.chains, seed=study.seed)
    reach = REACH[method](study.rho, study.alpha)
    given = Assumptions(problem.value(start), problem.smoothness, problem.deviation, reach)
    squares = np.mean(np.square(norms.gradient), axis=0)
    mean_square = float(np.sum(rates * squares[:-1]) / np.sum(rates))
    mean_most = mean_bound(rates, batch_sizes, given)
    last_most = last_bound(rates, batch_sizes, given, problem.curvature)
    return Course(_curve(norms, batch_sizes), mean_square, mean_most, float(squares[-1]), last_most)


def floor(study: QuadraticStudy, method: str, rate: float, batch_size: int) -> Floor:
    """Where a method stops, as a mean over the last three quarters of a run that is long for the slowest coordinate."""
    problem = study.problem
    updates = round(_SETTLED / (min(study.floor_rates) * problem.curvature))  # of all floors, so that one is compiled
    descent = Descent(method, np.full(updates, rate), np.full(updates, batch_size), study.rho, study.alpha)
    norms = simulate(problem, descent, start=np.zeros(study.dimensions), chains=study.chains, seed=study.seed)
    squares = np.mean(np.square(norms.gradient[:, updates // 4 :]), axis=1)
    exact = problem.stationary_square(rate, batch_size)
    return Floor(rate, batch_size, float(squares.mean()), standard_error(squares), exact)


def _by_update(study: QuadraticStudy, strategy: str) -> tuple[np.ndarray, np.ndarray]:
    """The learning rate and the batch size of each update."""
    constant, increasing = map(BatchPlan.parse, (study.constant_plan, study.increasing_plan))
    plan = grid.plan_of(strategy, constant, increasing)
    positions = [plan.epoch_at(step, study.examples) for step in range(plan.total_steps(study.examples))]
    rate = learning_rate.parse(grid.rate_of(strategy, plan.epochs), study.learning_rate, plan.epochs)
    rates = np.broadcast_to(rate(np.asarray(positions, np.float32)), len(positions))
    return np.asarray(rates, np.float64), np.asarray([plan.batch_size_at(position) for position in positions])


def _curve(norms: Norms, batch_sizes: np.ndarray) -> Curve:
    """At places that are even in the logarithm of the updates, and others that are in that of the examples."""
    examples = np.cumsum(batch_sizes)
    last = len(batch_sizes)
    by_updates = np.geomspace(1, last, _POINTS).round().astype(int)
    by_examples = 1 + np.searchsorted(examples, np.geomspace(examples[0], examples[-1], _POINTS))
    at = np.union1d(by_updates, np.minimum(by_examples, last))
    return Curve(at, examples[at - 1], norms.gradient[:, at], norms.sam_gradient[:, at])
