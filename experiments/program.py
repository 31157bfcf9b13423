"""The compiled functions of a run, put together from data, augmentation, model and training."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import augmentation, data, models
from experiments.config import Config
from experiments.training import optimizer
from experiments.training.learning_rate import SCHEDULES
from experiments.training.loop import Program
from experiments.training.methods import METHODS
from experiments.training.policies import GRADIENT_DECIDES, falling_bar
from experiments.training.step import TrainState, evaluation_step, initial_state, train_step
from sam_optax import always

_EVALUATION_BATCH = 500


class Constants(NamedTuple):
    """What every step of a run reads: the augmentation's key, and the training images' moments a channel."""

    key: jax.Array
    mean: jax.Array
    std: jax.Array


def build(config: Config, dataset: data.Dataset) -> tuple[TrainState, Program]:
    """The state before the first step, and the functions that move it on.

    Runs that differ in seed, plan, schedule and hyperparameters alone share what is compiled.
    """
    shape = (config.model, dataset.num_classes, dataset.image_shape)
    optimizer_of = (config.method, config.optimizer, config.momentum, config.weight_decay)
    decided_by_gradient = config.when == GRADIENT_DECIDES
    bar_steps = config.plan.total_steps(len(dataset.train)) if decided_by_gradient else None
    tx, step = _training(shape, optimizer_of, bar_steps, dataset.crop_padding, dataset.flip)
    key = jax.random.key(config.seed)
    constants = Constants(key, jnp.asarray(dataset.mean), jnp.asarray(dataset.std))
    model = models.create(*shape, nnx.Rngs(config.seed))
    program = Program(
        step=functools.partial(step, constants=constants),
        evaluate=functools.partial(_evaluate, _evaluation(shape, config.method), dataset.test, constants),
        schedules=_schedules(config),
        perturb=_perturb(config, len(dataset.train)),
    )
    return initial_state(model, tx), program


@functools.cache
def _training(
    shape: tuple[Any, ...], optimizer_of: tuple[Any, ...], bar_steps: int | None, crop_padding: int, flip: bool
) -> tuple[optax.GradientTransformationExtraArgs, Callable[..., Any]]:
    when = always() if bar_steps is None else falling_bar(bar_steps)
    tx = optimizer.create(*optimizer_of, when)
    functional = METHODS[optimizer_of[0]].functional

    def prepare(batch: Any, constants: Constants) -> jax.Array:
        images, positions = batch["image"], batch["position"]
        for_crop, for_flip = jax.random.split(constants.key)
        if crop_padding:
            keys = augmentation.example_keys(for_crop, positions)
            images = augmentation.random_crop(keys, images, crop_padding)
        if flip:
            images = augmentation.random_flip(augmentation.example_keys(for_flip, positions), images)
        return augmentation.normalize(images, constants.mean, constants.std)

    return tx, train_step(models.create(*shape, nnx.Rngs(0)), tx, prepare, functional)


@functools.cache
def _evaluation(shape: tuple[Any, ...], method: str) -> Callable[..., Any]:
    def prepare(batch: Any, constants: Constants) -> jax.Array:
        return augmentation.normalize(batch["image"], constants.mean, constants.std)

    return evaluation_step(models.create(*shape, nnx.Rngs(0)), prepare, METHODS[method].evaluated)


def _evaluate(step: Callable[..., Any], test: data.Split, constants: Constants, state: TrainState) -> dict[str, float]:
    """Mean loss and error over all test examples."""
    batches = data.evaluation_batches(test, min(_EVALUATION_BATCH, len(test)))
    sums = jax.device_get([step(state, batch, constants) for batch in batches])
    return {name: float(np.sum([each[name] for each in sums])) / len(test) for name in ("loss", "error")}


def _perturb(config: Config, num_examples: int) -> Callable[[int], bool | None]:
    """Whether a step makes a second pass, or None where its gradient decides."""
    if METHODS[config.method].passes == 1:
        return lambda step: False
    return config.policy(num_examples).at


def _schedules(config: Config) -> dict[str, Callable[[Any], Any]]:
    """Each hyperparameter that the run uses, over epochs."""
    rate = SCHEDULES[config.lr_schedule](config.learning_rate, config.plan.epochs)
    fixed = {name: optax.constant_schedule(getattr(config, name)) for name in METHODS[config.method].uses}
    return {"learning_rate": rate} | fixed
