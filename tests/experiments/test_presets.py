"""Each row of the paper's tables trains three steps, on made-up images of the real shapes, with its own recipe."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments import data, presets
from experiments.config import Config
from experiments.runner import run
from experiments.study.strategies import PLANNED

COUNTS = {
    "digits": 77_754,
    "digits_first_version": 77_754,
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
    gsam = next(cell.config for cell in study.run_specs() if cell.config.method == "gsam")
    config: Config = gsam.with_settings(
        batch_plan="1x2", train_examples=None, warmup_epochs=min(gsam.descent.warmup_epochs, 0.5)
    )
    state, last = run.train(config, data.synthetic(study.problem.dataset, 6 // config.recipe.passes))
    assert last.step == 3
    assert last.gradient_evaluations == 6
    assert np.isfinite(last.train_loss)
    assert sum(x.size for x in jax.tree.leaves(state.params)) == COUNTS[name]


def test_every_preset_has_a_parameter_count() -> None:
    assert set(COUNTS) == set(presets.NAMES)


def cells_at_one_seed(name: str) -> dict[str, Config]:
    study = presets.load(name).study
    assert len(study.seeds) == 10
    return {cell.folder.name.removesuffix("-0"): cell.config for cell in study.run_specs() if cell.config.seed == 0}


def test_the_digits_presets_include_late_switches_and_falling_radii() -> None:
    cells = cells_at_one_seed("digits")
    everything = replace(presets.load("digits").study, strategies=PLANNED, include=("*",), seeds=(0,)).run_specs()
    added = cells.keys() - {cell.folder.name.removesuffix("-0") for cell in everything}
    assert len(cells) == len(everything) + len(added) == 64
    late = {f"{method}-late_switch{match}" for method in ("sgd", "sam", "gsam") for match in ("", "-equal_updates")}
    assert added == late | {f"{method}-{rate}_radius" for method in ("sam", "gsam") for rate in ("cosine", "linear")}
    assert cells["sam-late_switch"].batch_plan == "20x16,5x256"


def test_the_plan_of_the_first_version_has_its_controls_at_equal_epochs_and_updates() -> None:
    cells = cells_at_one_seed("digits_first_version")
    gsam = {name.removeprefix("gsam-"): each.batch_plan for name, each in cells.items() if each.method == "gsam"}
    assert gsam == {
        "constant": "25x128",
        "increasing": "5x8,5x16,5x32,5x64,5x128",
        "cosine": "25x128",
        "reversed": "5x128,5x64,5x32,5x16,5x8",
        "constant_first": "25x8",
        "constant_mean": "25x21",
        "constant-equal_updates": "155x128",
        "constant_first-equal_updates": "10x8",
    }
    assert len(cells) == 2 * len(gsam)
    digits = set(cells_at_one_seed("digits").values())
    shared = {name for name, each in cells.items() if each in digits}
    assert shared >= {f"{method}-{strategy}" for method in ("sgd", "gsam") for strategy in ("constant", "cosine")}


def test_made_up_data_have_the_shapes_of_real_ones() -> None:
    real, noise = data.load("digits", 0), data.synthetic("digits", 3)
    assert data.SIZES["digits"] == (len(real.train), real.num_classes, real.image_shape)
    assert (noise.num_classes, noise.image_shape) == (real.num_classes, real.image_shape)
    assert set(data.SIZES) == set(data.NAMES)
