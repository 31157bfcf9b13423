"""A long run that prints its memory, to be run in a separate process: `python -m tests.experiments.soak STEPS RUN`."""

import ctypes
import gc
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import psutil

from experiments import models
from experiments.config import Config
from experiments.models import registry
from experiments.training.epoch_schedule import Saving
from tests import conftest  # noqa: F401 - the same devices and the same cache as the tests have
from tests.experiments.conftest import TinyNet
from tests.experiments.interrupted_runs import execute

EPOCH = 8  # updates


def main(steps: int, output: Path) -> None:
    measurements: list[tuple[int, int, int]] = []

    def track(batches: Iterable[Any]) -> Iterator[Any]:
        for step, batch in enumerate(batches):
            if step in (steps // 10 // EPOCH * EPOCH, steps - EPOCH):
                measurements.append((step, *memory()))
            yield batch

    settings = {"model": "tiny", "method": "gsam", "momentum": 0.9, "on_nonfinite": "skip", "lr_schedule": "cosine"}
    config = Config.from_settings(batch_plan=f"{steps // EPOCH}x64", **settings)
    execute(output, config, track=track, saving=Saving(20), tensorboard=True)
    print(json.dumps(measurements))


def memory() -> tuple[int, int]:
    """The bytes of this process except freed memory that is kept for reuse, and the number of live arrays."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss, len(jax.live_arrays())


if __name__ == "__main__":
    registry._BUILDERS["tiny"] = TinyNet
    models.NAMES = (*models.NAMES, "tiny")
    main(int(sys.argv[1]), Path(sys.argv[2]))
