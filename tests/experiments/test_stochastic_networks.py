"""Networks that are random in training, from the program's settings to the sharpness of the minimum."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from experiments import models
from experiments.config import Config
from experiments.models import registry
from experiments.models.vit import Size, ViT
from experiments.runner import run, sharpness_records
from experiments.sharpness import SharpnessSettings, measure_run
from tests.experiments.conftest import train


def _little_vit(num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs, *, drop_path: float = 0.0) -> ViT:
    return ViT(Size(8, 1, 2), num_classes, image_shape, rngs=rngs, drop_path=drop_path)


@pytest.fixture
def little_vit(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry._BUILDERS, "little_vit", _little_vit)
    monkeypatch.setattr(models, "NAMES", (*models.NAMES, "little_vit"))
    return "little_vit"


@pytest.mark.long  # test_resume.py and test_stochastic_depth.py have shorter tests of random networks
def test_a_stochastic_run_depends_only_on_its_seed_and_sharpness_is_deterministic(
    little_vit: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"model": little_vit, "method": "sam", "batch_plan": "1x64", "drop_path": 0.5}
    first, again = (train(tmp_path / name, **settings) for name in ("first", "again"))
    assert first["train_loss"] == again["train_loss"]
    without = train(tmp_path / "without", **(settings | {"drop_path": 0.0}))
    assert first["train_loss"] != without["train_loss"]
    config = Config.from_settings(**settings)
    measure_run(tmp_path / "first", config, run.load(config), SharpnessSettings(steps=2, examples=64, batch_size=32))
    records = [record.line() for record in sharpness_records.read(tmp_path / "first")]
    assert all(np.isfinite(record["sharpness"]) and record["sharpness"] >= 0 for record in records)
    shape = jax.eval_shape(lambda: nnx.state(_little_vit(10, (8, 8, 1), nnx.Rngs(0)), nnx.Param))
    assert records[0]["parameters"] == sum(x.size for x in jax.tree.leaves(shape))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"model": "resnet18", "stem": "wide"}, "stem is 'wide': choose one of cifar, imagenet"),
        ({"model": "small_resnet", "drop_path": 0.1}, "small_resnet has no such option"),
        ({"model": "vit_tiny", "stem": "cifar"}, "vit_tiny has no such option"),
        ({"model": "vit_tiny", "drop_path": 1.0}, "drop_path is 1.0"),
        ({"model": "vit_tiny", "drop_path": 0.1, "m": 16, "batch_plan": "1x32"}, "the network draws random numbers"),
    ],
)
def test_options_that_a_network_does_not_have_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Config.from_settings(**settings)
