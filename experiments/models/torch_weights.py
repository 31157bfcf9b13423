"""The weights of the original PyTorch networks in ours."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.models.torch_names import conventions, torch_name

Model = TypeVar("Model", bound=nnx.Module)

_WRAPPERS = re.compile(r"^((module|model|_orig_mod)\.)+")
_NO_WEIGHTS = ("num_batches_tracked", "mask")
_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}  # their axes in ours: of linear maps, and of convolutions


def load_torch(model: Model, state_dict: Mapping[str, Any]) -> Model:
    """The network with the weights of its original.

    It knows the names of the paper's code, and those of weiaicunzai/pytorch-cifar100, torchvision and
    kuangliu/pytorch-cifar for ResNets, of aanna0701/SPT_LSA_ViT for ViTs; in front of them those of wrappers, as
    `module.` of `DataParallel`. Counts of batches and masks are no weights, and left out.

    Args:
      model: a network of `create`; its parameters and BatchNorm statistics are set in place.
      state_dict: the original's arrays, NumPy's, by name.

    Returns:
      The same model.

    Raises:
      ValueError: If the network has no original, or if an entry is missing, left over, or of another shape; nothing is
        set then.
    """
    entries = _weights(state_dict)
    variables = dict(nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState))))
    depths = getattr(model, "depths", ())
    candidates = [{torch_name(path, each, depths): path for path in variables} for each in conventions(model)]
    paths = max(candidates, key=lambda names: len(names.keys() & entries.keys()))
    _check(entries, {name: _shape_in_torch(variables[path].shape) for name, path in paths.items()})
    loaded = [(path, variables[path].replace(_value(entries[name], variables[path]))) for name, path in paths.items()]
    nnx.update(model, nnx.from_flat_state(loaded))
    return model


def _weights(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What of a state has a place in a network, by names without wrappers."""
    entries = {_WRAPPERS.sub("", name): np.asarray(value) for name, value in state_dict.items()}
    return {name: value for name, value in entries.items() if name.split(".")[-1] not in _NO_WEIGHTS}


def _check(entries: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse what does not fit, all of it at once."""
    common = [name for name in shapes if name in entries]
    found = {
        "missing": [name for name in shapes if name not in entries],
        "left over": [name for name in entries if name not in shapes],
        "of another shape": [
            f"{name} {entries[name].shape} for {shapes[name]}" for name in common if entries[name].shape != shapes[name]
        ],
    }
    wrong = "; ".join(f"{what}: {', '.join(names)}" for what, names in found.items() if names)
    if wrong:
        raise ValueError(
            f"state_dict does not fit the model: give that of its original. {wrong[0].upper()}{wrong[1:]}."
        )


def _shape_in_torch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _TO_TORCH.get(len(shape), range(len(shape))))


def _value(entry: np.ndarray, variable: nnx.Variable) -> jax.Array:
    axes = _TO_TORCH.get(entry.ndim, tuple(range(entry.ndim)))
    return jnp.asarray(entry.transpose(np.argsort(axes)), variable.dtype)
