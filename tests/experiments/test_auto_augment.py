import functools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from experiments.data.auto_augment import MAGNITUDES, OPERATIONS, POLICY, SIGNED, auto_augment
from tests.selection import some_of

_GREY = (128, 128, 128)
_SIDES = ((32, 32), (17, 24), (64, 40), (1, 1), (2, 5))


def _images() -> list[np.ndarray]:
    """Images of noise, of a gradient, of few levels, of one colour, and with an empty channel, in several sizes."""
    rng = np.random.default_rng(0)
    images = []
    for height, width in _SIDES:
        noise = rng.integers(0, 256, (height, width, 3))
        shade = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] + np.array([20, 60, 90])
        few = rng.choice([30, 31, 200], (height, width, 3))
        images += [noise, shade + noise // 8, few, np.full_like(noise, 77), noise * np.array([1, 0, 1])]
    return [np.clip(image, 0, 255).astype(np.uint8) for image in images]


IMAGES = _images()
PICTURE = IMAGES[1]


def _affine(image: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=_GREY)


def _rotated(image: Image.Image, degrees: float) -> Image.Image:
    turned = image.convert("RGBA").rotate(degrees)
    return Image.composite(turned, Image.new("RGBA", turned.size, (128,) * 4), turned).convert("RGB")


_CUBIC, _NEAREST = Image.Resampling.BICUBIC, Image.Resampling.NEAREST

PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "shear_x": lambda image, m: _affine(image, (1, m, 0, 0, 1, 0), _CUBIC),
    "shear_y": lambda image, m: _affine(image, (1, 0, 0, m, 1, 0), _CUBIC),
    "translate_x": lambda image, m: _affine(image, (1, 0, m * image.size[0], 0, 1, 0), _NEAREST),
    "translate_y": lambda image, m: _affine(image, (1, 0, 0, 0, 1, m * image.size[1]), _NEAREST),
    "rotate": _rotated,
    "auto_contrast": lambda image, m: ImageOps.autocontrast(image),
    "invert": lambda image, m: ImageOps.invert(image),
    "equalize": lambda image, m: ImageOps.equalize(image),
    "solarize": ImageOps.solarize,
    "posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m),
    "color": lambda image, m: ImageEnhance.Color(image).enhance(1 + m),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m),
}


def _magnitudes(name: str) -> list[float]:
    values = [float(value) for value in MAGNITUDES[name]]
    return values + [-value for value in values] if name in SIGNED else values


_IMAGE = tf.TensorSpec((None, None, 3), tf.uint8)


@some_of(
    OPERATIONS, quick=[name for name in OPERATIONS if name not in ("shear_y", "translate_y", "color", "brightness")]
)
def test_each_operation_equals_pillows_at_every_level_and_size(name: str) -> None:
    for image in IMAGES:
        for magnitude in dict.fromkeys(_magnitudes(name)):
            ours = np.asarray(OPERATIONS[name](Image.fromarray(image), magnitude))
            theirs = np.asarray(PILLOW[name](Image.fromarray(image), magnitude))
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{magnitude} on {image.shape}")
            assert ours.dtype == np.uint8


@functools.cache
def _traced() -> Callable[..., tf.Tensor]:
    return tf.function(auto_augment, input_signature=(_IMAGE, tf.TensorSpec((2,), tf.int64)))


FEW, MANY = 1000, 4000


@functools.cache
def _results(count: int) -> np.ndarray:
    """The results for an image with each of this number of keys."""
    keys = tf.stack([tf.zeros(count, tf.int64), tf.range(count, dtype=tf.int64)], 1)
    return np.stack([image.numpy() for image in tf.data.Dataset.from_tensor_slices(keys).map(_of_key)])


def _of_key(key: tf.Tensor) -> tf.Tensor:
    return auto_augment(tf.constant(PICTURE), key)


def _outcomes() -> dict[bytes, float]:
    """Every image that the policy can give and its probability, computed by Pillow over pairs, decisions and signs."""
    outcomes: dict[bytes, float] = {}

    def go(image: Image.Image, choices: tuple, probability: float) -> None:
        if not choices:
            key = np.asarray(image).tobytes()
            outcomes[key] = outcomes.get(key, 0.0) + probability
            return
        (name, chance, level), *rest = choices
        magnitude = float(MAGNITUDES[name][level])
        signs = (1, -1) if name in SIGNED else (1,)
        go(image, tuple(rest), probability * (1 - chance))
        for sign in signs:
            go(PILLOW[name](image, sign * magnitude), tuple(rest), probability * chance / len(signs))

    for pair in POLICY:
        go(Image.fromarray(PICTURE), pair, 1 / len(POLICY))
    return {image: probability for image, probability in outcomes.items() if probability}


@pytest.mark.parametrize("total", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
def test_images_occur_with_the_probabilities_of_the_policy(total: int) -> None:
    expected = _outcomes()
    counts = dict.fromkeys(expected, 0)
    for image in _results(total):
        counts[image.tobytes()] += 1  # a KeyError means an image that the policy cannot give
    assert sum(expected.values()) == pytest.approx(1)
    chi_squared = sum((counts[each] - total * p) ** 2 / (total * p) for each, p in expected.items())
    freedom = len(expected) - 1
    assert abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)


def test_the_result_depends_only_on_seed_and_position() -> None:
    keys = [(seed, position) for seed in (0, 1) for position in (0, 5, 2**40)]
    once = [_traced()(PICTURE, tf.constant(key, tf.int64)).numpy() for key in keys]
    again = [_traced()(PICTURE, tf.constant(key, tf.int64)).numpy() for key in reversed(keys)][::-1]
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once[1], _results(FEW)[5])
    assert len({image.tobytes() for image in _results(FEW)[:40]}) > 10


def test_the_policy_has_25_pairs_of_known_operations_and_levels() -> None:
    assert len(POLICY) == 25
    assert set(MAGNITUDES) == set(OPERATIONS) >= {choice.operation for pair in POLICY for choice in pair}
    assert all(0 <= choice.probability <= 1 and 0 <= choice.level <= 9 for pair in POLICY for choice in pair)


@pytest.mark.parametrize("image", [np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_inputs_other_than_colour_images_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="give uint8 of shape"):
        auto_augment(tf.constant(image), tf.constant((0, 0), tf.int64))
