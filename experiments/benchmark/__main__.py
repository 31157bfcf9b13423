"""Measures time and memory relative to the gradients that must be computed: `python -m experiments.benchmark`."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from experiments.benchmark import peers
from experiments.benchmark.cases import CASES, ON_TWO_CORES
from experiments.benchmark.measure import measure
from experiments.benchmark.ratios import Figure, machine, table
from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import make_folder, write_document
from experiments.config import checks

_FEWEST_ROUNDS = 10


@dataclass(frozen=True)
class Benchmark:
    """Time the steps of SAM and GSAM, the steps of optax.contrib.sam, and the training loop.

    Every figure is a ratio to a reference that is measured in the same round. The median over the rounds and the
    quartiles are reported.

    Attributes:
      output: The folder for benchmark.json; an older file is replaced.
      rounds: The number of rounds, at least 10. Peers, the plan and the worst case have fixed numbers of rounds: 3, 5
        and 3.
      models: The models to measure: resnet18 (batch size 32, images of CIFAR's size), small_resnet (batch sizes 16 and
        128, digits), resnet18_accelerator (batch size 128, and a step in bfloat16; for a GPU or a TPU).
      peers: The networks whose epochs are compared with PyTorch's, if PyTorch is installed: resnet18, vit_tiny.
    """

    output: Path = Path("runs/benchmark")
    rounds: int = 10
    models: tuple[str, ...] = ON_TWO_CORES
    peers: tuple[str, ...] = peers.MODELS

    def __post_init__(self) -> None:
        if self.rounds < _FEWEST_ROUNDS:
            raise ValueError(f"rounds is {self.rounds}: give at least {_FEWEST_ROUNDS}, to estimate the spread.")
        for name, known in (("models", tuple(CASES)), ("peers", peers.MODELS)):
            if given := getattr(self, name):
                checks.check_distinct(name, given)
            for each in given:
                checks.check_choice(name, each, known)
        if not self.models and not self.peers:
            raise ValueError("models and peers are empty: give at least one of them.")


COMMAND = Command(
    "benchmark",
    Benchmark,
    "--models small_resnet --rounds 20 --output runs/benchmark",
)


def main() -> None:
    """Parses the command line, and measures and prints the figures."""
    benchmark = parse(COMMAND)
    path = exit_on_value_error(make_folder, benchmark.output) / "benchmark.json"
    console = Console(soft_wrap=True, highlight=False)
    figures: list[Figure] = []

    def show(title: str, measured: Iterable[Figure]) -> None:
        before = len(figures)
        for figure in measured:
            figures.append(figure)
            save(path, benchmark, figures)
        console.print(table(title, figures[before:]), crop=False)

    for case in (case for model in benchmark.models for case in CASES[model]):
        show(f"{case.model}, batch {case.batch_size}", measure(case, benchmark.rounds, console.print))
    is_installed = peers.is_installed()
    if benchmark.peers and not is_installed:
        console.print(peers.ABSENT)
    for model in benchmark.peers if is_installed else ():
        count = peers.devices(model)
        name = f"{model}, batch {peers.BATCH_SIZE}{f', {count} devices' * (count > 1)}"
        console.print(f"{name}: an epoch here and in PyTorch, {peers.ROUNDS} rounds")
        show(f"{name}, {peers.EPOCH:,} images", peers.figures_of_a_process(model))
    console.print(f"all figures, round by round: {path}")


def save(path: Path, benchmark: Benchmark, figures: list[Figure]) -> None:
    """Writes the figures, the machine and the settings to the file `path`."""
    settings = asdict(benchmark) | {"output": str(benchmark.output)}
    content = {**machine(), "settings": settings, "figures": [figure.as_json() for figure in figures]}
    write_document(path, json.dumps(content, indent=2))


if __name__ == "__main__":
    start(main)
