"""What a step of a method takes, averaged over steps with and without a second pass."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments import data
from experiments.benchmarking.race import Subject, race
from experiments.config import Config
from experiments.runner.program import build
from sam_optax import BatchPlan

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
