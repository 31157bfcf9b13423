"""Compares steps here and in PyTorch on an accelerator: `python -m experiments.benchmark.accelerator`.

For each network, batch size and precision, the program times loss and gradient, a step of SAM and a step of GSAM, in
both frameworks on the same device. PyTorch runs with channels last, eagerly and through `torch.compile`. A second table
shows how many floating-point operations per second each of our programs reaches. A turn makes several steps and waits
for the device only at its end, as a training loop does.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console

import sam_optax
from experiments import models
from experiments.benchmark import benchmark_steps, peers
from experiments.benchmark.benchmark_steps import RADIUS, Problem
from experiments.benchmark.ratios import Figure, Seconds, Subject, machine, race, table
from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import make_folder, write_document
from experiments.cli.tables import Rows, as_terminal
from experiments.config import checks
from experiments.models import ImageShape
from sam_optax.batch_plan import check_positive_integer

_GRADIENT, _SAM, _GSAM = "loss and gradient", "SAM", "GSAM"
_TOGETHER = "SAM, all steps of a turn in one call"
_EAGER, _COMPILED = "PyTorch's {}, eager", "PyTorch's {}, compiled"
_CLASSES, _ALPHA = 10, 0.02

DTYPES = {"tf32": jnp.float32, "bfloat16": jnp.bfloat16}
"""The precisions: TF32, which is JAX's default for float32 on recent cards, or bfloat16 with parameters in float32."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time the steps of SAM and GSAM next to those of PyTorch, on an accelerator.

    Attributes:
      output: The folder for accelerator.json; an older file is replaced.
      models: The networks: resnet18, vit_tiny.
      batch_sizes: The numbers of images per step.
      precisions: The precisions: tf32, bfloat16.
      image_side: The height and width of the images, in pixels.
      rounds: The number of measurements of each step.
      steps: The number of steps per measurement.
      compiled: Whether PyTorch is also measured with torch.compile.
      peak_tflops: The peak of the device in TFLOP/s at the measured precision, to print the part of it that is reached.
    """

    output: Path = Path("runs/accelerator")
    models: tuple[str, ...] = peers.MODELS
    batch_sizes: tuple[int, ...] = (128, 512)
    precisions: tuple[str, ...] = tuple(DTYPES)
    image_side: int = 32
    rounds: int = 10
    steps: int = 20
    compiled: bool = True
    peak_tflops: float | None = None

    def __post_init__(self) -> None:
        for name, known in (("models", peers.MODELS), ("precisions", tuple(DTYPES))):
            checks.check_distinct(name, getattr(self, name))
            for each in getattr(self, name):
                checks.check_choice(name, each, known)
        for size in self.batch_sizes:
            check_positive_integer("batch_sizes", size)
        for name in ("image_side", "rounds", "steps"):
            check_positive_integer(name, getattr(self, name))
        if self.image_side % 4:
            raise ValueError(f"image_side is {self.image_side}: give a multiple of 4, the side of ViT-Tiny's patches.")

    @property
    def settings(self) -> list["Setting"]:
        """All combinations of network, batch size and precision."""
        shape = self.image_side, self.image_side, 3
        return [
            Setting(model, batch_size, precision, shape)
            for model in self.models
            for batch_size in self.batch_sizes
            for precision in self.precisions
        ]


class Setting(NamedTuple):
    """A network with the size of its batch and the precision of its computation."""

    model: str
    batch_size: int
    precision: str
    image_shape: ImageShape

    def __str__(self) -> str:
        """Describes the setting, such as `resnet18, batch 128, tf32`."""
        return f"{self.model}, batch {self.batch_size}, {self.precision}"


class Ours(NamedTuple):
    """Our side of a comparison.

    Attributes:
      subjects: the functions to time, by name; each makes all steps of a turn.
      flops: the floating-point operations of one step, by name, as XLA counts them.
      losses: the losses of the first two steps of SAM.
    """

    subjects: dict[str, Subject]
    flops: dict[str, float]
    losses: list[float]


def problem_of(setting: Setting, weights: Mapping[str, np.ndarray]) -> Problem:
    """Returns the loss of our network with the weights of PyTorch's network, and a batch."""
    dtype = {} if setting.precision == "tf32" else {"dtype": DTYPES[setting.precision]}
    network = models.create(setting.model, _CLASSES, setting.image_shape, nnx.Rngs(0), **dtype)
    models.load_torch(network, weights)
    return benchmark_steps.create(network, _CLASSES, setting.image_shape, setting.batch_size)


def our_subjects(problem: Problem, steps: int) -> Ours:
    """Compiles our programs: loss and gradient, SAM, GSAM, and SAM with all steps of a turn in one call."""
    inputs = problem.params, problem.model_state, *problem.batch
    gradient = benchmark_steps.gradient(problem)
    running = {
        _SAM: benchmark_steps.ours(problem, sam_optax.sam(RADIUS), 0.9),
        _GSAM: benchmark_steps.ours(problem, sam_optax.gsam(RADIUS, _ALPHA), 0.9),
    }
    flops = {_GRADIENT: _flops(gradient)} | {name: _flops(each.compiled) for name, each in running.items()}
    losses = [float(running[_SAM]()) for _ in range(2)]
    together = benchmark_steps.ours(problem, sam_optax.sam(RADIUS), 0.9, repeat=steps)
    subjects: dict[str, Subject] = {_GRADIENT: _turn(lambda: gradient(*inputs)[0], steps)}
    subjects |= {name: _turn(each.dispatch, steps) for name, each in running.items()}
    return Ours(subjects | {_TOGETHER: together}, flops, losses)


def _turn(step: Callable[[], Any], steps: int) -> Subject:
    """Returns a function that dispatches several steps, and then waits for the last one."""

    def run() -> None:
        for _ in range(steps - 1):
            step()
        jax.block_until_ready(step())

    return run


def _flops(compiled: jax.stages.Compiled) -> float:
    analysis = compiled.cost_analysis()
    return float(analysis["flops"]) if analysis else float("nan")


def figures_of(setting: Setting, arguments: Arguments) -> tuple[list[Figure], dict[str, float]]:
    """Measures a setting.

    Args:
      setting: the network, the batch size and the precision.
      arguments: the options of the program.

    Returns:
      The figures, and the floating-point operations of a step by name.

    Raises:
      ValueError: If the losses of the first steps differ between the frameworks.
    """
    from experiments.benchmark import torch_accelerator  # noqa: PLC0415 - PyTorch is an optional dependency

    theirs = torch_accelerator.create(setting.model, setting.precision, _CLASSES, setting.image_shape)
    problem = problem_of(setting, theirs.weights())
    ours = our_subjects(problem, arguments.steps)
    images, labels = (np.array(each) for each in problem.batch)
    modes = {_EAGER: False} | ({_COMPILED: True} if arguments.compiled else {})
    subjects: dict[str, Subject] = dict(ours.subjects)
    for mode, is_compiled in modes.items():
        steps = theirs.steps(images, labels, RADIUS, _ALPHA, is_compiled=is_compiled)
        subjects |= {mode.format(name): steps.turn(name, arguments.steps) for name in (_GRADIENT, _SAM, _GSAM)}
        compared, tolerance = (2, 1e-2) if setting.precision == "tf32" else (1, 5e-2)  # rounding grows with each step
        peers.check(ours.losses[:compared], steps.first_losses[:compared], f"{setting}, SAM", tolerance)
    seconds = race(subjects, arguments.rounds, arguments.steps)
    return _compared(setting, seconds, list(modes)), ours.flops


def _compared(setting: Setting, seconds: Seconds, modes: list[str]) -> list[Figure]:
    pairs = [(name, mode.format(name)) for name in (_GRADIENT, _SAM, _GSAM) for mode in modes]
    pairs += [(_SAM, _GRADIENT), (_GSAM, _GRADIENT), (_TOGETHER, _SAM)]
    return [
        Figure(setting.model, setting.batch_size, f"time, {setting.precision}", a, b, None, "s", seconds[a], seconds[b])
        for a, b in pairs
    ]


def limits(figures: list[Figure], flops: Mapping[str, float], peak_tflops: float | None) -> Rows:
    """Returns a table of the operations of each step, its time, and the rate that it reaches.

    Args:
      figures: the figures of one setting.
      flops: the floating-point operations of a step, by name.
      peak_tflops: the peak of the device in TFLOP/s, or None.
    """
    rows: Rows = [("", "GFLOP of a step", "ms", "TFLOP/s", "part of the peak")]
    times = {figure.subject: float(np.median(figure.amounts)) for figure in figures}
    for name, count in flops.items():
        rate = count / times[name] / 1e12
        part = "–" if peak_tflops is None else f"{100 * rate / peak_tflops:.0f}%"
        rows.append((name, f"{count / 1e9:.4g}", f"{1e3 * times[name]:.4g}", f"{rate:.3g}", part))
    return rows


COMMAND = Command(
    "benchmark.accelerator",
    Arguments,
    "--models resnet18 --batch-sizes 128 --output runs/accelerator",
)


def main() -> None:
    """Parses the command line, and measures and prints the figures."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs a part of the memory
    arguments = parse(COMMAND)
    path = exit_on_value_error(make_folder, arguments.output) / "accelerator.json"
    console = Console(soft_wrap=True, highlight=False)
    if not peers.is_installed():
        console.print(peers.ABSENT)
        return
    measured: list[dict[str, Any]] = []
    for setting in arguments.settings:
        console.print(f"{setting}: {arguments.rounds} rounds of {arguments.steps} steps")
        figures, flops = figures_of(setting, arguments)
        measured.append({"setting": setting._asdict(), "figures": [each.as_json() for each in figures], "flops": flops})
        content = {**machine(), "xla_flags": os.environ.get("XLA_FLAGS", ""), "measured": measured}
        write_document(path, json.dumps(content, indent=2))
        console.print(table(str(setting), figures), crop=False)
        console.print(as_terminal(limits(figures, flops, arguments.peak_tflops)), crop=False)
    console.print(f"all figures, round by round: {path}")


if __name__ == "__main__":
    start(main)
