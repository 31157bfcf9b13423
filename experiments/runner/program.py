"""Builds the network of a run and its compiled functions from data, augmentation, model and training.

Networks of one architecture share their compiled functions.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import sam_optax
from experiments import augmentation, data, models
from experiments.config import Config
from experiments.data.stream import evaluation_batches
from experiments.runner import image_pipeline
from experiments.runner.image_pipeline import Constants, PreparationSettings
from experiments.training import learning_rate, loss_and_update, optimizer, padded_step
from experiments.training.accumulation import MicroBatchStep
from experiments.training.epoch_schedule import Perturb
from experiments.training.loop import Program
from experiments.training.methods import GRADIENT_DECIDES, METHODS, MINIMA
from experiments.training.padded_step import Padding
from experiments.training.prefetch import PrecompiledStep
from experiments.training.sharding import Sharding
from experiments.training.step import TrainState, evaluation_step, initial_state, train_step

_EVALUATION_BATCH = 125  # on a CPU core, ResNet-8 takes 1.4 times as long with 500, whose activations exceed its caches
_STATISTICS_BATCH = 500


class Architecture(NamedTuple):
    """The architecture of a network.

    Attributes:
      model: the name of the model.
      num_classes: the number of classes.
      image_shape: the height, the width and the number of channels of an image.
      options: the options of the model, each with its value.
    """

    model: str
    num_classes: int
    image_shape: models.ImageShape
    options: tuple[tuple[str, Any], ...]


def architecture_of(config: Config, dataset: data.Dataset) -> Architecture:
    """Returns the architecture of a run."""
    return Architecture(config.network.model, dataset.num_classes, dataset.image_shape, config.network.options)


def network(architecture: Architecture, seed: int = 0) -> nnx.Module:
    """Returns a network of this architecture, initialised from the seed."""
    model, num_classes, image_shape, options = architecture
    return models.create(model, num_classes, image_shape, nnx.Rngs(seed), **dict(options))


def build(config: Config, dataset: data.Dataset, sharding: Sharding = Sharding()) -> tuple[TrainState, Program]:
    """Returns the state before the first step, and the functions of the run.

    Runs that differ only in seed, plan, schedule and hyperparameters share their compiled functions.
    """
    architecture, descent = architecture_of(config, dataset), config.descent
    size = config.recipe.epoch_size(len(dataset.train))
    constants = sharding.copied(image_pipeline.constants_of(config, dataset))
    perturb = config.policy(size).at if METHODS[config.method].makes_second_pass else lambda step: False
    total = config.plan.total_steps(size) if config.when == GRADIENT_DECIDES else None
    base = (descent.optimizer, descent.momentum or 0.0, descent.weight_decay)
    settings = optimizer.Settings(config.method, *base, descent.ema, total, config.constants, _posterior(config, size))
    images = image_pipeline.preparation_settings(config, dataset)
    part, skips, noise = descent.m or descent.micro_batch, descent.on_nonfinite is not None, config.adaptive is not None
    common = architecture, settings, images
    if padding := _padding(config):
        check_compile_once(config, dataset, sharding)
        init, update = _padded_training(*common, padding.parts, skips=skips)
    else:
        in_shards = descent.in_shards
        init, update = _training(*common, sharding, in_shards=in_shards, part=part, skips=skips, measures_noise=noise)
    step = functools.partial(update, constants=constants)
    evaluate = functools.partial(_evaluate, config, dataset, constants, sharding)
    program = Program(
        step, evaluate, schedules(config, size), perturb, config.second_pass_gradients, descent.on_nonfinite
    )
    if padding is not None:
        program = replace(program, send=padding.send)
    elif not isinstance(update, MicroBatchStep):  # each batch size has its own step, compiled in advance
        ahead = PrecompiledStep(update, constants, functools.partial(_decisions, config, size, perturb))
        program = replace(
            program, step=ahead, send=sharding.batch, compile_ahead=ahead.compile_ahead, close=ahead.close
        )
    return sharding.state(initial_state(network(architecture, config.seed), init)), program


def _posterior(config: Config, size: int) -> optimizer.Posterior | None:
    return optimizer.Posterior(float(size), config.seed) if METHODS[config.method].bayesian else None


@functools.cache
def _training(
    architecture: Architecture,
    settings: optimizer.Settings,
    images: PreparationSettings,
    sharding: Sharding,
    *,
    in_shards: bool,
    part: int | None,
    skips: bool,
    measures_noise: bool,
) -> tuple[Callable[[Any], Any], Callable[..., Any]]:
    """Returns the function that initialises the optimizer's state, and the step.

    `part` is the size of the shards or of the micro-batches.
    """
    model, prepare = network(architecture), image_pipeline.preparation(images)
    functional = METHODS[settings.method].functional
    if in_shards:
        parted = optimizer.create_parted(settings)
        descend = loss_and_update.in_shards(model, parted, part, sharding)
        return parted.init, train_step(descend, prepare, sharding, skips_nonfinite=skips)
    tx = optimizer.create(settings)
    if settings.posterior is not None:
        descend = loss_and_update.bayesian(model, tx, settings.posterior.seed)
        return tx.init, train_step(descend, prepare, sharding, skips_nonfinite=skips)
    if part is None:
        descend = loss_and_update.whole(model, tx, functional, sharding)
        return tx.init, train_step(descend, prepare, sharding, skips_nonfinite=skips)
    passes = loss_and_update.passes(model, functional, sharding)
    return tx.init, MicroBatchStep(passes, tx, prepare, part, sharding, skips, measures_noise, functional)


def _padding(config: Config) -> Padding | None:
    """Returns how batches are padded, if one step is compiled for all batch sizes."""
    part = config.descent.micro_batch
    if not config.descent.compile_once or part is None:
        return None
    return Padding(max(stage.batch_size for stage in config.plan.stages), part)


@functools.cache
def _padded_training(
    architecture: Architecture, settings: optimizer.Settings, images: PreparationSettings, parts: int, *, skips: bool
) -> tuple[Callable[[Any], Any], Callable[..., Any]]:
    """Returns the same as `_training`, with one step for all batch sizes."""
    tx, prepare = optimizer.create(settings), padded_step.prepared(image_pipeline.preparation(images))
    return tx.init, train_step(padded_step.padded(network(architecture), tx, parts), prepare, skips_nonfinite=skips)


def check_compile_once(config: Config, dataset: data.Dataset, sharding: Sharding = Sharding()) -> None:
    """Refuses a network with BatchNorm, and several devices, if one step is compiled for all batch sizes.

    Raises:
      ValueError: If `compile_once` is set, and the network has statistics or there are several devices.
    """
    if not config.descent.compile_once:
        return
    if sharding.devices > 1:
        raise ValueError(
            f"compile_once is True, and the run has {sharding.devices} devices: omit it, or use one device."
        )
    model = nnx.eval_shape(lambda: network(architecture_of(config, dataset)))
    if any(map(_is_statistic, jax.tree.leaves(nnx.state(model, nnx.Not(nnx.Param))))):
        raise ValueError(
            f"compile_once is True, and {config.network.model} has BatchNorm, whose statistics would be those of the "
            "parts of a batch: omit compile_once."
        )


@functools.cache
def _evaluation(architecture: Architecture) -> Callable[..., Any]:
    return evaluation_step(network(architecture), image_pipeline.normalization)


def _evaluate(
    config: Config, dataset: data.Dataset, constants: Constants, sharding: Sharding, state: TrainState
) -> dict[str, float]:
    """Computes the mean loss and error over all test examples."""
    evaluate, examples = _evaluation(architecture_of(config, dataset)), len(dataset.test)
    # each process estimates BatchNorm's statistics for averaged parameters separately
    params, model_state = evaluated(config, dataset, sharding.whole(state) if config.descent.ema else state)
    if config.descent.ema:
        params, model_state = sharding.copied((params, model_state))
    batch_size = sharding.divided(min(_EVALUATION_BATCH, examples))
    batches = evaluation_batches(dataset.test, batch_size, sharding.part)
    sums = jax.device_get([evaluate(params, model_state, sharding.batch(batch), constants) for batch in batches])
    return {name: float(np.sum([each[name] for each in sums])) / examples for name in ("loss", "error")}


def evaluated(config: Config, dataset: data.Dataset, state: TrainState) -> tuple[Any, Any]:
    """Returns the parameters and the model state to evaluate: the running average if there is one.

    BatchNorm's running statistics belong to the last parameters. For averaged parameters they are estimated again from
    the training images without augmentation.

    Args:
      config: the config of the run.
      dataset: the data of the run.
      state: the training state.

    Returns:
      `(params, model_state)`.
    """
    if not config.descent.ema:
        return METHODS[config.method].evaluated(state.opt_state, state.params), state.model_state
    params = optimizer.weight_average(state.opt_state)
    return params, with_own_statistics(config, dataset, params, state.model_state)


def with_own_statistics(
    config: Config, dataset: data.Dataset, params: Any, model_state: Any, batch_size: int = _STATISTICS_BATCH
) -> Any:
    """Returns the model state with BatchNorm's statistics at these parameters, from images without augmentation."""
    images = (batch["image"] for batch in stored_batches(dataset, len(dataset.train), batch_size))
    return _reestimation(architecture_of(config, dataset))(params, model_state, images)


def stored_batches(dataset: data.Dataset, examples: int, batch_size: int) -> Iterator[dict[str, jax.Array]]:
    """Yields the first training examples as `image` and `label`, normalised but not augmented.

    The last batch may be smaller.
    """
    examples = min(examples, len(dataset.train))
    mean, std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
    for start in range(0, examples, batch_size):
        images, labels = dataset.train.rows(np.arange(start, min(start + batch_size, examples)))
        yield {"image": augmentation.normalize(jnp.asarray(images), mean, std), "label": jnp.asarray(labels)}


@functools.cache
def _reestimation(architecture: Architecture) -> Callable[[Any, Any, Iterable[jax.Array]], Any]:
    """Returns the function that estimates BatchNorm's statistics again.

    Args:
      architecture: the architecture.

    Returns:
      `reestimate(params, model_state, batches)` → the model state with BatchNorm's statistics as means over all batches
      of images, weighted by batch size; leaves that are not of a floating type do not change.
    """
    model = network(architecture)
    model.train()
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            module.momentum = 0.0  # the weight of the past: the statistics are those of the batch
    graphdef = nnx.graphdef(model)

    @jax.jit
    def state_after(params: Any, model_state: Any, images: jax.Array) -> Any:
        moving = nnx.merge(graphdef, params, model_state, copy=True)
        moving(images)
        return nnx.as_pure(nnx.state(moving, nnx.Not(nnx.Param)))

    def reestimate(params: Any, model_state: Any, batches: Iterable[jax.Array]) -> Any:
        if not any(map(_is_statistic, jax.tree.leaves(model_state))):
            return model_state
        total, examples = jax.tree.map(jnp.zeros_like, model_state), 0
        for images in batches:
            state, size = state_after(params, model_state, images), len(images)
            total = jax.tree.map(lambda x, y, n=size: x + n * y if _is_statistic(y) else x, total, state)
            examples += size
        return jax.tree.map(lambda x, before: x / examples if _is_statistic(x) else before, total, model_state)

    return reestimate


def _is_statistic(x: jax.Array) -> bool:
    """Returns whether a leaf is a statistic, not a key or a count of a network with random draws."""
    return jnp.issubdtype(x.dtype, jnp.floating)


def _decisions(config: Config, size: int, perturb: Perturb, batch_size: int) -> set[bool | None]:
    """Returns the values of `perturb` at the steps with this batch size, in epochs of `size` examples."""
    found: set[bool | None] = set()
    ends = [0, *config.plan.boundaries(size), config.plan.total_steps(size)]
    for stage, steps in zip(config.plan.stages, pairwise(ends), strict=True):
        for step in range(*steps) if stage.batch_size == batch_size else ():
            found.add(perturb(step))
            if len(found) > 1:
                return found
    return found


def schedules(config: Config, size: int) -> dict[str, Callable[[Any], Any]]:
    """Returns the schedule over epochs of `size` examples of each hyperparameter that the run uses."""
    descent, length = config.descent, config.length(size)
    rate = learning_rate.parse(config.lr_schedule, descent.learning_rate, length, descent.warmup_epochs)
    found = {name: optax.constant_schedule(config.settings[name]) for name in METHODS[config.method].uses}
    for name, least in MINIMA.items():
        if (low := getattr(descent, least)) is not None:
            limits = (0.0, descent.learning_rate, low, getattr(descent, name) or 0.0)
            found[name] = sam_optax.proportional_schedule(rate, *limits)
    return {"learning_rate": rate} | found
