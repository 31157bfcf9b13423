"""The loss of a trained network on images without augmentation, and the measures of its sharpness."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments import data
from experiments.config import Config
from experiments.config.checks import check_choice, check_count, check_distinct, check_package
from experiments.runner.program import (
    Architecture,
    architecture_of,
    evaluated,
    network,
    stored_batches,
    with_own_statistics,
)
from experiments.training.json_files import decode, fields_of
from experiments.training.records import SHARPNESS, SharpnessRecord
from experiments.training.step import TrainState
from experiments.training.writers import Record, plain
from sam_optax import sharpness

Batch = dict[str, jax.Array]
MEASURES = tuple(SHARPNESS)
_OF_CURVATURE = ("top_eigenvalue", "trace")
_ALIKE = 0.005  # relative difference below which two radii count as one
_MOST_STEPS = 10_000  # also the most restarts


@dataclass(frozen=True, kw_only=True)
class SharpnessSettings:
    """How sharpness is measured. The defaults are the paper's settings.

    Attributes:
      measures: The measures: worst_case, curve (the worst case over radii), average_case, surrogate_gap, top_eigenvalue
        and trace (of the Hessian), and landscape (along two random directions).
      rho: The radius of worst_case and average_case.
      radius_rms: Adds a second radius, radius_rms/√d for d parameters; with the norm l2, worst_case has radius_rms
        itself. With 0.67, the corner of the ℓ∞ ball is at distance 0.67 in networks of every size; for ResNet-18 this
        is the paper's radius. None: only rho is used.
      norm: The norm of the ball: linf or l2.
      adaptive: Measure in units of each weight.
      steps: The number of iterations of the ascent.
      restarts: The number of ascents per batch. All except the first start at a random point.
      examples: The number of training examples, without augmentation. If there are fewer, all are used.
      batch_size: The number of examples that share a perturbation. An incomplete last batch is kept.
      normalize_logits: Scale all logits to the same norm first, so that their scale has no effect.
      reestimate_batchnorm: Recompute the statistics of BatchNorm on the training examples without augmentation first.
      during: Also measure during training, each time this number of epochs is complete.
    """

    measures: tuple[str, ...] = ("worst_case",)
    rho: float = 0.0002
    radius_rms: float | None = 0.67
    norm: str = "linf"
    adaptive: bool = False
    steps: int = 20
    restarts: int = 1
    examples: int = 1024
    batch_size: int = 128
    normalize_logits: bool = False
    reestimate_batchnorm: bool = False
    during: int | None = None

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, ("linf", "l2"))
        for name in self.measures:
            check_choice("measures", name, MEASURES)
            if name in _OF_CURVATURE:
                check_package(f"measures has {name!r}", "matfree")
        check_distinct("measures", self.measures)
        for name in ("rho", "radius_rms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}: give a finite number above 0.")
        for name in ("steps", "restarts"):
            check_count(name, getattr(self, name), _MOST_STEPS)
        for name in ("examples", "batch_size", "during"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))

    def radii(self, num_parameters: int, norm: str = "linf") -> tuple[float, ...]:
        """Returns the radii of the measures at a single radius; for an ℓ2 ball the second is `radius_rms` itself."""
        if self.radius_rms is None:
            return (self.rho,)
        second = self.radius_rms / (1.0 if norm == "l2" else math.sqrt(num_parameters))
        return (self.rho,) if math.isclose(self.rho, second, rel_tol=_ALIKE) else (self.rho, second)


class Network(NamedTuple):
    """A network in inference mode, and the examples on which its sharpness is measured.

    Attributes:
      variables: `params` and `model_state`, the statistics of BatchNorm. The statistics are an argument of the
        functions, too, so that networks of the same architecture share compiled functions.
      loss_fn: `loss_fn(variables, batch)` → the mean cross-entropy.
      error_fn: `error_fn(variables, batch)` → the fraction of wrongly classified examples.
      batches: the batches, each with normalised `image` and `label`.
    """

    variables: dict[str, Any]
    loss_fn: Callable[..., jax.Array]
    error_fn: Callable[..., jax.Array]
    batches: tuple[Batch, ...]

    @property
    def mask(self) -> dict[str, Any]:
        """The mask of the perturbation: True for the parameters, False for the model's state."""
        return {name: jax.tree.map(lambda x, is_in=name == "params": is_in, x) for name, x in self.variables.items()}

    def apply(self, function: Callable[..., Any], **options: Any) -> Any:
        """Returns the value of a function of `sam_optax.sharpness` at this network."""
        return function(self.loss_fn, self.variables, self.batches, mask=self.mask, **options)

    def ascend(self, function: Callable[..., Any], settings: SharpnessSettings, **options: Any) -> Any:
        """Returns the value of a function that searches for worst cases, with the ball and ascent of the settings."""
        norm, adaptive, steps, restarts = settings.norm, settings.adaptive, settings.steps, settings.restarts
        return self.apply(function, norm=norm, adaptive=adaptive, steps=steps, restarts=restarts, **options)

    @property
    def num_parameters(self) -> int:
        """The number of parameters."""
        return sum(math.prod(x.shape) for x in jax.tree.leaves(self.variables["params"]))


def trained(config: Config, dataset: data.Dataset, state: TrainState, settings: SharpnessSettings) -> Network:
    """Returns the network of a run in a state of its training."""
    # These are copies, since the next training step donates the buffers of its state.
    params, model_state = jax.tree.map(jnp.copy, evaluated(config, dataset, state))
    if settings.reestimate_batchnorm:
        model_state = with_own_statistics(config, dataset, params, model_state, settings.batch_size)
    batches = tuple(stored_batches(dataset, settings.examples, settings.batch_size))
    functions = _functions(_still(architecture_of(config, dataset)), settings.normalize_logits)
    return Network({"params": params, "model_state": _statistics(model_state)}, *functions, batches)


def _still(architecture: Architecture) -> Architecture:
    """Returns the architecture in float32, which small radii require, without stochastic depth, which needs keys."""
    kept = tuple((name, value) for name, value in architecture.options if name not in ("dtype", "drop_path"))
    return architecture._replace(options=kept)


def _statistics(model_state: Any) -> Any:
    """Returns the floating-point leaves of a model's state, without keys and counts."""
    flat = nnx.to_flat_state(model_state)
    return nnx.from_flat_state([(path, x) for path, x in flat if jnp.issubdtype(x.dtype, jnp.floating)])


@functools.cache
def _functions(architecture: Architecture, normalize_logits: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the loss and error functions of a network of this shape in inference mode, cached across runs."""
    model = network(architecture)
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


AT_RADII = ("worst_case", "average_case")  # the measures that are taken at each radius of the settings
_GAP_RADIUS = 0.05  # the radius of SAM
_SAMPLES = 100  # random perturbations, or probes of a trace


def measure(network: Network, settings: SharpnessSettings, epoch: int, step: int) -> Iterator[SharpnessRecord]:
    """Yields the records of all measures in the settings, rounded as they are in a file.

    Args:
      network: the network after `epoch` epochs.
      settings: what to measure.
      epoch: the number of completed epochs.
      step: the number of updates so far.
    """
    examples = sum(len(batch["label"]) for batch in network.batches)
    shared = vars(settings) | {"examples": examples, "measured_batch_size": settings.batch_size}
    shared |= {"parameters": network.num_parameters, "epoch": epoch, "step": step}
    for kind in settings.measures:
        cls = SHARPNESS[kind]
        for found in _measured(kind, network, settings):
            values = {**shared, **found, "kind": kind}
            yield decode(plain({name: values[name] for name in fields_of(cls)[0]}), cls)


def _measured(kind: str, network: Network, settings: SharpnessSettings) -> Iterator[Record]:
    """Yields the values of a measure with the settings that only it has, once for each of its radii."""
    match kind:
        case "worst_case":
            for rho in settings.radii(network.num_parameters, settings.norm):
                yield {"rho": rho, **network.ascend(sharpness.worst_case, settings, rho=rho)._asdict()}
        case "curve":
            yield network.ascend(sharpness.curve, settings, error_fn=network.error_fn)._asdict()
        case "average_case":
            for rho in settings.radii(network.num_parameters):  # the radius of a coordinate, for Gaussian noise, too
                found = network.apply(
                    sharpness.average_case, rho=rho, norm=settings.norm, adaptive=settings.adaptive, samples=_SAMPLES
                )
                yield {"rho": rho, "samples": _SAMPLES, **found._asdict()}
        case "surrogate_gap":
            yield {"rho": _GAP_RADIUS, **network.apply(sharpness.surrogate_gap, rho=_GAP_RADIUS)._asdict()}
        case "top_eigenvalue":
            yield {"eigenvalue": network.apply(sharpness.top_eigenvalue)}
        case "trace":
            yield {"samples": _SAMPLES, **network.apply(sharpness.trace, samples=_SAMPLES)._asdict()}
        case "landscape":
            # Drawn without the mask, so that new records show the same plane as the records of earlier versions.
            directions = sharpness.random_directions(network.variables, jax.random.key(0))
            yield network.apply(sharpness.landscape, directions=directions)._asdict()
