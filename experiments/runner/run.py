"""Executes a run: from a config to a folder with its metrics, its trained state and its result."""

import json
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments import data
from experiments.config import Config
from experiments.runner.image_pipeline import stream_of, transform_of
from experiments.runner.program import Architecture, architecture_of, build, network
from experiments.runner.resume import CHECKPOINTS, Start, write_digests
from experiments.training import adaptive, checkpoint, json_files, prefetch, run_folder
from experiments.training.atomic_write import write_whole
from experiments.training.epoch_schedule import Saving
from experiments.training.exceptions import UnusableError, disk_errors_as_unusable
from experiments.training.json_files import decode, encode, fields_of
from experiments.training.loop import Callbacks, Program, RunPlan, Trained, fit
from experiments.training.preemption import Stop, never
from experiments.training.progress import Progress
from experiments.training.records import EpochRecord, Notes, Result
from experiments.training.sharding import Sharding
from experiments.training.step import TrainState
from experiments.training.writers import Record, RunWriters, Writer, plain
from sam_optax import BatchPlan

UNFINISHED = ".unfinished"  # the suffix of the folder of a study's run that is not complete

_AGAIN = "remove that run, or start it again in another folder."

Write = Callable[[Record], None]
"""Receives a record."""

Watch = Callable[[EpochRecord, TrainState], None]
"""Receives the record of an epoch and the state after it, to which it must not keep a reference."""


def load(config: Config, location: data.Location = data.Location()) -> data.Dataset:
    """Loads the data of a run from `location`.

    Raises:
      ValueError: If the data are not found, or if the network, the batch plan or the recipe does not fit them.
    """
    config.problem.check_unchanged()
    dataset = data.load(
        config.problem.dataset,
        config.seed,
        location,
        config.problem.user_images,
        split=config.problem.split,
        train_examples=config.problem.train_examples,
        validation=config.problem.validation,
        label_noise=config.problem.label_noise,
    )
    transform_of(config, dataset)
    _check_network(architecture_of(config, dataset))
    updates = total_updates(config, dataset)
    if updates >= 2**31:
        raise ValueError(f"the batch plan {config.batch_plan} has {updates} updates: at most 2³¹ − 1 are supported.")
    return dataset


@cache
def _check_network(architecture: Architecture) -> None:
    """Raises `ValueError` if the network does not fit the images."""
    nnx.eval_shape(lambda: network(architecture))


def total_updates(config: Config, dataset: data.Dataset) -> int:
    """Returns the number of updates of a run; an upper bound if its batch plan is decided during training.

    Raises:
      ValueError: If a batch of the plan is larger than an epoch.
    """
    size = config.recipe.epoch_size(len(dataset.train))
    if config.adaptive is None:
        return config.plan.total_steps(size)
    try:
        return config.adaptive.most_updates(size)
    except ValueError as error:
        raise ValueError(f"batch_plan is {config.batch_plan!r}: {error}") from error


def plan_followed(config: Config, result: Result) -> BatchPlan:
    """Returns the batch plan of a finished run, including one that was decided during training.

    Raises:
      UnusableError: If the plan was decided during training, and the result does not contain it.
    """
    if config.adaptive is None:
        return config.plan
    try:
        return BatchPlan.parse(result.batch_plan or "")
    except ValueError as error:
        missing = f"the result of a run with the batch plan {config.batch_plan} does not say which plan it followed"
        raise UnusableError(f"{missing}: {_AGAIN}") from error


@dataclass(frozen=True)
class RunContext:
    """The environment of a run, which is no part of its settings.

    Other devices change the rounding, and with the perturbation of each device also what the run computes.

    Attributes:
      track: iterates over the batches and shows progress.
      watch: is called with the record of each epoch and the state after it.
      sharding: the devices. If there are several processes, the leading one writes the folder, and each process writes
        its part of the trained state.
      tensorboard: whether TensorBoard's event files are written to the folder `tensorboard`, too.
      saving: when the run is saved.
      start: the point from which the run starts: the beginning, or the last save.
      stop: returns whether to stop; it is called before each step.
      writers: additional writers of the records in `metrics.jsonl`; they are closed at the end.
    """

    track: prefetch.Track = iter
    watch: Watch | None = None
    sharding: Sharding = Sharding()
    tensorboard: bool = False
    saving: Saving = Saving()
    start: Start = Start()
    stop: Stop = never
    writers: tuple[Writer, ...] = ()


def execute(config: Config, dataset: data.Dataset, output: Path, context: RunContext = RunContext()) -> Result:
    """Trains and writes the folder: `config.json`, `metrics.jsonl`, `checkpoint`, and last of all `result.json`.

    During training the folder also has `checkpoints`, from which a stopped run resumes.

    Args:
      config: the config of the run.
      dataset: the data of the run.
      output: an empty folder, or the folder of `context.start`.
      context: the devices, the watch, the writers, and when the run is saved and stopped.

    Returns:
      The result: the figures of the last epoch, the number of updates and of gradient evaluations, the seconds
      (including those before an interruption, without those of the watch), and the batch plan if it was decided during
      training.

    Raises:
      Terminated: If `stop` returned True; the run is saved.
      NotFiniteError: If a step is not finite and the config is set to stop there; the run is saved as it was before
        that step.
      UnusableError: If the folder cannot be written, if a user's file has the name of a file of the run, or if a save
        cannot be read.
    """
    sharding, start = context.sharding, context.start
    clock = _Clock(context.watch, sharding, start.seconds)
    with disk_errors_as_unusable(output), ExitStack() as opened:
        if sharding.leads:
            run_folder.remove_unfinished(output)
        writers = [opened.enter_context(closing(writer)) for writer in context.writers]
        state, program = build(config, dataset, sharding)
        state = start.restored(output, state)
        checkpoints = opened.enter_context(closing(checkpoint.Checkpoints(output / CHECKPOINTS, context.saving.keep)))
        if sharding.leads and not start.is_again:
            config.save(output / "config.json")
        resume_at = (start.metrics_bytes, start.progress.step) if start.is_again else None
        files = RunWriters.create(output, resume_at, tensorboard=context.tensorboard) if sharding.leads else None
        writers += [opened.enter_context(closing(writer)) for writer in (files.writers if files else [])]
        settings, fingerprint = config.settings, dataset.fingerprint()
        size, total = config.recipe.epoch_size(len(dataset.train)), total_updates(config, dataset)

        def due(epoch: int, steps: range) -> list[int]:
            # the run is not saved after the last update, since the trained state is written then
            return [step for step in context.saving.due(epoch, steps, size) if step < total]

        def save(state: TrainState, at: Progress) -> None:
            where = at._asdict(), settings, fingerprint, files.flush() if files else 0, clock.seconds
            checkpoints.save(at.step, state, encode(Notes(*where, "batch_plan", sharding.devices)))

        def write(record: Record) -> None:
            for writer in writers:
                writer.write(record)

        callbacks = Callbacks(write, clock, due, save, context.stop)
        trained = _train(config, dataset, (state, program), context, callbacks)
    with disk_errors_as_unusable(output):
        result = _result(config, trained, clock.seconds)
        _finish(output, trained.state, result, sharding)
        return result


def train(
    config: Config, dataset: data.Dataset, context: RunContext = RunContext(), write: Write = lambda record: None
) -> tuple[TrainState, EpochRecord]:
    """Trains without a folder, from the beginning, and returns the last state and the record of the last epoch.

    Args:
      config: the config of the run.
      dataset: the data of the run.
      context: the environment, of which only `track`, `watch` and `sharding` are used.
      write: receives the records that would be written to `metrics.jsonl`.
    """
    context = RunContext(context.track, context.watch, context.sharding)
    callbacks = Callbacks(write, _Clock(context.watch, context.sharding))
    trained = _train(config, dataset, build(config, dataset, context.sharding), context, callbacks)
    return trained.state, trained.record


def result_of(folder: Path) -> Result:
    """Returns the result of the run in `folder`.

    Raises:
      UnusableError: If there is no result, or it was damaged or made by another version.
    """
    return json_files.read(folder / "result.json", partial(decode, cls=Result), _AGAIN)


def completed(folder: Path) -> Result:
    """Returns the result of a finished run, and removes its saves if a program was stopped before it removed them.

    Raises:
      UnusableError: As `result_of`.
    """
    result = result_of(folder)
    run_folder.remove(folder, CHECKPOINTS)
    return result


def outcome(result: Result) -> str:
    """Returns the outcome of a run in a few words."""
    message = f"test error {100 * result.test_error:.2f}%" + (", diverged" if result.diverged else "")
    return message + (f", non-finite steps skipped: {result.skipped}" if result.skipped else "")


class _Clock:
    """Calls the watch on the leading process, with the state on one device, and measures the time outside of it."""

    def __init__(self, watch: Watch | None, sharding: Sharding, before: float = 0.0) -> None:
        self._watch, self._sharding, self._started = watch, sharding, time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """The duration of the run in seconds, including the time before it was resumed."""
        return time.perf_counter() - self._started

    def __call__(self, record: EpochRecord, state: TrainState) -> None:
        if self._watch is None:
            return
        state = self._sharding.whole(state)  # every process must call it
        if self._sharding.leads:
            started = time.perf_counter()
            self._watch(record, state)
            self._started += time.perf_counter() - started


def _train(
    config: Config, dataset: data.Dataset, begun: tuple[TrainState, Program], context: RunContext, callbacks: Callbacks
) -> Trained:
    state, program = begun
    size, decided, progress = config.recipe.epoch_size(len(dataset.train)), config.adaptive, context.start.progress

    def opened(plan: BatchPlan, step: int) -> Generator[Any]:
        return prefetch.in_background(stream_of(config, dataset, step, context.sharding.part, plan), program.send)

    plan = config.plan if decided is None else decided.plan(decided.state_at(progress), size)
    feed = prefetch.PlannedBatches(opened, plan, progress.step)
    decide = None if decided is None else adaptive.Growing(decided, size, feed.follow, context.sharding.agreed)
    with closing(program), prefetch.shown(feed, context.track) as batches:
        return fit(state, program, batches, RunPlan(plan, size, progress, decide), callbacks)


def _finish(output: Path, state: TrainState, result: Result, sharding: Sharding) -> None:
    """Writes the trained state, and last of all `result.json`, which shows that the folder is complete."""
    if sharding.leads:
        run_folder.remove_unfinished(output)
        run_folder.remove(output, "checkpoint")  # left by a program that was stopped here
    checkpoint.save(output / "checkpoint", state)
    if sharding.leads:
        write_digests(output)
        write_whole(output / "result.json", json.dumps(encode(result), indent=2))
        run_folder.remove(output, CHECKPOINTS)


def _result(config: Config, trained: Trained, seconds: float) -> Result:
    """Returns the figures of the last epoch, rounded as in the files, and the cost of the run."""
    last = plain(encode(trained.record))
    values = {name: value for name, value in last.items() if name in fields_of(Result)[0]}
    # XLA's CPU compiler may lose a NaN, for example in a relu, so a network of NaN can have a finite loss.
    if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(trained.state.params)):
        values["test_loss"] = None
    decided = {} if config.adaptive is None else {"batch_plan": str(trained.plan)}
    return decode(values | decided | {"updates": trained.record.step, "seconds": plain(round(seconds, 2))}, Result)
