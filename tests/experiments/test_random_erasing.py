import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import augmentation

_COUNT, _HEIGHT, _WIDTH = 20_000, 12, 9
KEYS = augmentation.example_keys(jax.random.key(2), jnp.arange(_COUNT))
FILL = jnp.array([-3.0, 4.0])
erase = jax.jit(augmentation.random_erasing, static_argnums=2)


@pytest.fixture(scope="module")
def erased() -> np.ndarray:
    """The erased pixels, with probability 0.25, bool `(_COUNT, _HEIGHT, _WIDTH)`."""
    images = jnp.ones((_COUNT, _HEIGHT, _WIDTH, 2))
    result = np.asarray(erase(KEYS, images, 0.25, FILL))
    is_fill = result == np.asarray(FILL)
    assert np.all(is_fill[..., 0] == is_fill[..., 1])
    assert np.all(result[~is_fill] == 1)
    return is_fill[..., 0]


def _sides(erased: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of the erased rectangles, for images that have one."""
    some = erased[erased.any((1, 2))]
    return some.any(2).sum(1), some.any(1).sum(1)


def _drawn_one_by_one(count: int) -> np.ndarray:
    """Heights and widths drawn by the recipe with repeated attempts, `(2, count)`."""
    rng, sides = np.random.default_rng(0), []
    while len(sides) < count:
        area = rng.uniform(0.02, 0.4) * _HEIGHT * _WIDTH
        ratio = rng.uniform(0.3, 1 / 0.3)
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height < _HEIGHT and width < _WIDTH:
            sides.append((height, width))
    return np.array(sides).T


def test_a_rectangle_is_erased_in_a_quarter_of_the_images(erased: np.ndarray) -> None:
    heights, widths = _sides(erased)
    assert np.array_equal(erased.sum((1, 2))[erased.any((1, 2))], heights * widths)
    assert abs(len(heights) / _COUNT - 0.25) < 5 * math.sqrt(0.25 * 0.75 / _COUNT)


def test_rectangles_have_the_areas_and_aspect_ratios_of_the_recipe(erased: np.ndarray) -> None:
    ours, expected = np.array(_sides(erased)), _drawn_one_by_one(20_000)
    assert ours[0].max() < _HEIGHT
    assert ours[1].max() < _WIDTH
    shape = np.zeros((2, _HEIGHT, _WIDTH))
    for counts, sides in zip(shape, (ours, expected), strict=True):
        np.add.at(counts, tuple(sides), 1 / sides.shape[1])
    deviation = np.sqrt(shape[1] / ours.shape[1] + shape[1] / expected.shape[1])
    assert np.all(np.abs(shape[0] - shape[1]) <= 5 * deviation + 2e-3)
    np.testing.assert_allclose(ours.mean(1), expected.mean(1), rtol=0.03)


def test_every_position_is_equally_likely(erased: np.ndarray) -> None:
    for across in (2, 1):
        spans = erased.any(across)
        starts = np.argmax(spans[spans.sum(1) == 4], 1)
        counts = np.bincount(starts, minlength=spans.shape[1] - 3)
        assert len(counts) == spans.shape[1] - 3
        expected = len(starts) / len(counts)
        assert expected > 50
        assert np.all(np.abs(counts - expected) < 5 * math.sqrt(expected))


def test_an_example_is_erased_the_same_way_in_every_batch() -> None:
    images = jax.random.normal(jax.random.key(0), (40, 8, 8, 1))
    whole = erase(KEYS[:40], images, 0.5)
    part = erase(KEYS[10:30], images[10:30], 0.5)
    np.testing.assert_array_equal(part, whole[10:30])
    assert 0 < np.sum(np.any(np.asarray(whole != images), (1, 2, 3))) < 40


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0), (1.0, 1)])
def test_a_certain_rectangle_is_always_erased_and_an_impossible_one_never(probability: float, share: int) -> None:
    images = jnp.ones((500, 32, 32, 3), jnp.bfloat16)
    result = erase(KEYS[:500], images, probability)
    assert result.dtype == jnp.bfloat16
    assert np.mean(np.any(np.asarray(result == 0), (1, 2, 3))) == share


def test_stored_images_and_impossible_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="images is of uint8: give normalised"):
        augmentation.random_erasing(KEYS[:1], jnp.zeros((1, 4, 4, 1), jnp.uint8), 0.5)
    with pytest.raises(ValueError, match=r"probability is 1\.5: give"):
        augmentation.random_erasing(KEYS[:1], jnp.zeros((1, 4, 4, 1)), 1.5)
