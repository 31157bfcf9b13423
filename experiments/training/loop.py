"""The loop around the compiled step: it reads batches, sets hyperparameters, evaluates, and writes down."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.training.step import Metrics, TrainState
from experiments.training.writers import Record
from sam_optax import BatchPlan


class Program(NamedTuple):
    """The functions that a run consists of.

    Attributes:
      step: `step(state, batch, hyperparameters, perturb=…)` → `(state, metrics)`.
      evaluate: `evaluate(state)` → mean `loss` and `error` on the test part.
      schedules: each hyperparameter as a function of the position in epochs.
      perturb: from the number of a step to whether it makes a second pass; None where its gradient decides.
    """

    step: Callable[[TrainState, Any, dict[str, Any]], tuple[TrainState, Metrics]]
    evaluate: Callable[[TrainState], dict[str, float]]
    schedules: dict[str, Callable[[Any], Any]]
    perturb: Callable[[int], bool | None]


def fit(
    state: TrainState,
    program: Program,
    batches: Iterator[Any],
    *,
    plan: BatchPlan,
    num_examples: int,
    write: Callable[[Record], None],
    watch: Callable[[Record, TrainState], None] | None = None,
) -> tuple[TrainState, Record]:
    """Train through the whole plan.

    What a step measures stays on the device until its epoch is over, so that no step waits for the host.

    Args:
      state: the state before the first step.
      program: what to do.
      batches: the training batches, in the plan's order.
      plan: the batch size of each epoch.
      num_examples: training examples.
      write: takes a record of kind `step` an update and one of kind `epoch` an epoch.
      watch: looks at the record of an epoch and at the state after it.

    Returns:
      The state after the last step, and the record of the last epoch.
    """
    first, evaluations, record = 0, 0, {}
    for epoch in range(plan.epochs):
        batch_size = plan.batch_size_at(epoch)
        steps = range(first, first + num_examples // batch_size)
        positions = [plan.epoch_at(step, num_examples) for step in steps]
        hyperparameters = _read(program.schedules, positions)
        decisions, measured = [program.perturb(step) for step in steps], []
        for now, perturb in zip(hyperparameters, decisions, strict=True):
            state, metrics = program.step(state, next(batches), now, perturb=perturb)
            measured.append(metrics)
        measured = jax.device_get(measured)
        evaluations += sum(map(_evaluations, decisions, measured))
        for step, position, now, metrics in zip(steps, positions, hyperparameters, measured, strict=True):
            write({"kind": "step", "step": step, "epoch": position, "batch_size": batch_size, **now, **metrics})
        so_far = {"epoch": epoch + 1, "step": steps.stop, "batch_size": batch_size, "gradient_evaluations": evaluations}
        record = {"kind": "epoch", **so_far, **_epoch_means(measured, program.evaluate(state))}
        write(record)
        if watch is not None:
            watch(record, state)
        first = steps.stop
    return state, record


def _read(schedules: dict[str, Callable[[Any], Any]], positions: list[float]) -> list[dict[str, np.ndarray]]:
    """The hyperparameters at each position, evaluated all at once."""
    where = np.asarray(positions, np.float32)
    values = {name: np.broadcast_to(schedule(where), where.shape) for name, schedule in schedules.items()}
    return [{name: value[i] for name, value in values.items()} for i in range(len(positions))]


def _evaluations(perturb: bool | None, metrics: Metrics) -> int:
    """The gradient evaluations of a step; where its gradient decided, what it measured tells."""
    return 1 + (bool(np.isfinite(metrics["perturbation_norm"])) if perturb is None else perturb)


def _epoch_means(measured: list[Metrics], test: dict[str, float]) -> Record:
    train = {f"train_{name}": np.mean([metrics[name] for metrics in measured]) for name in ("loss", "error")}
    return train | {f"test_{name}": value for name, value in test.items()}
