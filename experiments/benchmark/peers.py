"""An epoch with SAM and GSAM, ours against PyTorch's: `python -m experiments.benchmark.peers`.

The comparison runs in a process of its own: PyTorch crashes in one that has loaded TensorFlow, as the benchmark has.
"""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import jax
import numpy as np
from flax import nnx

import sam_optax
from experiments import models
from experiments.benchmark import benchmark_steps
from experiments.benchmark.race import Subject, cores, race
from experiments.benchmark.ratios import Figure
from experiments.cli.errors import start
from experiments.cli.standard_streams import needed

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

    from experiments.benchmark import torch_peers  # noqa: PLC0415

    torch.set_num_threads(cores())
    theirs = torch_peers.create(model, _CLASSES, _SHAPE)
    loaded = models.create(model, _CLASSES, _SHAPE, nnx.Rngs(0))
    models.load_torch(loaded, {name: x.detach().numpy() for name, x in theirs.state_dict().items()})
    posed = benchmark_steps.of(loaded, _CLASSES, _SHAPE, BATCH_SIZE)
    images, labels = (torch.from_numpy(np.array(x)) for x in posed.batch)
    images, labels = images.permute(0, 3, 1, 2).contiguous(), labels.long()
    if method == "SAM":
        ours = benchmark_steps.ours(posed, sam_optax.sam(benchmark_steps.RADIUS), torch_peers.MOMENTUM)
        step = torch_peers.sam(theirs, images, labels, benchmark_steps.RADIUS)
    else:
        ours = benchmark_steps.ours(posed, sam_optax.gsam(benchmark_steps.RADIUS, _ALPHA), torch_peers.MOMENTUM)
        step = torch_peers.gsam(theirs, images, labels, benchmark_steps.RADIUS, _ALPHA)
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


def figures_of_a_process(model: str) -> list[Figure]:
    """What `race.figures` measures.

    Raises:
      subprocess.CalledProcessError: If the process fails; it has said why.
    """
    command = [sys.executable, "-m", "experiments.benchmark.peers", model]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - our own
    return [_figure(each) for each in json.loads(printed.splitlines()[-1])]


def _figure(fields: dict[str, object]) -> Figure:
    return Figure(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def main() -> None:
    """Measure, print."""
    with needed():
        print(json.dumps([dataclasses.asdict(figure) for figure in peer_figures(sys.argv[1])]))


if __name__ == "__main__":
    start(main)
