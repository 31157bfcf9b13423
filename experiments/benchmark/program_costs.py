"""Costs of the training loop, and of a plan with a growing batch, relative to their compiled steps."""

import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

from experiments import data
from experiments.benchmark.cases import Case
from experiments.benchmark.method_costs import steps
from experiments.benchmark.race import Subject
from experiments.benchmark.ratios import Figure
from experiments.config import Config
from experiments.runner.image_pipeline import stream_of
from experiments.runner.program import build
from experiments.training import prefetch
from experiments.training.loop import Callbacks, RunPlan, fit
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
        self._program = dataclasses.replace(program, evaluate=lambda state: {"loss": 0.0, "error": 0.0})
        self._fitting = RunPlan(config.plan, num_examples), Callbacks(metrics.write)
        self._updates = config.plan.total_steps(num_examples)
        self._console = console

    def __call__(self) -> None:
        batches = itertools.islice(self._batches, self._updates)
        how = {"total": self._updates, "transient": True, "console": self._console}
        watched = iter(track(batches, "benchmark", **how))
        self._state = fit(self._state, self._program, watched, *self._fitting).state
        jax.block_until_ready(self._state)

    def close(self) -> None:
        """End the threads."""
        self._batches.close()
        self._program.close()


PLAN, STEPS = "plan of five stages", "its steps"
ROUNDS = 5  # a turn is minutes long

_SIZES = (16, 32, 64, 128, 256)
_TIMED = 2  # steps of each size, before the plan and again after it


class Costs(NamedTuple):
    """What a round took, in seconds: the plan from its first step on, and its steps alone."""

    plan: float
    steps: float


def figure(case: Case, dataset: data.Dataset) -> Figure:
    """A plan of five stages against its steps.

    What the plan compiles is in the compilation cache, but not in the process: it is traced anew, and read from there.
    The steps are the same functions on a batch that stays on the device, each size's median times their number: they
    are timed before the plan and after it, since a machine's pace drifts over the minutes that a plan takes.

    Args:
      case: the network, which GSAM trains, and the examples of a stage: an epoch of it, of whole batches.
      dataset: its data.

    Returns:
      The figure; its batch size is that of the last stage.

    Raises:
      ValueError: If the case has no plan.
    """
    if case.plan is None:
        raise ValueError(f"case {case.model} has no plan: give its target, and the examples of a stage.")
    target, examples = case.plan
    images, labels = dataset.train.rows(np.arange(examples))
    shortened = dataclasses.replace(dataset, train=data.Split(images, labels))
    measured = [_round(case.model, shortened) for _ in range(ROUNDS)]
    amounts = tuple(each.plan for each in measured), tuple(each.steps for each in measured)
    return Figure(case.model, _SIZES[-1], "time", PLAN, STEPS, target, "s", *amounts)


def _round(model: str, dataset: data.Dataset) -> Costs:
    shared = {"model": model, "method": "gsam"}
    before = _of_each_size(shared, dataset)
    plan = _seconds(_training(Config(batch_plan=",".join(f"1x{size}" for size in _SIZES), **shared), dataset))
    after = _of_each_size(shared, dataset)
    of_step = {size: statistics.median(before[size] + after[size]) for size in _SIZES}
    return Costs(plan, sum(len(dataset.train) // size * of_step[size] for size in _SIZES))


def _of_each_size(shared: dict[str, str], dataset: data.Dataset) -> dict[int, list[float]]:
    """Seconds of single steps, of each batch size."""
    seconds = {}
    for size in _SIZES:
        turn = steps(Config(batch_plan=f"1x{size}", **shared), dataset, updates=1)
        turn()
        seconds[size] = [_seconds(turn) for _ in range(_TIMED)]
    return seconds


def _training(config: Config, dataset: data.Dataset) -> Callable[[], None]:
    """A run without evaluation, whose functions this process has forgotten."""
    state, program = build(config, dataset)
    program = dataclasses.replace(program, evaluate=lambda state: {"loss": 0.0, "error": 0.0})
    jax.clear_caches()

    def run() -> None:
        batches = prefetch.in_background(stream_of(config, dataset), program.send)
        with closing(program):
            jax.block_until_ready(fit(state, program, batches, RunPlan(config.plan, len(dataset.train))).state)

    return run


def _seconds(turn: Callable[[], None]) -> float:
    started = time.perf_counter()
    turn()
    return time.perf_counter() - started
