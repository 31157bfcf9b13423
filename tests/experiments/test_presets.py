"""Each row of the paper's tables trains three steps, on made-up images of its true shapes, by its own recipe."""

import jax
import numpy as np
import pytest

from experiments import data, presets
from experiments.config import Config
from experiments.runner import run

COUNTS = {
    "digits": 77_754,
    "fashion_mnist": 77_754,
    "cifar10_resnet18": 11_220_132 - 90 * 513,
    "cifar100_resnet8": 77_754 + 90 * 65,
    "cifar100_resnet18": 11_220_132,
    "tiny_imagenet_resnet18": 11_220_132 + 100 * 513,
    "cifar10_wrn28_10": 36_536_884 - 90 * 641,
    "cifar100_wrn28_10": 36_536_884,
    "tiny_imagenet_wrn28_10": 36_536_884 + 100 * 641,
    "imagenet_resnet50": 25_557_032,  # with the stem for large images
    "cifar100_vit_tiny": 2_709_796,
    "cifar100_vit_small": 14_276_068,
}
QUICK = ("digits",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in COUNTS]
)
def test_a_row_trains_three_steps_on_images_of_its_shape(name: str) -> None:
    study = presets.load(name).study
    gsam = next(cell.config for cell in study.cells() if cell.config.method == "gsam")
    config: Config = gsam.with_settings(
        batch_plan="1x2", train_examples=None, warmup_epochs=min(gsam.descent.warmup_epochs, 0.5)
    )
    state, last = run.train(config, data.synthetic(study.problem.dataset, 6 // config.recipe.passes))
    assert last.step == 3
    assert last.gradient_evaluations == 6
    assert np.isfinite(last.train_loss)
    assert sum(x.size for x in jax.tree.leaves(state.params)) == COUNTS[name]


def test_all_rows_are_here() -> None:
    assert set(COUNTS) == set(presets.NAMES)


def test_made_up_data_have_the_shapes_of_real_ones() -> None:
    real, noise = data.load("digits", 0), data.synthetic("digits", 3)
    assert data.SIZES["digits"] == (len(real.train), real.num_classes, real.image_shape)
    assert (noise.num_classes, noise.image_shape) == (real.num_classes, real.image_shape)
    assert set(data.SIZES) == set(data.NAMES)
