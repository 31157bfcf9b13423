"""The check points of the ascent and its condition for a shorter step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_optax.sharpness.step_size import is_too_long, windows


def _points(steps):
    return [i for i, window in enumerate(windows(steps)) if window]


@pytest.mark.parametrize(
    ("steps", "points"),
    [(20, [5, 9, 12, 15, 16, 18, 19]), (100, [22, 41, 57, 70, 80, 87, 93, 99]), (1, []), (3, [1, 2])],
)
def test_the_check_points_are_those_of_the_fractions(steps, points):
    # 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 of the iterations; 0.70 and 0.80 are a rounding above
    found = _points(steps)
    assert len(found) == len(points)
    assert all(abs(i - j) <= (steps == 100) for i, j in zip(found, points, strict=True))


@given(st.integers(1, 500))
def test_the_windows_lie_end_to_end(steps):
    found = windows(steps)
    assert len(found) == steps
    assert sum(found) == max(_points(steps), default=0)
    assert all(found[i] == i - j for j, i in zip([0, *_points(steps)], _points(steps), strict=False))


@pytest.mark.parametrize(
    ("improvements", "window", "nothing_changed", "halved"),
    [(3, 4, False, False), (2, 4, False, True), (4, 4, True, True), (0, 0, True, False), (4, 5, False, False)],
)
def test_the_step_is_too_long_where_few_iterations_improve_or_nothing_changes(
    improvements, window, nothing_changed, halved
):
    assert bool(is_too_long(improvements, window, nothing_changed)) == halved
