"""Weights and logits of the original networks, from `tests/golden/torch_networks.npz`; see the README there."""

import functools
import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from experiments import models
from experiments.models.resnet import BasicBlock, Bottleneck, ResNet, Stages, WideResNet
from experiments.models.torch_weights import conventions, torch_name
from experiments.models.vit import Size, ViT
from tests.selection import some_of

CLASSES = 10
WIDTHS = (4, 8, 16, 32)
VIT = Size(12, 2, 3)


def small(name: str, seed: int = 0) -> nnx.Module:
    """Our network of the golden case, small and with changeable options."""
    return nnx.clone(initial(name, seed))


@functools.cache
def initial(name: str, seed: int) -> nnx.Module:
    rngs = nnx.Rngs(seed)
    made = {
        "basic": lambda: ResNet(Stages(BasicBlock, (2, 1, 1, 1), WIDTHS), CLASSES, (32, 32, 3), rngs=rngs),
        "bottleneck": lambda: ResNet(Stages(Bottleneck, (1, 2, 1, 1), (2, 4, 8, 16)), CLASSES, (32, 32, 3), rngs=rngs),
        "imagenet_stem": lambda: ResNet(
            Stages(Bottleneck, (1, 1, 2, 1), (2, 4, 8, 16)), CLASSES, (32, 32, 3), rngs=rngs, stem="imagenet"
        ),
        "wide": lambda: WideResNet(10, 1, CLASSES, (32, 32, 3), rngs=rngs),
        "vit": lambda: ViT(VIT, CLASSES, (8, 12, 3), rngs=rngs),
        "vit_local": lambda: ViT(VIT, CLASSES, (8, 12, 3), rngs=rngs, locality_attention=True, drop_path=0.1),
        "vit_shifted_local": lambda: ViT(
            VIT, CLASSES, (8, 12, 3), rngs=rngs, shifted_patches=True, locality_attention=True
        ),
    }
    return made[name]()


CASES = ("basic", "bottleneck", "imagenet_stem", "wide", "vit", "vit_local", "vit_shifted_local")


@functools.cache
def golden() -> dict[str, np.ndarray]:
    with np.load(pathlib.Path(__file__).parent.parent / "golden" / "torch_networks.npz") as file:
        return dict(file)


def weights(name: str) -> dict[str, np.ndarray]:
    prefix = f"{name}/weights/"
    return {key.removeprefix(prefix): value for key, value in golden().items() if key.startswith(prefix)}


def values(model: nnx.Module) -> dict[str, np.ndarray]:
    return {str(path): np.asarray(x[...]) for path, x in nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))}


def same(one: nnx.Module, other: nnx.Module) -> bool:
    one, other = values(one), values(other)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@some_of(CASES, quick=("bottleneck", "wide", "vit_shifted_local"))
def test_the_logits_are_those_of_the_original(name: str) -> None:
    model = models.load_torch(small(name), weights(name))
    model.eval()
    logits = nnx.jit(lambda model, images: model(images))(model, golden()[f"{name}/images"])
    np.testing.assert_allclose(logits, golden()[f"{name}/logits"], rtol=0, atol=5e-6)


def test_every_golden_case_is_compared() -> None:
    assert {name.split("/")[0] for name in golden()} == set(CASES)


def test_the_model_is_loaded_in_float32_whatever_its_dtype() -> None:
    model = small("basic")
    assert models.load_torch(model, weights("basic")) is model
    assert same(model, models.load_torch(small("basic", seed=1), weights("basic")))
    assert not same(model, small("basic"))
    assert {value.dtype for value in values(model).values()} == {np.dtype("float32")}


def torchvision(name: str) -> str:
    """The name in torchvision of a variable of the paper's ResNet."""
    name = re.sub(r"^conv1\.0", "conv1", name)
    name = re.sub(r"^conv1\.1", "bn1", name)
    name = re.sub(r"^conv(\d)_x", lambda found: f"layer{int(found[1]) - 1}", name)
    for position, layer in enumerate(("conv1", "bn1", None, "conv2", "bn2", None, "conv3", "bn3")):
        name = re.sub(rf"residual_function\.{position}", str(layer), name)
    return name.replace("shortcut", "downsample")


def kuangliu(name: str) -> str:
    return torchvision(name).replace("downsample", "shortcut").replace("fc.", "linear.")


@pytest.mark.parametrize("rename", [torchvision, kuangliu])
@pytest.mark.parametrize("name", ["basic", "bottleneck"])
def test_other_variable_names_of_the_same_resnet_give_the_same_network(name: str, rename: Any) -> None:
    renamed = {rename(key): value for key, value in weights(name).items()}
    assert not any("_function" in key for key in renamed)
    assert same(models.load_torch(small(name), renamed), models.load_torch(small(name, seed=1), weights(name)))


@pytest.mark.parametrize("prefix", ["module.", "module.model.", "_orig_mod."])
def test_name_prefixes_order_counters_and_masks_change_nothing(prefix: str) -> None:
    wrapped = {prefix + name: value for name, value in reversed(weights("vit_local").items())}
    wrapped[prefix + "transformer.layers.0.0.fn.mask"] = np.eye(7)
    wrapped[prefix + "norm.num_batches_tracked"] = np.array(3)
    expected = models.load_torch(small("vit_local"), weights("vit_local"))
    assert same(models.load_torch(small("vit_local", seed=1), wrapped), expected)


def test_the_key_of_stochastic_depth_is_kept() -> None:
    before = small("vit_local")
    after = models.load_torch(small("vit_local"), weights("vit_local"))
    keys = [jax.random.key_data(model.stochastic_depth.stream.key[...]) for model in (before, after)]
    np.testing.assert_array_equal(*keys)


def test_mismatched_weights_are_named_and_nothing_is_loaded() -> None:
    model, entries = small("basic"), weights("basic")
    del entries["conv3_x.0.shortcut.1.running_var"]
    entries["conv9.weight"] = np.zeros(3)
    entries["fc.weight"] = entries["fc.weight"].T
    with pytest.raises(ValueError, match=r"state_dict does not fit") as refusal:
        models.load_torch(model, entries)
    assert "issing: conv3_x.0.shortcut.1.running_var; left over: conv9.weight; " in str(refusal.value)
    assert "of another shape: fc.weight (32, 10) for (10, 32)." in str(refusal.value)
    assert same(model, small("basic"))


def test_networks_without_a_pytorch_original_are_refused() -> None:
    model = models.create("small_resnet", CLASSES, (8, 8, 3), nnx.Rngs(0))
    with pytest.raises(ValueError, match="SmallResNet, which has no original"):
        models.load_torch(model, weights("basic"))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet18", {}, "conv4_x.0.shortcut.1.running_mean layer4.1.bn2.bias linear.bias"),
        pytest.param(
            "resnet50",
            {},
            "conv4_x.5.residual_function.6.weight layer4.2.conv3.weight layer1.0.downsample.0.weight",
            marks=pytest.mark.long,
        ),
        ("wide_resnet28_10", {}, "block1.layer.0.convShortcut.weight block3.layer.3.conv2.weight bn1.running_var"),
        ("vit_tiny", {}, "to_patch_embedding.1.bias transformer.layers.8.1.fn.net.3.weight mlp_head.0.weight"),
        pytest.param(
            "vit_small",
            {"shifted_patches": True, "locality_attention": True},
            "to_patch_embedding.merging.2.bias transformer.layers.11.0.fn.scale mlp_head.1.bias",
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_networks_of_the_paper_are_found_by_name(name: str, options: dict[str, Any], expected: str) -> None:
    model = nnx.eval_shape(lambda: models.create(name, 100, (32, 32, 3), nnx.Rngs(0), **options))
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(model))]
    known = set()
    for convention in conventions(model):
        names = [torch_name(path, convention, getattr(model, "depths", ())) for path in paths]
        assert len(set(names)) == len(paths)
        known.update(names)
    assert set(expected.split()) <= known
