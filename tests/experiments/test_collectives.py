"""The compiled step of a network without BatchNorm exchanges only the necessary bytes between devices.

The exchanges are read from the text of the program that XLA compiles, which contains their output shapes.
"""

import functools
import math
import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments import models
from experiments.models import registry
from tests.experiments.each_method import each_of, gradients_of
from tests.experiments.many_devices import Hidden, config_of, hyperparameters, placed, started

PARAMETERS = 64 * 32 + 32 + 32 * 10 + 10
SCALARS = 1000  # bytes of scalars such as losses and norms
SPLIT = 64 * 32  # the only leaf that fsdp splits
WIDE = 64 * 1024 + 1024 + 1024 * 10 + 10

_EXCHANGE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
_SHAPE = re.compile(r"(?P<dtype>[a-z]+\d+)\[(?P<axes>[\d,]*)\]")


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, width in {"hidden": 32, "wide": 1024}.items():
        monkeypatch.setitem(registry._BUILDERS, name, functools.partial(Hidden, is_normed=False, width=width))
    monkeypatch.setattr(models, "NAMES", (*models.NAMES, "hidden", "wide"))


def moved(fsdp: bool = False, perturb: bool | None = None, model: str = "hidden", **settings: Any) -> Counter[str]:
    """The bytes of each kind of exchange in a step on eight devices, for a batch of 32 unless the plan differs."""
    state, program, batches = started(config_of(model, **settings), placed(8, fsdp=fsdp))
    perturb = program.perturb(0) if perturb is None else perturb
    arguments = (state, next(batches), hyperparameters(program), program.step.constants)
    text = program.step.compiled.lower(*arguments, perturb=perturb).compile().as_text()
    found: Counter[str] = Counter()
    for exchange in _EXCHANGE.finditer(text):
        found[exchange["kind"]] += sum(map(_size, _SHAPE.finditer(exchange["shapes"])))
    return found


def _size(shape: re.Match[str]) -> int:
    bits = int(re.sub(r"\D", "", shape["dtype"]))
    return math.prod(int(length) for length in shape["axes"].split(",") if length) * bits // 8


def assert_moved(found: Counter[str], **parameters: int) -> None:
    """Asserts this number of exchanged numbers of each kind, besides scalars."""
    assert set(found) <= {name.replace("_", "-") for name in parameters}
    for name, count in parameters.items():
        assert 4 * count <= found[name.replace("_", "-")] <= 4 * count + SCALARS


@each_of(["sgd", "gsam", "asam", "wsam_decoupled", "functional_sam", "msam"], quick=("gsam", "msam"))
def test_a_global_perturbation_exchanges_the_parameters_once_per_pass(method: str) -> None:
    assert_moved(moved(method=method), all_reduce=gradients_of(method) * PARAMETERS)


def test_a_step_without_a_second_pass_exchanges_the_parameters_once() -> None:
    assert_moved(moved(method="look_sam", perturb=False), all_reduce=PARAMETERS)


@pytest.mark.parametrize(
    "settings",
    [{"perturbation": "device"}, pytest.param({"m": 4}, marks=pytest.mark.long), {"m": 2}],
    ids=["device", "m_of_a_device", "m_below"],
)
def test_per_device_perturbations_exchange_the_parameters_once_in_total(settings: dict[str, Any]) -> None:
    assert_moved(moved(method="gsam", **settings), all_reduce=PARAMETERS)


def test_per_device_perturbations_exchange_the_state_of_methods_with_memory() -> None:
    assert_moved(moved(method="vasso", perturbation="device"), all_reduce=2 * PARAMETERS)


def test_augmentation_exchanges_nothing_except_to_mix_a_batch() -> None:
    assert_moved(moved(method="sgd", random_erasing=0.5), all_reduce=PARAMETERS)
    mixed = moved(method="sgd", mixing=0.5)
    assert mixed["all-gather"] == 4 * 32 * (64 + 10)  # images and targets, whole on each device


def test_split_parameters_are_gathered_and_their_gradients_summed_once_per_pass() -> None:
    """The CPU compiler sums whole gradients and then takes its part. Other compilers use a reduce-scatter."""
    found = moved(fsdp=True, model="wide", method="sam", batch_plan="1x8")
    assert_moved(found, all_gather=2 * (WIDE - 10), all_reduce=2 * WIDE)


def test_per_device_perturbations_gather_split_parameters_once_in_total() -> None:
    found = moved(fsdp=True, method="sam", perturbation="device")
    assert_moved(found, all_gather=SPLIT, all_reduce=PARAMETERS)


def test_exchanges_in_the_program_text_are_counted() -> None:
    """Reads the program's text for an exchange of known size."""
    sharding = placed(8)
    rows = sharding.batch({"x": jnp.ones((8, 100))})["x"]
    text = jax.jit(lambda x: jnp.sum(x, 0), out_shardings=sharding.copied(rows).sharding).lower(rows).compile()
    exchanges = list(_EXCHANGE.finditer(text.as_text()))
    assert sum(map(_size, _SHAPE.finditer(exchanges[0]["shapes"]))) == 400
    assert len(exchanges) == 1
