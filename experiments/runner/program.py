"""The compiled functions of a run, put together from data, augmentation, model and training."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

import sam_optax
from experiments import data
from experiments.config import Config
from experiments.data.stream import evaluation_batches
from experiments.runner.image_pipeline import (
    Constants,
    PreparationSettings,
    constants_of,
    normalization,
    preparation,
    preparation_settings,
)
from experiments.runner.networks import Shape, evaluated, network, shape_of
from experiments.training import learning_rate, loss_and_update, optimizer
from experiments.training.accumulation import MicroBatchStep
from experiments.training.loop import Program
from experiments.training.methods import GRADIENT_DECIDES, METHODS
from experiments.training.prefetch import PrecompiledStep
from experiments.training.sharding import Sharding
from experiments.training.step import TrainState, evaluation_step, initial_state, train_step

_EVALUATION_BATCH = 500


@dataclass(frozen=True)
class _StepOptions:
    """How a step divides its batch, and what it does in addition to the update."""

    in_shards: bool
    m: int | None
    micro_batch: int | None
    skips_nonfinite: bool
    measures_noise: bool


def build(config: Config, dataset: data.Dataset, sharding: Sharding = Sharding()) -> tuple[TrainState, Program]:
    """The state before the first step, and the functions of the run.

    Runs that differ in seed, plan, schedule and hyperparameters alone share what is compiled.
    """
    shape, num_examples = shape_of(config, dataset), len(dataset.train)
    constants, perturb = sharding.copied(constants_of(config, dataset)), _perturb(config, num_examples)
    skips, measures = config.descent.on_nonfinite is not None, config.adaptive is not None
    options = _StepOptions(config.descent.in_shards, config.descent.m, config.descent.micro_batch, skips, measures)
    settings = _optimizer_settings(config, num_examples)
    init, update = _training(shape, settings, preparation_settings(config, dataset), sharding, options)
    program = Program(
        functools.partial(update, constants=constants),
        functools.partial(_evaluate, config, dataset, constants, sharding),
        _schedules(config),
        perturb,
        config.second_pass_gradients,
        config.descent.on_nonfinite,
    )
    if not isinstance(update, MicroBatchStep):  # batches go to the device whole: each size has a step, compiled ahead
        ahead = PrecompiledStep(update, constants, functools.partial(_decisions, config, num_examples, perturb))
        program = dataclasses.replace(
            program, step=ahead, send=sharding.batch, prepare=ahead.prepare, close=ahead.close
        )
    return sharding.state(initial_state(network(shape, config.seed), init)), program


def _optimizer_settings(config: Config, num_examples: int) -> optimizer.Settings:
    return optimizer.Settings(
        config.method,
        config.descent.optimizer,
        config.descent.momentum or 0.0,
        config.descent.weight_decay,
        config.descent.ema,
        config.plan.total_steps(config.recipe.epoch_size(num_examples)) if config.when == GRADIENT_DECIDES else None,
        config.constants,
    )


@functools.cache
def _training(
    shape: Shape, settings: optimizer.Settings, images: PreparationSettings, sharding: Sharding, options: _StepOptions
) -> tuple[Callable[[Any], Any], Callable[..., Any]]:
    """The function that makes the optimizer's state, and the step."""
    model, prepare, skips = network(shape), preparation(images), options.skips_nonfinite
    functional = METHODS[settings.method].functional
    if options.micro_batch is not None:
        tx, passes = optimizer.create(settings), loss_and_update.passes(model, functional, sharding)
        noise = options.measures_noise
        step = MicroBatchStep(
            passes, tx, prepare, options.micro_batch, sharding, skips_nonfinite=skips, measures_noise=noise
        )
        return tx.init, step
    if options.in_shards:
        tx = optimizer.create_parted(settings)
        descend = loss_and_update.in_shards(model, tx, options.m, sharding)
    else:
        tx = optimizer.create(settings)
        descend = loss_and_update.whole(model, tx, functional, sharding)
    return tx.init, train_step(descend, prepare, sharding, skips_nonfinite=skips)


@functools.cache
def _evaluation(shape: Shape) -> Callable[..., Any]:
    return evaluation_step(network(shape), normalization)


def _evaluate(
    config: Config, dataset: data.Dataset, constants: Constants, sharding: Sharding, state: TrainState
) -> dict[str, float]:
    """Mean loss and error over all test examples."""
    evaluate, examples = _evaluation(shape_of(config, dataset)), len(dataset.test)
    # an average's statistics are taken anew, on each process by itself
    params, model_state = evaluated(config, dataset, sharding.whole(state) if config.descent.ema else state)
    if config.descent.ema:
        params, model_state = sharding.copied((params, model_state))
    batch_size = sharding.divided(min(_EVALUATION_BATCH, examples))
    batches = evaluation_batches(dataset.test, batch_size, sharding.part)
    sums = jax.device_get([evaluate(params, model_state, sharding.batch(batch), constants) for batch in batches])
    return {name: float(np.sum([each[name] for each in sums])) / examples for name in ("loss", "error")}


def _perturb(config: Config, num_examples: int) -> Callable[[int], bool | None]:
    """Whether a step makes a second pass, or None if its gradient decides."""
    if not METHODS[config.method].makes_second_pass:
        return lambda step: False
    return config.policy(config.recipe.epoch_size(num_examples)).at


def _decisions(
    config: Config, num_examples: int, perturb: Callable[[int], bool | None], batch_size: int
) -> set[bool | None]:
    """What `perturb` returns at the steps with batches of this size."""
    found: set[bool | None] = set()
    first, size = 0, config.recipe.epoch_size(num_examples)
    for stage in config.plan.stages:
        last = first + stage.epochs * (size // stage.batch_size)
        for step in range(first, last) if stage.batch_size == batch_size else ():
            found.add(perturb(step))
            if len(found) > 1:
                return found
        first = last
    return found


def _schedules(config: Config) -> dict[str, Callable[[Any], Any]]:
    """Each hyperparameter that the run uses, over epochs."""
    rate = learning_rate.parse(
        config.lr_schedule, config.descent.learning_rate, config.plan.epochs, config.descent.warmup_epochs
    )
    found = {name: optax.constant_schedule(config.settings[name]) for name in METHODS[config.method].uses}
    rho_min, rho = config.descent.rho_min, config.descent.rho or 0.0
    if rho_min is not None:
        found["rho"] = sam_optax.proportional_schedule(rate, 0.0, config.descent.learning_rate, rho_min, rho)
    return {"learning_rate": rate} | found
