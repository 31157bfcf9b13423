"""Runs that are stopped or killed during training, and comparisons of the files they leave."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import data
from experiments.cli.output_folder import make_folder
from experiments.config import Config
from experiments.runner import run
from experiments.runner.program import build
from experiments.runner.resume import reopened
from experiments.training import checkpoint
from experiments.training.epoch_schedule import Saving
from experiments.training.exceptions import Terminated
from experiments.training.run_folder import LOCK


def stop_at(step: int) -> Callable[[int], bool]:
    """A `stop` callback that asks the run to stop at a step."""
    return lambda now: now >= step


def execute(output: Path, config: Config, dataset: data.Dataset | None = None, **around: Any) -> Any:
    """Starts or resumes the run in `output` and trains it to the end."""
    dataset = run.load(config) if dataset is None else dataset
    start = reopened(make_folder(output), config, dataset)
    assert start is not None
    return run.execute(config, dataset, output, run.RunContext(start=start, **around))


def stopped(output: Path, config: Config, step: int, every: int | None = None) -> None:
    """Stops a run before a step."""
    with pytest.raises(Terminated, match=f"stopped after {step} updates"):
        execute(output, config, stop=stop_at(step), saving=Saving(every))


def killed(output: Path, config: Config, step: int, every: int | None = None, **around: Any) -> None:
    """Kills a run at a step. Nothing is saved at that step, and its records may or may not be written."""

    def killed_batches(batches: Any) -> Any:
        for number, batch in enumerate(batches, start=reached):
            if number == step:
                raise ZeroDivisionError("killed")
            yield batch

    reached = reopened(make_folder(output), config, run.load(config)).progress.step
    with pytest.raises(ZeroDivisionError):
        execute(output, config, track=killed_batches, saving=Saving(every), **around)


def trained(output: Path, config: Config) -> Any:
    """The final state of a run."""
    state, _ = build(config, run.load(config))
    return checkpoint.restore(output / "checkpoint", state)


def assert_same_run(found: Path, wanted: Path) -> None:
    """Asserts that both folders hold the same run, byte for byte except for its seconds."""
    files = {"config.json", "metrics.jsonl", "checkpoint", "result.json"}
    assert {path.name for path in found.iterdir()} - {"sharpness.jsonl", "tensorboard", LOCK} == files
    assert (found / "metrics.jsonl").read_bytes() == (wanted / "metrics.jsonl").read_bytes()
    results = [json.loads((folder / "result.json").read_text()) | {"seconds": 0} for folder in (found, wanted)]
    assert results[0] == results[1]
    config = Config.load(wanted / "config.json")
    assert config == Config.load(found / "config.json")
    assert_same_state(trained(found, config), trained(wanted, config))


def assert_same_state(found: Any, wanted: Any) -> None:
    def same(a: jax.Array, b: jax.Array) -> None:
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    jax.tree.map(same, found, wanted)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))
