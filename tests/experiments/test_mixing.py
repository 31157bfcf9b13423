import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.augmentation import mix, smoothed

_DRAWS, _BATCH, _HEIGHT, _WIDTH = 6000, 4, 9, 6
VALUES = np.array([1.0, 10.0, 100.0, 1000.0])  # of the images' pixels: each mixture identifies its images
UNMIXED, MIXUP, CUTMIX = range(3)


@functools.cache
def _mixtures(probability: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """The mixtures of one batch with many keys: images `(draws, batch, height, width)`, targets `(draws, batch, 4)`."""
    images = jnp.broadcast_to(jnp.asarray(VALUES)[:, None, None, None], (_BATCH, _HEIGHT, _WIDTH, 1))
    keys = jax.random.split(jax.random.key(0), _DRAWS)
    mixed = jax.jit(jax.vmap(lambda key: mix(key, images, jnp.eye(4), probability)))
    images, targets = map(np.asarray, mixed(keys))
    return images[..., 0], targets


def _kinds(targets: np.ndarray, images: np.ndarray) -> np.ndarray:
    """How each draw was mixed, `(draws,)`."""
    one_hot = np.all(targets == np.eye(4), (1, 2))
    flat = np.all(images == images[:, :, :1, :1], (1, 2, 3))
    return np.where(one_hot, UNMIXED, np.where(flat, MIXUP, CUTMIX))


def test_the_weight_of_a_target_is_that_of_its_pixels() -> None:
    images, targets = _mixtures()
    np.testing.assert_allclose(images.mean((2, 3)), targets @ VALUES, rtol=1e-4)
    np.testing.assert_allclose(targets.sum(2), 1, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)  # partners are a permutation


def test_a_batch_is_mixed_half_of_the_time_equally_often_by_mixup_and_cutmix() -> None:
    images, targets = _mixtures()
    shares = np.bincount(_kinds(targets, images), minlength=3) / _DRAWS
    one_alone = 1 / math.factorial(_BATCH)  # the identity permutation
    expected = np.array([0.5 + 0.5 * one_alone, 0.25 * (1 - one_alone), 0.25 * (1 - one_alone)])
    whole_image = 0.03  # CutMix's rectangle may be empty or the whole image
    assert np.all(np.abs(shares - expected) < 5 * np.sqrt(0.25 / _DRAWS) + whole_image)


def test_every_image_is_equally_likely_as_a_partner() -> None:
    targets = _mixtures(1.0)[1]
    moved = targets[np.any(targets != np.eye(4), (1, 2))]
    for image in range(_BATCH):
        others = np.delete(moved[:, image], image, 1) > 0
        shares = others.mean(0)
        assert np.all(np.abs(shares - 6 / 23) < 0.05)  # of 24 permutations without the identity


def test_cutmix_pastes_one_common_rectangle_in_the_whole_batch() -> None:
    images, targets = _mixtures()
    cut = images[_kinds(targets, images) == CUTMIX]
    assert np.all(np.isin(cut, VALUES.astype(cut.dtype)))
    changed = cut != VALUES[:, None, None].astype(cut.dtype)
    region = changed.any(1)
    for image in range(_BATCH):
        moved = changed[:, image].any((1, 2))
        np.testing.assert_array_equal(changed[moved, image], region[moved])
    np.testing.assert_array_equal(region, region.any(2)[:, :, None] & region.any(1)[:, None])


def _areas_one_by_one(count: int) -> np.ndarray:
    """The fractions of an image that the recipe's rectangle covers, drawn one at a time."""
    rng, areas = np.random.default_rng(0), []
    for _ in range(count):
        ratio = np.sqrt(1 - rng.beta(1, 1))
        spans = []
        for side in (_HEIGHT, _WIDTH):
            length, centre = int(side * ratio), rng.integers(side)
            start, end = np.clip([centre - length // 2, centre + length // 2], 0, side)
            spans.append(end - start)
        areas.append(spans[0] * spans[1])
    return np.array(areas)


def test_cutmix_rectangles_have_the_sizes_of_the_recipe() -> None:
    images, targets = _mixtures(1.0)
    moved = np.array([np.diag(each).min() for each in targets])
    is_cut = _kinds(targets, images) == CUTMIX
    areas = np.round((1 - moved[is_cut]) * _HEIGHT * _WIDTH)
    expected = _areas_one_by_one(20_000)
    expected = expected[(expected > 0) & (expected < _HEIGHT * _WIDTH)]
    levels = np.arange(_HEIGHT * _WIDTH)
    distance = np.abs(_cumulative(areas, levels) - _cumulative(expected, levels)).max()
    assert distance < 2 * np.sqrt(1 / len(areas) + 1 / len(expected))  # Kolmogorov-Smirnov test at 0.1%


def test_the_weight_of_mixup_is_uniform() -> None:
    images, targets = _mixtures(1.0)
    own = np.array([np.diag(each).min() for each in targets[_kinds(targets, images) == MIXUP]])
    levels = np.linspace(0, 1, 101)
    assert np.abs(_cumulative(own, levels) - levels).max() < 2 / np.sqrt(len(own))


def _cumulative(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.mean(values[:, None] <= levels, 0)


def test_the_loss_weights_both_smoothed_labels() -> None:
    logits = jax.random.normal(jax.random.key(3), (_BATCH, 4))
    labels = jnp.array([3, 0, 0, 2])
    images = jax.random.normal(jax.random.key(4), (_BATCH, 5, 5, 3))
    plain = jax.nn.one_hot(labels, 4)
    for seed in range(6):
        key = jax.random.key(seed)
        _, targets = mix(key, images, smoothed(labels, 4, 0.1), 1.0)
        _, (_, own) = mix(key, images, plain, 1.0), mix(key, images, jnp.eye(_BATCH), 1.0)
        nothing = -jax.nn.log_softmax(logits)
        each = 0.9 * jnp.take_along_axis(nothing, labels[None].repeat(_BATCH, 0), 1) + 0.1 * nothing.mean(1)[:, None]
        ours = optax.softmax_cross_entropy(logits, targets)
        np.testing.assert_allclose(ours, jnp.sum(own * each, 1), rtol=1e-5)


def test_an_unmixed_batch_is_untouched_bit_by_bit() -> None:
    images = jax.random.normal(jax.random.key(1), (8, 5, 5, 3)).astype(jnp.bfloat16)
    targets = jax.nn.softmax(jax.random.normal(jax.random.key(2), (8, 10)))
    for seed in range(5):
        mixed, of_targets = mix(jax.random.key(seed), images, targets, 0.0)
        assert mixed.dtype == jnp.bfloat16
        np.testing.assert_array_equal(mixed, images)
        np.testing.assert_array_equal(of_targets, targets)


def test_smoothed_targets_are_distributions_with_the_remaining_mass_on_the_label() -> None:
    result = smoothed(jnp.array([[1, 0], [3, 2]]), 4, 0.2)
    assert result.shape == (2, 2, 4)
    np.testing.assert_allclose(result[0, 0], [0.05, 0.85, 0.05, 0.05], rtol=1e-6)
    np.testing.assert_allclose(result.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(smoothed(jnp.array([2]), 3, 0.0), [[0, 0, 1]])


def test_impossible_mixing_and_smoothing_are_refused() -> None:
    key, images, targets = jax.random.key(0), jnp.zeros((2, 4, 4, 1)), jnp.eye(2)
    with pytest.raises(ValueError, match="images is of uint8"):
        mix(key, images.astype(jnp.uint8), targets, 0.5)
    with pytest.raises(ValueError, match="targets is of int32"):
        mix(key, images, jnp.array([0, 1]), 0.5)
    with pytest.raises(ValueError, match=r"probability is -0\.5"):
        mix(key, images, targets, -0.5)
    with pytest.raises(ValueError, match="labels is of float32"):
        smoothed(targets, 2, 0.1)
    with pytest.raises(ValueError, match=r"smoothing is 1\.0"):
        smoothed(jnp.array([0]), 2, 1.0)
