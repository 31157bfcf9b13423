"""The worst-case sharpness against the evaluations of loss and gradient that it cannot do without."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import jax

from experiments import data
from experiments.benchmarking import problem, steps
from experiments.benchmarking.cases import Case
from experiments.benchmarking.figure import Figure
from experiments.benchmarking.memory import peak_memory, size_of
from experiments.benchmarking.problem import Problem
from experiments.benchmarking.race import race
from sam_optax import sharpness
from sam_optax.sharpness import losses

BATCH_SIZE = 128
ROUNDS = 3  # a turn is a minute long, and a mean over 21 evaluations by itself

_STEPS, _RADIUS, _COPIES = 20, 0.0002, 4


def figures(case: Case, dataset: data.Dataset) -> list[Figure]:
    """Time in units of the bare evaluations, memory in units of a training step and four copies of the parameters."""
    if case.worst_case_targets is None:
        raise ValueError(f"case {case.model} has no worst_case_targets: give them.")
    shape = (case.model, dataset.num_classes, dataset.image_shape, BATCH_SIZE)
    still, training = problem.create(*shape, is_training=False), problem.create(*shape)
    loss_fn = _loss_fn(still)
    value_and_grad = jax.jit(jax.value_and_grad(loss_fn)).lower(still.params, still.batch).compile()

    def evaluations() -> None:
        for _ in range(_STEPS + 1):
            jax.block_until_ready(value_and_grad(still.params, still.batch))

    def worst_case(steps: int = _STEPS) -> None:
        jax.block_until_ready(sharpness.worst_case(loss_fn, still.params, [still.batch], rho=_RADIUS, steps=steps))

    subject, reference = f"worst case, {_STEPS} steps", f"{_STEPS + 1} values and gradients"
    seconds = race({subject: worst_case, reference: evaluations}, ROUNDS)
    amounts = tuple(seconds[subject]), tuple(seconds[reference])
    time_target, memory_target = case.worst_case_targets
    time = Figure(case.model, BATCH_SIZE, "time", subject, reference, time_target, "s", *amounts)
    evaluation, step = peak_memory(value_and_grad), peak_memory(steps.descent(training).compiled)
    if evaluation is None or step is None:
        return [time]
    peaks = (float(evaluation + _held(worst_case)),), (float(step + _COPIES * size_of(training.params)),)
    names = "worst case", f"SGD's step and {_COPIES} copies"
    return [time, Figure(case.model, BATCH_SIZE, "peak memory", *names, memory_target, "B", *peaks)]


def _held(worst_case: Callable[[int], None]) -> int:
    """The most bytes that an ascent holds while it evaluates, beside the arguments of the evaluation."""
    before, held = size_of(jax.live_arrays()), [0]

    def evaluate(*arguments: Any) -> Any:
        held.append(size_of(jax.live_arrays()) - before)
        return value_and_grad(*arguments)

    value_and_grad = losses.value_and_grad
    with mock.patch.object(losses, "value_and_grad", evaluate):
        worst_case(3)
    return max(held)


def _loss_fn(posed: Problem) -> Callable[..., jax.Array]:
    return lambda params, batch: posed.loss_fn(params, posed.model_state, *batch)[0]
