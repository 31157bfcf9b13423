"""Measures how rounding to bfloat16 changes a perturbation: `python -m experiments.effective_perturbation`."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console

from experiments import data, models
from experiments.benchmark import benchmark_steps
from experiments.cli import standard_streams, tables
from experiments.cli.command import Command
from experiments.cli.errors import parse, start
from experiments.config import check_choice

_NORMALISATIONS = (nnx.BatchNorm, nnx.LayerNorm)
_BATCH = 128


@dataclass(frozen=True)
class EffectivePerturbation:
    """Measure how SAM's perturbation changes if the perturbed parameters are cast to bfloat16.

    Attributes:
      models: The networks, at their initial parameters.
      dataset: The data set whose image shape is used; the images are noise.
      radii: The lengths of the perturbation.
    """

    models: tuple[str, ...] = ("small_resnet", "resnet18")
    dataset: str = "cifar10"
    radii: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        for model in self.models:
            check_choice("models", model, models.NAMES)
        check_choice("dataset", self.dataset, data.SIZES)
        if not all(0 < rho < math.inf for rho in self.radii):
            raise ValueError(f"radii is {self.radii}: give positive numbers.")


class CastPerturbation(NamedTuple):
    """The perturbation that remains after the cast.

    Attributes:
      norm: its length, relative to the length of the exact perturbation.
      cosine: the cosine of its angle to the exact perturbation.
      unmoved: the fraction of the parameters that do not change at all.
    """

    norm: float
    cosine: float
    unmoved: float


def measured(params: Any, direction: Any, rho: float, dtype: Any = jnp.bfloat16) -> CastPerturbation:
    """Compares `cast(params + e) − cast(params)` with the exact perturbation `e = rho · direction / ‖direction‖`.

    Args:
      params: the parameters, any tree.
      direction: the direction of the perturbation, a tree of the same structure.
      rho: the length of the perturbation.
      dtype: the dtype that parameters are cast to.
    """
    w, e = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (params, direction))
    e = (rho / np.linalg.norm(e.astype(np.float64)) * e).astype(np.float32)
    before, after = (x.astype(dtype).astype(np.float64) for x in (w, w + e))
    moved, wanted = after - before, e.astype(np.float64)
    length = np.linalg.norm(moved)
    cosine = moved @ wanted / (length * rho) if length else 0.0
    return CastPerturbation(float(length / rho), float(cosine), float(np.mean(moved == 0)))


def cast_in(model: nnx.Module, tree: Any) -> Any:
    """Returns the leaves that the model casts. The parameters of normalisation layers are not cast."""
    kept = [path for path, module in nnx.iter_modules(model) if isinstance(module, _NORMALISATIONS)]
    flat = nnx.to_flat_state(tree)
    return [x for path, x in flat if not any(path[: len(norm)] == norm for norm in kept)]


COMMAND = Command(
    "effective_perturbation",
    EffectivePerturbation,
    "--models resnet18 --radii 0.01 0.1 1",
)


def main() -> None:
    """Parses the command line and prints a table per network."""
    arguments = parse(COMMAND)
    image_shape = data.SIZES[arguments.dataset].image_shape
    console = Console(soft_wrap=True, highlight=False)
    with standard_streams.needed():
        for name in arguments.models:
            console.print(name, tables.as_terminal(rows_of(name, image_shape, arguments.radii)))


def rows_of(name: str, image_shape: tuple[int, int, int], radii: tuple[float, ...]) -> tables.Rows:
    """Returns a table with a row per radius, for perturbations along the gradient at the initial parameters."""
    problem = benchmark_steps.create(name, 10, image_shape, _BATCH)
    gradient, _ = jax.jit(jax.grad(problem.loss_fn, has_aux=True))(problem.params, problem.model_state, *problem.batch)
    model = models.create(name, 10, image_shape, nnx.Rngs(0))
    params, direction = cast_in(model, problem.params), cast_in(model, gradient)
    rows: tables.Rows = [("rho", "effective norm / rho", "cosine", "parameters that do not move")]
    for rho in radii:
        norm, cosine, unmoved = measured(params, direction, rho)
        rows.append((f"{rho:g}", f"{norm:.3f}", f"{cosine:.3f}", f"{100 * unmoved:.1f}%"))
    return rows


if __name__ == "__main__":
    start(main)
