"""Training examples that are kept on the device give the same images and the same run, bit for bit."""

import dataclasses
from typing import Any

import chex
import jax
import numpy as np
import pytest

from experiments import data
from experiments.config import Config
from experiments.runner import image_pipeline, run
from experiments.training.writers import Record

SETTINGS = {"batch_plan": "1x32,1x64", "method": "gsam", "train_examples": 128}


def trained(config: Config, dataset: data.Dataset) -> tuple[Any, list[Record]]:
    records: list[Record] = []
    state, _ = run.train(config, dataset, write=records.append)
    return state, records


def test_a_run_with_resident_examples_is_the_same_bit_for_bit(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.from_settings(model=tiny, label_noise=0.2, passes=2, **SETTINGS)
    dataset = run.load(config)
    assert image_pipeline.is_resident(config, dataset)
    assert set(next(image_pipeline.stream_of(config, dataset))) == {"index", "position"}
    resident, of_resident = trained(config, dataset)
    monkeypatch.setattr(image_pipeline, "_RESIDENT_BYTES", dataset.train.images.nbytes - 1)
    assert image_pipeline.constants_of(config, dataset).examples is None
    assert set(next(image_pipeline.stream_of(config, dataset))) == {"image", "label", "position"}
    sent, of_sent = trained(config, dataset)
    chex.assert_trees_all_equal(resident, sent)
    assert of_resident == of_sent


def test_the_step_gets_the_same_images_as_from_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.from_settings(mixing=1.0, random_erasing=0.5, label_smoothing=0.1, seed=3, **SETTINGS)
    dataset = run.load(config)
    prepare = jax.jit(image_pipeline.preparation(image_pipeline.preparation_settings(config, dataset)))
    constants = image_pipeline.constants_of(config, dataset)
    by_index = image_pipeline.stream_of(config, dataset)
    monkeypatch.setattr(image_pipeline, "is_resident", lambda config, dataset: False)
    for indices, images in zip(by_index, image_pipeline.stream_of(config, dataset), strict=True):
        chex.assert_trees_all_equal(prepare(indices, constants), prepare(images, constants))


def test_examples_read_singly_or_transformed_on_the_host_are_streamed() -> None:
    config = Config.from_settings(**SETTINGS)
    dataset = run.load(config)

    class OneByOne:
        workers = 4

    assert not image_pipeline.is_resident(config, dataclasses.replace(dataset, train=OneByOne()))
    assert not image_pipeline.is_resident(config.with_settings(auto_augment=True), dataset)


@pytest.mark.parametrize("is_read", [True, False])
def test_the_parts_of_a_batch_add_up_to_the_batch(is_read: bool) -> None:
    config = Config.from_settings(**SETTINGS)
    dataset = run.load(config)
    parts = [
        data.training_batches(dataset.train, config.plan, 0, part=(i, 4), is_read=is_read, start=1) for i in range(4)
    ]
    whole = data.training_batches(dataset.train, config.plan, 0, is_read=is_read, start=1)
    for batch, *cut in zip(whole, *parts, strict=True):
        assert {name: len(rows) for name, rows in cut[0].items()} == {name: len(batch[name]) // 4 for name in batch}
        chex.assert_trees_all_equal(batch, jax.tree.map(lambda *rows: np.concatenate(rows), *cut))
