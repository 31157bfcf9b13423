"""Loads the weights of the original PyTorch networks into ours, and translates the names of variables.

A convention is a dictionary that maps a component of our variable path to one or more components of the PyTorch name.
Components that are not in the dictionary, such as numbers, have the same name in both. For example,
`blocks.3.conv_1.kernel` first becomes `stage_2.1.conv_1.kernel`, because PyTorch numbers blocks within their stage;
then `_PAPER` maps it to `conv3_x.1.residual_function.0.weight`.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.models.resnet import ResNet, WideResNet
from experiments.models.vit import ViT

Convention = dict[str, str]

_VARIABLES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}

# The names in the code of the paper, and in weiaicunzai/pytorch-cifar100, the source of its ResNets.
_PAPER = _VARIABLES | {"conv": "conv1.0", "norm": "conv1.1", "layers": "", "head": "fc"}
_PAPER |= {f"stage_{stage}": f"conv{stage + 1}_x" for stage in (1, 2, 3, 4)}
_PAPER |= {f"conv_{number}": f"residual_function.{3 * number - 3}" for number in (1, 2, 3)}
_PAPER |= {f"norm_{number}": f"residual_function.{3 * number - 2}" for number in (1, 2, 3)}

_TORCHVISION = _PAPER | {"conv": "conv1", "norm": "bn1", "shortcut": "downsample"}
_TORCHVISION |= {f"stage_{stage}": f"layer{stage}" for stage in (1, 2, 3, 4)}
_TORCHVISION |= {f"conv_{number}": f"conv{number}" for number in (1, 2, 3)}
_TORCHVISION |= {f"norm_{number}": f"bn{number}" for number in (1, 2, 3)}

_KUANGLIU = _TORCHVISION | {"shortcut": "shortcut", "head": "linear"}  # kuangliu/pytorch-cifar

_WIDE = _TORCHVISION | {f"stage_{stage}": f"block{stage}.layer" for stage in (1, 2, 3)} | {"shortcut": "convShortcut"}

# The names in the code of the paper, and in aanna0701/SPT_LSA_ViT, the source of its ViTs.
_TOKENS = {"tokens": "to_patch_embedding", "projection": "1", "class_token": "cls_token", "positions": "pos_embedding"}
_ATTENTION = {"attention_norm": "0.norm", "attention": "0.fn", "qkv": "to_qkv", "out": "to_out.0"}
_MLP = {"mlp_norm": "1.norm", "mlp_in": "1.fn.net.0", "mlp_out": "1.fn.net.3"}
_BLOCKS = {"blocks": "transformer.layers", "inverse_temperature": "scale"} | _ATTENTION | _MLP
_VIT = _VARIABLES | _TOKENS | _BLOCKS | {"norm": "mlp_head.0", "head": "mlp_head.1"}
_SHIFTED = _VIT | {"tokens": "to_patch_embedding.merging", "patch_norm": "1", "projection": "2"}

_CONVENTIONS: dict[type[nnx.Module], tuple[Convention, ...]] = {
    ResNet: (_PAPER, _TORCHVISION, _KUANGLIU),
    WideResNet: (_WIDE,),
    ViT: (_VIT, _SHIFTED),
}


def conventions(model: nnx.Module) -> tuple[Convention, ...]:
    """Returns the naming conventions of the PyTorch originals of a network.

    Raises:
      ValueError: If the network has no original in PyTorch.
    """
    if type(model) not in _CONVENTIONS:
        known = ", ".join(kind.__name__ for kind in _CONVENTIONS)
        raise ValueError(f"model is a {type(model).__name__}, which has no original in PyTorch: give a {known}.")
    return _CONVENTIONS[type(model)]


def torch_name(path: tuple[object, ...], convention: Convention, depths: tuple[int, ...]) -> str:
    """Returns the name of a variable in the original PyTorch network.

    Args:
      path: the path of the variable in our network.
      convention: the convention of the original.
      depths: the number of blocks of each stage; empty if the blocks are not in stages.
    """
    words = [str(word) for word in path]
    if depths and words[0] == "blocks":
        places = [(f"stage_{stage}", str(number)) for stage, depth in enumerate(depths, 1) for number in range(depth)]
        words[:2] = places[int(words[1])]
    return ".".join(filter(None, (convention.get(word, word) for word in words)))


Model = TypeVar("Model", bound=nnx.Module)

_WRAPPERS = re.compile(r"^((module|model|_orig_mod)\.)+")
_NO_WEIGHTS = ("num_batches_tracked", "mask")
_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}  # our axes in PyTorch's order, for the ranks of linear layers and convolutions


def load_torch(model: Model, state_dict: Mapping[str, Any]) -> Model:
    """Loads the weights of the original PyTorch network into a model.

    The names may follow the code of the paper. For ResNets, they may also follow weiaicunzai/pytorch-cifar100,
    torchvision or kuangliu/pytorch-cifar, and for ViTs aanna0701/SPT_LSA_ViT. Prefixes of wrappers, such as `module.`
    of `DataParallel`, are removed. Entries named `num_batches_tracked` or `mask` are not weights and are ignored.

    Args:
      model: a network of `create`; its parameters and BatchNorm statistics are set in place.
      state_dict: the weights of the original as NumPy arrays, by name.

    Returns:
      The same model.

    Raises:
      ValueError: If the network has no original, or if an entry is missing, unexpected, or of the wrong shape. In these
        cases the model is not changed.
    """
    entries = {_WRAPPERS.sub("", name): np.asarray(value) for name, value in state_dict.items()}
    entries = {name: value for name, value in entries.items() if name.split(".")[-1] not in _NO_WEIGHTS}
    variables = dict(nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState))))
    depths = getattr(model, "depths", ())
    candidates = [{torch_name(path, each, depths): path for path in variables} for each in conventions(model)]
    paths = max(candidates, key=lambda names: len(names.keys() & entries.keys()))
    axes = {name: _TO_TORCH.get(variables[path].ndim, range(variables[path].ndim)) for name, path in paths.items()}
    _check(entries, {name: tuple(variables[path].shape[axis] for axis in axes[name]) for name, path in paths.items()})
    loaded = []
    for name, path in paths.items():
        array = entries[name].transpose(np.argsort(axes[name]))
        loaded.append((path, variables[path].replace(jnp.asarray(array, variables[path].dtype))))
    nnx.update(model, nnx.from_flat_state(loaded))
    return model


def _check(entries: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises one error that names all entries that do not fit."""
    given = {name: (entries[name].shape, shape) for name, shape in shapes.items() if name in entries}
    found = {
        "missing": [name for name in shapes if name not in entries],
        "left over": [name for name in entries if name not in shapes],
        "of another shape": [f"{name} {own} for {shape}" for name, (own, shape) in given.items() if own != shape],
    }
    if wrong := "; ".join(f"{what}: {', '.join(names)}" for what, names in found.items() if names):
        remedy = "give that of its original"
        raise ValueError(f"state_dict does not fit the model: {remedy}. {wrong[0].upper()}{wrong[1:]}.")
