"""The measures, each from a network to records of numbers."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from experiments.measuring.network import Network
from experiments.measuring.settings import MEASURES, Sharpness
from experiments.training.writers import Record
from sam_optax import sharpness

AT_RADII = ("worst_case", "average_case")  # what is measured at each radius that is asked for
_GAP_RADIUS = 0.05  # SAM's
_SAMPLES = 100  # random perturbations, or probes of a trace

Measure = Callable[[Network, Sharpness], Iterator[Record]]


def measure(network: Network, settings: Sharpness) -> Iterator[Record]:
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


def _ball(settings: Sharpness) -> dict[str, Any]:
    return {"norm": settings.norm, "adaptive": settings.adaptive}


def _ascent(settings: Sharpness) -> dict[str, Any]:
    return _ball(settings) | {"steps": settings.steps, "restarts": settings.restarts}


def _worst_case(network: Network, settings: Sharpness) -> Iterator[Record]:
    for rho in settings.radii(network.num_parameters, settings.norm):
        found = sharpness.worst_case(
            network.loss_fn, network.variables, network.batches, rho=rho, mask=network.mask, **_ascent(settings)
        )
        values = {"sharpness": found.sharpness, "first_order": found.first_order, "loss": found.loss}
        yield {"rho": rho, **_ascent(settings), **_floats(values)}


def _curve(network: Network, settings: Sharpness) -> Iterator[Record]:
    options = {"mask": network.mask, "error_fn": network.error_fn, **_ascent(settings)}
    found = sharpness.curve(network.loss_fn, network.variables, network.batches, **options)
    names = ("rho", "sharpness", "first_order", "slope", "error")
    yield {**_ascent(settings), "loss": found.loss, **{name: getattr(found, name).tolist() for name in names}}


def _average_case(network: Network, settings: Sharpness) -> Iterator[Record]:
    for rho in settings.radii(network.num_parameters):  # of a coordinate, for Gaussian noise, too
        options = {"rho": rho, "samples": _SAMPLES, **_ball(settings)}
        found = sharpness.average_case(
            network.loss_fn, network.variables, network.batches, mask=network.mask, **options
        )
        yield {**options, **_floats(found._asdict(), "sharpness", "standard_error", "loss")}


def _surrogate_gap(network: Network, settings: Sharpness) -> Iterator[Record]:
    del settings
    found = sharpness.surrogate_gap(
        network.loss_fn, network.variables, network.batches, rho=_GAP_RADIUS, mask=network.mask
    )
    yield {"rho": _GAP_RADIUS, **_floats(found._asdict(), "gap", "loss")}


def _top_eigenvalue(network: Network, settings: Sharpness) -> Iterator[Record]:
    del settings
    found = sharpness.top_eigenvalue(network.loss_fn, network.variables, network.batches, mask=network.mask)
    yield {"eigenvalue": float(found)}


def _trace(network: Network, settings: Sharpness) -> Iterator[Record]:
    del settings
    found = sharpness.trace(network.loss_fn, network.variables, network.batches, samples=_SAMPLES, mask=network.mask)
    yield {"samples": _SAMPLES, **_floats(found._asdict(), "value", "standard_error")}


def _landscape(network: Network, settings: Sharpness) -> Iterator[Record]:
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
