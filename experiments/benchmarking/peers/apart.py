"""The comparison in a process of its own: PyTorch crashes in one that has loaded TensorFlow, as the benchmark has."""

import json
import subprocess
import sys

from experiments.benchmarking.figure import Figure


def figures_of_a_process(model: str) -> list[Figure]:
    """What `race.figures` measures.

    Raises:
      subprocess.CalledProcessError: If the process fails; it has said why.
    """
    command = [sys.executable, "-m", "experiments.benchmarking.peers", model]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - our own
    return [_figure(each) for each in json.loads(printed.splitlines()[-1])]


def _figure(fields: dict[str, object]) -> Figure:
    return Figure(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
