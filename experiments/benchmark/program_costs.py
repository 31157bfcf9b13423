"""Measures the relative cost of methods, of precision, of the training loop, and of a plan of five stages."""

import dataclasses
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
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
"""The number of steps in a turn of `race_configs`, which is a multiple of the period of each measured policy."""

_SGD = "SGD, momentum"


def thrifty_figures(case: Case, dataset: data.Dataset, rounds: int) -> list[Figure]:
    """Times methods with fewer second passes, or none, relative to SGD with momentum; a turn is ten steps."""
    config = partial(Config.from_settings, model=case.model, batch_plan=f"1x{case.batch_size}", momentum=0.9)
    configs = {_SGD: config(method="sgd"), "MSAM": config(method="msam")}
    configs["LookSAM, k 5"] = config(method="look_sam", when="every:5")
    configs["SAM, every 10th"] = config(method="sam", when="every:10")
    seconds = race_configs(configs, dataset, rounds)
    targets = zip(list(configs)[1:], case.thrifty_targets, strict=True)
    return [case.time_figure(name, _SGD, target, seconds) for name, target in targets]


def precision_figure(case: Case, dataset: data.Dataset, rounds: int) -> Figure:
    """Times a step of GSAM in bfloat16 relative to one in float32."""
    config = partial(Config.from_settings, model=case.model, batch_plan=f"1x{case.batch_size}", method="gsam")
    configs = {f"GSAM in {precision}": config(precision=precision) for precision in ("bfloat16", "float32")}
    bfloat16, float32 = configs
    return case.time_figure(bfloat16, float32, None, race_configs(configs, dataset, rounds))


def race_configs(configs: Mapping[str, Config], dataset: data.Dataset, rounds: int) -> dict[str, list[float]]:
    """Returns the seconds per step of each config in each round, averaged over `STEPS` steps; see `race`."""
    return race({name: steps(config, dataset) for name, config in configs.items()}, rounds, STEPS)


def steps(config: Config, dataset: data.Dataset, updates: int = STEPS) -> Subject:
    """Returns a function that runs the compiled training step, with one batch and hyperparameters on the device.

    Only the batch of a step that divides it into micro-batches is on the host, as in training.

    Args:
      config: the config of the run; the batch has the first batch size of its plan.
      dataset: the data set of the run.
      updates: the number of steps per call.

    Returns:
      A function that makes the steps and updates the state. The config determines which steps make a second pass.
    """
    state, program = build(config, dataset)
    batch = program.send(first_batch(config, dataset))
    hyperparameters = {name: jnp.float32(schedule(0.0)) for name, schedule in program.schedules.items()}

    def turn() -> None:
        nonlocal state
        for i in range(updates):
            state, _ = program.step(state, batch, hyperparameters, perturb=program.perturb(i))
        jax.block_until_ready(state)

    return turn


def first_batch(config: Config, dataset: data.Dataset) -> Any:
    """Returns the first batch of a run, with the first batch size of its plan, on the host."""
    return next(stream_of(config, dataset, plan=BatchPlan.constant(config.plan.stages[0].batch_size, 1)))


_TURN = 2.0  # the duration of a turn of the loop in seconds
_FEWEST_UPDATES = 10  # the minimum per turn of the loop, so that slow steps share the cost of the end of an epoch
_ENDLESS = 2**20  # a number of epochs that no benchmark reaches

_LOOP, _BARE_STEP = "training loop", "bare step"


def loop_figure(case: Case, dataset: data.Dataset, step_seconds: float, rounds: int) -> Figure:
    """Times the loop relative to the bare step; the epochs are shortened if a whole one would take too long."""
    updates = max(_FEWEST_UPDATES, math.ceil(_TURN / step_seconds))
    of_an_epoch = min(updates, len(dataset.train) // case.batch_size)
    plan = f"{math.ceil(updates / of_an_epoch)}x{case.batch_size}"
    # the data set of the case is used; the one that the config names is not loaded
    config = Config.from_settings(model=case.model, method="gsam", batch_plan=plan, lr_schedule="cosine")
    num_examples = of_an_epoch * case.batch_size
    with tempfile.TemporaryDirectory() as folder, subjects(config, dataset, num_examples, Path(folder)) as entrants:
        seconds = race(entrants, rounds, config.plan.total_steps(num_examples))
    return case.time_figure(_LOOP, _BARE_STEP, case.loop_target, seconds)


@contextmanager
def subjects(config: Config, dataset: data.Dataset, num_examples: int, folder: Path) -> Iterator[dict[str, Subject]]:
    """Yields the loop and the bare step; each makes all updates of the config's plan.

    The loop is the one that `experiments.train` runs, and each turn continues with the next batches. It includes the
    stream of batches, the hyperparameters of every step, reading and writing the metrics, and the progress bar, which
    is written to the null device. Only the evaluation is omitted. The bare step is the same compiled function, with a
    batch and hyperparameters that stay on the device.

    Args:
      config: the config of the run, with one batch size.
      dataset: the data set of the run.
      num_examples: the number of examples per epoch; a number below that of the data set shortens the epoch.
      folder: the folder for the metrics.

    Yields:
      The two subjects by name.
    """
    [stage] = config.plan.stages
    updates = config.plan.total_steps(num_examples)
    stream = stream_of(config, dataset, plan=BatchPlan.constant(stage.batch_size, _ENDLESS))
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


PLAN_ROUNDS = 5  # only a few, because a turn takes minutes

PLAN_SIZES = (16, 32, 64, 128, 256)
"""The batch sizes of the stages of the plan."""

_TIMED = 2  # the number of timed steps of each batch size, both before and after the plan


def plan_figure(
    case: Case, dataset: data.Dataset, target: float, examples: int, micro_batch: int | None = None
) -> Figure:
    """Times a plan of five stages, including compilation, relative to its bare steps.

    The compiled functions of the plan are in the compilation cache, but not in the memory of the process. Each function
    is therefore traced again and read from the cache: for each batch size, or once if all batches are divided into
    micro-batches of one size. The bare steps are those of `steps`; their time is the median step time of each batch
    size, multiplied by the number of steps. They are timed before and after the plan, because the speed of a machine
    drifts over the minutes that a plan takes.

    Args:
      case: the case, whose network is trained with GSAM.
      dataset: the data set of the case.
      target: the maximum time of the plan, relative to its steps.
      examples: the number of examples per epoch; each stage is one epoch, and incomplete batches are dropped.
      micro_batch: the number of examples of a micro-batch; None: batches are not divided.

    Returns:
      The figure; its batch size is that of the last stage.
    """
    shortened = dataclasses.replace(dataset, train=data.Split(*dataset.train.rows(np.arange(examples))))
    config = partial(Config.from_settings, model=case.model, method="gsam", micro_batch=micro_batch)
    rounds = [_plan_round(config, shortened) for _ in range(PLAN_ROUNDS)]
    plan, its_steps = "plan of five stages", "its steps"
    if micro_batch is not None:
        plan += f", micro-batches of {micro_batch}"
    seconds = {plan: [whole for whole, _ in rounds], its_steps: [steps for _, steps in rounds]}
    return dataclasses.replace(case, batch_size=PLAN_SIZES[-1]).time_figure(plan, its_steps, target, seconds)


def _plan_round(config: Callable[..., Config], dataset: data.Dataset) -> tuple[float, float]:
    """Returns the seconds of the plan, and the seconds of its bare steps."""

    def of_each_size() -> dict[str, list[float]]:
        one_step = {str(size): config(batch_plan=f"1x{size}") for size in PLAN_SIZES}
        return race({size: steps(each, dataset, updates=1) for size, each in one_step.items()}, _TIMED)

    before = of_each_size()
    plan = _plan_seconds(config(batch_plan=",".join(f"1x{size}" for size in PLAN_SIZES)), dataset)
    after = of_each_size()
    medians = {size: statistics.median(before[str(size)] + after[str(size)]) for size in PLAN_SIZES}
    return plan, sum(len(dataset.train) // size * seconds for size, seconds in medians.items())


def _plan_seconds(config: Config, dataset: data.Dataset) -> float:
    """Returns the seconds of a run without evaluation, after the compiled functions in memory have been dropped."""
    state, program = _without_evaluation(config, dataset)
    jax.clear_caches()
    started = time.perf_counter()
    batches = prefetch.in_background(stream_of(config, dataset), program.send)
    with closing(program):
        trained = fit(state, program, batches, RunPlan(config.plan, len(dataset.train)))
        jax.block_until_ready(trained.state)
    return time.perf_counter() - started
