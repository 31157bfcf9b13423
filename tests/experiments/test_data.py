import sys
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import data
from experiments.data import catalogue, stream
from sam_optax import BatchPlan

SPLIT = data.Split(np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1), np.arange(40, dtype=np.int32))


def labels(batches: Iterator[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([batch["label"] for batch in batches])


def test_digits_are_real_images_split_without_overlap() -> None:
    dataset = data.load("digits", seed=0)
    train, test = dataset.train, dataset.test
    assert (len(train), len(test), dataset.image_shape, dataset.num_classes) == (512, 1000, (8, 8, 1), 10)
    assert train.images.dtype == np.uint8
    assert set(np.unique(train.labels)) == set(range(10))
    both = np.concatenate([train.images, test.images]).reshape(1512, -1)
    assert len(np.unique(both, axis=0)) == len(both)


def test_training_parts_of_consecutive_seeds_are_disjoint() -> None:
    parts = [{image.tobytes() for image in catalogue.load_digits(seed).train.images} for seed in range(3)]
    assert parts[0].isdisjoint(parts[1])
    assert parts[1].isdisjoint(parts[2])
    assert len(parts[0] & parts[2]) < 0.2 * 512


def test_the_moments_are_those_of_the_training_images_only() -> None:
    dataset = data.load("digits", seed=1)
    np.testing.assert_allclose(dataset.mean, [dataset.train.images.mean()], rtol=1e-6)
    np.testing.assert_allclose(dataset.std, [dataset.train.images.std()], rtol=1e-6)


def test_missing_data_are_refused_with_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue._scans.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"digits.*install"):
        data.load("digits", seed=0)


def test_an_epoch_holds_every_example_once_and_epochs_differ() -> None:
    found = labels(data.training_batches(SPLIT, BatchPlan.constant(8, epochs=3), seed=0)).reshape(3, 40)
    np.testing.assert_array_equal(np.sort(found), np.tile(np.arange(40), (3, 1)))
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], np.arange(40))


def test_seeds_differ_and_the_same_seed_repeats() -> None:
    plan = BatchPlan.constant(8, epochs=1)
    first, again, other = (labels(data.training_batches(SPLIT, plan, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@settings(max_examples=5)
@given(sizes=st.lists(st.sampled_from([1, 3, 8, 20, 40]), min_size=1, max_size=3), seed=st.integers(0, 2**31))
def test_the_batch_size_does_not_change_the_order_of_the_examples(sizes: list[int], seed: int) -> None:
    plan = BatchPlan.from_stages((2, size) for size in sizes)
    one_by_one = labels(data.training_batches(SPLIT, BatchPlan.constant(1, plan.epochs), seed))
    batches = list(data.training_batches(SPLIT, plan, seed))
    assert len(batches) == plan.total_steps(40)
    for batch in batches:
        np.testing.assert_array_equal(batch["label"], one_by_one[batch["position"]])
        np.testing.assert_array_equal(batch["image"].ravel(), batch["label"])
    assert [len(batch["label"]) for batch in batches] == [size for size in sizes for _ in range(2 * (40 // size))]


@pytest.mark.parametrize("start", [0, 3, 5, 12, 14])
def test_a_stream_resumes_where_it_stopped(start: int) -> None:
    plan = BatchPlan.parse("2x8,2x16")
    whole = list(data.training_batches(SPLIT, plan, seed=0))
    rest = list(data.training_batches(SPLIT, plan, seed=0, start=start))
    assert len(rest) == len(whole) - start
    for one, other in zip(rest, whole[start:], strict=True):
        np.testing.assert_array_equal(one["position"], other["position"])
        np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_example_order_is_that_of_the_batch_plan(seed: int, passes: int) -> None:
    found = labels(data.training_batches(SPLIT, BatchPlan.constant(8, epochs=2), seed, passes=passes))
    by_plan = BatchPlan.constant(8, epochs=2 * passes).batches(40, seed)
    np.testing.assert_array_equal(found, np.concatenate([batch.indices for batch in by_plan]))


def test_examples_in_memory_are_read_without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "tf", None)
    batches = list(data.training_batches(SPLIT, BatchPlan.constant(8, epochs=1), seed=0))
    np.testing.assert_array_equal(np.sort(labels(iter(batches))), np.arange(40))
    assert batches[0]["image"].shape == (8, 1, 1, 1)
    with pytest.raises(AttributeError):
        data.training_batches(SPLIT, BatchPlan.constant(8, epochs=1), seed=0, transform=lambda image, key: image)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 50, 120])
def test_an_epoch_of_three_passes_concatenates_three_single_passes(batch_size: int) -> None:
    plan = BatchPlan.constant(batch_size, epochs=2)
    batches = list(data.training_batches(SPLIT, plan, seed=0, passes=3))
    one_by_one = labels(data.training_batches(SPLIT, BatchPlan.constant(1, epochs=6), seed=0))
    assert [len(batch["label"]) for batch in batches] == [batch_size] * (2 * (120 // batch_size))
    positions = np.concatenate([batch["position"] for batch in batches])
    np.testing.assert_array_equal(labels(iter(batches)), one_by_one[positions])
    kept = 120 // batch_size * batch_size  # the last, incomplete batch of an epoch is dropped
    np.testing.assert_array_equal(positions, [epoch * 120 + i for epoch in range(2) for i in range(kept)])


def test_an_epoch_of_two_passes_resumes_where_it_stopped() -> None:
    plan = BatchPlan.parse("1x7,1x16")
    whole = list(data.training_batches(SPLIT, plan, seed=0, passes=2))
    rest = list(data.training_batches(SPLIT, plan, seed=0, start=12, passes=2))
    np.testing.assert_array_equal(labels(iter(rest)), labels(iter(whole[12:])))


def test_invalid_numbers_of_passes_are_refused() -> None:
    with pytest.raises(ValueError, match="passes is 0"):
        data.training_batches(SPLIT, BatchPlan.constant(8, epochs=1), seed=0, passes=0)


def with_its_bits(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """A transform that replaces the image by random bits of its key, so that tests can check the key."""
    assert image.shape == (2, 3, 1)
    return tf.cast(tf.random.stateless_uniform(image.shape, key, 0, 256, tf.int32), tf.uint8)


@pytest.mark.parametrize("passes", [1, 2])
def test_a_transform_gets_every_image_with_the_key_of_its_seed_and_position(passes: int) -> None:
    split = data.Split(np.arange(60, dtype=np.uint8).reshape(10, 2, 3, 1), np.arange(10, dtype=np.int32))
    for plan, start in (("2x3", 0), ("1x4,1x2", 2)):
        for batch in data.training_batches(
            split, BatchPlan.parse(plan), 5, start, passes=passes, transform=with_its_bits
        ):
            keys = [tf.constant([5, position], tf.int64) for position in batch["position"]]
            expected = [with_its_bits(tf.zeros((2, 3, 1), tf.uint8), key) for key in keys]
            np.testing.assert_array_equal(batch["image"], expected)
    inverted = data.training_batches(
        split, BatchPlan.constant(5, 1), 0, passes=passes, transform=lambda image, key: 255 - image
    )
    for batch in inverted:
        np.testing.assert_array_equal(batch["image"], 255 - split.images[batch["label"]])


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"41 .* larger than the data, 40"):
        data.training_batches(SPLIT, BatchPlan.constant(41, epochs=1), seed=0)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 64])
def test_an_evaluation_counts_every_example_once(batch_size: int) -> None:
    batches = list(stream.evaluation_batches(SPLIT, batch_size))
    assert {len(batch["image"]) for batch in batches} == {batch_size}
    counts = np.zeros(40)
    for batch in batches:
        np.add.at(counts, batch["label"], batch["weight"])
    np.testing.assert_array_equal(counts, 1)
