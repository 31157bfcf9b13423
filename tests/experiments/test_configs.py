"""Each row of the paper's tables trains three steps, on made-up images of its true shapes, by its own recipe."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import configs, data, run
from experiments.config import Config
from experiments.training.step import TrainState

SHAPES = {
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "tiny_imagenet": ((64, 64, 3), 200),
    "imagenet2012": ((224, 224, 3), 1000),
}
COUNTS = {
    "cifar10_resnet18": 11_220_132 - 90 * 513,
    "cifar100_resnet18": 11_220_132,
    "tiny_imagenet_resnet18": 11_220_132 + 100 * 513,
    "cifar10_wrn28_10": 36_536_884 - 90 * 641,
    "cifar100_wrn28_10": 36_536_884,
    "tiny_imagenet_wrn28_10": 36_536_884 + 100 * 641,
    "imagenet_resnet50": 25_557_032,  # with the stem for large images
    "cifar100_vit_tiny": 2_709_796,
    "cifar100_vit_small": 14_276_068,
}
SLOW = ("cifar10_resnet18", "cifar100_wrn28_10", "tiny_imagenet_wrn28_10", "imagenet_resnet50")


def made_up(name: str, examples: int) -> data.Dataset:
    shape, classes = SHAPES[name]
    bits = np.random.default_rng(0)
    images = bits.integers(0, 256, (examples, *shape)).astype(np.uint8)
    part = data.Split(images, bits.integers(0, classes, examples).astype(np.int32))
    return data.Dataset(part, part, classes, np.full(3, 127.5, np.float32), np.full(3, 73.9, np.float32), 4, flip=True)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in COUNTS]
)
def test_a_row_trains_three_steps_on_images_of_its_shape(name: str) -> None:
    study = configs.load(name).study
    gsam = next(cell.config for cell in study.cells() if cell.config.method == "gsam")
    config: Config = dataclasses.replace(gsam, batch_plan="1x2", passes=1, warmup_epochs=0.0)
    states: list[TrainState] = []
    state, last = run.train(config, made_up(study.dataset, 6), watch=lambda record, state: states.append(state))
    assert last["step"] == 3
    assert last["gradient_evaluations"] == 6
    assert np.isfinite(last["train_loss"])
    assert sum(x.size for x in jax.tree.leaves(state.params)) == COUNTS[name]


def test_all_rows_are_here() -> None:
    assert set(COUNTS) <= set(configs.NAMES)
