"""The sharding of a run's arrays: its rule, what it refuses, and the devices it uses."""

import os
import re
import socket
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from experiments.runner import hosts
from experiments.runner.hosts import Machine, abort_all_on_error, agree_across_hosts, sharding_on
from experiments.training.exceptions import UnusableError
from experiments.training.sharding import Sharding
from experiments.training.step import TrainState
from sam_optax import BatchPlan
from tests.experiments.many_devices import placed

STATE = TrainState(
    {"kernel": np.ones((64, 32), np.float32), "bias": np.ones(32, np.float32)},
    {"statistics": np.ones(2048, np.float32), "key": jax.random.key(0)},
    ({"momentum": np.zeros((64, 32), np.float32)}, np.int32(3)),
)


def specs(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.sharding.spec, tree)


def test_one_device_changes_nothing() -> None:
    single, tree = Sharding(), {"x": jnp.ones(3)}
    for same in (single.copied, single.gathered, single.whole):
        assert same(tree) is tree
    for same in (single.state, single.kept):
        assert same(STATE) is STATE
    assert (single.devices, single.part, single.leads, single.mesh) == (1, (0, 1), True, None)
    (image,) = jax.tree.leaves(single.batch({"image": np.zeros((7, 2), np.uint8)}))
    assert not image.committed
    single.check(BatchPlan.parse("1x7"))


@pytest.mark.parametrize(
    ("shape", "split"),
    {
        (64, 32): 0,
        (32, 64): 1,
        (64, 64): 0,  # the first of axes of equal length
        (3, 3, 64, 128): 3,
        (3, 3, 10, 64): 3,
        (1022, 4): 1,  # the longest divisible axis, not the longest axis
        (1024,): 0,
        (1020,): None,  # too small
        (): None,
        (1023, 3): None,  # not divisible
        (4096, 0): None,
    }.items(),
)
def test_a_leaf_is_split_along_its_longest_axis_that_the_devices_divide(shape: Any, split: int | None) -> None:
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    of_params, _, of_optimizer = placed(4, fsdp=True).shardings(TrainState(leaf, {}, leaf))
    assert of_params == of_optimizer
    assert of_params.spec == (PartitionSpec() if split is None else PartitionSpec(*[None] * split, "data"))


def test_without_fsdp_each_device_has_a_copy_of_the_state() -> None:
    state = placed(4).state(STATE)
    assert set(jax.tree.leaves(specs(state))) == {PartitionSpec()}
    chex.assert_trees_all_equal(jax.device_get(state._replace(model_state={})), STATE._replace(model_state={}))


def test_fsdp_splits_parameters_and_optimizer_state_alike_and_copies_the_model_state() -> None:
    state = placed(4, fsdp=True).state(STATE)
    copied, split = PartitionSpec(), PartitionSpec("data")
    assert specs(state.params) == {"kernel": split, "bias": copied}
    assert specs(state.model_state) == {"statistics": copied, "key": copied}
    assert specs(state.opt_state) == ({"momentum": split}, copied)
    assert {shard.data.shape for shard in state.params["kernel"].addressable_shards} == {(16, 32)}


def test_each_device_has_its_own_rows_of_a_batch_in_order() -> None:
    rows = np.arange(24).reshape(12, 2).astype(np.uint8)
    batch = placed(4).batch({"image": rows})["image"]
    for i, shard in enumerate(sorted(batch.addressable_shards, key=lambda shard: shard.device.id)):
        np.testing.assert_array_equal(shard.data, rows[3 * i : 3 * i + 3])


@pytest.mark.parametrize("fsdp", [False, True])
def test_whole_arrays_are_only_on_the_first_device(fsdp: bool) -> None:
    sharding = placed(4, fsdp=fsdp)
    state = sharding.whole(sharding.state(STATE))
    assert {x.devices() == {jax.devices()[0]} for x in jax.tree.leaves(state)} == {True}
    chex.assert_trees_all_equal(jax.device_get(state.params), STATE.params)
    assert jnp.array_equal(jax.random.key_data(state.model_state["key"]), jax.random.key_data(jax.random.key(0)))


@pytest.mark.parametrize(
    ("plan", "micro_batch", "words"),
    [
        ("1x16,1x18", None, "the batch plan has batches of 18, which 4 devices do not divide"),
        ("1x16,1x32", 6, "micro_batch makes batches of 6, which 4 devices do not divide"),
    ],
)
def test_batches_that_cannot_be_split_are_refused(plan: str, micro_batch: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        placed(4).check(BatchPlan.parse(plan), micro_batch)
    placed(2).check(BatchPlan.parse(plan), micro_batch)


@pytest.mark.parametrize(("size", "wanted"), [(1, 4), (4, 4), (5, 8), (500, 500), (359, 360)])
def test_an_evaluation_has_the_next_size_that_the_devices_divide(size: int, wanted: int) -> None:
    assert placed(4).divided(size) == wanted


def test_a_cpu_is_one_device_unless_more_are_asked_for() -> None:
    assert sharding_on(Machine()) == sharding_on(Machine(devices=1, fsdp=True)) == Sharding()
    assert sharding_on(Machine(devices=4)) == placed(4)
    assert sharding_on(Machine(devices=8, fsdp=True)) == placed(8, fsdp=True)


def test_all_accelerators_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert sharding_on(Machine()) == placed(8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"devices": 0}, "devices is 0: give an integer of at least 1."),
        ({"coordinator": "here:1"}, "coordinator is here:1: give all of coordinator, processes, process."),
        ({"processes": 2, "process": 0}, "processes is 2: give all of coordinator, processes, process."),
        ({"coordinator": "here", "processes": 2, "process": 0}, "coordinator is 'here': give host:port"),
        ({"coordinator": "here:x", "processes": 2, "process": 0}, "coordinator is 'here:x': give host:port"),
        ({"coordinator": "here:99999", "processes": 2, "process": 0}, "coordinator is 'here:99999': give host:port"),
        ({"coordinator": "here:0", "processes": 2, "process": 0}, "coordinator is 'here:0': give host:port"),
        ({"coordinator": "here:1", "processes": 2, "process": 2}, "process is 2 of 2 processes"),
        ({"coordinator": "here:1", "processes": 2, "process": -1}, "process is -1 of 2 processes"),
        ({"coordinator": "here:1", "processes": 2, "process": 0, "distributed": True}, "omit one of the two"),
    ],
)
def test_impossible_machine_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Machine(**settings)


def test_more_devices_than_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"devices is 9, and this process has 8.*JAX_NUM_CPU_DEVICES=9"):
        sharding_on(Machine(devices=9))


def test_without_a_cluster_there_are_no_other_processes_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*addresses: Any) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nobody)
    with pytest.raises(ValueError, match="distributed is True, and no other processes were found"):
        sharding_on(Machine(distributed=True))


def test_a_port_in_use_is_refused_by_the_coordinator() -> None:
    with socket.create_server(("", 0)) as other:
        coordinator = f"localhost:{other.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"coordinator is '{coordinator}', whose port is in use"):
            sharding_on(Machine(coordinator=coordinator, processes=2, process=0))


def test_a_single_process_raises_the_original_error() -> None:
    assert agree_across_hosts(Sharding(), int, "3") == 3
    with pytest.raises(ValueError, match="invalid literal"):
        agree_across_hosts(Sharding(), int, "three")


class Two(Sharding):
    """As if there were another process."""

    part = (0, 2)


def test_a_refusal_on_another_process_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(hosts, "_all_messages", lambda words: sent.append(words) or [words, ""])
    assert agree_across_hosts(Two(), int, "3") == 3
    with pytest.raises(ValueError, match="invalid literal"):
        agree_across_hosts(Two(), int, "three")
    monkeypatch.setattr(hosts, "_all_messages", lambda words: [words, "the folder is in use."])
    with pytest.raises(ValueError, match="the folder is in use"):
        agree_across_hosts(Two(), int, "3")
    assert sent[0] == ""
    assert "invalid literal" in sent[1]


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("broken"), 1), (KeyboardInterrupt(), 130)])
def test_a_process_that_fails_does_not_wait_for_the_others(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with abort_all_on_error(Two()):
        raise error
    assert codes == [code]
    assert type(error).__name__ in capsys.readouterr().err
    with pytest.raises(type(error)), abort_all_on_error(Sharding()):
        raise error


def test_an_unusable_folder_ends_in_an_error_message_on_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with abort_all_on_error(Two()):
        raise UnusableError("the disk is full.")
    assert codes == [2]
    assert capsys.readouterr().err == "error: the disk is full.\n"


def test_an_agreed_exit_does_not_abort_the_other_processes() -> None:
    with pytest.raises(SystemExit), abort_all_on_error(Two()):
        raise SystemExit(2)
