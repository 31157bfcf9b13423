"""The convergence study on networks, for all pairs of a method and a strategy.

Each run is trained once. It measures the gradient of the training loss over all examples, and the SAM gradient over all
examples. It writes the norms into a separate file.
"""

import functools
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments.config import Config, checks
from experiments.convergence.gradient_norms import Curve
from experiments.runner import run
from experiments.runner.time_to_target import Cost, Target, check_accuracies, cost_to
from experiments.sharpness import SharpnessSettings, measures
from experiments.study import Grid, RunSpec, grid
from experiments.training import json_files, writers
from experiments.training.atomic_write import refuse_link
from experiments.training.exceptions import UnusableError
from experiments.training.prefetch import Track
from experiments.training.records import EpochRecord
from experiments.training.step import TrainState


@dataclass(frozen=True)
class NetworkStudy(Grid):
    """Train every method with every strategy, and measure the gradient over all training examples during training.

    Attributes:
      strategies: The columns: constant, increasing, cosine or linear (the constant plan with a cosine or linear
        learning rate), cosine_radius (cosine with a radius that falls along), or another strategy of
        experiments.reproduce.
      every: The number of epochs between measurements; the last epoch is always measured.
      accuracy_targets: The test accuracies, as fractions, until which examples, updates and gradients are counted.
      norm_targets: The norms of the full gradient until which they are counted.
      measured_rho: The radius of the measured SAM gradient, the same for all methods.
      measured_batch_size: The number of examples per gradient evaluation in a measurement.
      reestimate_batchnorm: Measure with BatchNorm statistics that are estimated from the training examples at the
        current weights. Otherwise the running statistics are used, which are still close to their initial values in the
        first epochs.
    """

    strategies: tuple[str, ...] = ("constant", "increasing", "cosine", "cosine_radius", "linear")
    every: int = 1
    accuracy_targets: tuple[float, ...] = (0.9, 0.95, 0.98)
    norm_targets: tuple[float, ...] = (3.0, 2.0, 1.0)
    measured_rho: float = 0.05
    measured_batch_size: int = 256
    reestimate_batchnorm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("every", "measured_batch_size"):
            checks.check_count(name, getattr(self, name))
        checks.check_number("measured_rho", self.measured_rho)
        check_accuracies("accuracy_targets", self.accuracy_targets)
        for norm in self.norm_targets:
            checks.check_number("norm_targets", norm)
        if grid.ADAPTIVE in self.strategies:
            raise ValueError("strategies has 'adaptive', whose plan is not known in advance: omit it here.")


class FullNorms(NamedTuple):
    """Norms over all examples.

    Attributes:
      loss: `L_S(w)`, the mean cross-entropy.
      grad_norm: `‖∇L_S(w)‖`.
      sam_grad_norm: `‖∇L_S(w + ρ ∇L_S/‖∇L_S‖)‖`.
    """

    loss: float
    grad_norm: float
    sam_grad_norm: float


def full_norms(network: measures.Network, rho: float) -> FullNorms:
    """Computes the loss and both norms of a network in inference mode, with gradients in the parameters only.

    Each norm takes one gradient evaluation per batch.

    Args:
      network: the parameters, the loss and the batches of the network; a batch is weighted by its number of examples.
      rho: the radius of the SAM gradient, in the ℓ2 norm of the parameters.
    """
    params = network.variables["params"]
    loss, gradient = _full(network, params)
    norm = optax.tree.norm(gradient)
    scale = rho / jnp.where(norm > 0, norm, 1)
    _, sam_gradient = _full(network, jax.tree.map(lambda w, g: w + scale * g, params, gradient))
    return FullNorms(float(loss), float(norm), float(optax.tree.norm(sam_gradient)))


def _full(network: measures.Network, params: Any) -> tuple[jax.Array, Any]:
    """Computes the loss and its gradient over all batches."""
    variables = network.variables | {"params": params}
    sizes = [len(batch["label"]) for batch in network.batches]
    weights = [size / sum(sizes) for size in sizes]
    parts = [_value_and_grad(network.loss_fn, variables, batch) for batch in network.batches]
    return jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *parts)


@functools.partial(jax.jit, static_argnums=0)
def _value_and_grad(loss_fn: Callable[..., jax.Array], variables: dict[str, Any], batch: measures.Batch) -> Any:
    return jax.value_and_grad(lambda params: loss_fn(variables | {"params": params}, batch))(variables["params"])


_HEAD = b'{"kind": "settings"'  # the first bytes of each file; a stopped run may have written only a part of them
_MEASURED = ("every", "measured_rho", "measured_batch_size", "reestimate_batchnorm")


def path_of(spec: RunSpec) -> Path:
    """Returns the path of the file with the norms of a run: JSON, one object per line."""
    return spec.folder.with_name(f"{spec.folder.name}.jsonl")


def is_done(spec: RunSpec, study: NetworkStudy) -> bool:
    """Returns whether the run was measured to its end, with the settings of the study.

    Raises:
      ValueError: If the file contains another run, or is damaged.
    """
    path = path_of(spec)
    if not (path.exists() or path.is_symlink()):
        return False
    try:
        [settings] = writers.read(path, "settings")
        config = Config.of(json_files.parsed(settings.pop("config")))
        last = [record["epoch"] for record in writers.read(path, "norms")][-1:]
        same = (config, settings, last) == (spec.config, _measured(study), [spec.config.plan.epochs])
    except (OSError, ValueError, TypeError, KeyError):
        same = False
    if not same:
        raise ValueError(f"{path} holds another run, or a damaged one: choose another output, or remove it.")
    return True


def check_unfinished(spec: RunSpec) -> Path:
    """Returns the path of the file that an unfinished run writes; an existing file of a stopped run may be replaced.

    Raises:
      UnusableError: If the path exists and is not a file of a stopped run.
    """
    unfinished = path_of(spec).with_name(f"{path_of(spec).name}{run.UNFINISHED}")
    refuse_link(unfinished)
    is_ours = unfinished.is_file() and _HEAD.startswith(unfinished.read_bytes()[: len(_HEAD)])
    if unfinished.exists() and not is_ours:
        raise UnusableError(f"{unfinished} belongs to no stopped run: move it elsewhere, or choose another output.")
    return unfinished


def execute(spec: RunSpec, study: NetworkStudy, dataset: data.Dataset, track: Track = iter) -> EpochRecord:
    """Trains a run, measures the norms during training, and writes them.

    The file gets its final name only when it is complete.

    Args:
      spec: the run.
      study: the settings of the study.
      dataset: the data set of the run.
      track: wraps the iterator over the batches, for example to show the progress.

    Returns:
      The record of the last epoch.
    """
    config, examples, size = spec.config, len(dataset.train), study.measured_batch_size
    reestimate = study.reestimate_batchnorm
    settings = SharpnessSettings(examples=examples, batch_size=size, reestimate_batchnorm=reestimate)
    unfinished = check_unfinished(spec)
    unfinished.unlink(missing_ok=True)
    with closing(writers.JsonLines(unfinished)) as file:

        def watch(record: EpochRecord, state: TrainState) -> None:
            epoch, step = record.epoch, record.step
            if epoch % study.every == 0 or epoch >= config.plan.epochs:
                norms = full_norms(measures.trained(config, dataset, state, settings), study.measured_rho)
                names = ("examples", "gradient_evaluations", "test_error")
                cost = {name: getattr(record, name) for name in names}
                file.write({"kind": "norms", "epoch": epoch, "step": step, **cost, **norms._asdict()})

        file.write(_measured(study) | {"config": json.dumps(config.settings)})
        _, last = run.train(config, dataset, run.RunContext(track, watch))
    unfinished.rename(path_of(spec))
    return last


def curve_of(specs: list[RunSpec]) -> Curve:
    """Reads the curve of runs that differ only in their seed.

    Raises:
      ValueError: If a file has no norms, or if the files were measured at different steps.
    """
    found = [list(writers.read(path_of(spec), "norms")) for spec in specs]
    for spec, records in zip(specs, found, strict=True):
        if [record["step"] for record in records] != [record["step"] for record in found[0]] or not records:
            raise ValueError(f"{path_of(spec)} is damaged: remove it, and run it again.")
    places = [np.asarray([record[name] for record in found[0]]) for name in ("step", "examples")]
    norms = [np.stack([writers.column(each, name) for each in found]) for name in ("grad_norm", "sam_grad_norm")]
    return Curve(*places, *norms)


@dataclass(frozen=True)
class TimesToTarget:
    """The costs of all runs of a method and a strategy until a target.

    Attributes:
      target: the target.
      costs: the cost of each run; None if it did not reach the target.
    """

    target: Target
    costs: list[Cost | None]


def times_to_targets(specs: list[RunSpec], study: NetworkStudy) -> list[TimesToTarget]:
    """Returns the costs of runs that differ only in their seed, until each target of the study."""
    records = [list(writers.read(path_of(spec), "norms")) for spec in specs]
    targets = [Target("test_accuracy", value) for value in study.accuracy_targets]
    targets += [Target("grad_norm", value) for value in study.norm_targets]
    return [TimesToTarget(target, [cost_to(each, target) for each in records]) for target in targets]


def _measured(study: NetworkStudy) -> writers.Record:
    """Returns the settings of the measurement, as the first line of a file holds them."""
    return {"kind": "settings", **{name: writers.plain(getattr(study, name)) for name in _MEASURED}}
