"""Changes to the training examples of a data set: fewer examples, held-out examples, and wrong labels."""

from collections.abc import Callable

import numpy as np
import pytest

from experiments import data
from experiments.data import catalogue
from experiments.data.dataset import with_noise

SIZE, CLASSES = 20_000, 5


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set whose images encode their correct label and their number."""
    pixels = np.arange(SIZE, dtype=np.uint32).view(np.uint8).reshape(SIZE, 2, 2, 1)
    train = data.Split(pixels, (np.arange(SIZE) % CLASSES).astype(np.int32))
    test = data.Split(pixels[:10], train.labels[:10])
    dataset = data.Dataset(train, test, CLASSES, np.zeros(1), np.ones(1), crop_padding=0, flip=False)
    monkeypatch.setitem(catalogue._EMBEDDED, "numbered", lambda seed: dataset)
    catalogue._parted.cache_clear()
    return "numbered"


def numbers(split: data.Split) -> np.ndarray:
    """The number of each image."""
    return np.ascontiguousarray(split.images).reshape(len(split), 4).view(np.uint32).ravel()


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (1e-5, 0), (0.2, 4000), (0.33333, 6667), (0.9999, 19998)])
def test_exactly_the_given_fraction_of_the_training_labels_is_wrong(numbered: str, fraction: float, count: int) -> None:
    dataset = data.load(numbered, 0, label_noise=fraction)
    right = numbers(dataset.train) % CLASSES
    assert (dataset.train.labels != right).sum() == count
    assert dataset.train.labels.dtype == np.int32
    assert set(np.unique(dataset.train.labels)) == set(range(CLASSES))
    np.testing.assert_array_equal(dataset.test.labels, numbers(dataset.test) % CLASSES)


def test_a_wrong_label_is_every_other_class_with_equal_probability() -> None:
    split = data.Split(np.zeros((SIZE, 1, 1, 1), np.uint8), np.full(SIZE, 3, np.int32))
    noisy = with_noise(split, CLASSES, 0.8, seed=0)
    counts = np.bincount(noisy.labels, minlength=CLASSES)
    assert counts[3] == 0.2 * SIZE
    others = np.delete(counts, 3)
    assert (
        (others - 4000) ** 2 / 4000
    ).sum() < 16.3  # chi-squared with three degrees of freedom: the probability of more is 0.1%
    first, last = noisy.labels[: SIZE // 2] != 3, noisy.labels[SIZE // 2 :] != 3
    assert abs(first.mean() - last.mean()) < 0.02


def test_the_seed_chooses_the_wrong_labels_and_a_larger_fraction_includes_a_smaller_one(numbered: str) -> None:
    some, again, other = (data.load(numbered, seed, label_noise=0.1).train.labels for seed in (0, 0, 1))
    np.testing.assert_array_equal(some, again)
    assert not np.array_equal(some, other)
    wrong = some != np.arange(SIZE) % CLASSES
    np.testing.assert_array_equal(data.load(numbered, 0, label_noise=0.5).train.labels[wrong], some[wrong])


def test_noise_copies_no_image(numbered: str) -> None:
    assert np.shares_memory(data.load(numbered, 0, label_noise=0.5).train.images, data.load(numbered, 0).train.images)


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 2000), (0.33333, 6667), (0.999, 19980)])
def test_the_held_out_examples_are_the_rest_and_replace_the_test_set(
    numbered: str, fraction: float, count: int
) -> None:
    dataset = data.load(numbered, 0, validation=fraction, label_noise=0.25)
    train, held_out = numbers(dataset.train), numbers(dataset.test)
    assert len(held_out) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(SIZE))
    np.testing.assert_array_equal(dataset.test.labels, held_out % CLASSES)
    assert (dataset.train.labels != train % CLASSES).sum() == round(0.25 * len(train))
    assert (np.diff(train.astype(int)) > 0).all()  # as they were stored


def test_another_seed_holds_out_other_examples_and_changes_other_labels(numbered: str) -> None:
    one, again, other = (data.load(numbered, seed, validation=0.2) for seed in (0, 0, 1))
    np.testing.assert_array_equal(numbers(one.test), numbers(again.test))
    assert np.intersect1d(numbers(one.test), numbers(other.test)).size == pytest.approx(0.04 * SIZE, rel=0.2)
    noisy = data.load(numbered, 0, label_noise=0.2).train
    wrong = np.flatnonzero(noisy.labels != numbers(noisy) % CLASSES)
    assert np.intersect1d(numbers(one.test), wrong).size == pytest.approx(0.04 * SIZE, rel=0.2)


def test_train_examples_keeps_only_the_first_examples(numbered: str) -> None:
    some = data.load(numbered, 0, train_examples=1000, validation=0.1, label_noise=0.5)
    assert (len(some.train), len(some.test)) == (900, 100)
    assert max(numbers(some.train).max(), numbers(some.test).max()) == 999
    assert (some.train.labels != numbers(some.train) % CLASSES).sum() == 450
    assert data.load(numbered, 0, train_examples=SIZE + 1) is data.load(numbered, 0)


@pytest.mark.parametrize("settings", [{"validation": 0.3}, {"train_examples": 100}])
def test_the_moments_are_those_of_the_examples_that_are_trained_on(settings: dict[str, float]) -> None:
    dataset, whole = data.load("digits", 1, **settings), data.load("digits", 1)
    np.testing.assert_allclose(dataset.mean, [dataset.train.images.mean()], rtol=1e-6)
    np.testing.assert_allclose(dataset.std, [dataset.train.images.std()], rtol=1e-6)
    assert not np.array_equal(dataset.mean, whole.mean)


def test_tuning_never_uses_the_test_images_of_the_digits() -> None:
    tuned = data.load("digits", 0, validation=0.25)
    used = {image.tobytes() for split in (tuned.train, tuned.test) for image in split.images}
    assert used.isdisjoint({image.tobytes() for image in catalogue.load_digits(0).test.images})


def test_shared_arrays_stay_as_they_are(numbered: str) -> None:
    data.load(numbered, 0, label_noise=0.9, validation=0.5, train_examples=50)
    train = data.load(numbered, 0).train
    np.testing.assert_array_equal(train.labels, np.arange(SIZE) % CLASSES)


@pytest.mark.parametrize("name", ["label_noise", "validation"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_invalid_fractions_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        data.load("digits", 0, **{name: value})


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: data.load("digits", 0, validation=1e-4), "holds out 0 of 512"),
        (lambda: data.load("digits", 0, validation=0.9999), "holds out 512 of 512"),
        (lambda: data.load("digits", 0, train_examples=0), "train_examples is 0"),
    ],
)
def test_settings_that_leave_no_examples_are_refused(load: Callable[[], data.Dataset], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load()
