"""Costs of the program, in units of its compiled steps: methods, precision, the loop, and a plan of five stages."""

import dataclasses
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import track

from experiments import data
from experiments.benchmark.cases import Case
from experiments.benchmark.ratios import Figure, Subject, race
from experiments.config import Config
from experiments.runner.image_pipeline import stream_of
from experiments.runner.program import build
from experiments.training import prefetch
from experiments.training.loop import Callbacks, Program, RunPlan, fit
from experiments.training.step import TrainState
from experiments.training.writers import JsonLines
from sam_optax import BatchPlan

STEPS = 10
"""A turn of `race_configs`: every period of a policy that is measured divides it."""

_SGD = "SGD, momentum"


def thrifty_figures(case: Case, dataset: data.Dataset, rounds: int) -> list[Figure]:
    """Methods that make fewer second passes, or none, against plain SGD with momentum; a round is ten steps of each."""
    config = partial(Config.from_settings, model=case.model, batch_plan=f"1x{case.batch_size}", momentum=0.9)
    configs = {_SGD: config(method="sgd"), "MSAM": config(method="msam")}
    configs["LookSAM, k 5"] = config(method="look_sam", when="every:5")
    configs["SAM, every 10th"] = config(method="sam", when="every:10")
    seconds = race_configs(configs, dataset, rounds)
    targets = zip(list(configs)[1:], case.thrifty_targets, strict=True)
    return [case.time_figure(name, _SGD, target, seconds) for name, target in targets]


def precision_figure(case: Case, dataset: data.Dataset, rounds: int) -> Figure:
    """A step of GSAM in bfloat16 against one in float32."""
    config = partial(Config.from_settings, model=case.model, batch_plan=f"1x{case.batch_size}", method="gsam")
    configs = {f"GSAM in {precision}": config(precision=precision) for precision in ("bfloat16", "float32")}
    bfloat16, float32 = configs
    return case.time_figure(bfloat16, float32, None, race_configs(configs, dataset, rounds))


def race_configs(configs: Mapping[str, Config], dataset: data.Dataset, rounds: int) -> dict[str, list[float]]:
    """The seconds of a step of each config, the mean over `STEPS`, in each round; see `race`."""
    return race({name: steps(config, dataset) for name, config in configs.items()}, rounds, STEPS)


def steps(config: Config, dataset: data.Dataset, updates: int = STEPS) -> Subject:
    """The compiled step that training runs, on one batch and hyperparameters that stay on the device.

    Args:
      config: what to train; the batch has the first size of its plan.
      dataset: its data.
      updates: steps of a call.

    Returns:
      A function that makes the steps and updates the state, with second passes where the config has them.
    """
    state, program = build(config, dataset)
    batch = one_batch(config, dataset)
    hyperparameters = {name: jnp.float32(schedule(0.0)) for name, schedule in program.schedules.items()}

    def turn() -> None:
        nonlocal state
        for i in range(updates):
            state, _ = program.step(state, batch, hyperparameters, perturb=program.perturb(i))
        jax.block_until_ready(state)

    return turn


def one_batch(config: Config, dataset: data.Dataset) -> Any:
    """The first batch of a run, of the first size of its plan, on the device."""
    plan = BatchPlan.constant(config.plan.stages[0].batch_size, 1)
    return jax.tree.map(jnp.asarray, next(iter(data.training_batches(dataset.train, plan, config.seed))))


_TURN = 2.0  # seconds: what a turn of the loop should last
_FEWEST_UPDATES = 10  # of a turn of the loop, where a step is slow: the work at the end of an epoch is spread over them
_ENDLESS = 2**20  # epochs: more than any benchmark reads

_LOOP, _BARE_STEP = "training loop", "bare step"


def loop_figure(case: Case, dataset: data.Dataset, step_seconds: float, rounds: int) -> Figure:
    """The loop against the bare step, in epochs that are cut short where a whole one would take too long."""
    updates = max(_FEWEST_UPDATES, math.ceil(_TURN / step_seconds))
    of_an_epoch = min(updates, len(dataset.train) // case.batch_size)
    plan = f"{math.ceil(updates / of_an_epoch)}x{case.batch_size}"
    # the data are the case's: the data set that the config names is not loaded
    config = Config.from_settings(model=case.model, method="gsam", batch_plan=plan, lr_schedule="cosine")
    num_examples = of_an_epoch * case.batch_size
    with tempfile.TemporaryDirectory() as folder, subjects(config, dataset, num_examples, Path(folder)) as entrants:
        seconds = race(entrants, rounds, config.plan.total_steps(num_examples))
    return case.time_figure(_LOOP, _BARE_STEP, case.loop_target, seconds)


@contextmanager
def subjects(config: Config, dataset: data.Dataset, num_examples: int, folder: Path) -> Iterator[dict[str, Subject]]:
    """The loop and the bare step, each through all updates of the config's plan.

    The loop is what `experiments.train` runs, each time on the batches that come next: the stream of batches, the
    hyperparameters set at every step, the metrics read and written, and the progress shown, on a terminal that nobody
    sees; only the evaluation is omitted. The bare step is the same compiled function, on a batch and hyperparameters
    that stay on the device.

    Args:
      config: what to train, at one batch size.
      dataset: its data.
      num_examples: examples of an epoch; fewer than there are make the epoch shorter.
      folder: where to write the metrics.

    Yields:
      The two subjects by name.
    """
    [stage] = config.plan.stages
    updates = config.plan.total_steps(num_examples)
    stream = data.training_batches(dataset.train, BatchPlan.constant(stage.batch_size, _ENDLESS), config.seed)
    state, program = _without_evaluation(config, dataset)
    with ExitStack() as stack:
        metrics = stack.enter_context(closing(JsonLines(folder / "metrics.jsonl")))
        console = Console(file=stack.enter_context(open(os.devnull, "w", encoding="utf-8")), force_terminal=True)
        stack.callback(program.close)
        batches = stack.enter_context(closing(prefetch.in_background(stream, program.send)))

        def loop() -> None:
            nonlocal state
            part = itertools.islice(batches, updates)
            watched = iter(track(part, "benchmark", total=updates, transient=True, console=console))
            trained = fit(state, program, watched, RunPlan(config.plan, num_examples), Callbacks(metrics.write))
            state = jax.block_until_ready(trained.state)

        yield {_BARE_STEP: steps(config, dataset, updates), _LOOP: loop}


def _without_evaluation(config: Config, dataset: data.Dataset) -> tuple[TrainState, Program]:
    state, program = build(config, dataset)
    return state, dataclasses.replace(program, evaluate=lambda state: {"loss": 0.0, "error": 0.0})


PLAN_ROUNDS = 5  # a turn takes minutes

_SIZES = (16, 32, 64, 128, 256)
_TIMED = 2  # steps of each size, before the plan and again after it


def plan_figure(case: Case, dataset: data.Dataset, target: float, examples: int) -> Figure:
    """A plan of five stages, from its first step on, against its steps alone.

    What the plan compiles is in the compilation cache, but not in the process: it is traced again, and read from there.
    The steps are the same functions on a batch that stays on the device, each size's median times their number: they
    are timed before the plan and after it, since the speed of a machine drifts over the minutes that a plan takes.

    Args:
      case: the network, which GSAM trains.
      dataset: its data.
      target: what the plan may cost, in its steps.
      examples: of an epoch, of which a stage has one, in whole batches.

    Returns:
      The figure; its batch size is that of the last stage.
    """
    shortened = dataclasses.replace(dataset, train=data.Split(*dataset.train.rows(np.arange(examples))))
    rounds = [_plan_round(case.model, shortened) for _ in range(PLAN_ROUNDS)]
    plan, its_steps = "plan of five stages", "its steps"
    seconds = {plan: [whole for whole, _ in rounds], its_steps: [steps for _, steps in rounds]}
    return dataclasses.replace(case, batch_size=_SIZES[-1]).time_figure(plan, its_steps, target, seconds)


def _plan_round(model: str, dataset: data.Dataset) -> tuple[float, float]:
    """The seconds of the plan, and of its steps alone."""
    config = partial(Config.from_settings, model=model, method="gsam")

    def of_each_size() -> dict[str, list[float]]:
        return race({str(size): steps(config(batch_plan=f"1x{size}"), dataset, updates=1) for size in _SIZES}, _TIMED)

    before = of_each_size()
    plan = _plan_seconds(config(batch_plan=",".join(f"1x{size}" for size in _SIZES)), dataset)
    after = of_each_size()
    medians = {size: statistics.median(before[str(size)] + after[str(size)]) for size in _SIZES}
    return plan, sum(len(dataset.train) // size * seconds for size, seconds in medians.items())


def _plan_seconds(config: Config, dataset: data.Dataset) -> float:
    """The seconds of a run without evaluation, after the process has dropped the functions that it compiled."""
    state, program = _without_evaluation(config, dataset)
    jax.clear_caches()
    started = time.perf_counter()
    batches = prefetch.in_background(stream_of(config, dataset), program.send)
    with closing(program):
        trained = fit(state, program, batches, RunPlan(config.plan, len(dataset.train)))
        jax.block_until_ready(trained.state)
    return time.perf_counter() - started
