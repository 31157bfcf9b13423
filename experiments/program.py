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
from experiments.training.optimizer import METHODS
from experiments.training.step import TrainState, evaluation_step, initial_state, train_step

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
    tx, step = _training(shape, optimizer_of, dataset.crop_padding, dataset.flip)
    key = jax.random.key(config.seed)
    constants = Constants(key, jnp.asarray(dataset.mean), jnp.asarray(dataset.std))
    model = models.create(*shape, nnx.Rngs(config.seed))
    program = Program(
        step=functools.partial(step, constants=constants),
        evaluate=functools.partial(_evaluate, _evaluation(shape), dataset.test, constants),
        schedules=_schedules(config),
    )
    return initial_state(model, tx), program


@functools.cache
def _training(
    shape: tuple[Any, ...], optimizer_of: tuple[Any, ...], crop_padding: int, flip: bool
) -> tuple[optax.GradientTransformationExtraArgs, Callable[..., Any]]:
    tx = optimizer.create(*optimizer_of)

    def prepare(batch: Any, constants: Constants) -> jax.Array:
        images, positions = batch["image"], batch["position"]
        for_crop, for_flip = jax.random.split(constants.key)
        if crop_padding:
            keys = augmentation.example_keys(for_crop, positions)
            images = augmentation.random_crop(keys, images, crop_padding)
        if flip:
            images = augmentation.random_flip(augmentation.example_keys(for_flip, positions), images)
        return augmentation.normalize(images, constants.mean, constants.std)

    return tx, train_step(models.create(*shape, nnx.Rngs(0)), tx, prepare)


@functools.cache
def _evaluation(shape: tuple[Any, ...]) -> Callable[..., Any]:
    def prepare(batch: Any, constants: Constants) -> jax.Array:
        return augmentation.normalize(batch["image"], constants.mean, constants.std)

    return evaluation_step(models.create(*shape, nnx.Rngs(0)), prepare)


def _evaluate(step: Callable[..., Any], test: data.Split, constants: Constants, state: TrainState) -> dict[str, float]:
    """Mean loss and error over all test examples."""
    batches = data.evaluation_batches(test, min(_EVALUATION_BATCH, len(test)))
    sums = jax.device_get([step(state, batch, constants) for batch in batches])
    return {name: float(np.sum([each[name] for each in sums])) / len(test) for name in ("loss", "error")}


def _schedules(config: Config) -> dict[str, Callable[[Any], Any]]:
    """Each hyperparameter that the run uses, over epochs."""
    rate = SCHEDULES[config.lr_schedule](config.learning_rate, config.plan.epochs)
    fixed = {name: optax.constant_schedule(getattr(config, name)) for name in METHODS[config.method].uses}
    return {"learning_rate": rate} | fixed
