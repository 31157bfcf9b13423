"""Computing in bfloat16: variables stay float32, and the rounding of perturbations is measured."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.typing import DTypeLike

from experiments import effective_perturbation, models
from experiments.config import Config
from experiments.effective_perturbation import cast_in, measured
from experiments.models import layers, registry
from experiments.runner import run
from experiments.runner.program import build
from experiments.sharpness import SharpnessSettings
from experiments.sharpness.measures import trained
from experiments.training.methods import METHODS
from sam_optax import trees
from tests.experiments.each_method import each_of, supported_settings
from tests.selection import some_of

LEAST = {"batch_plan": "1x64", "train_examples": 64}


class Net(nnx.Module):
    """A linear layer on normalised pixels, in any precision."""

    def __init__(
        self, num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs, *, dtype: DTypeLike | None = None
    ) -> None:
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        self.norm = layers.BatchNorm(pixels, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(pixels, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.head(self.norm(images.reshape(len(images), -1))).astype(jnp.float32)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> str:
    def builder(num_classes: int, image_shape: Any, rngs: nnx.Rngs, *, dtype: DTypeLike | None = None) -> Net:
        return Net(num_classes, image_shape, rngs, dtype=dtype)

    monkeypatch.setitem(registry._BUILDERS, "net", builder)
    monkeypatch.setattr(models, "NAMES", (*models.NAMES, "net"))
    return "net"


@some_of(models.NAMES, quick=("small_resnet", "resnet18", "vit_tiny"))
def test_all_matrix_products_are_computed_in_bfloat16_from_float32_parameters(name: str) -> None:
    options = {"shifted_patches": True, "locality_attention": True} if name.startswith("vit") else {}
    shape = (8, 8, 1) if name == "small_resnet" else (32, 32, 3)
    model = nnx.eval_shape(lambda: models.create(name, 10, shape, nnx.Rngs(0), dtype=jnp.bfloat16, **options))
    graphdef, state = nnx.split(model)

    def forward(state: Any, images: jax.Array) -> Any:
        moving = nnx.merge(graphdef, state)
        return moving(images), nnx.state(moving)

    traced = jax.jit(forward).trace(state, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    logits, after = traced.out_info
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((state, after))} == {jnp.dtype("float32")}
    text = str(traced.jaxpr)
    products = [line for line in text.splitlines() if "conv_general_dilated[" in line or "dot_general[" in line]
    assert len(products) > 8
    made_in = {line.split("=")[0].strip().split(":")[-1].split("[")[0] for line in products}
    assert made_in <= {"bf16", "f32"}
    widened = [line for line in products if line.split("=")[0].strip().split(":")[-1].startswith("f32")]
    assert len(widened) <= (12 if name == "vit_small" else 9 if name == "vit_tiny" else 0)  # attention sums in float32


@each_of(METHODS, quick=("vasso", "msam"))
def test_steps_equal_those_of_float32_up_to_rounding_and_state_stays_float32(net: str, method: str) -> None:
    moved = {}
    for precision in ("float32", "bfloat16"):
        settings = supported_settings(method, weight_decay=1e-3, rho=0.5, **LEAST)
        config = Config.from_settings(model=net, method=method, precision=precision, ema=0.0, **settings)
        dataset = run.load(config)
        before = build(config, dataset)[0]
        after, last = run.train(config, dataset)
        floats = [x for x in jax.tree.leaves(after) if trees.is_floating(x)]
        assert {x.dtype for x in floats} == {jnp.dtype("float32")}
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))
        assert np.isfinite([last.train_loss, last.test_loss]).all()
        moved[precision] = jax.tree.map(jnp.subtract, after.params, before.params), after.model_state
    exact, rough = moved["float32"], moved["bfloat16"]
    difference = jax.tree.map(jnp.subtract, exact, rough)
    assert 0 < trees.norm(difference[0]) < 0.03 * trees.norm(exact[0])
    chex.assert_trees_all_close(exact[1], rough[1], rtol=1e-5)  # the statistics of images before rounding


def test_normalisation_layers_round_only_their_result() -> None:
    norm = layers.BatchNorm(3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    norm.mean[...] = jnp.full(3, 4.0 + 2.0**-10, jnp.float32)  # neither is in bfloat16
    norm.scale[...] = jnp.full(3, 1.0 + 2.0**-10, jnp.float32)
    norm.eval()
    y = norm(jnp.full((2, 3), 4.0, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), -(2.0**-10) * (1 + 2.0**-10), rtol=2.0**-8)


def test_sharpness_is_measured_in_float32_whatever_the_precision_of_the_run(net: str) -> None:
    config = Config.from_settings(model=net, precision="bfloat16", **LEAST)
    dataset = run.load(config)
    state, _ = build(config, dataset)
    losses = []
    for precision in ("float32", "bfloat16"):
        network = trained(config.with_settings(precision=precision), dataset, state, SharpnessSettings(examples=64))
        losses.append(jax.jit(network.loss_fn)(network.variables, network.batches[0]))
    assert losses[0] == losses[1]


def test_old_configs_mean_float32_and_other_precisions_are_refused(tmp_path: Path) -> None:
    config = Config.from_settings()
    config.save(tmp_path / "config.json")
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["precision"]
    assert Config.from_settings(**saved) == config
    assert config.network.options == ()
    assert dict(Config.from_settings(precision="bfloat16").network.options) == {"dtype": jnp.bfloat16}
    with pytest.raises(ValueError, match="precision is 'float16': choose one of float32, bfloat16"):
        Config.from_settings(precision="float16")


def test_a_perturbation_below_half_a_unit_in_the_last_place_has_no_effect() -> None:
    ones, direction = {"w": jnp.ones(4), "b": jnp.ones(12)}, {"w": jnp.ones(4), "b": jnp.ones(12)}
    place = 2.0**-7  # of bfloat16 above 1
    assert measured(ones, direction, rho=4 * 0.4 * place) == (0.0, 0.0, 1.0)
    assert measured(ones, direction, rho=4 * 3 * place) == pytest.approx((1.0, 1.0, 0.0))
    assert measured(ones, direction, rho=4 * 0.75 * place).norm == pytest.approx(1 / 0.75)  # everything is rounded up
    assert measured(ones, direction, rho=1e-3, dtype=jnp.float32) == pytest.approx((1.0, 1.0, 0.0), rel=1e-3)


def test_a_larger_radius_is_represented_more_accurately() -> None:
    w, e = jax.random.normal(jax.random.key(0), (2, 10_000))
    found = [measured(0.02 * w, e, rho) for rho in (0.001, 0.01, 0.1, 1.0)]
    assert [each.cosine for each in found] == sorted(each.cosine for each in found)
    assert [each.unmoved for each in found] == sorted((each.unmoved for each in found), reverse=True)
    assert found[0].norm > 1.5 > found[-1].norm == pytest.approx(1.0, abs=1e-3)


def test_statistics_of_normalisation_layers_are_not_cast() -> None:
    model = models.create("small_resnet", 10, (8, 8, 1), nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    kept = sum(2 * module.scale.size for _, module in nnx.iter_modules(model) if isinstance(module, nnx.BatchNorm))
    assert kept > 0
    assert sum(x.size for x in cast_in(model, params)) == sum(x.size for x in jax.tree.leaves(params)) - kept


def test_the_program_prints_a_table_of_radii_per_network(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--models", tiny, "--dataset", "digits", "--radii", "1e-6", "1.0"]
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    effective_perturbation.main()
    printed = capsys.readouterr().out
    assert printed.startswith("tiny\n")
    assert [line.split()[0] for line in printed.splitlines() if re.match(r"^\s*(1e-06|1)\s", line)] == ["1e-06", "1"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"models": ("resnet19",)}, "models is 'resnet19'"),
        ({"dataset": "cifar0"}, "dataset is 'cifar0'"),
        ({"radii": (0.1, 0.0)}, r"radii is \(0\.1, 0\.0\): give positive numbers"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        effective_perturbation.EffectivePerturbation(**settings)
