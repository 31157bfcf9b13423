"""The loop around the compiled step: it reads batches, sets hyperparameters, evaluates, writes down, and saves."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.training.adaptive import Decide, as_planned
from experiments.training.checkpoint_schedule import Saver
from experiments.training.epoch_schedule import EpochSchedule
from experiments.training.exceptions import NotFiniteError, Terminated
from experiments.training.json_files import encode
from experiments.training.preemption import Stop, never
from experiments.training.progress import Progress
from experiments.training.records import EpochRecord, StepRecord
from experiments.training.step import HALTED, Metrics, TrainState, unhalted
from experiments.training.writers import Record
from sam_optax import BatchPlan

_NOT_FINITE = (
    "step {step} is not finite: the run stops, and is saved as it was before. In another folder take a smaller rate or "
    "radius, or --on-nonfinite skip."
)
_TERMINATED = "stopped after {step} updates, which are saved: the same command goes on, that of one run with --resume."


class Program(NamedTuple):
    """The functions that a run consists of.

    Attributes:
      step: `step(state, batch, hyperparameters, perturb=…)` → `(state, metrics)`.
      evaluate: `evaluate(state)` → mean `loss` and `error` on the test part.
      schedules: each hyperparameter as a function of the position in epochs.
      perturb: from the number of a step to whether it makes a second pass; None where its gradient decides.
      second_pass_gradients: the gradients that a step takes in addition to the clean one, if it makes a second pass.
      send: puts a batch on the device, without waiting for it.
      prepare: starts to compile the step for a batch size, in the background; it is called after the first step.
      close: ends what runs in the background.
      on_nonfinite: `skip` or `stop`, where steps that are not finite are left out.
    """

    step: Callable[..., tuple[TrainState, Metrics]]
    evaluate: Callable[[TrainState], dict[str, float]]
    schedules: dict[str, Callable[[Any], Any]]
    perturb: Callable[[int], bool | None]
    second_pass_gradients: int
    send: Callable[[Any], Any]
    prepare: Callable[[int], None]
    close: Callable[[], None]
    on_nonfinite: str | None = None


class Trained(NamedTuple):
    """What comes out of the loop.

    Attributes:
      state: after the last step.
      record: of the last epoch.
      plan: the batch size that each epoch had.
    """

    state: TrainState
    record: EpochRecord
    plan: BatchPlan


def fit(
    state: TrainState,
    program: Program,
    batches: Iterator[Any],
    *,
    plan: BatchPlan,
    num_examples: int,
    write: Callable[[Record], None],
    watch: Callable[[EpochRecord, TrainState], None] | None = None,
    start: Progress = Progress(),
    decide: Decide = as_planned,
    saver: Saver | None = None,
    stop: Stop = never,
) -> Trained:
    """Train through the whole plan, or through what is left of it.

    What a step measures stays on the device for a stretch of steps, so that no step waits for the host.

    Args:
      state: the state at the start.
      program: what to do.
      batches: the training batches from the start on, in the plan's order.
      plan: the batch size of each epoch, as far as it is known at the start.
      num_examples: training examples.
      write: takes a record of kind `step` an update and one of kind `epoch` an epoch.
      watch: looks at the record of an epoch and at the state after it.
      start: where the run stands.
      decide: says at the end of each epoch which plan the run has from there on.
      saver: saves the run on its way, and where it is stopped.
      stop: whether to stop, asked before each step and before each evaluation.

    Returns:
      The state after the last step, the record of the last epoch, and the plan that came out.

    Raises:
      Terminated: If `stop` said so; the run is saved.
      NotFiniteError: If the program stops at a step that is not finite; the run is saved as it was before that step.
      UnusableError: If it cannot be saved.
    """
    progress, record = start, None
    while progress.epoch < plan.epochs:
        course = EpochSchedule.of(progress.epoch, program.schedules, program.perturb, plan, num_examples)
        due = [] if saver is None else saver.due(progress.epoch, course.steps)
        for part in course.cut(progress.step, due):
            state, progress, ending = _through(
                part, state, progress, program=program, batches=batches, write=write, stop=stop
            )
            is_inside = progress.step < course.steps.stop
            if saver is not None and (ending or (is_inside and progress.step in due)):
                saver.save(state, progress)
            if ending:
                raise ending
        record = _epoch_record(progress, course.batch_size, program.evaluate(state), program.on_nonfinite)
        write(encode(record))
        if watch is not None:
            watch(record, state)
        plan, progress = decide(plan, progress)
        progress = progress.closed()
        if saver is not None and progress.step in due and progress.epoch < plan.epochs:
            saver.save(state, progress)
    if record is None:
        raise ValueError(f"start.epoch is {start.epoch}, and the plan has {plan.epochs} epochs: start before its end.")
    return Trained(state, record, plan)


def _through(
    part: EpochSchedule,
    state: TrainState,
    progress: Progress,
    *,
    program: Program,
    batches: Iterator[Any],
    write: Callable[[Record], None],
    stop: Stop,
) -> tuple[TrainState, Progress, BaseException | None]:
    """The state after the steps of `part`, the position, and why the run ends there, if it does."""
    state, measured, is_stopped = _train(part, state, program, batches, stop)
    made = measured
    if program.on_nonfinite == "stop":
        made = list(itertools.takewhile(lambda metrics: not metrics["skipped"], measured))
    progress = _written(part, program, progress, made, write)
    if len(made) < len(measured):
        return state, progress, NotFiniteError(_NOT_FINITE.format(step=progress.step))
    if is_stopped:
        return state, progress, Terminated(_TERMINATED.format(step=progress.step))
    return state, progress, None


def _train(
    part: EpochSchedule, state: TrainState, program: Program, batches: Iterator[Any], stop: Stop
) -> tuple[TrainState, list[Metrics], bool]:
    """The state after the steps, or after those before the run is to stop; what they measured; and whether it is."""
    measured: list[Metrics] = []
    halted = unhalted(state) if program.on_nonfinite == "stop" else None
    for step, now, perturb in zip(part.steps, part.hyperparameters, part.decisions, strict=True):
        if stop(step):
            break
        told = now if halted is None else now | {HALTED: measured[-1]["skipped"] if measured else halted}
        state, metrics = program.step(state, next(batches), told, perturb=perturb)
        _fetch(metrics)
        measured.append(metrics)
        if len(measured) == 1 and part.next_size is not None:
            program.prepare(part.next_size)
    is_stopped = len(measured) < len(part.steps) or stop(part.steps.stop)
    return state, jax.device_get(measured), is_stopped


def _fetch(metrics: Metrics) -> None:
    """Ask for copies on the host, so that they are there when the stretch of steps is over; nothing waits."""
    for value in jax.tree.leaves(metrics):
        if isinstance(value, jax.Array):
            value.copy_to_host_async()


def _written(
    part: EpochSchedule, program: Program, progress: Progress, made: list[Metrics], write: Callable[[Record], None]
) -> Progress:
    """The position after the steps that were made, whose records are written."""
    rows = zip(part.steps, part.positions, part.hyperparameters, part.decisions, strict=True)
    for metrics, (step, position, now, perturb) in zip(made, rows, strict=False):
        if "skipped" in metrics:
            metrics |= {"skipped": int(metrics["skipped"])}
        record = StepRecord(step=step, epoch=position, batch_size=part.batch_size, others={**now, **metrics})
        write(encode(record))
        progress = progress.after(metrics, _evaluations(perturb, metrics, program.second_pass_gradients))
    return progress


def _evaluations(perturb: bool | None, metrics: Metrics, second_pass_gradients: int) -> int:
    """The gradient evaluations of a step. Where its gradient decided, a measured norm shows that it was perturbed."""
    is_perturbed = bool(np.isfinite(metrics["perturbation_norm"])) if perturb is None else perturb
    return 1 + is_perturbed * second_pass_gradients


def _epoch_record(progress: Progress, batch_size: int, test: dict[str, float], on_nonfinite: str | None) -> EpochRecord:
    noise = progress.noise.deciding
    return EpochRecord(
        epoch=progress.epoch + 1,
        step=progress.step,
        batch_size=batch_size,
        gradient_evaluations=progress.gradient_evaluations,
        skipped=None if on_nonfinite is None else progress.skipped,
        train_loss=progress.mean_loss,
        train_error=progress.mean_error,
        noise_scale=None if noise is None else float(noise.scale),
        test_loss=test["loss"],
        test_error=test["error"],
    )
