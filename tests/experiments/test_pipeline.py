"""The network's input for an example depends only on the seed and the example's position, not on its batch."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from experiments import data
from experiments.config import Config
from experiments.runner import program
from sam_optax import BatchPlan

Seen = dict[int, tuple[int, bytes]]


def images(size: int) -> data.Split:
    bits = np.random.default_rng(size)
    return data.Split(bits.integers(0, 256, (size, 32, 32, 3)).astype(np.uint8), np.arange(size, dtype=np.int32))


CIFAR_LIKE = data.Dataset(images(300), images(10), 300, np.full(3, 127.5), np.full(3, 73.9), crop_padding=4, flip=True)


@pytest.fixture
def examples_by_position(monkeypatch: pytest.MonkeyPatch, tiny: str) -> Callable[..., Seen]:
    """`examples_by_position(plan, seed)`: label and network input at each position, recorded in a run."""
    monkeypatch.setattr(
        program,
        "train_step",
        lambda descend, prepare, *_, **__: jax.jit(lambda batch, constants: prepare(batch, constants)[0]),
    )
    monkeypatch.setattr(program, "_training", program._training.__wrapped__)  # the cached step is the real one

    def run(plan: str, seed: int = 0, dataset: data.Dataset = CIFAR_LIKE) -> Seen:
        step: Any = program.build(Config.from_settings(model=tiny, batch_plan=plan, seed=seed), dataset)[1].step
        inputs = {}
        for batch in data.training_batches(dataset.train, BatchPlan.parse(plan), seed):
            network_inputs = step.compiled(batch, step.constants)
            for position, label, image in zip(batch["position"], batch["label"], network_inputs, strict=True):
                inputs[int(position)] = int(label), np.asarray(image).tobytes()
        return inputs

    return run


@pytest.mark.parametrize(
    "plan",
    [pytest.param("3x128", marks=pytest.mark.long, id="constant"), pytest.param("1x32,1x64,1x128", id="growing")],
)
def test_order_and_augmentation_do_not_depend_on_the_batch_plan(
    examples_by_position: Callable[..., Seen], plan: str
) -> None:
    at_64, other = examples_by_position("3x64"), examples_by_position(plan)
    assert len(at_64) == 3 * 256  # the last, incomplete batch is dropped
    assert {position: other[position] for position in at_64} == at_64


def test_another_seed_and_another_epoch_give_other_images(examples_by_position: Callable[..., Seen]) -> None:
    first, second = examples_by_position("2x64", seed=0), examples_by_position("2x64", seed=1)
    assert sum(first[position] == second[position] for position in first) < 5
    epochs = [{label: image for position, (label, image) in first.items() if position // 300 == e} for e in (0, 1)]
    shared = epochs[0].keys() & epochs[1].keys()
    assert len(shared) > 200
    assert sum(epochs[0][label] == epochs[1][label] for label in shared) < 20  # one of 162 crops and flips is drawn
