"""Saves within a run: when they are made, how many are kept, and what they hold."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data
from experiments.config import Config
from experiments.data import catalogue, imagenet
from experiments.runner import run
from experiments.runner.resume import reopened
from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoints
from experiments.training.epoch_schedule import Saving
from experiments.training.exceptions import UnusableError
from tests.experiments.interrupted_runs import execute, stopped

SETTINGS: dict[str, Any] = {"model": "tiny", "method": "sam", "batch_plan": "2x128"}  # 8 updates


def test_the_last_saves_are_kept_until_the_run_is_finished(tiny: str, tmp_path: Path) -> None:
    saves: list[list[int]] = []

    def record_saves(record: Any, state: Any) -> None:
        saves.append(checkpoint.steps(tmp_path / "checkpoints"))

    execute(
        tmp_path,
        Config.from_settings(**SETTINGS | {"batch_plan": "4x128"}),
        watch=record_saves,
        saving=Saving(1, keep=3),
    )
    for epoch, steps in enumerate(saves, start=1):
        last = 4 * epoch - 2  # the last save but one is certain to be finished, because the next one waited for it
        assert steps[-1] >= last
        assert len(steps) <= 3 + 1  # the oldest save is removed once the newest is complete
    assert not (tmp_path / "checkpoints").exists()


def test_saving_depends_only_on_the_position_in_the_run() -> None:
    assert Saving().due(0, range(390), 50_000) == [390]
    assert [Saving().due(epoch, range(epoch * 4, epoch * 4 + 4), 512) for epoch in (0, 18, 19, 20)] == [
        [],
        [],
        [80],
        [],
    ]
    assert Saving(100).due(3, range(250, 520), 50_000) == [300, 400, 500]
    assert Saving(130).due(1, range(130, 260), 50_000) == [260]
    assert Saving(1000).due(0, range(300), 50_000) == []
    for wrong in ({"every": 0}, {"keep": 0}):
        with pytest.raises(ValueError, match=f"saving.{next(iter(wrong))} is 0"):
            Saving(**wrong)


def test_a_save_holds_the_current_values_although_its_buffers_are_donated(tmp_path: Path) -> None:
    step = jax.jit(lambda state: jax.tree.map(lambda x: x * 1.5 + 1, state), donate_argnums=0)
    state = {str(i): jnp.full((300, 300), float(i)) for i in range(20)}
    saves, wanted = Checkpoints(tmp_path / "saves", keep=9), {}
    for number in range(4):
        wanted[number] = jax.tree.map(lambda x: np.array(x, copy=True), state)
        saves.save(number, state, {"number": number})
        for _ in range(20):
            state = step(state)
    saves.close()
    for number, was in wanted.items():
        found = checkpoint.restore_save(tmp_path / "saves", number, state)
        jax.tree.map(np.testing.assert_array_equal, found, was)
        assert checkpoint.notes_of(tmp_path / "saves", number) == {"number": number}


def test_different_data_sets_have_different_fingerprints() -> None:
    dataset = catalogue.load_digits(0)
    train = dataset.train
    labels = train.labels.copy()
    labels[5] = (labels[5] + 1) % 10
    images = train.images.copy()
    images[7, 3, 3, 0] ^= 1
    others = [
        dataclasses.replace(dataset, train=data.Split(images, train.labels)),
        dataclasses.replace(dataset, train=data.Split(train.images, labels)),
        dataclasses.replace(dataset, train=data.Split(train.images[::-1], train.labels[::-1])),
        dataclasses.replace(dataset, test=data.Split(dataset.test.images[:-1], dataset.test.labels[:-1])),
        dataclasses.replace(dataset, mean=dataset.mean + 1),
        catalogue.load_digits(1),
    ]
    found = [each.fingerprint() for each in (dataset, *others)]
    assert len(set(found)) == len(found)
    assert catalogue.load_digits(0).fingerprint() == found[0]


def test_a_fingerprint_of_records_reads_only_some_of_them() -> None:
    class Source(list):
        def __getitems__(self, keys: list[int]) -> list[bytes]:
            read.extend(keys)
            return [self[key] for key in keys]

    def fingerprint(source: Source) -> str:
        records = imagenet.Records.of(source, 10)
        return dataclasses.replace(catalogue.load_digits(0), train=records).fingerprint()

    read: list[int] = []
    made = [str(i).encode() for i in range(1000)]
    first = fingerprint(Source(made))
    assert len(read) <= 16
    assert fingerprint(Source(made)) == first
    assert fingerprint(Source(made[:-1])) != first
    assert fingerprint(Source([b"new", *made[1:]])) != first


def test_a_run_with_a_perturbation_per_device_resumes_only_on_as_many_devices(tiny: str, tmp_path: Path) -> None:
    config = Config.from_settings(**SETTINGS, perturbation="device")
    stopped(tmp_path, config, 5)
    dataset = run.load(config)
    assert reopened(tmp_path, config, dataset, devices=1) is not None
    with pytest.raises(UnusableError, match=r"the number of devices was 1 when .* and is 2 here"):
        reopened(tmp_path, config, dataset, devices=2)


def test_a_reopened_run_knows_its_progress(tiny: str, tmp_path: Path) -> None:
    stopped(tmp_path, Config.from_settings(**SETTINGS), 5)
    begin = reopened(tmp_path, Config.from_settings(**SETTINGS), run.load(Config.from_settings(**SETTINGS)))
    assert begin is not None
    assert (begin.save, begin.progress.step, begin.progress.epoch, begin.progress.gradient_evaluations) == (5, 5, 1, 10)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 5 + 1
    assert begin.progress.loss == pytest.approx(json.loads(lines[-1])["loss"])
