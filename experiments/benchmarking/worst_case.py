"""The worst-case sharpness against the evaluations of loss and gradient that it cannot do without."""

import math
from collections.abc import Callable
from typing import Any

import jax

from experiments import data
from experiments.benchmarking import problem, steps
from experiments.benchmarking.cases import Case
from experiments.benchmarking.figure import Figure
from experiments.benchmarking.memory import peak_memory
from experiments.benchmarking.problem import Problem
from experiments.benchmarking.race import race
from sam_optax import sharpness

BATCH_SIZE = 128
ROUNDS = 3  # a turn is a minute long, and a mean over 21 evaluations by itself

_STEPS, _RADIUS, _COPIES = 20, 0.0002, 4


def figures(case: Case, dataset: data.Dataset) -> list[Figure]:
    """Time in units of the bare evaluations, memory in units of a training step and four copies of the parameters."""
    if case.worst_case_targets is None:
        raise ValueError(f"case {case.model} has no worst_case_targets: give them.")
    shape = (case.model, dataset.num_classes, dataset.image_shape, BATCH_SIZE)
    still, training = problem.create(*shape, is_training=False), problem.create(*shape)
    loss_fn, batches = _loss_fn(still), [still.batch]
    value_and_grad = jax.jit(jax.value_and_grad(loss_fn)).lower(still.params, still.batch).compile()

    def evaluations() -> None:
        for _ in range(_STEPS + 1):
            jax.block_until_ready(value_and_grad(still.params, still.batch))

    def worst_case() -> None:
        jax.block_until_ready(sharpness.worst_case(loss_fn, still.params, batches, rho=_RADIUS, steps=_STEPS))

    subject, reference = f"worst case, {_STEPS} steps", f"{_STEPS + 1} values and gradients"
    seconds = race({subject: worst_case, reference: evaluations}, ROUNDS)
    amounts = tuple(seconds[subject]), tuple(seconds[reference])
    time_target, memory_target = case.worst_case_targets
    time = Figure(case.model, BATCH_SIZE, "time", subject, reference, time_target, "s", *amounts)
    return [time, *_memory(case, memory_target, value_and_grad, training)]


def _memory(case: Case, target: float, value_and_grad: Any, training: Problem) -> list[Figure]:
    """Beside an evaluation the ascent holds its centre, its last and its best point, and the gradient there."""
    step = steps.descent(training)
    evaluation, whole_step = peak_memory(value_and_grad), peak_memory(step.compiled)
    if evaluation is None or whole_step is None:
        return []
    copies = _COPIES * sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(training.params))
    amounts = (evaluation + copies,), (whole_step + copies,)
    names = "worst case", f"SGD's step and {_COPIES} copies"
    return [Figure(case.model, BATCH_SIZE, "peak memory", *names, target, "B", *amounts)]


def _loss_fn(posed: Problem) -> Callable[..., jax.Array]:
    return lambda params, batch: posed.loss_fn(params, posed.model_state, *batch)[0]
