"""With a falling radius the gradient norm goes to zero, with a constant one it does not. Theory gives the limits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.convergence.falling_radius import (
    CONSTANT,
    FALLING,
    FALLING_RATE,
    GROWING_BATCH,
    compare,
    courses,
    worst_case,
)
from experiments.convergence.falling_radius_part import radius_part
from experiments.convergence.gradient_norms import Course, Quadratic
from experiments.convergence.quadratic_study import QuadraticStudy, follow, simulate
from tests.experiments.each_method import each_of

STUDY = QuadraticStudy(
    dimensions=8,
    least_curvature=0.2,
    examples=1024,
    chains=32,
    radius_updates=800,
    radius_batch_size=1024,
    radius_growing_sizes=(16, 256, 4096, 65536),
    constant_plan="10x64",
    increasing_plan="5x16,5x64",
)
NO_NOISE = 1e20  # examples in a batch


def without_noise(rates: np.ndarray, scales: np.ndarray, method: str) -> np.ndarray:
    course = Course(rates, np.full(len(rates), NO_NOISE), scales)
    return simulate(replace(STUDY, chains=1), method, course, np.ones(8)).gradient[0]


@each_of(("sam", "gsam"), quick=("gsam",))
def test_without_noise_a_constant_radius_has_a_positive_limit_and_a_falling_one_has_none(method: str) -> None:
    rates, ones = np.full(1600, 0.5), np.ones(1600)
    bounce = STUDY.problem.bouncing_norm(0.5, STUDY.rho)
    assert without_noise(rates, ones, method)[-20:] == pytest.approx(bounce, rel=1e-3)
    falling = 1 / np.arange(1, 1601)
    norms = without_noise(rates, falling, method)
    assert np.all(norms[100:1600] <= 2 * bounce * falling[100:])
    assert norms[-1] < 0.002 * bounce


def test_without_noise_a_falling_rate_lowers_the_norm_faster_with_a_falling_radius() -> None:
    scales = np.repeat([1.0, 0.5, 0.25, 0.125], 800)
    for radius_scales, power in ((np.ones_like(scales), 1), (scales, 2)):
        norms = without_noise(0.5 * scales, radius_scales, "sam")
        ends = [norms[799], norms[1599], norms[2399], norms[3199]]
        limits = [STUDY.problem.bouncing_norm(0.5 * 0.5**k, STUDY.rho * 0.5 ** (k * (power - 1))) for k in range(4)]
        assert ends == pytest.approx(limits, rel=0.02)


@each_of(("sam", "gsam"), quick=("gsam",))
def test_with_a_growing_batch_only_a_falling_radius_follows_sgd(method: str) -> None:
    found = compare(STUDY, ["sgd", method])
    sgd = found[GROWING_BATCH, "sgd", CONSTANT]
    assert found[GROWING_BATCH, method, FALLING].last < 1.3 * sgd.last
    stuck = found[GROWING_BATCH, method, CONSTANT]
    assert np.sqrt(stuck.last) == pytest.approx(STUDY.problem.bouncing_norm(STUDY.learning_rate, STUDY.rho), rel=0.1)
    assert stuck.last > 50 * sgd.last
    rate = {radius: found[FALLING_RATE, method, radius] for radius in (CONSTANT, FALLING)}
    assert rate[FALLING].last < rate[CONSTANT].last < 2 * rate[FALLING].last
    for result in found.values():
        assert result.last == pytest.approx(result.expected_last, rel=0.15)
        assert np.sqrt(result.squares) == pytest.approx(np.sqrt(result.expected), rel=0.3)
    for by_radius in (rate, {radius: found[GROWING_BATCH, method, radius] for radius in (CONSTANT, FALLING)}):
        floor = STUDY.problem.curvature * STUDY.rho
        assert np.sqrt(by_radius[CONSTANT].last_sam or 0) > floor
        assert np.sqrt(by_radius[FALLING].last_sam or 1) < floor


@given(st.floats(0.05, 0.5), st.integers(1, 1000), st.floats(0.0, 1.0))
def test_the_theory_reproduces_the_known_limits(rate: float, size: int, rho: float) -> None:
    problem, start = Quadratic(np.geomspace(0.5, 1.0, 4), 1.0), np.ones(4)
    updates = round(20 / rate)
    course = Course.at_constant_radius(np.full(updates, rate), np.full(updates, size))
    sgd = problem.expected_squares(course, 0.0, start)
    assert sgd[0] == np.sum(problem.spectrum**2)
    assert sgd[-1] == pytest.approx(problem.stationary_square(rate, size), rel=1e-3)
    one_dimensional = Quadratic(np.ones(1), 1.0)
    silent = course._replace(batch_sizes=np.full(updates, NO_NOISE))
    last = one_dimensional.expected_squares(silent, rho, np.ones(1))[-1]
    assert np.sqrt(last) == pytest.approx(one_dimensional.bouncing_norm(rate, rho), rel=1e-3, abs=1e-6)


def test_radius_and_alpha_are_proportional_to_the_rate_or_to_the_noise() -> None:
    found = courses(STUDY)
    rates, sizes, scales = found[FALLING_RATE][FALLING]
    np.testing.assert_allclose(scales, rates / STUDY.learning_rate)
    assert set(sizes) == {1024}
    assert rates[-1] < 0.011 * rates[0]
    rates, sizes, scales = found[GROWING_BATCH][FALLING]
    np.testing.assert_allclose(scales * np.sqrt(sizes), 4)
    assert set(rates) == {STUDY.learning_rate}
    for by_radius in found.values():
        assert np.all(by_radius[CONSTANT].radius_scales == 1)
        assert all(np.array_equal(*pair) for pair in zip(by_radius[CONSTANT][:2], by_radius[FALLING][:2], strict=True))


def test_in_the_worst_case_only_a_falling_radius_falls_below_the_floor() -> None:
    norms = worst_case(STUDY)
    assert norms[CONSTANT][0] == norms[FALLING][0] == pytest.approx(STUDY.rho / 2)
    assert norms[CONSTANT][50:] == pytest.approx(STUDY.rho, rel=1e-3)
    assert np.all(norms[FALLING][200:] == 0)


def test_the_sam_gradient_is_taken_at_the_radius_of_the_update() -> None:
    course = courses(STUDY)[FALLING_RATE][FALLING]
    norms = simulate(STUDY, "sam", course, np.ones(8))
    rho = STUDY.rho * np.append(course.radius_scales, course.radius_scales[-1])
    assert np.all(norms.sam_gradient >= (norms.gradient + STUDY.problem.curvature * rho) * (1 - 1e-5))
    assert np.all(norms.sam_gradient <= (norms.gradient + STUDY.problem.smoothness * rho) * (1 + 1e-5))


def test_a_falling_radius_is_a_strategy_of_the_quadratic_with_a_lower_bound() -> None:
    constant, falling = (follow(STUDY, "gsam", strategy) for strategy in ("cosine", "cosine_radius"))
    assert falling.last_bound < constant.last_bound
    assert falling.mean_bound < constant.mean_bound
    assert falling.last_square < constant.last_square


def test_the_report_section_has_a_row_per_method_and_radius_and_one_picture(tmp_path: Path) -> None:
    study = replace(STUDY, chains=2, radius_updates=40)
    part = radius_part(study, compare(study, ["sgd", "sam"]), worst_case(study), tmp_path)
    [(_, (heading, *rows))] = part.tables
    assert [row[:3] for row in rows] == [
        (change, *rest)
        for change in (FALLING_RATE, GROWING_BATCH)
        for rest in (("SGD", "–"), ("SAM", "constant"), ("SAM", "falling"))
    ]
    assert {len(row) for row in rows} == {len(heading)}
    assert [row[5] for row in rows if row[1] == "SGD"] == ["1.00", "1.00"]
    [picture] = part.pictures
    assert picture.path == tmp_path / "falling-radius.png"
    assert picture.path.is_file()
    single_chain = radius_part(study, compare(replace(study, chains=1), ["sam"]), worst_case(study), tmp_path)
    assert {row[5] for row in single_chain.tables[0][1][1:]} == {"–"}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"radius_updates": 1001}, "radius_updates is 1001: give a multiple of 8"),
        ({"radius_growing_sizes": ()}, r"radius_growing_sizes is \(\)"),
        ({"radius_growing_sizes": (16, 0)}, r"radius_growing_sizes is \(16, 0\)"),
        ({"radius_batch_size": 0}, "radius_batch_size is 0"),
    ],
)
def test_impossible_lengths_and_sizes_are_refused(settings: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        QuadraticStudy(**settings)  # type: ignore[arg-type]
