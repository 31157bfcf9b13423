"""The compiled functions of a run, put together from data, augmentation, model and training."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from experiments import data
from experiments.architecture import Shape, network, shape_of
from experiments.config import Config
from experiments.evaluated import evaluated
from experiments.recipe import Constants, Recipe, constants_of, normalization, preparation, recipe_of
from experiments.training import descent, learning_rate, optimizer
from experiments.training.loop import Program
from experiments.training.methods import METHODS
from experiments.training.policies import GRADIENT_DECIDES, falling_bar
from experiments.training.step import TrainState, evaluation_step, initial_state, train_step

_EVALUATION_BATCH = 500


def build(config: Config, dataset: data.Dataset) -> tuple[TrainState, Program]:
    """The state before the first step, and the functions that move it on.

    Runs that differ in seed, plan, schedule and hyperparameters alone share what is compiled.
    """
    shape = shape_of(config, dataset)
    settings = optimizer.Settings(
        config.method, config.optimizer, config.momentum or 0.0, config.weight_decay, config.ema
    )
    decided_by_gradient = config.when == GRADIENT_DECIDES
    bar_steps = config.plan.total_steps(config.epoch_size(len(dataset.train))) if decided_by_gradient else None
    init, step = _training(shape, settings, bar_steps, config.m, recipe_of(config, dataset))
    constants = constants_of(config, dataset)
    program = Program(
        step=functools.partial(step, constants=constants),
        evaluate=functools.partial(_evaluate, config, dataset, constants),
        schedules=_schedules(config),
        perturb=_perturb(config, config.epoch_size(len(dataset.train))),
    )
    return initial_state(network(shape, config.seed), init), program


@functools.cache
def _training(
    shape: Shape, settings: optimizer.Settings, bar_steps: int | None, m: int | None, recipe: Recipe
) -> tuple[Callable[[Any], Any], Callable[..., Any]]:
    if bar_steps is not None:
        settings = settings._replace(when=falling_bar(bar_steps))
    if m is None:
        tx = optimizer.create(settings)
        descend = descent.whole(network(shape), tx, METHODS[settings.method].functional)
    else:
        tx = optimizer.create_parted(settings)
        descend = descent.in_shards(network(shape), tx, m)
    return tx.init, train_step(descend, preparation(recipe))


@functools.cache
def _evaluation(shape: Shape) -> Callable[..., Any]:
    return evaluation_step(network(shape), normalization)


def _evaluate(config: Config, dataset: data.Dataset, constants: Constants, state: TrainState) -> dict[str, float]:
    """Mean loss and error over all test examples."""
    step, examples = _evaluation(shape_of(config, dataset)), len(dataset.test)
    judged = evaluated(config, dataset, state)
    batches = data.evaluation_batches(dataset.test, min(_EVALUATION_BATCH, examples))
    sums = jax.device_get([step(*judged, batch, constants) for batch in batches])
    return {name: float(np.sum([each[name] for each in sums])) / examples for name in ("loss", "error")}


def _perturb(config: Config, num_examples: int) -> Callable[[int], bool | None]:
    """Whether a step makes a second pass, or None where its gradient decides."""
    if METHODS[config.method].passes == 1:
        return lambda step: False
    return config.policy(num_examples).at


def _schedules(config: Config) -> dict[str, Callable[[Any], Any]]:
    """Each hyperparameter that the run uses, over epochs."""
    rate = learning_rate.parse(config.lr_schedule, config.learning_rate, config.plan.epochs, config.warmup_epochs)
    fixed = {name: optax.constant_schedule(getattr(config, name)) for name in METHODS[config.method].uses}
    return {"learning_rate": rate} | fixed
