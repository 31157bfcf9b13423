"""Runs of a few steps on several of the simulated devices."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import data
from experiments.config import Config
from experiments.runner import run
from experiments.runner.image_pipeline import stream_of
from experiments.runner.program import build
from experiments.training.sharding import Sharding, mesh_of
from experiments.training.step import TrainState
from experiments.training.writers import read
from tests.experiments.each_method import supported_settings


class Hidden(nnx.Module):
    """A hidden layer that is large enough to be split, with or without a BatchNorm before it."""

    def __init__(self, num_classes: int, image_shape: Any, rngs: nnx.Rngs, *, is_normed: bool, width: int = 32) -> None:
        self.norm = nnx.BatchNorm(64, rngs=rngs) if is_normed else None
        self.hidden, self.head = nnx.Linear(64, width, rngs=rngs), nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        pixels = images.reshape(len(images), -1)
        return self.head(nnx.relu(self.hidden(pixels if self.norm is None else self.norm(pixels))))


NETWORKS = {"normed": True, "hidden": False}


def placed(devices: int, *, fsdp: bool = False) -> Sharding:
    """A sharding over this number of devices; one device has no mesh."""
    return Sharding() if devices == 1 else Sharding(mesh_of(jax.devices()[:devices]), fsdp)


def config_of(model: str, **settings: Any) -> Config:
    """A run of 20 steps and more on the digits."""
    usual = supported_settings(settings.get("method", "gsam"), momentum=0.9, weight_decay=1e-3)
    return Config.from_settings(**{"model": model, "batch_plan": "2x32"} | usual | settings)


def digits(config: Config) -> data.Dataset:
    """The digits without shifts, which would add a third to the compilation time of a step."""
    return dataclasses.replace(run.load(config), crop_padding=0)


def started(config: Config, sharding: Sharding, dataset: data.Dataset | None = None) -> tuple[TrainState, Any, Any]:
    """State, program and batches of a run, the state in 64 bits where these are enabled."""
    dataset = digits(config) if dataset is None else dataset
    state, program = build(config, dataset, sharding)
    batches = map(program.send, stream_of(config, dataset, part=sharding.part))
    return jax.tree.map(_widest, state), program, batches


def trained(config: Config, sharding: Sharding, dataset: data.Dataset | None = None, steps: int = 20) -> TrainState:
    """The state after some steps."""
    state, program, batches = started(config, sharding, dataset)
    for step in range(steps):
        state, _ = program.step(state, next(batches), hyperparameters(program), perturb=program.perturb(step))
    return state


def assert_same_records(found: Path, wanted: Path) -> None:
    """Asserts equal records up to rounding, which depends on the order of sums and is amplified by training."""
    for kind in ("step", "epoch"):
        records = (read(folder / "metrics.jsonl", kind) for folder in (found, wanted))
        for one, other in zip(*records, strict=True):
            assert one.pop("kind") == other.pop("kind")
            assert one == pytest.approx(other, rel=1e-3)


def hyperparameters(program: Any) -> dict[str, Any]:
    """The hyperparameters at the beginning of a run."""
    return {name: np.float64(schedule(0.0)) for name, schedule in program.schedules.items()}


def _widest(x: jax.Array) -> jax.Array:
    is_wide = jax.config.jax_enable_x64 and jnp.issubdtype(x.dtype, jnp.floating)
    return x.astype(jnp.float64) if is_wide else x
