"""Compares the time of an epoch of SAM and GSAM here and in PyTorch: `python -m experiments.benchmark.peers`.

The comparison runs in a separate process, because PyTorch crashes in a process that has loaded TensorFlow, and the
benchmark loads it.
"""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

import sam_optax
from experiments import models
from experiments.benchmark import benchmark_steps
from experiments.benchmark.benchmark_steps import RADIUS
from experiments.benchmark.ratios import Figure, Subject, race
from experiments.cli.errors import start
from experiments.cli.standard_streams import needed
from experiments.runner.provenance import cores

MODELS = ("resnet18", "vit_tiny")
DATA_PARALLEL = ("vit_tiny",)
"""The networks that are computed with one CPU device per core, which share each batch.

XLA runs the elementwise loops of a CPU device on one core. In the gradient of a ViT, they take so much time that a
device per core is faster. ResNet-18 has one device, for which the convolutions of `experiments.models` were chosen.
"""
BATCH_SIZE, ROUNDS = 128, 3
EPOCH = 50_000
"""The number of images in an epoch. A turn uses only one batch, and its time is scaled up to this number."""

ABSENT = "PyTorch is not measured: make benchmark-peers installs torch and pytorch_optimizer, and measures it."

_SHAPE, _CLASSES, _ALPHA = (32, 32, 3), 10, 0.02
_FEW_STEPS = 2  # steps per turn
_CLOSE = 1e-3  # relative tolerance, because the order of summation differs


def is_installed() -> bool:
    """Returns whether the extra `benchmark-peers` is installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "pytorch_optimizer"))


def devices(model: str) -> int:
    """Returns the number of CPU devices that share the batches of a network."""
    return cores() if model in DATA_PARALLEL else 1


def peer_figures(model: str) -> list[Figure]:
    """Measures the time of an epoch with SAM and with GSAM, relative to PyTorch.

    Both start from PyTorch's initial parameters and use the same normalised images in memory. Both use as many threads
    as the process may use. A turn is a few steps; its time is scaled up to an epoch.

    Args:
      model: one of `MODELS`.

    Returns:
      One figure for each method.

    Raises:
      ValueError: If the two networks are not the same function, or if their first steps have different losses.
    """
    scale = EPOCH / (BATCH_SIZE * _FEW_STEPS)
    seconds = race(_pair(model, "SAM") | _pair(model, "GSAM"), ROUNDS)
    epochs = {name: [scale * each for each in turns] for name, turns in seconds.items()}
    return [
        Figure(model, BATCH_SIZE, "time of an epoch", ours, theirs, None, "s", epochs[ours], epochs[theirs])
        for ours, theirs in (("SAM", "PyTorch's SAM"), ("GSAM", "PyTorch's GSAM"))
    ]


def _pair(model: str, method: str) -> dict[str, Subject]:
    """Returns functions that run a turn of our step and of PyTorch's, by name; both start from the same parameters."""
    import torch  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - an optional dependency

    from experiments.benchmark import torch_peers  # noqa: PLC0415

    torch.set_num_threads(cores())
    network = torch_peers.create(model, _CLASSES, _SHAPE)
    loaded = models.create(model, _CLASSES, _SHAPE, nnx.Rngs(0))
    models.load_torch(loaded, {name: x.detach().numpy() for name, x in network.state_dict().items()})
    problem = benchmark_steps.divided(benchmark_steps.create(loaded, _CLASSES, _SHAPE, BATCH_SIZE))
    images, labels = (torch.from_numpy(np.array(x)) for x in problem.batch)
    batch = images.permute(0, 3, 1, 2).contiguous(), labels.long()
    if method == "SAM":
        tx, theirs = sam_optax.sam(RADIUS), torch_peers.sam(network, *batch, RADIUS)
    else:
        tx, theirs = sam_optax.gsam(RADIUS, _ALPHA), torch_peers.gsam(network, *batch, RADIUS, _ALPHA)
    ours = benchmark_steps.ours(problem, tx, torch_peers.MOMENTUM)
    check([ours() for _ in range(2)], [theirs().item() for _ in range(2)], f"{model}, {method}")
    return {
        method: lambda: [ours() for _ in range(_FEW_STEPS)],
        f"PyTorch's {method}": lambda: [theirs() for _ in range(_FEW_STEPS)],
    }


def check(ours: Sequence[float | jax.Array], theirs: Sequence[float], what: str, tolerance: float = _CLOSE) -> None:
    """Checks that the losses of both steps agree.

    Args:
      ours: the clean losses of our first steps; the second one shows that the first update was the same.
      theirs: the clean losses of PyTorch's first steps.
      what: the name of the comparison, for the error message.
      tolerance: the largest relative difference.

    Raises:
      ValueError: If the losses differ.
    """
    if not np.allclose(np.asarray(ours), theirs, rtol=tolerance):
        raise ValueError(f"{what}: losses are {ours} here and {theirs} in PyTorch, so the steps are not the same.")


def figures_of_a_process(model: str) -> list[Figure]:
    """Returns the figures of `peer_figures`, measured in a separate process.

    Raises:
      subprocess.CalledProcessError: If the process fails; it prints the reason before it exits.
    """
    command = [sys.executable, "-m", "experiments.benchmark.peers", model]
    env = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices(model))}
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout  # noqa: S603 - a fixed command
    return [Figure(**each) for each in json.loads(printed.splitlines()[-1])]


def main() -> None:
    """Measures the figures of the model on the command line, and prints them as JSON."""
    with needed():
        print(json.dumps([dataclasses.asdict(figure) for figure in peer_figures(sys.argv[1])]))


if __name__ == "__main__":
    start(main)
