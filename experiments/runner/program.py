"""The compiled functions of a run, put together from data, augmentation, model and training."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from experiments import data
from experiments.config import Config
from experiments.runner.image_pipeline import Constants, Recipe, constants_of, normalization, preparation, recipe_of
from experiments.runner.networks import Shape, evaluated, network, shape_of
from experiments.training import learning_rate, loss_and_update, optimizer
from experiments.training.accumulation import MicroBatchStep
from experiments.training.loop import Program
from experiments.training.methods import GRADIENT_DECIDES, METHODS, falling_bar
from experiments.training.precompile import Decisions, PrecompiledStep
from experiments.training.sharding import Sharding
from experiments.training.step import TrainState, evaluation_step, initial_state, train_step

_EVALUATION_BATCH = 500


def build(config: Config, dataset: data.Dataset, sharding: Sharding = Sharding()) -> tuple[TrainState, Program]:
    """The state before the first step, and the functions that move it on.

    Runs that differ in seed, plan, schedule and hyperparameters alone share what is compiled.
    """
    shape = shape_of(config, dataset)
    settings = optimizer.Settings(
        config.method,
        config.optimizer,
        config.momentum or 0.0,
        config.weight_decay,
        config.ema,
        ascent_steps=config.ascent_steps or 1,
    )
    decided_by_gradient = config.when == GRADIENT_DECIDES
    bar_steps = config.plan.total_steps(config.epoch_size(len(dataset.train))) if decided_by_gradient else None
    spread = {"in_shards": config.in_shards, "m": config.m, "sharding": sharding}
    spread |= {"skips_nonfinite": config.on_nonfinite is not None, "micro_batch": config.micro_batch}
    spread |= {"measures_noise": config.adaptive is not None}
    init, step = _training(shape, settings, bar_steps, recipe_of(config, dataset), **spread)
    constants = sharding.copied(constants_of(config, dataset))
    perturb = _perturb(config, config.epoch_size(len(dataset.train)))
    program = Program(
        **_moving(step, constants, sharding, functools.partial(_decisions, config, len(dataset.train), perturb)),
        evaluate=functools.partial(_evaluate, config, dataset, constants, sharding),
        schedules=_schedules(config),
        perturb=perturb,
        second_pass_gradients=config.second_pass_gradients,
        on_nonfinite=config.on_nonfinite,
    )
    return sharding.state(initial_state(network(shape, config.seed), init)), program


def _moving(step: Any, constants: Constants, sharding: Sharding, decisions: Decisions) -> dict[str, Any]:
    """What of a program makes steps; where batches go to the device whole, each size has one, compiled ahead."""
    if isinstance(step, MicroBatchStep):
        of_host = functools.partial(step, constants=constants)
        return {"step": of_host, "send": lambda batch: batch, "prepare": lambda size: None, "close": lambda: None}
    ahead = PrecompiledStep(step, constants, decisions)
    return {"step": ahead, "send": sharding.batch, "prepare": ahead.prepare, "close": ahead.close}


@functools.cache
def _training(
    shape: Shape,
    settings: optimizer.Settings,
    bar_steps: int | None,
    recipe: Recipe,
    *,
    in_shards: bool,
    m: int | None,
    micro_batch: int | None,
    sharding: Sharding,
    skips_nonfinite: bool,
    measures_noise: bool,
) -> tuple[Callable[[Any], Any], Callable[..., Any]]:
    if bar_steps is not None:
        settings = settings._replace(when=falling_bar(bar_steps))
    how = {"keep": sharding.kept, "skips_nonfinite": skips_nonfinite}
    if micro_batch is not None:
        tx = optimizer.create(settings)
        passes = loss_and_update.passes(network(shape), METHODS[settings.method].functional, sharding)
        size = micro_batch // sharding.part[1]
        how |= {"send": sharding.batch, "noise_of": micro_batch if measures_noise else None}
        return tx.init, MicroBatchStep(passes, tx, preparation(recipe), size, **how)
    if in_shards:
        tx = optimizer.create_parted(settings)
        descend = loss_and_update.in_shards(network(shape), tx, m, sharding)
    else:
        tx = optimizer.create(settings)
        descend = loss_and_update.whole(network(shape), tx, METHODS[settings.method].functional, sharding)
    return tx.init, train_step(descend, preparation(recipe), **how)


@functools.cache
def _evaluation(shape: Shape) -> Callable[..., Any]:
    return evaluation_step(network(shape), normalization)


def _evaluate(
    config: Config, dataset: data.Dataset, constants: Constants, sharding: Sharding, state: TrainState
) -> dict[str, float]:
    """Mean loss and error over all test examples."""
    step, examples = _evaluation(shape_of(config, dataset)), len(dataset.test)
    judged = _judged(config, dataset, sharding, state)
    batch_size = sharding.divided(min(_EVALUATION_BATCH, examples))
    batches = data.evaluation_batches(dataset.test, batch_size, sharding.part)
    sums = jax.device_get([step(*judged, sharding.batch(batch), constants) for batch in batches])
    return {name: float(np.sum([each[name] for each in sums])) / examples for name in ("loss", "error")}


def _judged(config: Config, dataset: data.Dataset, sharding: Sharding, state: TrainState) -> tuple[Any, Any]:
    """The parameters and the model's state that are evaluated; statistics are taken anew on each process by itself."""
    if not config.ema:
        return evaluated(config, dataset, state)
    return sharding.copied(evaluated(config, dataset, sharding.whole(state)))


def _perturb(config: Config, num_examples: int) -> Callable[[int], bool | None]:
    """Whether a step makes a second pass, or None where its gradient decides."""
    if not METHODS[config.method].makes_second_pass:
        return lambda step: False
    return config.policy(num_examples).at


def _decisions(
    config: Config, num_examples: int, perturb: Callable[[int], bool | None], batch_size: int
) -> set[bool | None]:
    """What `perturb` says of the steps with batches of this size."""
    found: set[bool | None] = set()
    first, size = 0, config.epoch_size(num_examples)
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
    rate = learning_rate.parse(config.lr_schedule, config.learning_rate, config.plan.epochs, config.warmup_epochs)
    fixed = {name: optax.constant_schedule(getattr(config, name)) for name in METHODS[config.method].uses}
    return {"learning_rate": rate} | fixed
