"""One run: from a config to a folder with its metrics, its trained state and its result."""

import json
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments import data
from experiments.config import Config
from experiments.runner.image_pipeline import stream_of, transform_of
from experiments.runner.program import build
from experiments.runner.resume import CHECKPOINTS, Start, seal
from experiments.training import adaptive, checkpoint, json_files, own_files, prefetch
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
from experiments.training.writers import Record, Writer, length_of, own_writers, plain
from sam_optax import BatchPlan

UNFINISHED = ".unfinished"  # at the end of a folder's name: a run of a study that has not come to its end

_AGAIN = "remove that run, or start it again in another folder."

Write = Callable[[Record], None]
"""Takes a record."""

Watch = Callable[[EpochRecord, TrainState], None]
"""Looks at the record of an epoch and at the state after it, which it must not keep."""


def load(config: Config, location: data.Location = data.Location()) -> data.Dataset:
    """The data of a run, looked for at `location`.

    Raises:
      ValueError: If it is not there, or if the batch plan or the recipe does not fit it.
    """
    dataset = data.load(
        config.problem.dataset,
        config.seed,
        location,
        split=config.problem.split,
        train_examples=config.problem.train_examples,
        validation=config.problem.validation,
        label_noise=config.problem.label_noise,
    )
    transform_of(config, dataset)
    updates = total_updates(config, dataset)
    if updates >= 2**31:
        raise ValueError(f"the batch plan {config.batch_plan} has {updates} updates: at most 2³¹ − 1 are counted.")
    return dataset


def total_updates(config: Config, dataset: data.Dataset) -> int:
    """How many updates a run makes; where its batch plan is decided on the way, so many at most.

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


def plan_of(config: Config, result: Result) -> BatchPlan:
    """The batch plan of a finished run, also where it was decided on the way.

    Raises:
      UnusableError: If it was, and the result does not tell it.
    """
    if config.adaptive is None:
        return config.plan
    try:
        return BatchPlan.parse(result.batch_plan or "")
    except ValueError as error:
        missing = f"the result of a run with the batch plan {config.batch_plan} lacks the one that came out"
        raise UnusableError(f"{missing}: {_AGAIN}") from error


@dataclass(frozen=True)
class RunContext:
    """What a run takes place in. None of it changes what the run computes.

    Attributes:
      track: iterates over the batches and shows progress.
      watch: is called with the record of each epoch and the state after it.
      sharding: the devices. Of several processes the leading one fills the folder; each of them writes its part of the
        trained state.
      tensorboard: whether TensorBoard's event files are written to the folder `tensorboard`, too.
      saving: when the run is saved.
      start: where the run begins: at its beginning, or at its last save.
      stop: whether to stop; it is called before each step.
      writers: take the records that `metrics.jsonl` takes; they are closed at the end.
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
    """Train, and fill the folder: `config.json`, `metrics.jsonl`, `checkpoint`, and at last `result.json`.

    On the way the folder has `checkpoints`, too, from which the run goes on where it is stopped.

    Args:
      config: what to run.
      dataset: its data.
      output: an empty folder, or that of `context.start`.
      context: the devices, the watch, the writers, and when the run is saved and stopped.

    Returns:
      The result: the last epoch's figures, the number of updates and of gradient evaluations, the seconds without those
      of the watch, those before an interruption among them; and the batch plan, where it was decided on the way.

    Raises:
      Terminated: If `stop` said so; the run is saved.
      NotFiniteError: If a step is not finite, and the config has it stop there; the run is saved as it was before.
      UnusableError: If the folder cannot be written or holds what has the place of a file of the run, or if what was
        saved cannot be read.
    """
    sharding, start = context.sharding, context.start
    clock = _Clock(context.watch, sharding, start.seconds)
    with disk_errors_as_unusable(output), ExitStack() as opened:
        if sharding.leads:
            own_files.make_room(output)
        writers = [opened.enter_context(closing(writer)) for writer in context.writers]
        state, program = build(config, dataset, sharding)
        state = start.restored(output, state)
        checkpoints = opened.enter_context(closing(checkpoint.Checkpoints(output / CHECKPOINTS, context.saving.keep)))
        if sharding.leads and not start.is_again:
            config.save(output / "config.json")
        go_on_at = (start.metrics_bytes, start.progress.step) if start.is_again else None
        own = own_writers(output, go_on_at, tensorboard=context.tensorboard) if sharding.leads else []
        writers += [opened.enter_context(closing(writer)) for writer in own]
        settings, fingerprint = config.settings, dataset.fingerprint()
        size, total = config.recipe.epoch_size(len(dataset.train)), total_updates(config, dataset)

        def due(epoch: int, steps: range) -> list[int]:
            # after the last update nothing is saved, since the trained state itself follows
            return [step for step in context.saving.due(epoch, steps, size) if step < total]

        def save(state: TrainState, at: Progress) -> None:
            notes = Notes(at._asdict(), settings, fingerprint, length_of(own), clock.seconds)
            checkpoints.save(at.step, state, encode(notes))

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
    """Train without a folder, from the beginning, and return the last state and the record of the last epoch.

    Args:
      config: what to run.
      dataset: its data.
      context: of which the track, the watch and the devices count.
      write: takes the records that `metrics.jsonl` would take.
    """
    context = RunContext(context.track, context.watch, context.sharding)
    callbacks = Callbacks(write, _Clock(context.watch, context.sharding))
    trained = _train(config, dataset, build(config, dataset, context.sharding), context, callbacks)
    return trained.state, trained.record


def result_of(folder: Path) -> Result:
    """The result of the run in `folder`.

    Raises:
      UnusableError: If there is none, or one that was damaged or made by another version.
    """
    return json_files.read(folder / "result.json", partial(decode, cls=Result), _AGAIN)


def completed(folder: Path) -> Result:
    """The result of the run in `folder`, of which a program that was stopped at its very end may have left the saves.

    Raises:
      UnusableError: As `result_of`.
    """
    result = result_of(folder)
    own_files.remove(folder, CHECKPOINTS)
    return result


def ending(result: Result) -> str:
    """How a run came out, in a few words."""
    said = f"test error {100 * result.test_error:.2f}%" + (", diverged" if result.diverged else "")
    return said + (f", steps left out as not finite: {result.skipped}" if result.skipped else "")


class _Clock:
    """A watch that sees the state on one device, of the process that leads; and the seconds that pass outside of it."""

    def __init__(self, watch: Watch | None, sharding: Sharding, before: float = 0.0) -> None:
        self._watch, self._sharding, self._started = watch, sharding, time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """Since the start, and before it."""
        return time.perf_counter() - self._started

    def __call__(self, record: EpochRecord, state: TrainState) -> None:
        if self._watch is None:
            return
        state = self._sharding.whole(state)  # every process has to ask
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
    """Write down what came out, and what tells that it is all there at last."""
    if sharding.leads:
        own_files.make_room(output)
        own_files.remove(output, "checkpoint")  # of a program that was stopped here
    checkpoint.save(output / "checkpoint", state)
    if sharding.leads:
        seal(output)
        write_whole(output / "result.json", json.dumps(encode(result), indent=2))
        own_files.remove(output, CHECKPOINTS)


def _result(config: Config, trained: Trained, seconds: float) -> Result:
    """The figures of the last epoch, with the digits of a file, and what the run took."""
    last = plain(encode(trained.record))
    values = {name: value for name, value in last.items() if name in fields_of(Result)[0]}
    decided = {} if config.adaptive is None else {"batch_plan": str(trained.plan)}
    return decode(values | decided | {"updates": trained.record.step, "seconds": plain(round(seconds, 2))}, Result)
