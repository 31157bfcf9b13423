import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.training import learning_rate

EPOCHS = 12.0

FALLS: dict[str, Any] = {
    "constant": lambda s, total: 1.0,
    "cosine": lambda s, total: 0.01 + 0.99 * (1 + math.cos(math.pi * s / total)) / 2,
    "linear": lambda s, total: 1 - 0.99 * s / total,
    "polynomial:2": lambda s, total: 0.01 + 0.99 * (1 - s / total) ** 2,
    "inverse_sqrt": lambda s, total: (1 + s) ** -0.5,
}


@pytest.mark.parametrize("text", FALLS)
@pytest.mark.parametrize("warmup", [0.0, 2.5])
def test_a_rate_rises_and_falls_by_its_formula(text: str, warmup: float) -> None:
    rate = learning_rate.parse(text, 0.2, EPOCHS, warmup)
    for t in (0.0, 0.5, 2.5, 3.0, 7.75, 12.0):
        expected = 0.01 + 0.99 * t / warmup if t < warmup else FALLS[text](t - warmup, EPOCHS - warmup)
        assert float(rate(t)) == pytest.approx(0.2 * expected, rel=1e-5)


def test_steps_count_from_the_start_of_the_run_whatever_the_warmup() -> None:
    for warmup in (0.0, 2.0):
        rate = learning_rate.parse("steps:0.2:4,8", 1.0, EPOCHS, warmup)
        found = np.asarray(rate(np.asarray([3.0, 3.99, 4.0, 7.9, 8.0, 11.0])))
        np.testing.assert_allclose(found, [1.0, 1.0, 0.2, 0.2, 0.04, 0.04], rtol=1e-6)


def test_warm_restarts_return_to_the_initial_rate_after_longer_and_longer_cosines() -> None:
    rate = learning_rate.parse("warm_restarts:2x2", 1.0, 14.0)
    cosine = FALLS["cosine"]
    for start, length in ((0, 2), (2, 4), (6, 8)):
        for part in (0.0, 0.25, 0.75):
            assert float(rate(start + part * length)) == pytest.approx(cosine(part, 1.0), rel=1e-5)
    even = learning_rate.parse("warm_restarts:4", 1.0, EPOCHS)
    assert float(even(9.0)) == pytest.approx(float(even(1.0)))


@given(st.sampled_from([*FALLS, "steps:0.5:3,9", "warm_restarts:5"]), st.floats(0, 11.9), st.floats(0, 12.0))
def test_a_rate_stays_between_zero_and_its_initial_value(text: str, warmup: float, t: float) -> None:
    assert 0 < float(learning_rate.parse(text, 0.5, EPOCHS, warmup)(t)) <= 0.5 * (1 + 1e-6)


def test_an_array_of_positions_gives_the_same_rates_as_single_positions() -> None:
    where = np.linspace(0, 12, 7, dtype=np.float32)
    for text in (*FALLS, "steps:0.5:3,9", "warm_restarts:5"):
        rate = learning_rate.parse(text, 0.5, EPOCHS, 1.0)
        np.testing.assert_allclose(rate(where), [float(rate(t)) for t in where], rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "triangle",
        "cosine:2",
        "polynomial",
        "polynomial:0",
        "polynomial:x",
        "polynomial:inf",
        "steps:0.2",
        "steps:0.2:",
        "steps:-1:3",
        "warm_restarts:0",
        "warm_restarts:4x0.5",
        "warm_restarts:x2",
        "constant:",
    ],
)
def test_an_unknown_schedule_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match=r"lr_schedule is .*give constant, cosine"):
        learning_rate.parse(text, 0.1, EPOCHS)


def test_a_warmup_over_all_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_epochs is 12"):
        learning_rate.parse("cosine", 0.1, EPOCHS, 12.0)
