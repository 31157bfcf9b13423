"""The loss of a trained network without augmentation, and the measures of its sharpness."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import data
from experiments.config import Config
from experiments.runner.networks import Shape, evaluated, network, shape_of, stored_batches, with_own_statistics
from experiments.sharpness.settings import MEASURES, SharpnessSettings
from experiments.training.step import TrainState
from experiments.training.writers import Record
from sam_optax import sharpness

Batch = dict[str, jax.Array]


class Network(NamedTuple):
    """A network in inference mode, and where its sharpness is measured.

    Attributes:
      variables: `params`, and the `model_state` that is no parameter: BatchNorm's statistics. They are an argument,
        too, so that networks of one architecture share what is compiled.
      loss_fn: `loss_fn(variables, batch)` → the mean cross-entropy.
      error_fn: `error_fn(variables, batch)` → the fraction that is classified wrongly.
      batches: of `image`, normalised, and `label`.
    """

    variables: dict[str, Any]
    loss_fn: Callable[..., jax.Array]
    error_fn: Callable[..., jax.Array]
    batches: tuple[Batch, ...]

    @property
    def mask(self) -> dict[str, Any]:
        """What is perturbed: the parameters, and not the model's state."""
        return {name: jax.tree.map(lambda x, is_in=name == "params": is_in, x) for name, x in self.variables.items()}

    @property
    def num_parameters(self) -> int:
        """How many parameters there are."""
        return sum(math.prod(x.shape) for x in jax.tree.leaves(self.variables["params"]))


def trained(config: Config, dataset: data.Dataset, state: TrainState, settings: SharpnessSettings) -> Network:
    """The network of a run in the state that its training left."""
    # copies, since the next training step takes over the buffers of its state
    params, model_state = jax.tree.map(jnp.copy, evaluated(config, dataset, state))
    if settings.reestimate_batchnorm:
        model_state = with_own_statistics(config, dataset, params, model_state, settings.batch_size)
    batches = tuple(stored_batches(dataset, settings.examples, settings.batch_size))
    functions = _functions(_still(shape_of(config, dataset)), settings.normalize_logits)
    return Network({"params": params, "model_state": _statistics(model_state)}, *functions, batches)


def _still(shape: Shape) -> Shape:
    """The same architecture in float32, as a small radius needs it, and without stochastic depth, which needs keys."""
    model, num_classes, image_shape, options = shape
    kept = tuple((name, value) for name, value in options if name not in ("dtype", "drop_path"))
    return model, num_classes, image_shape, kept


def _statistics(model_state: Any) -> Any:
    """What of a model's state is a floating number, and no key or count."""
    flat = nnx.to_flat_state(model_state)
    return nnx.from_flat_state([(path, x) for path, x in flat if jnp.issubdtype(x.dtype, jnp.floating)])


@functools.cache
def _functions(shape: Shape, normalize_logits: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Loss and error of a network of this shape in inference mode, the same functions for every run."""
    model = network(shape)
    model.eval()
    graphdef = nnx.graphdef(model)

    def logits_of(variables: dict[str, Any], batch: Batch) -> jax.Array:
        still = nnx.merge(graphdef, variables["params"], variables["model_state"], copy=True)
        logits = still(batch["image"])
        return sharpness.normalize_logits(logits) if normalize_logits else logits

    def loss_fn(variables: dict[str, Any], batch: Batch) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(variables, batch), batch["label"])
        return jnp.mean(losses)

    def error_fn(variables: dict[str, Any], batch: Batch) -> jax.Array:
        return jnp.mean(jnp.argmax(logits_of(variables, batch), -1) != batch["label"])

    return loss_fn, error_fn


AT_RADII = ("worst_case", "average_case")  # what is measured at each radius that is asked for
_GAP_RADIUS = 0.05  # SAM's
_SAMPLES = 100  # random perturbations, or probes of a trace

Measure = Callable[[Network, SharpnessSettings], Iterator[Record]]


def measure(network: Network, settings: SharpnessSettings) -> Iterator[Record]:
    """The records of all measures that the settings ask for: what was set, and what came out."""
    shared = {
        "examples": sum(len(batch["label"]) for batch in network.batches),
        "measured_batch_size": settings.batch_size,
        "normalize_logits": settings.normalize_logits,
        "reestimate_batchnorm": settings.reestimate_batchnorm,
        "parameters": network.num_parameters,
    }
    for name in settings.measures:
        for record in _FUNCTIONS[name](network, settings):
            yield {"kind": name, **shared, **record}


def _ball(settings: SharpnessSettings) -> dict[str, Any]:
    return {"norm": settings.norm, "adaptive": settings.adaptive}


def _ascent(settings: SharpnessSettings) -> dict[str, Any]:
    return _ball(settings) | {"steps": settings.steps, "restarts": settings.restarts}


def _worst_case(network: Network, settings: SharpnessSettings) -> Iterator[Record]:
    for rho in settings.radii(network.num_parameters, settings.norm):
        found = sharpness.worst_case(
            network.loss_fn, network.variables, network.batches, rho=rho, mask=network.mask, **_ascent(settings)
        )
        values = {"sharpness": found.sharpness, "first_order": found.first_order, "loss": found.loss}
        yield {"rho": rho, **_ascent(settings), **_floats(values)}


def _curve(network: Network, settings: SharpnessSettings) -> Iterator[Record]:
    options = {"mask": network.mask, "error_fn": network.error_fn, **_ascent(settings)}
    found = sharpness.curve(network.loss_fn, network.variables, network.batches, **options)
    names = ("rho", "sharpness", "first_order", "slope", "error")
    yield {**_ascent(settings), "loss": found.loss, **{name: getattr(found, name).tolist() for name in names}}


def _average_case(network: Network, settings: SharpnessSettings) -> Iterator[Record]:
    for rho in settings.radii(network.num_parameters):  # of a coordinate, for Gaussian noise, too
        options = {"rho": rho, "samples": _SAMPLES, **_ball(settings)}
        found = sharpness.average_case(
            network.loss_fn, network.variables, network.batches, mask=network.mask, **options
        )
        yield {**options, **_floats(found._asdict(), "sharpness", "standard_error", "loss")}


def _surrogate_gap(network: Network, settings: SharpnessSettings) -> Iterator[Record]:
    del settings
    found = sharpness.surrogate_gap(
        network.loss_fn, network.variables, network.batches, rho=_GAP_RADIUS, mask=network.mask
    )
    yield {"rho": _GAP_RADIUS, **_floats(found._asdict(), "gap", "loss")}


def _top_eigenvalue(network: Network, settings: SharpnessSettings) -> Iterator[Record]:
    del settings
    found = sharpness.top_eigenvalue(network.loss_fn, network.variables, network.batches, mask=network.mask)
    yield {"eigenvalue": float(found)}


def _trace(network: Network, settings: SharpnessSettings) -> Iterator[Record]:
    del settings
    found = sharpness.trace(network.loss_fn, network.variables, network.batches, samples=_SAMPLES, mask=network.mask)
    yield {"samples": _SAMPLES, **_floats(found._asdict(), "value", "standard_error")}


def _landscape(network: Network, settings: SharpnessSettings) -> Iterator[Record]:
    del settings
    # Drawn without the mask, so that new records show the same plane as the records of earlier versions.
    directions = sharpness.random_directions(network.variables, jax.random.key(0))
    found = sharpness.landscape(network.loss_fn, network.variables, network.batches, directions, mask=network.mask)
    yield {"coordinates": found.coordinates.tolist(), "loss": np.asarray(found.loss).tolist()}


def _floats(values: dict[str, Any], *names: str) -> dict[str, float]:
    return {name: float(values[name]) for name in names or values}


_FUNCTIONS: dict[str, Measure] = dict(
    zip(
        MEASURES,
        (_worst_case, _curve, _average_case, _surrogate_gap, _top_eigenvalue, _trace, _landscape),
        strict=True,
    )
)
