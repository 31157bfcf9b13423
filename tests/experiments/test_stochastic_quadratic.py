"""The stochastic quadratic with its known limits: noise floors, and the floor due to a radius."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from experiments.convergence.document import floor_rows
from experiments.convergence.gradient_norms import Course, Curve, fitted_slope
from experiments.convergence.quadratic_study import Floor, QuadraticStudy, floor, follow, simulate
from tests.experiments.each_method import each_of

METHODS = ("sgd", "sam", "gsam")
STUDY = QuadraticStudy(
    dimensions=8,
    least_curvature=0.2,
    rho=0.01,
    floor_rates=(0.02, 0.04, 0.08),
    floor_batch_sizes=(4, 16, 64),
    examples=1024,
    constant_plan="10x64",
    increasing_plan="5x16,5x64",
)
PROBLEM = STUDY.problem


def run(method: str, rates: Any, batch_sizes: Any, **settings: Any) -> Curve:
    study = replace(STUDY, **{"rho": 0.1, "chains": 32, **settings})
    course = Course.at_constant_radius(np.asarray(rates), np.asarray(batch_sizes))
    return simulate(study, method, course, np.ones(8))


def staged(values: list[float], updates: int) -> np.ndarray:
    return np.repeat(values, updates)


@pytest.mark.parametrize(("rate", "batch_size"), [(0.02, 4), (0.08, 4), (0.02, 64)])
def test_sgd_stops_at_the_exact_floor(rate: float, batch_size: int) -> None:
    found = floor(STUDY, "sgd", rate, batch_size)
    assert abs(found.square - found.sgd) < 4 * found.standard_error
    assert found.standard_error < 0.02 * found.sgd


@each_of(METHODS, quick=("gsam",))
def test_the_floor_is_proportional_to_root_eta_over_root_b(method: str) -> None:
    by_batch_size = [floor(STUDY, method, 0.02, size).square for size in STUDY.floor_batch_sizes]
    by_rate = [floor(STUDY, method, rate, 4).square for rate in STUDY.floor_rates]
    assert fitted_slope(np.asarray(STUDY.floor_batch_sizes), np.sqrt(by_batch_size)) == pytest.approx(-0.5, abs=0.02)
    assert fitted_slope(np.asarray(STUDY.floor_rates), np.sqrt(by_rate)) == pytest.approx(0.5, abs=0.02)


def test_a_single_chain_has_no_error() -> None:
    single = Floor(0.1, 4, 0.5, float("nan"), 0.5)
    assert floor_rows({"sgd": [single]})[1][-1] == "1.000"
    assert floor_rows({"sgd": [single._replace(standard_error=0.1)]})[1][-1] == "1.000 ± 0.100"


def test_with_a_growing_batch_sgd_converges_and_sam_keeps_bouncing() -> None:
    sizes, rates = staged([4.0**k for k in range(2, 14)], 100), np.full(1200, 0.5)
    ends = {method: run(method, rates, sizes).gradient for method in METHODS}
    squares = np.mean(np.square(ends["sgd"][:, 99::100]), axis=0)[:12]
    exact = [PROBLEM.stationary_square(0.5, 4.0**k) for k in range(2, 14)]
    assert squares == pytest.approx(exact, rel=0.5)  # an average over 32 chains at one update
    assert np.all(squares[1:] < squares[:-1])
    for method in ("sam", "gsam"):
        assert np.mean(ends[method][:, -20:]) == pytest.approx(PROBLEM.bouncing_norm(0.5, 0.1), rel=0.02)
    assert np.mean(ends["sgd"][:, -20:]) < 0.02 * PROBLEM.bouncing_norm(0.5, 0.1)


@pytest.mark.parametrize("method", METHODS)
def test_with_a_falling_rate_the_norm_keeps_falling(method: str) -> None:
    values = [0.4, 0.1, 0.025, 0.00625]
    rates = np.concatenate([np.full(round(40 / value), value) for value in values])  # 8 times the slowest time constant
    norms = run(method, rates, np.full(len(rates), 16), rho=0.1 if method == "sgd" else 0.01).gradient
    ends = np.cumsum([round(40 / value) for value in values])
    reached = [
        np.sqrt(np.mean(np.square(norms[:, end - round(4 / value) : end])))
        for value, end in zip(values, ends, strict=True)
    ]
    assert fitted_slope(np.asarray(values), np.asarray(reached)) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("method", METHODS)
def test_the_sam_gradient_never_falls_below_the_floor_of_the_radius(method: str) -> None:
    norms = run(method, np.geomspace(0.5, 0.005, 400), np.geomspace(4, 4000, 400))
    low, high = PROBLEM.curvature * 0.1, PROBLEM.smoothness * 0.1
    assert np.all(norms.sam_gradient >= (norms.gradient + low) * (1 - 1e-5))
    assert np.all(norms.sam_gradient <= (norms.gradient + high) * (1 + 1e-5))


def test_both_passes_of_a_step_have_the_same_noise() -> None:
    norms = run("sam", [0.5], [4], chains=1, rho=0.3)
    noise = 0.5 * np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(0), 0), (1, 8)))[0]
    gradient = PROBLEM.spectrum + noise
    ahead = np.ones(8) + 0.3 * gradient / np.linalg.norm(gradient)
    w = np.ones(8) - 0.5 * (PROBLEM.spectrum * ahead + noise)
    assert norms.gradient[0] == pytest.approx([np.linalg.norm(PROBLEM.spectrum), np.linalg.norm(PROBLEM.spectrum * w)])


def test_chains_are_independent_and_the_seed_determines_them() -> None:
    first, again, other = (run("gsam", [0.1] * 5, [4] * 5, seed=seed).gradient for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert len({float(x) for x in [*first[:, -1], *other[:, -1]]}) == 64


@pytest.mark.parametrize("strategy", ["constant", "increasing", "cosine", "linear"])
def test_a_trajectory_is_read_at_the_updates_and_examples_of_its_plan(strategy: str) -> None:
    curve = follow(STUDY, "sam", strategy).curve
    assert curve.examples[-1] == 10 * 1024
    assert curve.updates[-1] == (5 * 64 + 5 * 16 if strategy == "increasing" else 10 * 16)
    assert curve.updates[0] == 1
    assert curve.examples[0] == (16 if strategy == "increasing" else 64)
    assert np.all(np.diff(curve.updates) > 0)
    assert np.sum(curve.examples >= curve.examples[-1] / 2) > 10
    assert curve.gradient.shape == (64, len(curve.updates))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"learning_rate": 1.5}, "learning_rate is 1.5.*at most 1"),
        ({"floor_rates": (0.1, 0.0)}, "floor_rates is"),
        ({"least_curvature": 0.0}, "least_curvature is 0.0"),
        ({"floor_batch_sizes": ()}, "floor_batch_sizes is"),
        ({"chains": 0}, "chains is 0"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"noise": 0.0}, "noise is 0.*above 0"),
        ({"constant_plan": "10"}, "constant_plan is '10'"),
        ({"increasing_plan": "2x40000"}, "40000"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        QuadraticStudy(**settings)
