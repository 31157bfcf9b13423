"""The bound of docs/convergence.md holds, is not vacuous, and has the properties that the page states."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_optax
from experiments.convergence.falling_radius import worst_case_gradient
from experiments.convergence.gradient_norms import REACH, Assumptions, last_bound, mean_bound
from experiments.convergence.quadratic_study import QuadraticStudy, follow
from experiments.training import learning_rate
from experiments.training.methods import METHODS, Hyperparameters
from sam_optax import BatchPlan
from tests.selection import combinations

PLANS = {"constant_plan": "20x64", "increasing_plan": "10x16,10x64"}
STUDY = QuadraticStudy(dimensions=8, least_curvature=0.2, examples=1024, **PLANS)
LARGE_RADIUS = QuadraticStudy(dimensions=8, least_curvature=0.2, examples=1024, rho=0.5, **PLANS)


@combinations(
    lambda method, strategy: method == "gsam" or strategy == "increasing",
    method=REACH,
    strategy=("constant", "increasing", "cosine", "cosine_radius"),
)
def test_the_bound_holds_and_is_not_vacuous(method: str, strategy: str) -> None:
    course = follow(STUDY, method, strategy)
    assert course.mean_square <= course.mean_bound <= 10 * course.mean_square
    assert course.last_square <= course.last_bound
    steep = follow(LARGE_RADIUS, method, strategy)
    assert steep.mean_square <= steep.mean_bound
    assert steep.last_square <= steep.last_bound


@pytest.mark.parametrize("method", REACH)
def test_the_bound_without_a_radius_is_that_of_sgd(method: str) -> None:
    assert REACH[method](0.0, 0.02) == 0
    given = Assumptions(gap=3.0, smoothness=2.0, deviation=5.0, reach=0.0)
    found = mean_bound(np.full(100, 0.1), np.full(100, 4), given)
    assert found == pytest.approx(2 * 3 / (0.1 * 100) + 2 * 0.1 * 25 / 4)


def test_the_last_iterate_bound_converges_to_its_fixed_point() -> None:
    given = Assumptions(gap=3.0, smoothness=2.0, deviation=5.0, reach=0.0)
    rates, sizes = np.full(5000, 0.1), np.full(5000, 4)
    floor = 2.0 / 0.5 * 2 * 0.1 * 25 / 4  # (L/μ) L η σ²/b
    assert last_bound(rates, sizes, given, curvature=0.5) == pytest.approx(floor)
    without_noise = given._replace(deviation=0.0)
    assert last_bound(rates[:1], sizes[:1], without_noise, curvature=0.5) == pytest.approx(4 * 3 * 0.95)


@pytest.mark.parametrize("bound", [mean_bound, partial(last_bound, curvature=1.0)])
def test_a_rate_above_one_over_the_smoothness_is_refused(bound: Any) -> None:
    given = Assumptions(gap=1.0, smoothness=4.0, deviation=1.0, reach=0.0)
    with pytest.raises(ValueError, match=r"rates reaches 0.3.*1/L, 0.25"):
        bound(np.asarray([0.2, 0.3]), np.ones(2), given)


@pytest.mark.parametrize("method", REACH)
@pytest.mark.parametrize("alpha", [0.02, 1.0])
def test_the_distance_from_the_clean_gradient_is_bounded_by_the_reach(method: str, alpha: float) -> None:
    matrix = jax.random.normal(jax.random.key(0), (6, 6))
    smoothness = float(jnp.linalg.norm(matrix, 2)) ** 2
    gradient = jax.grad(
        lambda w: jnp.sum(jnp.log(jnp.cosh(matrix @ w)))
    )  # with curvatures of at most 1 before the matrix
    tx = METHODS[method].estimator(Hyperparameters(0.3, alpha, 0.0, sam_optax.always(), METHODS[method].constants))

    def distance(w: jax.Array) -> jax.Array:
        descended, _ = optax.with_extra_args_support(tx).update(gradient(w), tx.init(w), w, grad_fn=gradient)
        return jnp.linalg.norm(descended - gradient(w))

    found = jax.vmap(distance)(jax.random.normal(jax.random.key(1), (200, 6)))
    reach = REACH[method](0.3, alpha)
    assert float(found.max()) <= smoothness * reach * (1 + 1e-5)
    assert float(found.max()) >= 0.05 * smoothness * reach


def test_no_method_can_do_better_than_the_radius_on_every_function() -> None:
    """SAM stops where the gradient is `L ρ`, on the slope of docs/convergence.md, and the bound is `L² ρ²` there."""
    rho, smoothness = 0.2, 2.0

    def gradient(w: jax.Array) -> jax.Array:
        return smoothness * worst_case_gradient(rho)(w)

    tx = optax.chain(sam_optax.sam(rho), optax.sgd(0.1 / smoothness))

    def step(carry: Any, _: None) -> Any:
        w, state = carry
        updates, state = tx.update(gradient(w), state, w, grad_fn=gradient)
        return (optax.apply_updates(w, updates), state), gradient(w)

    first = jnp.asarray(-rho / 2)
    _, norms = jax.lax.scan(step, (first, tx.init(first)), length=100)
    assert float(norms[-1]) == pytest.approx(smoothness * rho, rel=1e-4)
    gap = 7 / 8 * smoothness * rho**2
    rates, sizes = np.full(100, 0.1 / smoothness), np.ones(100)
    given = Assumptions(gap, smoothness, deviation=0.0, reach=rho)
    assert float(jnp.mean(norms**2)) <= mean_bound(rates, sizes, given)
    assert mean_bound(np.full(10**6, 0.05), np.ones(10**6), given) == pytest.approx((smoothness * rho) ** 2, rel=1e-3)


@pytest.mark.parametrize(("schedule", "part"), [("constant", 1.0), ("cosine", 0.748), ("linear", 0.667)])
def test_a_decaying_rate_leaves_most_of_the_noise(schedule: str, part: float) -> None:
    rates = np.asarray(learning_rate.parse(schedule, 0.5, 100)(np.linspace(0, 100, 10_001)))
    rates = np.broadcast_to(rates, 10_001)
    assert np.sum(rates**2) / np.sum(rates) == pytest.approx(0.5 * part, rel=1e-3)


def test_noise_left_by_stages_of_equal_epochs_and_of_equal_updates() -> None:
    by_epochs, by_updates = {}, {}
    for stages in (3, 5, 8):
        sizes = [2**k for k in range(stages)]
        plans = (
            BatchPlan.from_stages((1, size) for size in sizes),
            BatchPlan.from_stages((size, size) for size in sizes),
        )
        for plan, found in zip(plans, (by_epochs, by_updates), strict=True):
            found[stages] = noise_part(plan, 1024)
    for stages in (3, 5, 8):
        last = 2.0**-stages
        assert by_epochs[stages] == pytest.approx((1 + last) * 2 / 3, rel=1e-5)
        assert by_updates[stages] == pytest.approx(2 * (1 - last) / stages, rel=1e-5)


def noise_part(plan: BatchPlan, examples: int) -> float:
    """The noise term of `mean_bound` for a plan, relative to that of batches of one example."""
    steps = range(plan.total_steps(examples))
    sizes = np.asarray([plan.batch_size_at(plan.epoch_at(step, examples)) for step in steps])
    given = Assumptions(gap=0.0, smoothness=1.0, deviation=1.0, reach=0.0)
    rates = np.full(len(sizes), 0.5)
    return mean_bound(rates, sizes, given) / mean_bound(rates, np.ones(len(sizes)), given)
