"""Costs of the methods with skipped steps, and of the worst-case sharpness, in gradients."""

from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from experiments import data
from experiments.benchmark import benchmark_steps
from experiments.benchmark.benchmark_steps import Problem
from experiments.benchmark.cases import Case
from experiments.benchmark.memory import peak_memory, size_of
from experiments.benchmark.race import Subject, race
from experiments.benchmark.ratios import Figure
from experiments.config import Config
from experiments.runner.program import build
from sam_optax import BatchPlan, sharpness
from sam_optax.sharpness import losses

STEPS = 10
"""A turn: every period of a policy that is measured divides it."""


def race_configs(configs: Mapping[str, Config], dataset: data.Dataset, rounds: int) -> dict[str, list[float]]:
    """The seconds of a step of each config, the mean over `STEPS`, in each round.

    Args:
      configs: what to time, by name.
      dataset: its data.
      rounds: how often each has a turn.

    Returns:
      `rounds` numbers a config; those at one place in the lists were timed together.
    """
    seconds = race({name: steps(config, dataset) for name, config in configs.items()}, rounds)
    return {name: [each / STEPS for each in turns] for name, turns in seconds.items()}


def steps(config: Config, dataset: data.Dataset, updates: int = STEPS) -> Subject:
    """The compiled step that training runs, on one batch and hyperparameters that stay on the device.

    Args:
      config: what to train; of its plan the first batch size is taken.
      dataset: its data.
      updates: steps a call.

    Returns:
      A function that makes them, the state moving on, second passes where the config has them.
    """
    state, program = build(config, dataset)
    batch = _batch(config, dataset)
    hyperparameters = {name: jnp.float32(schedule(0.0)) for name, schedule in program.schedules.items()}
    run: Callable[..., Any] = program.step

    def turn() -> None:
        nonlocal state
        metrics = None
        for i in range(updates):
            state, metrics = run(state, batch, hyperparameters, perturb=program.perturb(i))
        jax.block_until_ready((state, metrics))

    return turn


def _batch(config: Config, dataset: data.Dataset) -> Any:
    plan = BatchPlan.constant(config.plan.stages[0].batch_size, 1)
    return jax.tree.map(jnp.asarray, next(iter(data.training_batches(dataset.train, plan, config.seed))))


BATCH_SIZE = 128
ROUNDS = 3  # a turn is a minute long, and a mean over 21 evaluations by itself

_STEPS, _RADIUS, _COPIES = 20, 0.0002, 4


def figures(case: Case, dataset: data.Dataset) -> list[Figure]:
    """Time in units of the bare evaluations, memory in units of a training step and four copies of the parameters."""
    if case.worst_case_targets is None:
        raise ValueError(f"case {case.model} has no worst_case_targets: give them.")
    shape = (case.model, dataset.num_classes, dataset.image_shape, BATCH_SIZE)
    still, training = benchmark_steps.create(*shape, is_training=False), benchmark_steps.create(*shape)
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
    evaluation, step = peak_memory(value_and_grad), peak_memory(benchmark_steps.descent(training).compiled)
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
