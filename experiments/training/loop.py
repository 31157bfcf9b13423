"""The training loop: it passes batches and hyperparameters to the compiled step, evaluates, records, and saves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.training.adaptive import Decide
from experiments.training.epoch_schedule import EpochSchedule, Perturb, Schedules
from experiments.training.exceptions import NotFiniteError, Terminated
from experiments.training.json_files import encode
from experiments.training.preemption import Stop, never
from experiments.training.progress import Progress
from experiments.training.records import EpochRecord, StepRecord
from experiments.training.step import Metrics, TrainState, unhalted
from experiments.training.writers import Record
from sam_optax import BatchPlan


@dataclass(frozen=True)
class Program:
    """The functions of a run.

    Attributes:
      step: `step(state, batch, hyperparameters, halted=None, perturb=…)` → `(state, metrics)`.
      evaluate: `evaluate(state)` → mean `loss` and `error` on the test split.
      schedules: the schedule of each hyperparameter, a function of the position in epochs.
      perturb: maps the number of a step to whether it makes a second pass; None if its gradient decides.
      second_pass_gradients: the number of gradients that a second pass computes, in addition to the clean one.
      on_nonfinite: `skip` or `stop` if steps that are not finite are skipped; None: no step is skipped.
      send: puts a batch on the device without waiting for it.
      compile_ahead: starts to compile the step for a batch size in the background; it is called after the first step.
      close: stops the background threads.
    """

    step: Callable[..., tuple[TrainState, Metrics]]
    evaluate: Callable[[TrainState], dict[str, float]]
    schedules: Schedules
    perturb: Perturb
    second_pass_gradients: int
    on_nonfinite: str | None = None
    send: Callable[[Any], Any] = lambda batch: batch
    compile_ahead: Callable[[int], None] = lambda batch_size: None
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class RunPlan:
    """The batches of a run, and the position where it starts.

    Attributes:
      batch_plan: the batch size of each update, as far as it is known at the start.
      num_examples: the number of training examples in an epoch.
      start: the position from which the run starts.
      decide: returns, at the end of each epoch, the batch plan from there on; None: the plan does not change.
    """

    batch_plan: BatchPlan
    num_examples: int
    start: Progress = Progress()
    decide: Decide | None = None


@dataclass(frozen=True)
class Callbacks:
    """The functions that the training loop calls.

    Attributes:
      write: receives a record of kind `step` for each update and one of kind `epoch` for each epoch.
      watch: receives the record of an epoch and the state after it, to which it must not keep a reference.
      due: maps the number of an epoch and its updates to the updates after which the run is saved.
      save: saves the state at a position, when a save is due and when the run is stopped.
      stop: returns whether to stop; it is called before each step and before each evaluation.
    """

    write: Callable[[Record], None] = lambda record: None
    watch: Callable[[EpochRecord, TrainState], None] = lambda record, state: None
    due: Callable[[int, range], list[int]] = lambda epoch, steps: []
    save: Callable[[TrainState, Progress], None] = lambda state, progress: None
    stop: Stop = never


class Trained(NamedTuple):
    """The result of the training loop.

    Attributes:
      state: the state after the last step.
      record: the record of the last epoch.
      plan: the batch size that each update had.
    """

    state: TrainState
    record: EpochRecord
    plan: BatchPlan


def fit(
    state: TrainState, program: Program, batches: Iterator[Any], run: RunPlan, callbacks: Callbacks = Callbacks()
) -> Trained:
    """Trains to the end of the plan.

    The metrics of several steps stay on the device, so that no step waits for the host.

    Args:
      state: the state at the start.
      program: the functions of the run.
      batches: the training batches from the start on, in the plan's order.
      run: the plan, and the position from which the run starts.
      callbacks: the functions that are called during the run.

    Returns:
      The state after the last step, the record of the last epoch, and the plan as it was carried out.

    Raises:
      Terminated: If `stop` returned True; the run is saved.
      NotFiniteError: If the program stops at a step that is not finite; the run is saved as it was before that step.
      UnusableError: If it cannot be saved.
    """
    progress, record, plan, size = run.start, None, run.batch_plan, run.num_examples
    while progress.epoch < plan.passes(size):
        schedule = EpochSchedule.of(progress.epoch, program.schedules, program.perturb, plan, size)
        due = callbacks.due(progress.epoch, schedule.steps)
        for part in schedule.cut(progress.step, due):
            state, measured, is_stopped = _train(part, state, program, batches, callbacks.stop)
            before, progress = progress, _written(part, program, progress, measured, callbacks.write)
            error = _reason_to_end(progress.step, progress.step - before.step < len(measured), is_stopped)
            if error or (progress.step in due and progress.step < schedule.steps.stop):
                callbacks.save(state, progress)
            if error:
                raise error
        record = _epoch_record(progress, plan, size, program.evaluate(state), program.on_nonfinite)
        callbacks.write(encode(record))
        callbacks.watch(record, state)
        if run.decide is not None:
            plan, progress = run.decide(plan, progress)
        progress = progress.closed()
        if progress.step in due and progress.epoch < plan.passes(size):
            callbacks.save(state, progress)
    if record is None:
        raise ValueError(
            f"start.epoch is {run.start.epoch} of {plan.passes(size)} epochs: start before the end of the plan."
        )
    return Trained(state, record, plan)


def _reason_to_end(step: int, is_not_finite: bool, is_stopped: bool) -> NotFiniteError | Terminated | None:
    if is_not_finite:
        remedy = "Start again in another folder with a smaller learning rate or radius, or with --on-nonfinite skip."
        return NotFiniteError(f"step {step} is not finite: the run was stopped, and saved as it was before. {remedy}")
    if is_stopped:
        remedy = "run the same command again to continue, with --resume for a single run."
        return Terminated(f"stopped after {step} updates, which are saved: {remedy}")
    return None


def _train(
    part: EpochSchedule, state: TrainState, program: Program, batches: Iterator[Any], stop: Stop
) -> tuple[TrainState, list[Metrics], bool]:
    """Makes the steps of a part until the run is to stop.

    Returns:
      The state after the steps that were made, their metrics, and whether the run is to stop.
    """
    measured: list[Metrics] = []
    halted = unhalted(state) if program.on_nonfinite == "stop" else None
    for step, _, _, hyperparameters, perturb in part.scheduled:
        if stop(step):
            break
        state, metrics = program.step(state, next(batches), hyperparameters, halted=halted, perturb=perturb)
        jax.copy_to_host_async(metrics)  # without waiting; the values arrive by the end of the part
        measured.append(metrics)
        if halted is not None:
            halted = metrics["skipped"]
        if len(measured) == 1 and part.next_size is not None:
            program.compile_ahead(part.next_size)
    is_stopped = len(measured) < len(part.steps) or stop(part.steps.stop)
    return state, jax.device_get(measured), is_stopped


def _written(
    part: EpochSchedule, program: Program, progress: Progress, measured: list[Metrics], write: Callable[[Record], None]
) -> Progress:
    """Writes the records of the steps and returns the position after them.

    If the run stops at a step that is not finite, the position is the one before that step.
    """
    for found, (step, size, position, now, perturb) in zip(measured, part.scheduled, strict=False):
        metrics: dict[str, Any] = dict(found)
        if "skipped" in metrics:
            if metrics["skipped"] and program.on_nonfinite == "stop":
                break
            metrics["skipped"] = int(metrics["skipped"])
        record = StepRecord(step=step, epoch=position, batch_size=size, others={**now, **metrics})
        write(encode(record))
        # if the gradient decided, a measured norm shows that the step was perturbed
        is_perturbed = bool(np.isfinite(metrics["perturbation_norm"])) if perturb is None else perturb
        progress = progress.after(metrics, 1 + is_perturbed * program.second_pass_gradients)
    return progress


def _epoch_record(
    progress: Progress, plan: BatchPlan, num_examples: int, test: dict[str, float], on_nonfinite: str | None
) -> EpochRecord:
    noise, (loss, error) = progress.noise.deciding, progress.means
    return EpochRecord(
        epoch=progress.epoch + 1,
        step=progress.step,
        batch_size=plan.batch_size_at_step(progress.step - 1, num_examples),
        examples=plan.examples_used(progress.step, num_examples),
        gradient_evaluations=progress.gradient_evaluations,
        skipped=None if on_nonfinite is None else progress.skipped,
        train_loss=loss,
        train_error=error,
        noise_scale=None if noise is None else float(noise.scale),
        test_loss=test["loss"],
        test_error=test["error"],
    )
