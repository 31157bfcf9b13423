"""An epoch with SAM and GSAM, ours against PyTorch's."""

import importlib.util

import jax
import numpy as np
from flax import nnx

import sam_optax
from experiments import models
from experiments.benchmarking import problem, steps
from experiments.benchmarking.figure import Figure
from experiments.benchmarking.machine import cores
from experiments.benchmarking.race import Subject, race

MODELS = ("resnet18", "vit_tiny")
BATCH_SIZE, ROUNDS = 128, 3
EPOCH = 50_000
"""Images: the figures are of this many, of which a turn makes the first ones."""

ABSENT = (
    "PyTorch's steps are not measured: make benchmark-peers installs torch and pytorch_optimizer, and measures them."
)

_SHAPE, _CLASSES, _ALPHA = (32, 32, 3), 10, 0.02
_FEW_STEPS = 2  # a turn
_CLOSE = 1e-3  # relative: what two ways to sum may differ by


def is_installed() -> bool:
    """Whether the extra `benchmark-peers` is."""
    return all(importlib.util.find_spec(name) for name in ("torch", "pytorch_optimizer"))


def peer_figures(model: str) -> list[Figure]:
    """The seconds of an epoch with SAM and with GSAM, in those of PyTorch.

    Both start from PyTorch's initial parameters and go through the same images, which lie in memory, normalised, on as
    many threads as the process may use. A turn is a few steps, whose time is multiplied.

    Args:
      model: of `MODELS`.

    Returns:
      A figure a method.

    Raises:
      ValueError: If the two networks are not the same function, or their first steps have not the same losses.
    """
    entrants = {f"{method}, {side}": run for method in ("SAM", "GSAM") for side, run in _pair(model, method).items()}
    seconds = race(entrants, ROUNDS)
    scale = EPOCH / (BATCH_SIZE * _FEW_STEPS)
    epochs = {name: tuple(scale * each for each in turns) for name, turns in seconds.items()}
    return [
        Figure(
            model,
            BATCH_SIZE,
            "time of an epoch",
            method,
            f"PyTorch's {method}",
            None,
            "s",
            epochs[f"{method}, ours"],
            epochs[f"{method}, PyTorch"],
        )
        for method in ("SAM", "GSAM")
    ]


def _pair(model: str, method: str) -> dict[str, Subject]:
    """The turns of both, from the same parameters."""
    import torch  # noqa: PLC0415 - it is an extra

    from experiments.benchmarking.peers import torch_networks, torch_steps  # noqa: PLC0415

    torch.set_num_threads(cores())
    theirs = torch_networks.create(model, _CLASSES, _SHAPE)
    loaded = models.create(model, _CLASSES, _SHAPE, nnx.Rngs(0))
    models.load_torch(loaded, {name: x.detach().numpy() for name, x in theirs.state_dict().items()})
    posed = problem.of(loaded, _CLASSES, _SHAPE, BATCH_SIZE)
    images, labels = (torch.from_numpy(np.array(x)) for x in posed.batch)
    images, labels = images.permute(0, 3, 1, 2).contiguous(), labels.long()
    if method == "SAM":
        ours = steps.ours(posed, sam_optax.sam(steps.RADIUS), torch_steps.MOMENTUM)
        step = torch_steps.sam(theirs, images, labels, steps.RADIUS)
    else:
        ours = steps.ours(posed, sam_optax.gsam(steps.RADIUS, _ALPHA), torch_steps.MOMENTUM)
        step = torch_steps.gsam(theirs, images, labels, steps.RADIUS, _ALPHA)
    check([ours() for _ in range(2)], [step() for _ in range(2)], f"{model}, {method}")
    return {"ours": lambda: _several(ours), "PyTorch": lambda: _several(step)}


def check(ours: list[jax.Array] | list[float], theirs: list[float], what: str) -> None:
    """Refuse a comparison of steps whose losses are not the same.

    Args:
      ours: the clean losses of our first steps; the second one tells that the first update was the same.
      theirs: those of PyTorch's.
      what: is compared.
    """
    if not np.allclose(ours, theirs, rtol=_CLOSE):
        raise ValueError(f"{what}: losses are {ours} here and {theirs} in PyTorch: these are not the same steps.")


def _several(step: Subject) -> None:
    for _ in range(_FEW_STEPS):
        step()
