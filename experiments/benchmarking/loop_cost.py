"""The training loop as the program runs it, and its compiled step alone."""

import itertools
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import track

from experiments import data
from experiments.benchmarking.method_steps import steps
from experiments.benchmarking.race import Subject
from experiments.config import Config
from experiments.runner.program import build
from experiments.training import prefetch
from experiments.training.loop import fit
from experiments.training.writers import JsonLines
from sam_optax import BatchPlan

LOOP, BARE_STEP = "training loop", "bare step"

_ENDLESS = 2**20  # epochs: more than any benchmark reads


@contextmanager
def subjects(config: Config, dataset: data.Dataset, num_examples: int, folder: Path) -> Iterator[dict[str, Subject]]:
    """The loop and the bare step, each through all updates of the config's plan.

    The loop is what `experiments.train` runs: the stream of batches, the hyperparameters set at every step, the
    metrics read and written, the progress shown, on a terminal that nobody sees; its evaluation is left out. The
    bare step is the same compiled function, on a batch and hyperparameters that stay on the device.

    Args:
      config: what to train, at one batch size.
      dataset: its data.
      num_examples: examples an epoch; fewer than there are make the epoch shorter.
      folder: where to write the metrics.

    Yields:
      The two subjects by name.
    """
    with closing(JsonLines(folder / "metrics.jsonl")) as metrics, open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, force_terminal=True)
        with closing(_Loop(config, dataset, num_examples, metrics, console)) as loop:
            yield {BARE_STEP: steps(config, dataset, config.plan.total_steps(num_examples)), LOOP: loop}


class _Loop:
    """The loop through all updates of the config's plan, each time on the batches that come next."""

    def __init__(
        self, config: Config, dataset: data.Dataset, num_examples: int, metrics: JsonLines, console: Console
    ) -> None:
        [stage] = config.plan.stages
        stream = data.training_batches(dataset.train, BatchPlan.constant(stage.batch_size, _ENDLESS), config.seed)
        self._state, program = build(config, dataset)
        self._batches = prefetch.in_background(stream, program.send)
        self._program = program._replace(evaluate=lambda state: {"loss": 0.0, "error": 0.0})
        self._fitting = {"plan": config.plan, "num_examples": num_examples, "write": metrics.write}
        self._updates = config.plan.total_steps(num_examples)
        self._console = console

    def __call__(self) -> None:
        batches = itertools.islice(self._batches, self._updates)
        how = {"total": self._updates, "transient": True, "console": self._console}
        watched = iter(track(batches, "benchmark", **how))
        self._state = fit(self._state, self._program, watched, **self._fitting).state
        jax.block_until_ready(self._state)

    def close(self) -> None:
        """End the threads."""
        self._batches.close()
        self._program.close()
