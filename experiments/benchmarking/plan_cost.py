"""A plan whose batch grows, as the program trains it, and the sum of its steps."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import jax
import numpy as np

from experiments import data
from experiments.benchmarking.cases import Case
from experiments.benchmarking.figure import Figure
from experiments.benchmarking.method_steps import steps
from experiments.config import Config
from experiments.runner.image_pipeline import stream_of
from experiments.runner.program import build
from experiments.training import prefetch
from experiments.training.loop import fit

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
    program = program._replace(evaluate=lambda state: {"loss": 0.0, "error": 0.0})
    jax.clear_caches()

    def run() -> None:
        batches = prefetch.in_background(stream_of(config, dataset), program.send)
        how = {"plan": config.plan, "num_examples": len(dataset.train), "write": lambda record: None}
        with closing(program):
            jax.block_until_ready(fit(state, program, batches, **how).state)

    return run


def _seconds(turn: Callable[[], None]) -> float:
    started = time.perf_counter()
    turn()
    return time.perf_counter() - started
