"""A run on several devices equals the run on one: parameters, states and figures are the same up to rounding."""

import functools
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

from experiments import models
from experiments.cli.output_folder import claim
from experiments.config import Config
from experiments.data import stream
from experiments.models import registry
from experiments.runner import image_pipeline, run
from experiments.runner import program as runner_program
from experiments.runner.resume import reopened
from experiments.training.exceptions import Terminated
from experiments.training.json_files import encode
from experiments.training.methods import METHODS
from experiments.training.sharding import Sharding
from tests.experiments.each_method import each_of
from tests.experiments.many_devices import (
    NETWORKS,
    Hidden,
    assert_same_records,
    config_of,
    hyperparameters,
    placed,
    started,
    trained,
)
from tests.selection import combinations


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, is_normed in NETWORKS.items():
        monkeypatch.setitem(registry._BUILDERS, name, functools.partial(Hidden, is_normed=is_normed))
    monkeypatch.setattr(models, "NAMES", (*models.NAMES, *NETWORKS))


@functools.cache
def on_one_device(config: Config) -> Any:
    return jax.device_get(trained(config, Sharding()))


def assert_same(found: Any, wanted: Any) -> None:
    chex.assert_trees_all_close(jax.device_get(found), wanted, rtol=0, atol=1e-10)


@each_of(METHODS, quick=("vasso", "wsam_decoupled", "msam"))  # the tests below run gsam
def test_eight_devices_train_every_method_like_one_device(method: str, x64: None) -> None:
    config = config_of("normed", method=method)
    assert_same(trained(config, placed(8)), on_one_device(config))


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.long)])
def test_any_number_of_devices_trains_like_one_device(devices: int, x64: None) -> None:
    config = config_of("hidden", method="gsam")
    assert_same(trained(config, placed(devices)), on_one_device(config))


@pytest.mark.long
@pytest.mark.parametrize("fsdp", [False, True])
@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_with_and_without_batchnorm_trains_on_any_number_of_devices(
    method: str, model: str, devices: int, fsdp: bool, x64: None
) -> None:
    config = config_of(model, method=method)
    assert_same(trained(config, placed(devices, fsdp=fsdp)), on_one_device(config))


@pytest.mark.parametrize("method", [pytest.param("sam", marks=pytest.mark.long), "vasso"])
def test_split_parameters_are_trained_like_replicated_ones(method: str, x64: None) -> None:
    config = config_of("normed", method=method)
    assert_same(trained(config, placed(8, fsdp=True)), on_one_device(config))


def test_random_augmentation_does_not_depend_on_the_devices(x64: None) -> None:
    """Cropping, erasing and mixing. Mixing combines images from several devices."""
    config = config_of("hidden", method="sam", random_erasing=0.5, mixing=0.5, label_smoothing=0.1)
    one, four = (jax.device_get(trained(config, placed(n), run.load(config), steps=4)) for n in (1, 4))
    assert_same(four, one)


def test_streamed_images_give_the_same_run_as_resident_ones(monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    config = config_of("hidden", method="gsam")
    resident = on_one_device(config)
    monkeypatch.setattr(image_pipeline, "_RESIDENT_BYTES", 0)
    assert_same(trained(config, placed(8)), resident)


@pytest.mark.parametrize("fsdp", [pytest.param(False, marks=pytest.mark.long), True])
def test_micro_batches_are_split_like_batches(fsdp: bool, x64: None) -> None:
    config = config_of("hidden", method="gsam", micro_batch=16)
    assert_same(trained(config, placed(4, fsdp=fsdp)), on_one_device(config_of("hidden", method="gsam")))


@pytest.mark.parametrize(
    "devices",
    [pytest.param(4, marks=pytest.mark.long, id="own_shards"), pytest.param(8, id="shared_shards")],
)
def test_a_perturbation_per_m_examples_does_not_depend_on_the_devices(devices: int, x64: None) -> None:
    """Each of four devices has 8 of 32 examples, which is one shard. With eight devices, two share a shard."""
    config = config_of("normed", method="gsam", m=8)
    assert_same(trained(config, placed(devices)), on_one_device(config))


@pytest.mark.parametrize("fsdp", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_perturbation_per_device_is_one_per_its_number_of_examples(fsdp: bool, x64: None) -> None:
    config = config_of("normed", method="gsam", perturbation="device")
    assert_same(trained(config, placed(4, fsdp=fsdp)), on_one_device(config_of("normed", method="gsam", m=8)))


def test_on_one_device_a_perturbation_per_device_is_the_global_one(x64: None) -> None:
    of_device = on_one_device(config_of("normed", method="gsam", perturbation="device"))
    assert_same(of_device.params, on_one_device(config_of("normed", method="gsam")).params)


def test_a_perturbation_per_device_differs_from_the_global_one(x64: None) -> None:
    """Otherwise the tests above would prove nothing."""
    config = config_of("normed", method="gsam", m=8)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(
            on_one_device(config).params, on_one_device(config_of("normed", method="gsam")).params, atol=1e-4
        )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"perturbation": "host"}, "perturbation is 'host': choose one of global, device."),
        ({"perturbation": "device", "m": 8}, "m is 8, and perturbation is 'device': omit one of the two."),
        (
            {"perturbation": "device", "method": "msam"},
            "perturbation is 'device', and msam cannot be computed shard by shard",
        ),
        (
            {"perturbation": "device", "method": "functional_sam"},
            "and functional_sam cannot be computed shard by shard",
        ),
        ({"perturbation": "device", "model": "vit_tiny", "drop_path": 0.1}, "and the network draws random numbers"),
    ],
)
def test_an_impossible_perturbation_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Config.from_settings(**settings)


@combinations(
    lambda settings, fsdp: fsdp == (settings == {}), settings=({}, {"perturbation": "device"}), fsdp=(False, True)
)
def test_the_state_keeps_its_sharding_so_that_a_step_is_compiled_once(fsdp: bool, settings: dict[str, Any]) -> None:
    runner_program._training.cache_clear()  # other tests may have compiled the same step
    state, program, batches = started(config_of("normed", method="vasso", **settings), placed(4, fsdp=fsdp))
    places = jax.tree.map(lambda x: x.sharding, state)
    for _ in range(3):
        before = state
        state, _ = program.step(before, next(batches), hyperparameters(program), perturb=True)
        assert all(x.is_deleted() for x in jax.tree.leaves(before.params))  # its buffers are reused by the next state
    assert jax.tree.map(lambda x: x.sharding, state) == places
    assert program.step.compiled._cache_size() == 1
    assert any("data" in place.spec for place in jax.tree.leaves(places)) == fsdp


@combinations(
    lambda settings, fsdp: (settings, fsdp) in (({}, False), ({"ema": 0.9}, True)),
    settings=({}, {"ema": 0.9}, {"method": "msam"}),
    fsdp=(False, True),
)
def test_an_evaluation_on_several_devices_equals_that_on_one(settings: dict[str, Any], fsdp: bool) -> None:
    """Also of averaged weights, whose BatchNorm statistics are recomputed. Eight does not divide 500."""
    config = config_of("normed", **{"method": "sgd"} | settings)
    found = []
    for sharding in (Sharding(), placed(8, fsdp=fsdp)):
        state, program, batches = started(config, sharding)
        state, _ = program.step(state, next(batches), hyperparameters(program), perturb=program.perturb(0))
        found.append(program.evaluate(state))
    assert found[1] == pytest.approx(found[0], abs=1e-6)


@pytest.mark.parametrize("fsdp", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_run_on_several_devices_writes_the_same_records_as_on_one(fsdp: bool, tmp_path: Path) -> None:
    config = config_of("normed", method="sam", batch_plan="2x32", train_examples=128)
    dataset, recorded = run.load(config), []
    one, several = (claim(tmp_path / name) for name in ("one", "several"))
    run.execute(config, dataset, one)
    watch = lambda record, state: recorded.append({x.sharding.num_devices for x in jax.tree.leaves(state)})  # noqa: E731
    run.execute(config, dataset, several, run.RunContext(watch=watch, sharding=placed(4, fsdp=fsdp)))
    assert recorded == [{1}, {1}]
    assert_same_records(several, one)
    assert encode(run.result_of(several)).keys() == encode(run.result_of(one)).keys()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(placed(8), placed(4, fsdp=True), marks=pytest.mark.long, id="fewer"),
        pytest.param(placed(4, fsdp=True), Sharding(), id="one"),
    ],
)
def test_a_stopped_run_resumes_on_another_number_of_devices(before: Sharding, after: Sharding, tmp_path: Path) -> None:
    config = config_of("normed", method="vasso", batch_plan="1x32", train_examples=320)
    dataset = run.load(config)
    stopped, whole = (claim(tmp_path / name) for name in ("stopped", "whole"))
    with pytest.raises(Terminated):
        run.execute(config, dataset, stopped, run.RunContext(stop=lambda step: step == 6, sharding=before))
    run.execute(config, dataset, stopped, run.RunContext(start=reopened(stopped, config, dataset), sharding=after))
    run.execute(config, dataset, whole)
    assert_same_records(stopped, whole)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_parts_of_an_evaluation_batch_add_up_to_the_batch(count: int) -> None:
    split = run.load(Config.from_settings()).test
    whole = list(stream.evaluation_batches(split, 64))
    parts = zip(*(stream.evaluation_batches(split, 64, (i, count)) for i in range(count)), strict=True)
    for batch, part in zip(whole, parts, strict=True):
        together = {name: np.concatenate([each[name] for each in part]) for name in batch}
        chex.assert_trees_all_equal(together, batch)
