import jax
import jax.numpy as jnp
import numpy as np

from experiments import augmentation

IMAGES = jax.random.randint(jax.random.key(0), (64, 5, 4, 2), 1, 255).astype(jnp.uint8)
KEYS = augmentation.example_keys(jax.random.key(1), jnp.arange(64))


def test_a_crop_is_a_window_of_the_padded_image_and_every_window_is_drawn() -> None:
    cropped = np.asarray(augmentation.random_crop(KEYS, IMAGES, padding=1))
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = []
    for crop, image in zip(cropped, padded, strict=True):
        windows = {(i, j): image[i : i + 5, j : j + 4] for i in range(3) for j in range(3)}
        matches = [shift for shift, window in windows.items() if np.array_equal(crop, window)]
        assert len(matches) == 1
        shifts += matches
    assert cropped.dtype == np.uint8
    assert len(set(shifts)) == 9


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    flipped = np.asarray(augmentation.random_flip(KEYS, IMAGES))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, IMAGES, strict=True)]
    untouched = [np.array_equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(mirrored, untouched, strict=True))
    assert 16 < sum(mirrored) < 48


def test_an_example_is_augmented_the_same_way_in_every_batch() -> None:
    whole = augmentation.random_crop(KEYS, IMAGES, padding=2)
    part = jnp.arange(10, 30)
    keys = augmentation.example_keys(jax.random.key(1), part)
    np.testing.assert_array_equal(augmentation.random_crop(keys, IMAGES[part], padding=2), whole[part])


def test_normalised_images_have_mean_zero_and_deviation_one() -> None:
    pixels = np.asarray(IMAGES, np.float64).reshape(-1, 2)
    normalized = augmentation.normalize(IMAGES, jnp.asarray(pixels.mean(0)), jnp.asarray(pixels.std(0)))
    assert normalized.dtype == jnp.float32
    np.testing.assert_allclose(np.mean(normalized, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(normalized, (0, 1, 2)), 1, atol=1e-5)
