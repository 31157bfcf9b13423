"""Measure one network against PyTorch's, and print the figures as JSON: called by `apart`."""

import dataclasses
import json
import sys

from experiments.benchmarking.peers import race
from experiments.cli.errors import start
from experiments.cli.standard_streams import needed


def main() -> None:
    """Measure, print."""
    with needed():
        print(json.dumps([dataclasses.asdict(figure) for figure in race.peer_figures(sys.argv[1])]))


if __name__ == "__main__":
    start(main)
